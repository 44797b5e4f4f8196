//! Events that look-ups find: the end of a payment whose callback has not come. They get into the
//! store as a callback does — one commit with the payment and the runs they start — and their
//! callback, should it still come, is a duplicate.

use std::sync::Arc;

use serde_json::Value;

use super::events::{self, Given};
use super::firings::Firings;
use super::ticket::Started;
use super::waits::Happening;
use crate::domain::callback::{Callback, Source};
use crate::domain::id::ForeignId;
use crate::domain::payment::Payment;
use crate::store::schema::{EVENTS_BY_PAYMENT, EventContent, EventRecord, RECONCILED, Text};
use crate::store::{Changes, CommitError, Store};

/// What a look-up has found, ready to become an event.
#[derive(Debug)]
pub(super) struct Found {
    callback: Callback,
    text: Text,
}

impl Found {
    /// Keeps the gateway's answer, which has the shape of a callback, as far as it goes. A long
    /// text is on disk when this returns.
    pub(super) async fn keep(
        store: &Store,
        callback: Callback,
        info: &Value,
    ) -> Result<Self, CommitError> {
        let text = events::keep(store, &info.to_string()).await?;
        Ok(Self { callback, text })
    }

    /// The permanent key of the event: that of its callback, if that shows the same.
    pub(super) fn key(&self) -> String {
        self.callback.event_key().as_str().to_owned()
    }

    /// `type.status`.
    pub(super) fn kind(&self) -> String {
        self.callback.kind()
    }
}

/// Where it is noted that the end of a payment has been delivered: by its key, the transaction's id
/// and the status. The callback may show more than the look-up did, and then has another key.
pub(super) fn place(payment: &Payment, callback: &Callback) -> (ForeignId, String, String) {
    (
        payment.foreign_id.clone(),
        callback.transaction().id.clone(),
        callback.status().to_owned(),
    )
}

/// Adds the event with the runs it starts.
pub(super) fn add(
    firings: &Firings,
    found: &Found,
    payment: &Payment,
    happening: &Happening<'_>,
    changes: &mut Changes,
) -> Started {
    let (callback, key) = (&found.callback, found.key());
    let at = payment.updated_at;
    let event = Given::of_callback(&Arc::new(callback.clone()), at, Source::Reconciled);
    let transaction = Some(callback.transaction());
    let content = EventContent::Reconciled(found.text.clone());
    let record = EventRecord {
        payment: Some(payment.foreign_id.clone()),
        ..EventRecord::of(&callback.kind(), content, at)
    };
    let (record, tickets) = firings.event(&key, record, &event, transaction, happening, changes);
    changes.put(
        &EVENTS_BY_PAYMENT,
        &(payment.foreign_id.clone(), record.order),
        &key,
    );
    changes.put(&RECONCILED, &place(payment, callback), &key);
    Started(tickets)
}
