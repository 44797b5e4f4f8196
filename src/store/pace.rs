//! How the writer and the thread of the index wait for each other.
//!
//! The index is brought up to date when enough has been laid over it, when what was laid first has
//! waited long enough, or when somebody needs it. The writer waits when it is far ahead. Decides
//! only when; what is done is the applier's.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::journal_format::Mark;

/// Bytes of the active layer at which it is applied.
const ENOUGH_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of the active layer at which the writer waits until the layer before it is applied.
const MOST_BYTES: usize = 6 * 1024 * 1024;
/// How long what was laid first waits at most until it is applied, if the applier has time: long
/// enough that a run which begins and ends at once is written once.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Where writer and applier meet.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
    /// The applier waits for this.
    work: Condvar,
    /// The writer waits for this.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of the active layer, and since when there have been any groups in it.
    bytes: usize,
    since: Option<Instant>,
    wanted: Wanted,
    /// The last checkpoint that was written.
    checkpointed: Mark,
    working: bool,
    /// Nothing will be laid any more.
    closed: bool,
    /// The applier has ended.
    gone: bool,
}

/// What cannot wait.
#[derive(Debug, Default)]
struct Wanted {
    /// Somebody waits for everything to be applied.
    drain: bool,
    /// A checkpoint is to be written.
    checkpoint: bool,
}

impl State {
    fn is_due(&self) -> bool {
        self.wanted.drain || self.wanted.checkpoint || self.bytes >= ENOUGH_BYTES
    }
}

/// What the applier is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Apply the active layer, and write a checkpoint after it if so.
    Apply {
        /// Whether a checkpoint is wanted.
        checkpoint: bool,
    },
    /// End.
    End,
}

/// The applier has ended, so nothing will be applied any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the thread that applies groups to the index has ended")]
pub(super) struct Gone;

impl Pace {
    /// Nothing is laid, and the last checkpoint is this one.
    pub(super) fn new(checkpointed: Mark) -> Self {
        let state = State {
            checkpointed,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    /// Says that a group was laid over the index, and how many bytes the active layer has.
    pub(super) fn laid(&self, bytes: usize) {
        let mut state = self.state();
        let was_due = state.is_due();
        state.bytes = bytes;
        let first = state.since.is_none();
        if first {
            state.since = Some(now());
        }
        if first || (!was_due && state.is_due()) {
            self.work.notify_one();
        }
    }

    /// Waits while the writer is too far ahead.
    pub(super) fn wait_for_room(&self) -> Result<(), Gone> {
        self.wait_while(|state| state.bytes >= MOST_BYTES)
    }

    /// Asks for a checkpoint, soon.
    pub(super) fn want_checkpoint(&self) {
        self.state().wanted.checkpoint = true;
        self.work.notify_one();
    }

    /// Says that a checkpoint was written.
    pub(super) fn checkpointed(&self, mark: Mark) {
        self.state().checkpointed = mark;
    }

    /// The last checkpoint that was written.
    pub(super) fn last_checkpoint(&self) -> Mark {
        self.state().checkpointed
    }

    /// Waits until everything laid is applied and every checkpoint asked for is written.
    pub(super) fn drain(&self) -> Result<(), Gone> {
        self.state().wanted.drain = true;
        self.work.notify_one();
        self.wait_while(|state| state.wanted.drain || state.wanted.checkpoint || state.working)
    }

    /// Says that nothing will be laid any more; what was laid stays where it is.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.work.notify_one();
    }

    /// The applier's next turn, as soon as there is one. The one before is over.
    pub(super) fn next(&self) -> Turn {
        let mut state = self.state();
        state.working = false;
        self.progress.notify_all();
        loop {
            if state.closed {
                return Turn::End;
            }
            let left = state
                .since
                .map(|since| LONGEST_WAIT.saturating_sub(since.elapsed()));
            if state.is_due() || left.is_some_and(|left| left.is_zero()) {
                break;
            }
            state = match left {
                None => self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let woken = self.work.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let checkpoint = state.wanted.checkpoint;
        *state = State {
            working: true,
            checkpointed: state.checkpointed,
            ..State::default()
        };
        drop(state);
        self.progress.notify_all();
        Turn::Apply { checkpoint }
    }

    /// Says that the applier has ended, so that nobody waits for it.
    pub(super) fn leave(&self) {
        self.state().gone = true;
        self.progress.notify_all();
    }

    fn wait_while(&self, waits: impl Fn(&State) -> bool) -> Result<(), Gone> {
        let state = self.state();
        let state = self
            .progress
            .wait_while(state, |state| !state.gone && waits(state))
            .unwrap_or_else(PoisonError::into_inner);
        if state.gone { Err(Gone) } else { Ok(()) }
    }

    // Nothing panics while it holds this lock, and no state of it is half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a deadline of a thread, which no test moves"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    use super::*;

    /// Long enough for a thread to do what it should not.
    const WHILE: Duration = Duration::from_millis(30);

    fn begin<T: Send + 'static>(
        pace: &Arc<Pace>,
        act: impl FnOnce(&Pace) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (done, receiver) = channel();
        let pace = Arc::clone(pace);
        std::thread::spawn(move || done.send(act(&pace)));
        receiver
    }

    #[test]
    fn a_writer_that_is_far_ahead_waits_until_the_applier_takes_its_layer() {
        let pace = Arc::new(Pace::new(Mark::default()));
        pace.laid(MOST_BYTES - 1);
        assert_eq!(pace.wait_for_room(), Ok(()));
        pace.laid(MOST_BYTES);
        let waiting = begin(&pace, Pace::wait_for_room);
        assert_eq!(waiting.recv_timeout(WHILE), Err(RecvTimeoutError::Timeout));
        assert_eq!(pace.next(), Turn::Apply { checkpoint: false });
        assert_eq!(waiting.recv(), Ok(Ok(())));
    }

    #[test]
    fn a_drain_waits_until_the_turn_is_over_and_its_checkpoint_is_wanted_once() {
        let pace = Arc::new(Pace::new(Mark::default()));
        pace.want_checkpoint();
        let draining = begin(&pace, Pace::drain);
        while !pace.state().wanted.drain {
            std::thread::yield_now();
        }
        assert_eq!(pace.next(), Turn::Apply { checkpoint: true });
        assert_eq!(draining.recv_timeout(WHILE), Err(RecvTimeoutError::Timeout));
        let next = begin(&pace, Pace::next);
        assert_eq!(draining.recv(), Ok(Ok(())));
        pace.laid(1);
        assert_eq!(next.recv(), Ok(Turn::Apply { checkpoint: false }));
        pace.close();
        assert_eq!(pace.next(), Turn::End);
    }

    #[test]
    fn nobody_waits_for_an_applier_that_has_ended() {
        let pace = Arc::new(Pace::new(Mark::default()));
        pace.laid(MOST_BYTES);
        let waiting = begin(&pace, Pace::wait_for_room);
        assert_eq!(waiting.recv_timeout(WHILE), Err(RecvTimeoutError::Timeout));
        pace.leave();
        assert_eq!(waiting.recv(), Ok(Err(Gone)));
        assert_eq!(pace.drain(), Err(Gone));
    }
}
