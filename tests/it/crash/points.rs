//! A crash at every crash point, and at several passes of those that are passed often.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bursar::crash_point::CrashPoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::scene::{Scene, aborted, pays_again};

/// Payments in the batch, one under way at a time.
const ROWS: usize = 10;

/// Daemons at the same time.
const AT_ONCE: usize = 8;

/// At which passes of a point to die, and how many payments of unknown fate that may leave behind.
fn plan(point: CrashPoint) -> (&'static [u64], RangeInclusive<usize>) {
    match point {
        // No payment is between the note that it leaves and its first byte: either none is under
        // way, or the one that is under way is here. The next one is marked ahead of its place, and
        // has not left.
        CrashPoint::IntentRecorded
        | CrashPoint::SendRecorded
        | CrashPoint::AnswerReceived
        | CrashPoint::AnswerRecorded => (&[1, 3, 7], 0..=0),
        CrashPoint::CheckpointWritten => (&[1], 0..=0),
        // Exactly there.
        CrashPoint::Departed => (&[1, 3, 7], 1..=1),
        // On another thread, the payment that is under way may be there.
        CrashPoint::JournalAppended | CrashPoint::JournalSynced => (&[1, 4, 20, 45], 0..=1),
        CrashPoint::PaymentLinesAppended => (&[1, 2, 3, 14], 0..=1),
        // The index gets many groups at once, so this is passed less often.
        CrashPoint::IndexApplied => (&[1, 4, 10, 20], 0..=1),
        CrashPoint::CallbackRecorded => (&[1, 2, 8], 0..=1),
        CrashPoint::SlotRecorded | CrashPoint::ReloadCompiled => (&[1, 2], 0..=1),
        CrashPoint::StepRecorded => (&[1, 2], 0..=1),
        CrashPoint::RunSuspended | CrashPoint::RunWoken => (&[1, 2], 0..=0),
        CrashPoint::HandlerReturned => (&[1, 5], 0..=1),
    }
}

async fn survive(point: CrashPoint, pass: u64, doubtful: RangeInclusive<usize>) {
    let mut scene = Scene::new(ROWS, 1, vec![pays_again()], Duration::ZERO).await;
    let crash_at = format!("{}:{pass}", point.name());
    let mut process = scene.machine.start(Some(&crash_at));
    let status = match scene.play(&mut process).await {
        Some(status) => status,
        None => process.terminate().await,
    };
    assert!(aborted(status), "{crash_at} was not passed: {status}");

    let mut process = scene.machine.start(None);
    let ended = scene.play(&mut process).await;
    assert_eq!(ended, None, "after a crash at {crash_at}");
    let unknown = scene.judge().await;
    assert!(doubtful.contains(&unknown), "{crash_at}: {unknown} unknown");
    let status = process.terminate().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_point_neither_doubles_nor_loses_anything() {
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut cases = JoinSet::new();
    for point in CrashPoint::ALL {
        let (passes, doubtful) = plan(point);
        for pass in passes {
            let (gate, doubtful) = (Arc::clone(&gate), doubtful.clone());
            cases.spawn(async move {
                let place = gate.acquire_owned().await.unwrap();
                // A task of its own, so that all failures are seen.
                let case = tokio::spawn(survive(point, *pass, doubtful)).await;
                drop(place);
                (point, *pass, case.is_ok())
            });
        }
    }
    let outcomes = cases.join_all().await;
    let failed: Vec<_> = outcomes.iter().filter(|(_, _, ok)| !ok).collect();
    assert!(failed.is_empty(), "{failed:?}; see above");
}
