//! The simulator's time: the machine's wall clock at the start, running `speed` times as fast.
//!
//! Everything the contract dates or limits (expiry of invoices and quotes, the retry schedule)
//! goes by this clock. Latency and delays of faults are real time and do not use it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A wall clock that may run faster than the machine's.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    epoch: Duration,
    speed: u32,
}

impl Clock {
    /// Starts now. A `speed` of 60 makes a minute of every second; 0 counts as 1.
    #[expect(
        clippy::disallowed_methods,
        reason = "the simulator shares no code with the daemon, its clock included"
    )]
    pub(super) fn start(speed: u32) -> Self {
        Self {
            started: Instant::now(),
            epoch: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            speed: speed.max(1),
        }
    }

    /// Time since the Unix epoch, as this clock sees it.
    pub(super) fn now(&self) -> Duration {
        self.epoch + self.started.elapsed().saturating_mul(self.speed)
    }

    /// Unix seconds, as the gateway writes times.
    pub(super) fn unix(&self) -> u64 {
        self.now().as_secs()
    }

    /// Sleeps until this clock shows `at` (since the Unix epoch).
    pub(super) async fn sleep_until(&self, at: Duration) {
        self.sleep(at.saturating_sub(self.now())).await;
    }

    /// Sleeps for a stretch of this clock's time.
    pub(super) async fn sleep(&self, stretch: Duration) {
        tokio::time::sleep(stretch / self.speed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_hour_of_this_clock_passes_without_waiting_for_one() {
        let clock = Clock::start(36_000);
        let before = clock.now();
        clock.sleep(Duration::from_hours(1)).await;
        assert!(clock.now() >= before + Duration::from_hours(1));
        clock.sleep_until(before).await;
    }
}
