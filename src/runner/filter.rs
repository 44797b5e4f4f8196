//! Which rows of a list are wanted, and walking an index from its newest row until they are found.

use std::ops::ControlFlow;

use super::views::ViewError;
use crate::domain::clock::Timestamp;
use crate::domain::id::ForeignId;
use crate::store::{Key, Order, Range, Record, Store, Table};

/// Rows read from an index at a time.
const AT_ONCE: usize = 1_000;

/// Bits of a place in the order accepted that are below the millisecond of acceptance.
const ORDER_BITS: u32 = 16;

/// Which rows of a list are wanted. Rows are read newest first until `limit` match or there are no
/// more, so fewer than `limit` rows are all there are.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The most rows.
    pub limit: usize,
    /// Only rows in this state (runs, payments) or of this kind (callbacks).
    pub state: Option<String>,
    /// Only rows of this script.
    pub script: Option<String>,
    /// Only rows of handlers of this name.
    pub handler: Option<String>,
    /// Only what was accepted at or after this instant.
    pub since: Option<Timestamp>,
    /// Only what was accepted before this instant.
    pub until: Option<Timestamp>,
    /// Only runs that have to do with this payment.
    pub foreign_id: Option<ForeignId>,
}

impl Filter {
    /// Leaves nothing out.
    pub const EVERYTHING: Self = Self {
        limit: usize::MAX,
        state: None,
        script: None,
        handler: None,
        since: None,
        until: None,
        foreign_id: None,
    };

    /// Whether a row in that state, of that script and handler is wanted.
    pub(super) fn admits(&self, state: &str, script: &str, handler: &str) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        is(&self.state, state) && is(&self.script, script) && is(&self.handler, handler)
    }

    /// The first place in the order accepted that is too new.
    pub(super) fn order_end(&self) -> Option<u64> {
        self.until.map(first_order)
    }

    /// Whether a place in the order accepted is too old, and so is everything before it.
    pub(super) fn order_is_before(&self, order: u64) -> bool {
        self.since.is_some_and(|since| order < first_order(since))
    }
}

/// The first place that something accepted at that instant can have.
fn first_order(at: Timestamp) -> u64 {
    u64::try_from(at.timestamp_millis()).unwrap_or(0) << ORDER_BITS
}

/// Visits the keys of an index, the largest first, from before `end` until the visitor breaks.
pub(super) fn newest<K: Key, V: Record>(
    store: &Store,
    index: &Table<K, V>,
    end: Option<K>,
    mut visit: impl FnMut(&K) -> Result<ControlFlow<()>, ViewError>,
) -> Result<(), ViewError> {
    let mut last = end;
    loop {
        let range = match &last {
            Some(last) => Range::all().after(last),
            None => Range::all(),
        };
        let keys = store.keys(index, &range, AT_ONCE, Order::Descending)?;
        for key in &keys {
            if visit(key)?.is_break() {
                return Ok(());
            }
        }
        if keys.len() < AT_ONCE {
            return Ok(());
        }
        last = keys.into_iter().next_back();
    }
}
