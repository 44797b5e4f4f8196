//! A crash, and then the index and the guard journal are gone: what is made anew from the payment
//! journal pays nothing a second time, wherever the crash was.

use std::time::Duration;

use bursar::crash_point::CrashPoint;
use serde_json::Value;

use super::scene::{Scene, aborted, deposit, pays_again};
use crate::stage::{eventually, executed};

const ROWS: usize = 8;

/// Answers how many payments are of unknown fate in the end.
async fn survive(point: CrashPoint, pass: u64) -> usize {
    let mut scene = Scene::new(ROWS, 1, vec![pays_again()], Duration::ZERO).await;
    let crash_at = format!("{}:{pass}", point.name());
    let mut process = scene.machine.start(Some(&crash_at));
    let status = scene.play(&mut process).await.expect("it crashes");
    assert!(aborted(status), "{crash_at}: {status}");

    for part in ["index", "journal"] {
        std::fs::remove_dir_all(scene.machine.path(&format!("state/{part}"))).unwrap();
    }
    let rebuild = ["store", "rebuild", "--payments-only"];
    let (code, told) = scene.machine.bursar(&rebuild);
    assert_eq!(code, 0, "{crash_at}: {told}");
    let process = scene.machine.started().await;
    // The customer pays in again, and the script asks for the same payments again.
    assert!(scene.machine.post_callback(&deposit(2, "customer")).await);
    let settled = |payments: &[Value]| {
        let done = |payment: &Value| {
            let status = payment["status"].as_str().unwrap();
            ["confirmed", "unknown", "held"].contains(&status)
        };
        payments.len() == ROWS && payments.iter().all(done)
    };
    let payments = eventually("all payments are settled", || async {
        let payments = scene.machine.list("payments?limit=100").await?;
        settled(&payments).then_some(payments)
    })
    .await;
    for execution in scene.machine.control.executions() {
        assert_eq!(execution.times_requested, 1, "{crash_at}: {execution:?}");
    }
    let executed = executed(&scene.machine.control);
    assert!(
        executed.values().all(|times| *times == 1),
        "{crash_at}: {executed:?}"
    );
    assert!(process.terminate().await.success());
    payments.len() - executed.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_made_of_the_payment_journal_after_a_crash_pays_nothing_again() {
    for (point, pass, doubtful) in [
        (CrashPoint::IntentRecorded, 3, 0),
        (CrashPoint::SendRecorded, 3, 0),
        (CrashPoint::Departed, 3, 1),
        (CrashPoint::AnswerReceived, 3, 0),
        (CrashPoint::AnswerRecorded, 5, 0),
    ] {
        assert_eq!(survive(point, pass).await, doubtful, "{point:?}");
    }
}

/// Half of what the guard journal had is not in the payment journal yet: that was told to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_whose_last_lines_nobody_was_told_of() {
    for point in [CrashPoint::JournalSynced, CrashPoint::PaymentLinesAppended] {
        let doubtful = survive(point, 9).await;
        assert!(doubtful <= 1, "{point:?}: {doubtful}");
    }
}
