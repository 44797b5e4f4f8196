//! What becomes of slots that are due: run, wait or skip. Pure; `triggers::planner` asks.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::domain::clock::Timestamp;
use crate::domain::handler::{Missed, Overlap};

/// A slot and what becomes of it. The caller makes this durable before anything starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotDecision {
    /// The instant that was due.
    pub slot: Timestamp,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a due slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Starts a run.
    Run(Start),
    /// Starts a run when the run before it has ended.
    Queue(Start),
    /// Is recorded and not run.
    Skip(SkipReason),
}

/// What a run is told about its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Whether the slot was noticed too late: `tick.late`.
    pub late: bool,
    /// How many slots were skipped between the run before and this one: `tick.missed`.
    pub missed_before: u64,
}

/// Why a slot is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// The run before it had not ended.
    Overlap,
    /// It passed while nothing could fire it.
    Missed,
    /// All money was paused.
    Paused,
    /// Its script was not loaded when it was due.
    NeverLoaded,
}

impl SkipReason {
    /// The reason as the history shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Missed => "missed",
            Self::Paused => "paused",
            Self::NeverLoaded => "never loaded",
        }
    }
}

/// Which run stands in a slot's way.
#[derive(Clone, Copy)]
enum Ahead {
    Nothing,
    Run,
    CatchUp,
}

