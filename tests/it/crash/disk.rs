//! The disk fills up, or the store is poisoned, between the intent and the send: nothing is sent.

use std::process::Command;

use bursar::simulator::{Fault, Faults, Operation, Options, Rule};
use serde_json::json;

use super::machine::{Machine, Process};
use crate::stage::{SENDER, eventually, executed};

/// Pays for every deposit, under its number.
fn script() -> String {
    format!(
        r#"on("deposit.confirmed", |event| {{
            gateway::withdraw(#{{ {SENDER}
                foreign_id: `row-${{event.id}}`, currency: "BTC", amount: 0.01, address: "tb1q",
            }});
        }});"#
    )
}

async fn deposit(machine: &Machine, id: u64) {
    let body = json!({"id": id, "type": "deposit", "status": "confirmed"}).to_string();
    assert!(machine.post_callback(&body).await);
}

async fn status(machine: &Machine, id: u64, wanted: &str) {
    let path = format!("/api/v1/payments/row-{id}");
    eventually(&format!("row-{id} is {wanted}"), || async {
        let payment = machine.get(&path).await?;
        (payment["status"] == wanted).then_some(())
    })
    .await;
}

fn withdrawals(machine: &Machine) -> u64 {
    let requests = machine.control.requests();
    requests
        .get(&Operation::Withdrawal)
        .copied()
        .unwrap_or_default()
}

/// A daemon whose first payment has the only place among the requests under way for a while. The second
/// one waits for it, marked and not left, and the third one between its intent and its mark.
async fn three_payments() -> (Machine, Process) {
    let slow = Rule {
        operation: Some(Operation::Withdrawal),
        times: Some(1),
        ..Rule::always(Fault::SlowAnswer(5_000))
    };
    let options = Options {
        faults: Faults(vec![slow, Rule::always(Fault::ExecuteRepeat)]),
        ..Options::default()
    };
    let machine = Machine::new(&script(), options).await;
    let process = machine.start_with_one_request_at_once();
    eventually("the daemon answers", || machine.get("/api/v1/overview")).await;
    for (id, wanted) in [(1, "sending"), (2, "sending"), (3, "intended")] {
        deposit(&machine, id).await;
        status(&machine, id, wanted).await;
    }
    (machine, process)
}

/// The daemon ends by itself, and nothing but the first payment has left.
async fn only_the_first_has_left(machine: &Machine, process: &mut Process) {
    let ended = eventually("the daemon has ended", || {
        let ended = process.ended();
        async move { ended }
    })
    .await;
    assert!(!ended.success(), "{ended}");
    assert_eq!(withdrawals(machine), 1, "only the first has left");
    assert_eq!(executed(&machine.control), [("row-1".into(), 1)].into());
}

/// The next start goes on with all of them, and none is paid twice.
async fn all_go_on(machine: &Machine) {
    let process = machine.started().await;
    for id in 1..=3 {
        status(machine, id, "confirmed").await;
    }
    assert_eq!(withdrawals(machine), 3);
    let once = |id| (format!("row-{id}"), 1);
    assert_eq!(executed(&machine.control), (1..=3).map(once).collect());
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_disk_is_full_after_the_intent_nothing_is_sent() {
    let (machine, mut process) = three_payments().await;
    // From here on every write fails, as on a full disk.
    let full = Command::new("prlimit")
        .args(["--fsize=1", "--pid", &process.id().to_string()])
        .status()
        .unwrap();
    assert!(full.success());
    only_the_first_has_left(&machine, &mut process).await;
    all_go_on(&machine).await;
}

/// What leaves then could not be recorded, and the daemon waits for what is under way before it ends.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_store_is_poisoned_after_the_mark_nothing_is_sent() {
    let (machine, mut process) = three_payments().await;
    let blobs = machine.path("state/blobs");
    let aside = machine.path("state/blobs-aside");
    std::fs::rename(&blobs, &aside).unwrap();
    std::fs::write(&blobs, "no folder").unwrap();
    // Too long for a record, so a file of its own, which cannot be written.
    let long =
        json!({"id": 9, "type": "deposit", "status": "pending", "error": "x".repeat(20_000)});
    assert!(!machine.post_callback(&long.to_string()).await);
    only_the_first_has_left(&machine, &mut process).await;
    std::fs::remove_file(&blobs).unwrap();
    std::fs::rename(&aside, &blobs).unwrap();
    all_go_on(&machine).await;
}
