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
    Run {
        /// Whether the slot was noticed too late: `tick.late`.
        late: bool,
    },
    /// Starts a run when the run before it has ended.
    Queue {
        /// Whether the slot was noticed too late: `tick.late`.
        late: bool,
    },
    /// Is recorded and not run.
    Skip(SkipReason),
}

impl Verdict {
    /// Whether it starts a run, and if so whether that is late.
    #[must_use]
    pub const fn starts(self) -> Option<bool> {
        match self {
            Self::Run { late } | Self::Queue { late } => Some(late),
            Self::Skip(_) => None,
        }
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// None.
    Nothing,
    /// One that has not ended.
    Run,
    /// One that has not ended and belongs to the catching up that goes on with this slot.
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
/// - A slot that only a run of the same catching up stands before waits for it instead of being
///   skipped: `Missed::All` means every one of them, oldest first, and catching up on yesterday
///   must not cost today's slot. [`Overlap::Allow`] starts them all at once.
/// - Catching up on many slots takes several decisions; `ahead` carries over from one to the next
///   that it goes on.
#[must_use]
pub fn decide(
    due: &[Timestamp],
    now: Timestamp,
    missed: Missed,
    overlap: Overlap,
    mut ahead: Ahead,
    late_after: Duration,
) -> Vec<SlotDecision> {
    let late_after = TimeDelta::from_std(late_after).unwrap_or(TimeDelta::MAX);
    let is_late = |slot: &Timestamp| now.signed_duration_since(*slot) > late_after;
    let latest_missed = due.iter().rfind(|slot| is_late(slot)).copied();
    let mut decisions = Vec::with_capacity(due.len());
    for &slot in due {
        let late = is_late(&slot);
        let wanted = !late
            || match missed {
                Missed::Skip => false,
                Missed::Last => latest_missed == Some(slot),
                Missed::All => true,
            };
        let verdict = match (wanted, overlap, ahead) {
            (false, _, _) => Verdict::Skip(SkipReason::Missed),
            (true, _, Ahead::Nothing) | (true, Overlap::Allow, _) => Verdict::Run { late },
            (true, Overlap::Queue, _) | (true, Overlap::Skip, Ahead::CatchUp) => {
                Verdict::Queue { late }
            }
            (true, Overlap::Skip, Ahead::Run) => Verdict::Skip(SkipReason::Overlap),
        };
        if verdict.starts().is_some() {
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

    /// One word per slot: `run`, `queue` (`late` when late), `overlap`, `missed`.
    fn decided(due: &[&str], now: &str, missed: Missed, overlap: Overlap, ahead: Ahead) -> String {
        let due: Vec<Timestamp> = due.iter().map(|text| at(text)).collect();
        let start = |word: &str, late: bool| {
            let late = if late { " late" } else { "" };
            format!("{word}{late}")
        };
        decide(&due, at(now), missed, overlap, ahead, GRACE)
            .into_iter()
            .map(|decision| match decision.verdict {
                Verdict::Run { late } => start("run", late),
                Verdict::Queue { late } => start("queue", late),
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
                    let with = |ahead| decided(due, now, missed, overlap, ahead);
                    table.push(format!(
                        "  {missed:?} missed, {overlap:?} overlap: {}; still open: {}; still catching up: {}",
                        with(Ahead::Nothing),
                        with(Ahead::Run),
                        with(Ahead::CatchUp)
                    ));
                }
            }
        }
        insta::assert_snapshot!(table.join("\n"), @r"
            in time:
              Skip missed, Skip overlap: run; still open: overlap; still catching up: queue
              Skip missed, Queue overlap: run; still open: queue; still catching up: queue
              Skip missed, Allow overlap: run; still open: run; still catching up: run
              Last missed, Skip overlap: run; still open: overlap; still catching up: queue
              Last missed, Queue overlap: run; still open: queue; still catching up: queue
              Last missed, Allow overlap: run; still open: run; still catching up: run
              All missed, Skip overlap: run; still open: overlap; still catching up: queue
              All missed, Queue overlap: run; still open: queue; still catching up: queue
              All missed, Allow overlap: run; still open: run; still catching up: run
            missed:
              Skip missed, Skip overlap: missed; still open: missed; still catching up: missed
              Skip missed, Queue overlap: missed; still open: missed; still catching up: missed
              Skip missed, Allow overlap: missed; still open: missed; still catching up: missed
              Last missed, Skip overlap: run late; still open: overlap; still catching up: queue late
              Last missed, Queue overlap: run late; still open: queue late; still catching up: queue late
              Last missed, Allow overlap: run late; still open: run late; still catching up: run late
              All missed, Skip overlap: run late; still open: overlap; still catching up: queue late
              All missed, Queue overlap: run late; still open: queue late; still catching up: queue late
              All missed, Allow overlap: run late; still open: run late; still catching up: run late
            three missed, one in time:
              Skip missed, Skip overlap: missed, missed, missed, run; still open: missed, missed, missed, overlap; still catching up: missed, missed, missed, queue
              Skip missed, Queue overlap: missed, missed, missed, run; still open: missed, missed, missed, queue; still catching up: missed, missed, missed, queue
              Skip missed, Allow overlap: missed, missed, missed, run; still open: missed, missed, missed, run; still catching up: missed, missed, missed, run
              Last missed, Skip overlap: missed, missed, run late, queue; still open: missed, missed, overlap, overlap; still catching up: missed, missed, queue late, queue
              Last missed, Queue overlap: missed, missed, run late, queue; still open: missed, missed, queue late, queue; still catching up: missed, missed, queue late, queue
              Last missed, Allow overlap: missed, missed, run late, run; still open: missed, missed, run late, run; still catching up: missed, missed, run late, run
              All missed, Skip overlap: run late, queue late, queue late, queue; still open: overlap, overlap, overlap, overlap; still catching up: queue late, queue late, queue late, queue
              All missed, Queue overlap: run late, queue late, queue late, queue; still open: queue late, queue late, queue late, queue; still catching up: queue late, queue late, queue late, queue
              All missed, Allow overlap: run late, run late, run late, run; still open: run late, run late, run late, run; still catching up: run late, run late, run late, run
            two in time:
              Skip missed, Skip overlap: run, overlap; still open: overlap, overlap; still catching up: queue, overlap
              Skip missed, Queue overlap: run, queue; still open: queue, queue; still catching up: queue, queue
              Skip missed, Allow overlap: run, run; still open: run, run; still catching up: run, run
              Last missed, Skip overlap: run, overlap; still open: overlap, overlap; still catching up: queue, overlap
              Last missed, Queue overlap: run, queue; still open: queue, queue; still catching up: queue, queue
              Last missed, Allow overlap: run, run; still open: run, run; still catching up: run, run
              All missed, Skip overlap: run, overlap; still open: overlap, overlap; still catching up: queue, overlap
              All missed, Queue overlap: run, queue; still open: queue, queue; still catching up: queue, queue
              All missed, Allow overlap: run, run; still open: run, run; still catching up: run, run
            ");
    }

    #[test]
    fn nothing_due_is_nothing_decided_and_the_grace_is_not_late() {
        assert_eq!(
            decided(&[], "09:00:00", Missed::All, Overlap::Allow, Ahead::Nothing),
            ""
        );
        assert_eq!(
            decided(
                &["09:00:00"],
                "09:01:00",
                Missed::Skip,
                Overlap::Skip,
                Ahead::Nothing
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
                Ahead::Nothing
            ),
            "run"
        );
    }
}
