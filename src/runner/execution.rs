//! One execution of a run, from its turn to its end.
//!
//! Knows nothing of what is executed. While it has its thread, the run has its place among the
//! executions at once; dropping it is what ends it.

use std::sync::Arc;

use super::dispatcher::{After, Dispatcher};
use super::ticket::Ticket;

/// One execution of a run. It ends when this is dropped, also by a panic; without a word about what
/// becomes of the run, that is left for the next start.
pub(super) struct Execution {
    dispatcher: Arc<Dispatcher>,
    ticket: Ticket,
    after: After,
    has_thread: bool,
}

impl Execution {
    /// The execution of a run whose turn it is, on this thread.
    pub(super) const fn new(dispatcher: Arc<Dispatcher>, ticket: Ticket) -> Self {
        Self {
            dispatcher,
            ticket,
            after: After::Left,
            has_thread: true,
        }
    }

    pub(super) const fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Ends it.
    pub(super) fn end(mut self, after: After) {
        self.after = after;
    }

    /// Leaves the script's thread to others: the run has not ended, but what is left to do needs none.
    pub(super) fn leave_thread(&mut self) {
        self.has_thread = false;
        self.dispatcher.leave_thread(&self.ticket);
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.dispatcher
            .finish(&self.ticket, &self.after, self.has_thread);
        if self.has_thread && std::thread::panicking() {
            self.dispatcher.lose_thread();
        }
    }
}
