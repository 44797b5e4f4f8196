//! Custom events that were emitted for later: each becomes an event, with its runs, when its time
//! has come, in the one commit that also takes it off the list.

use super::Context;
use super::ticket::Started;
use crate::store::schema::{DELAYED_EVENTS, EVENTS};
use crate::store::{Changes, CommitError, Order, Range, ReadError};

/// The most events released at one wake-up; the rest follows at the next.
const AT_ONCE: usize = 1000;

/// Why delayed events could not be released.
#[derive(Debug, thiserror::Error)]
pub(super) enum DelayedError {
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store cannot read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Lets every event happen whose time has come.
pub(super) async fn release(context: &Context) -> Result<(), DelayedError> {
    let now = context.clock.now();
    let first = context
        .store
        .scan(&DELAYED_EVENTS, &Range::all(), AT_ONCE, Order::Ascending)?;
    for ((at, key), later) in first {
        if at > now {
            return Ok(());
        }
        let mut changes = Changes::new();
        let happening = context.waits.happening().await;
        changes.require_absent(&EVENTS, &key);
        changes.remove(&DELAYED_EVENTS, &(at, key.clone()));
        let tickets =
            context
                .firings
                .custom(&key, &later.kind, &later.value, &happening, &mut changes);
        context.store.commit(changes).await?;
        drop(happening);
        context.dispatcher.enqueue(Started(tickets));
    }
    Ok(())
}
