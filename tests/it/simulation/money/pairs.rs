//! Every pair of the simulator's faults, over the daemon itself: real HTTP, a real store, a restart
//! in the middle, and an auditor who compares both ledgers in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use bursar::simulator::{Fault, Faults, Operation, Options, Rule};
use serde_json::Value;

use crate::kit::SetClock;
use crate::stage::{Running, SENDER, Stage, eventually, everything};

/// Every fault of the simulator but one: after a 429 the client holds everything back for a while,
/// which `limits` is about. It waits for an answer for one second.
const FAULTS: [Fault; 16] = [
    Fault::Refuse,
    Fault::ErrorBeforeActing,
    Fault::DropRequest,
    Fault::DropAnswer,
    Fault::ActThenBadGateway,
    Fault::ActThenRubbish,
    Fault::Delay(1_300),
    Fault::SlowAnswer(1_300),
    Fault::BlindLookup(700),
    Fault::ExecuteRepeat,
    Fault::CallbackTwice,
    Fault::CallbackLate(300),
    Fault::CallbackReordered,
    Fault::CallbackForged,
    Fault::CallbackNever,
    Fault::CallbackBeforeReply,
];

/// A payment for every pair, in both orders: of two faults that strike requests the first counts.
fn pairs() -> impl Iterator<Item = (String, [Fault; 2])> {
    let numbered = || FAULTS.into_iter().enumerate();
    numbered().flat_map(move |(first, one)| {
        numbered().map(move |(second, other)| (format!("p{first}-{second}"), [one, other]))
    })
}

fn rules() -> Faults {
    let rules = pairs().flat_map(|(key, faults)| {
        faults.map(|fault| Rule {
            operation: Some(Operation::Withdrawal),
            foreign_id: Some(key.clone()),
            ..Rule::always(fault)
        })
    });
    Faults(rules.collect())
}

fn script() -> String {
    let keys: Vec<String> = pairs().map(|(key, _)| format!("\"{key}\"")).collect();
    format!(
        r#"
const KEYS = [{}];
schedule("pay", "0 0 1 1 *", |tick| {{
    gateway::withdraw_all(KEYS.map(|key| #{{ {SENDER}
        foreign_id: key, currency: "BTC", amount: 0.01, address: `tb1q-${{key}}`,
    }}));
}});
"#,
        keys.join(", ")
    )
}

/// The payments as the daemon has them, by key.
fn recorded(daemon: &Running) -> BTreeMap<String, Value> {
    pairs()
        .filter_map(|(key, _)| Some((key.clone(), daemon.runner.payment(&key).ok()?)))
        .collect()
}

fn is_settled(payment: &Value) -> bool {
    payment["is_final"] == true || payment["status"] == "held"
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_faults_leaves_each_payment_made_once_or_named() {
    let clock = SetClock::at("2026-11-22T08:31:00Z");
    let stage = Stage::with(Options {
        faults: rules(),
        settle_after: Some(Duration::from_millis(100)),
        ..Options::default()
    })
    .await
    .clock(clock.clone())
    .config("gateway.timeout = \"1s\"\n")
    .script("pay.rhai", &script());
    let all = pairs().count();

    let daemon = stage.start().await;
    let run = daemon.runner.trigger("pay", "pay", None).await.unwrap();
    eventually("a third of them is executed", || async {
        (stage.control.executions().len() > all / 3).then_some(())
    })
    .await;
    daemon.stop().await;
    let daemon = stage.start().await;
    let run = daemon.closed(&run.to_string()).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    // Requests that are late arrive, and what is never heard of is asked for at the next start.
    tokio::time::sleep(Duration::from_secs(2)).await;
    daemon.stop().await;
    clock.set("2026-11-22T08:51:00Z");
    let daemon = stage.start().await;
    eventually("every payment is settled or named", || async {
        let payments = recorded(&daemon);
        (payments.len() == all && payments.values().all(is_settled)).then_some(())
    })
    .await;

    let mut executed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for execution in stage.control.executions() {
        let statuses = executed.entry(execution.foreign_id).or_default();
        statuses.push(execution.status);
    }
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    for (key, payment) in recorded(&daemon) {
        let status = payment["status"].as_str().unwrap().to_owned();
        let statuses = executed.remove(&key).unwrap_or_default();
        let agrees = match &status[..] {
            "confirmed" => statuses == ["confirmed"],
            "rejected" | "held" => statuses.is_empty(),
            _ => false,
        };
        assert!(agrees, "{key} is {status} here, and {statuses:?} there");
        *met.entry(status).or_default() += 1;
    }
    assert!(executed.is_empty(), "nobody asked for {executed:?}");
    assert_eq!(met.len(), 3, "{met:?}");
    let runs = daemon.runner.runs(&everything()).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 1);
    daemon.stop().await;
}
