//! Wakes the planner once a second.
//!
//! One job of tokio-cron-scheduler beats every second of the machine's clock. It knows no schedule:
//! it keeps a job's offset over daylight-saving switches, fires twice after a forward jump and
//! falls silent after a backward one, so slots are computed by [`super::planner`] instead, and a
//! watchdog on the monotonic clock wakes it when the beat fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// How long the beat may be missing before the watchdog wakes the planner. Longer than a second
/// plus the half second that the scheduler may be late.
const SILENCE: Duration = Duration::from_millis(1750);

/// Keeps the wake-ups coming; dropping it ends them, and the receiver then gets `None`.
#[derive(Debug)]
pub struct Wakeups {
    _stop: oneshot::Sender<()>,
}

/// The scheduler could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the one-second wake-up")]
pub struct WakeupError(#[from] JobSchedulerError);

impl Wakeups {
    /// Starts the beat. Wake-ups that come while one is waiting are dropped: a wake-up says "look
    /// at the clock", not which slot is due.
    ///
    /// # Errors
    /// When the scheduler refuses to start. The daemon cannot run schedules then and must stop.
    pub async fn start() -> Result<(mpsc::Receiver<()>, Self), WakeupError> {
        let beat = Arc::new(Notify::new());
        let mut scheduler = JobScheduler::new().await?;
        let job_beat = Arc::clone(&beat);
        scheduler
            .add(Job::new("* * * * * *", move |_id, _scheduler| {
                job_beat.notify_one();
            })?)
            .await?;
        scheduler.start().await?;

        let (wake, receiver) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            tokio::select! {
                _ = stopped => {}
                () = relay(&beat, &wake, SILENCE) => {}
            }
            // A scheduler that does not shut down beats on without anybody listening.
            scheduler.shutdown().await.ok();
        });
        Ok((receiver, Self { _stop: stop }))
    }
}

/// Passes each beat on, and wakes by itself when there was none for `silence`. Ends when nobody
/// listens any more.
async fn relay(beat: &Notify, wake: &mpsc::Sender<()>, silence: Duration) {
    loop {
        // Whether it was the beat or the watchdog makes no difference to the planner.
        tokio::time::timeout(silence, beat.notified()).await.ok();
        if let Err(mpsc::error::TrySendError::Closed(())) = wake.try_send(()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn next(receiver: &mut mpsc::Receiver<()>) -> Option<()> {
        tokio::time::timeout(LONG, receiver.recv())
            .await
            .expect("no wake-up came")
    }

    #[tokio::test]
    async fn wake_ups_come_until_the_guard_is_dropped() {
        let (mut receiver, wakeups) = Wakeups::start().await.unwrap();
        for _ in 0..3 {
            assert_eq!(next(&mut receiver).await, Some(()));
        }
        drop(wakeups);
        while next(&mut receiver).await.is_some() {}
    }

    #[tokio::test]
    async fn without_a_beat_the_watchdog_wakes() {
        let (wake, mut receiver) = mpsc::channel(1);
        let silent = Notify::new();
        tokio::select! {
            () = relay(&silent, &wake, Duration::from_millis(5)) => panic!("the relay ended"),
            () = async {
                for _ in 0..3 {
                    assert_eq!(next(&mut receiver).await, Some(()));
                }
            } => {}
        }
    }

    #[tokio::test]
    async fn a_planner_that_is_busy_neither_blocks_the_beat_nor_gets_a_pile_of_wake_ups() {
        let (wake, mut receiver) = mpsc::channel(1);
        let beat = Notify::new();
        let beats = async {
            for _ in 0..100 {
                beat.notify_one();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = relay(&beat, &wake, LONG) => panic!("the relay ended"),
            () = beats => {}
        }
        assert_eq!(receiver.try_recv(), Ok(()));
        assert_eq!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        drop(receiver);
        beat.notify_one();
        relay(&beat, &wake, LONG).await;
    }
}
