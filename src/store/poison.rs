//! The state of a store that has failed: nothing is written any more, and everybody knows.

use tokio::sync::watch;

use crate::telemetry::Telemetry;

/// Whether the store refuses writes until the next start. Cheap to clone; never taken back.
#[derive(Debug, Clone)]
pub(super) struct Poison {
    state: watch::Sender<bool>,
    telemetry: Telemetry,
}

impl Poison {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        Self {
            state: watch::Sender::new(false),
            telemetry: telemetry.clone(),
        }
    }

    /// Poisons the store.
    pub(super) fn poison(&self, reason: &str) {
        self.state.send_if_modified(|poisoned| {
            let first = !*poisoned;
            if first {
                self.telemetry.store_poisoned(reason);
                *poisoned = true;
            }
            first
        });
    }

    pub(super) fn is_set(&self) -> bool {
        *self.state.borrow()
    }

    /// Waits until the store is poisoned.
    pub(super) async fn wait(&self) {
        let mut state = self.state.subscribe();
        state
            .wait_for(|poisoned| *poisoned)
            .await
            .expect("the sender lives in `self`");
    }

    /// A guard that poisons the store when its thread panics.
    pub(super) fn guard(&self) -> PoisonGuard<'_> {
        PoisonGuard(self)
    }
}

/// Notices a panic.
#[derive(Debug)]
pub(super) struct PoisonGuard<'a>(&'a Poison);

impl Drop for PoisonGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the thread that writes the store panicked");
        }
    }
}
