//! Every fault of the simulator together with every other, by seed, on a few payments each, with
//! restarts in the middle: each payment is executed at most once, none is lost, and the sums are
//! as intended — whether or not payments of unknown fate may be sent again.

use std::collections::BTreeMap;

use bursar::simulator::{Fault, Faults, Operation, Options, Rule};
use rust_decimal::Decimal;
use serde_json::Value;

use crate::kit::SetClock;
use crate::payments::by_hand;
use crate::stage::{Running, SENDER, Stage, eventually, everything, executed};

/// Every fault there is, but the 429 that holds the client back for a whole minute: its shorter
/// sister takes its place.
const FAULTS: [Fault; 17] = [
    Fault::Refuse,
    Fault::ErrorBeforeActing,
    Fault::DropRequest,
    Fault::DropAnswer,
    Fault::ActThenBadGateway,
    Fault::ActThenRubbish,
    Fault::Delay(1200),
    Fault::SlowAnswer(1200),
    Fault::TooManyRequestsFor(1),
    Fault::BlindLookup(700),
    Fault::CallbackTwice,
    Fault::CallbackLate(500),
    Fault::CallbackReordered,
    Fault::CallbackForged,
    Fault::CallbackNever,
    Fault::CallbackBeforeReply,
    Fault::ExecuteRepeat,
];

/// Payments that meet each pair.
const EACH: usize = 2;

/// The rules of a pair: on payments of its own, and each of the two every other time, so that both
/// strike one payment in turn.
fn rules(first: usize, second: usize) -> Vec<Rule> {
    let rule = |fault: Fault| Rule {
        prefix: Some(format!("p{first}-{second}-")),
        per_mille: Some(500),
        times: matches!(fault, Fault::TooManyRequestsFor(_)).then_some(1),
        ..Rule::always(fault)
    };
    vec![rule(FAULTS[first]), rule(FAULTS[second])]
}

/// The pairs of the first so many faults.
fn pairs(faults: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..faults).flat_map(move |first| (first + 1..faults).map(move |second| (first, second)))
}

/// The payments, by status.
fn statuses(daemon: &Running) -> BTreeMap<String, Vec<String>> {
    let payments = daemon.runner.payments(&everything()).unwrap();
    let mut statuses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for payment in payments.as_array().unwrap() {
        let text = |name: &str| payment[name].as_str().unwrap().to_owned();
        let of = statuses.entry(text("status")).or_default();
        of.push(text("foreign_id"));
    }
    statuses
}

/// Waits until no payment has one of these statuses.
async fn none_is(daemon: &Running, open: &[&str]) {
    eventually(&format!("no payment is {open:?}"), || async {
        let statuses = statuses(daemon);
        open.iter()
            .all(|status| !statuses.contains_key(*status))
            .then_some(())
    })
    .await;
}

fn withdrawals(stage: &Stage) -> u64 {
    let requests = stage.control.requests();
    requests
        .get(&Operation::Withdrawal)
        .copied()
        .unwrap_or_default()
}