/// Decides about slots of one handler that are due, in ascending order. A slot noticed more than
/// `late_after` after its instant is missed.
///
/// # Design
///
/// - `missed` chooses among the missed slots; slots noticed in time are never missed.
/// - `overlap` applies to missed slots as well: with [`Overlap::Skip`] and a run still open, none
///   of them runs.
/// - A slot that only a catch-up run of this very decision stands before waits for it instead of
///   being skipped: `Missed::All` means every one of them, oldest first, and catching up on
///   yesterday must not cost today's slot. [`Overlap::Allow`] starts them all at once.
#[must_use]
pub fn decide(
    due: &[Timestamp],
    now: Timestamp,
    missed: Missed,
    overlap: Overlap,
    previous_run_open: bool,
    late_after: Duration,
) -> Vec<SlotDecision> {
    let late_after = TimeDelta::from_std(late_after).unwrap_or(TimeDelta::MAX);
    let is_late = |slot: &Timestamp| now.signed_duration_since(*slot) > late_after;
    let latest_missed = due.iter().rfind(|slot| is_late(slot)).copied();
    let mut ahead = if previous_run_open {
        Ahead::Run
    } else {
        Ahead::Nothing
    };
    let mut missed_before = 0;
    let mut decisions = Vec::with_capacity(due.len());
    for &slot in due {
        let late = is_late(&slot);
        let wanted = !late
            || match missed {
                Missed::Skip => false,
                Missed::Last => latest_missed == Some(slot),
                Missed::All => true,
            };
        let start = Start {
            late,
            missed_before,
        };
        let verdict = match (wanted, overlap, ahead) {
            (false, _, _) => Verdict::Skip(SkipReason::Missed),
            (true, _, Ahead::Nothing) | (true, Overlap::Allow, _) => Verdict::Run(start),
            (true, Overlap::Queue, _) | (true, Overlap::Skip, Ahead::CatchUp) => {
                Verdict::Queue(start)
            }
            (true, Overlap::Skip, Ahead::Run) => Verdict::Skip(SkipReason::Overlap),
        };
        if matches!(verdict, Verdict::Skip(_)) {
            missed_before += 1;
        } else {
            missed_before = 0;
            ahead = if late { Ahead::CatchUp } else { Ahead::Run };
        }
        decisions.push(SlotDecision { slot, verdict });
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_mins(1);

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    /// One word per slot: `run`, `queue` (`late` when late), `overlap`, `missed`; with the number
    /// of slots skipped before it.
    fn decided(
        due: &[&str],
        now: &str,
        missed: Missed,
        overlap: Overlap,
        previous_run_open: bool,
    ) -> String {
        let due: Vec<Timestamp> = due.iter().map(|text| at(text)).collect();
        let start = |word: &str, start: Start| {
            let late = if start.late { " late" } else { "" };
            match start.missed_before {
                0 => format!("{word}{late}"),
                number => format!("{word}{late} after {number}"),
            }
        };
        decide(&due, at(now), missed, overlap, previous_run_open, GRACE)
            .into_iter()
            .map(|decision| match decision.verdict {
                Verdict::Run(told) => start("run", told),
                Verdict::Queue(told) => start("queue", told),
                Verdict::Skip(reason) => reason.as_str().to_owned(),
            })
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn every_policy_decides_about_slots_noticed_in_time_and_missed_ones() {
        let situations: [(&str, &[&str], &str); 4] = [
            ("in time", &["09:00:00"], "09:00:00.4"),
            ("missed", &["09:00:00"], "09:01:00.001"),
            (
                "three missed, one in time",
                &["09:00:00", "10:00:00", "11:00:00", "12:00:00"],
                "12:00:20",
            ),
            ("two in time", &["09:00:00", "09:00:01"], "09:00:01"),
        ];
        let mut table = Vec::new();
        for (situation, due, now) in situations {
            table.push(format!("{situation}:"));
            for missed in [Missed::Skip, Missed::Last, Missed::All] {
                for overlap in [Overlap::Skip, Overlap::Queue, Overlap::Allow] {
                    let with = |open| decided(due, now, missed, overlap, open);
                    table.push(format!(
                        "  {missed:?} missed, {overlap:?} overlap: {}; still open: {}",
                        with(false),
                        with(true)
                    ));
                }
            }
        }
        insta::assert_snapshot!(table.join("\n"), @r"
            in time:
              Skip missed, Skip overlap: run; still open: overlap
              Skip missed, Queue overlap: run; still open: queue
              Skip missed, Allow overlap: run; still open: run
              Last missed, Skip overlap: run; still open: overlap
              Last missed, Queue overlap: run; still open: queue
              Last missed, Allow overlap: run; still open: run
              All missed, Skip overlap: run; still open: overlap
              All missed, Queue overlap: run; still open: queue
              All missed, Allow overlap: run; still open: run
            missed:
              Skip missed, Skip overlap: missed; still open: missed
              Skip missed, Queue overlap: missed; still open: missed
              Skip missed, Allow overlap: missed; still open: missed
              Last missed, Skip overlap: run late; still open: overlap
              Last missed, Queue overlap: run late; still open: queue late
              Last missed, Allow overlap: run late; still open: run late
              All missed, Skip overlap: run late; still open: overlap
              All missed, Queue overlap: run late; still open: queue late
              All missed, Allow overlap: run late; still open: run late
            three missed, one in time:
              Skip missed, Skip overlap: missed, missed, missed, run after 3; still open: missed, missed, missed, overlap
              Skip missed, Queue overlap: missed, missed, missed, run after 3; still open: missed, missed, missed, queue after 3
              Skip missed, Allow overlap: missed, missed, missed, run after 3; still open: missed, missed, missed, run after 3
              Last missed, Skip overlap: missed, missed, run late after 2, queue; still open: missed, missed, overlap, overlap
              Last missed, Queue overlap: missed, missed, run late after 2, queue; still open: missed, missed, queue late after 2, queue
              Last missed, Allow overlap: missed, missed, run late after 2, run; still open: missed, missed, run late after 2, run
              All missed, Skip overlap: run late, queue late, queue late, queue; still open: overlap, overlap, overlap, overlap
              All missed, Queue overlap: run late, queue late, queue late, queue; still open: queue late, queue late, queue late, queue
              All missed, Allow overlap: run late, run late, run late, run; still open: run late, run late, run late, run
            two in time:
              Skip missed, Skip overlap: run, overlap; still open: overlap, overlap
              Skip missed, Queue overlap: run, queue; still open: queue, queue
              Skip missed, Allow overlap: run, run; still open: run, run
              Last missed, Skip overlap: run, overlap; still open: overlap, overlap
              Last missed, Queue overlap: run, queue; still open: queue, queue
              Last missed, Allow overlap: run, run; still open: run, run
              All missed, Skip overlap: run, overlap; still open: overlap, overlap
              All missed, Queue overlap: run, queue; still open: queue, queue
              All missed, Allow overlap: run, run; still open: run, run
            ");
    }

    #[test]
    fn nothing_due_is_nothing_decided_and_the_grace_is_not_late() {
        assert_eq!(
            decided(&[], "09:00:00", Missed::All, Overlap::Allow, false),
            ""
        );
        assert_eq!(
            decided(
                &["09:00:00"],
                "09:01:00",
                Missed::Skip,
                Overlap::Skip,
                false
            ),
            "run"
        );
        // The clock was set back after the slot had been found due.
        assert_eq!(
            decided(
                &["09:00:00"],
                "08:00:00",
                Missed::Skip,
                Overlap::Skip,
                false
            ),
            "run"
        );
    }
}
