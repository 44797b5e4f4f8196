//! How fast runs begin that have piled up while the daemon was down.
//!
//! Runs of missed slots and runs found open at a start share one pace. Runs of what happens now
//! take no part in it and never wait for it.

use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;

use crate::domain::clock::Timestamp;

/// Hands out times to begin at, so many in a second.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u64,
    second: Mutex<Option<Second>>,
}

/// The second in which the last run was placed.
#[derive(Debug, Clone, Copy)]
struct Second {
    begins: Timestamp,
    placed: u64,
    /// The clock when the last run was placed.
    asked: Timestamp,
}

impl Pace {
    pub(super) const fn new(per_second: u64) -> Self {
        Self {
            per_second,
            second: Mutex::new(None),
        }
    }

    /// When the next run may begin: `None` for at once. Times are handed out in ascending order.
    /// After a clock was set back they start anew, or everything would wait for the old time.
    pub(super) fn place(&self, now: Timestamp) -> Option<Timestamp> {
        let mut last = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let length = TimeDelta::seconds(1);
        let mut second = last
            .filter(|second| second.asked <= now && now < second.begins + length)
            .unwrap_or(Second {
                begins: now,
                placed: 0,
                asked: now,
            });
        if second.placed >= self.per_second {
            second.begins += length;
            second.placed = 0;
        }
        let offset = TimeDelta::milliseconds(i64::try_from(second.placed).unwrap_or(0));
        second.placed += 1;
        second.asked = now;
        *last = Some(second);
        (second.begins > now).then_some(second.begins + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    #[test]
    fn so_many_begin_at_once_and_so_many_in_every_second_after_it_in_order() {
        let pace = Pace::new(2);
        let now = at("09:00:00");
        let placed: Vec<_> = (0..5).map(|_| pace.place(now)).collect();
        assert_eq!(
            placed,
            [
                None,
                None,
                Some(at("09:00:01")),
                Some(at("09:00:01.001")),
                Some(at("09:00:02")),
            ]
        );
        // The second that has begun is not full yet, and later ones are free again.
        assert_eq!(pace.place(at("09:00:02.5")), None);
        assert_eq!(pace.place(at("09:00:02.6")), Some(at("09:00:03")));
        assert_eq!(pace.place(at("10:00:00")), None);
    }

    #[test]
    fn a_clock_set_back_does_not_make_runs_wait_for_the_old_time() {
        let pace = Pace::new(1);
        assert_eq!(pace.place(at("09:00:00")), None);
        assert_eq!(pace.place(at("08:00:00")), None);
        assert_eq!(pace.place(at("08:00:00")), Some(at("08:00:01")));
    }
}