/// What is asked for, and the script that asks for it.
fn batch(faults: usize) -> (BTreeMap<String, Decimal>, String) {
    let mut asked = BTreeMap::new();
    for (first, second) in pairs(faults) {
        for n in 0..EACH {
            let amount = Decimal::new(i64::try_from(10 + asked.len()).unwrap(), 5);
            asked.insert(format!("p{first}-{second}-{n}"), amount);
        }
    }
    let rows: Vec<String> = asked
        .iter()
        .map(|(key, amount)| format!(r#"["{key}", "{amount}"]"#))
        .collect();
    let script = format!(
        r#"let rows = [{}]; gateway::withdraw_all(rows.map(|row| #{{ {SENDER} foreign_id: row[0], currency: "BTC", amount: row[1], address: "tb1q" + row[0] }}))"#,
        rows.join(", ")
    );
    (asked, by_hand(&script))
}

async fn every_pair(seed: u64, faults: usize, always: Vec<Rule>, resend: bool) {
    let (asked, script) = batch(faults);
    let mut all = always.clone();
    all.extend(pairs(faults).flat_map(|(first, second)| rules(first, second)));
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let stage = Stage::with(Options {
        seed,
        faults: Faults(all),
        ..Options::default()
    })
    .await
    .clock(clock.clone())
    .config(&format!(
        "gateway.timeout = \"1s\"\ngateway.unknown_after = \"1m\"\ngateway.resend_unknown = {resend}\n"
    ))
    .script("a.rhai", &script);
    let before = stage.control.balances()["BTC"];
    let daemon = stage.start().await;
    daemon.runner.trigger("a", "go", None).await.unwrap();
    let half = u64::try_from(asked.len() / 2).unwrap();
    eventually("half of the batch is sent", || async {
        (withdrawals(&stage) > half).then_some(())
    })
    .await;
    daemon.stop().await;
    let daemon = stage.start().await;
    let run = daemon.all_closed(1).await[0].clone();
    assert_eq!(run["state"], "succeeded", "seed {seed}: {run:#}");
    none_is(&daemon, &["planned", "intended", "sending"]).await;
    // Patience ends while everything still goes wrong.
    let sent = withdrawals(&stage);
    clock.set("2026-11-22T12:01:30Z");
    if resend {
        eventually("some are sent again", || async {
            (withdrawals(&stage) >= sent + 10).then_some(())
        })
        .await;
    }
    daemon.stop().await;
    // From here on nothing goes wrong, and what is there is seen.
    stage.control.set_faults(Faults(always));
    let daemon = stage.start().await;
    none_is(&daemon, &["intended", "sending", "accepted", "pending"]).await;
    clock.set("2026-11-22T14:00:00Z");
    none_is(&daemon, &["intended", "sending", "unknown"]).await;
    none_is(&daemon, &["intended", "sending", "accepted", "pending"]).await;
    audit(&stage, &statuses(&daemon), &asked, seed);
    let executions = stage.control.executions();
    let paid: Decimal = executions.iter().map(|execution| execution.amount).sum();
    assert_eq!(before - stage.control.balances()["BTC"], paid);
    if resend {
        assert!(withdrawals(&stage) > u64::try_from(asked.len()).unwrap());
    } else {
        for execution in executions {
            assert_eq!(execution.times_requested, 1, "seed {seed}: {execution:?}");
        }
    }
    daemon.stop().await;
}

/// What the gateway did is what the ledger says, and what was asked for.
fn audit(
    stage: &Stage,
    statuses: &BTreeMap<String, Vec<String>>,
    asked: &BTreeMap<String, Decimal>,
    seed: u64,
) {
    let known: usize = statuses.values().map(Vec::len).sum();
    assert_eq!(known, asked.len(), "seed {seed}: none is lost");
    let executed = executed(&stage.control);
    let twice: Vec<_> = executed.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "seed {seed}: executed twice: {twice:?}");
    for execution in stage.control.executions() {
        assert_eq!(
            Some(&execution.amount),
            asked.get(&execution.foreign_id),
            "seed {seed}: {execution:?}"
        );
    }
    for (status, keys) in statuses {
        for key in keys {
            let was_executed = executed.contains_key(key);
            let expected = match status.as_str() {
                "confirmed" => true,
                "rejected" | "held" => false,
                other => panic!("seed {seed}: {key} is {other}"),
            };
            assert_eq!(was_executed, expected, "seed {seed}: {key} is {status}");
        }
    }
    let confirmed = statuses.get("confirmed").map_or(0, Vec::len);
    assert!(
        confirmed > asked.len() / 2,
        "seed {seed}: {confirmed} of {}",
        asked.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn under_every_pair_of_faults_nothing_is_sent_twice_and_nothing_is_lost() {
    let pays_again = Rule::always(Fault::ExecuteRepeat);
    every_pair(5, FAULTS.len(), vec![pays_again], false).await;
}

/// The gateway refuses a key it knows: that is what a resend assumes.
#[tokio::test(flavor = "multi_thread")]
async fn nor_when_payments_of_unknown_fate_may_be_sent_again() {
    every_pair(6, FAULTS.len() - 1, Vec::new(), true).await;
}

#[test]
fn every_fault_is_paired_with_every_other() {
    assert_eq!(pairs(FAULTS.len()).count(), 17 * 16 / 2);
    let last: Value = serde_json::to_value(FAULTS[16]).unwrap();
    assert_eq!(last, "execute_repeat");
}
