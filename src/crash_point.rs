//! The named places where a test may kill the process.
//!
//! In a debug build, `BURSAR_CRASH_AT=NAME` aborts the process the first time it comes by the
//! point of that name, `NAME:3` the third time. In a release build [`CrashPoint::pass`] compiles
//! to nothing. Tests go through [`CrashPoint::ALL`], so a new point is tested by being named.

/// A place between two steps that must not be torn apart silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Guard journal appended, not yet synced.
    JournalAppended,
    /// Guard journal synced, nobody told yet, nothing of the group in the index.
    JournalSynced,
    /// A group's lines appended to the payment journal, not yet synced; the guard journal has them.
    PaymentLinesAppended,
    /// Groups applied to the index, not yet taken out of memory.
    IndexApplied,
    /// Checkpoint written, old journal segments not yet removed.
    CheckpointWritten,
    /// Callback on disk, not yet answered.
    CallbackRecorded,
    /// Slot and its run on disk, run not yet started.
    SlotRecorded,
    /// Payment intent on disk, not yet marked as being sent.
    IntentRecorded,
    /// Payment marked as being sent, and it is noted that nothing has left yet.
    SendRecorded,
    /// Noted that the payment's request leaves now, first byte not yet out.
    Departed,
    /// The gateway's answer is here, not yet recorded.
    AnswerReceived,
    /// The gateway's answer is on disk, the script does not know yet.
    AnswerRecorded,
    /// A step's outcome is on disk, the script does not know yet.
    StepRecorded,
    /// A run is suspended on disk, its thread not yet free.
    RunSuspended,
    /// A waiting run goes on, on disk, but is not yet queued.
    RunWoken,
    /// The handler has returned, the run's end is not yet recorded.
    HandlerReturned,
    /// A new script set is compiled and stored, not yet swapped in.
    ReloadCompiled,
}

impl CrashPoint {
    /// Every point.
    pub const ALL: [Self; 17] = [
        Self::JournalAppended,
        Self::JournalSynced,
        Self::PaymentLinesAppended,
        Self::IndexApplied,
        Self::CheckpointWritten,
        Self::CallbackRecorded,
        Self::SlotRecorded,
        Self::IntentRecorded,
        Self::SendRecorded,
        Self::Departed,
        Self::AnswerReceived,
        Self::AnswerRecorded,
        Self::StepRecorded,
        Self::RunSuspended,
        Self::RunWoken,
        Self::HandlerReturned,
        Self::ReloadCompiled,
    ];

    /// The name to give in `BURSAR_CRASH_AT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::JournalAppended => "journal_appended",
            Self::JournalSynced => "journal_synced",
            Self::PaymentLinesAppended => "payment_lines_appended",
            Self::IndexApplied => "index_applied",
            Self::CheckpointWritten => "checkpoint_written",
            Self::CallbackRecorded => "callback_recorded",
            Self::SlotRecorded => "slot_recorded",
            Self::IntentRecorded => "intent_recorded",
            Self::SendRecorded => "send_recorded",
            Self::Departed => "departed",
            Self::AnswerReceived => "answer_received",
            Self::AnswerRecorded => "answer_recorded",
            Self::StepRecorded => "step_recorded",
            Self::RunSuspended => "run_suspended",
            Self::RunWoken => "run_woken",
            Self::HandlerReturned => "handler_returned",
            Self::ReloadCompiled => "reload_compiled",
        }
    }

    /// Passes the point: goes on, or aborts the process when a test asked for it.
    pub fn pass(self) {
        #[cfg(debug_assertions)]
        armed::pass(self);
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::CrashPoint;

    /// What `BURSAR_CRASH_AT` asks for: a name and how often the point is passed until then.
    struct Wish {
        name: String,
        left: AtomicU64,
    }

    static WISH: OnceLock<Option<Wish>> = OnceLock::new();

    pub(super) fn pass(point: CrashPoint) {
        let wish = WISH.get_or_init(|| {
            let text = std::env::var("BURSAR_CRASH_AT").ok()?;
            let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
            Some(Wish {
                name: name.to_owned(),
                left: AtomicU64::new(times.parse().ok()?),
            })
        });
        if let Some(wish) = wish
            && wish.name == point.name()
            && wish.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::process::abort();
        }
    }
}
