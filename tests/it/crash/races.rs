//! Things that happen between two steps of the same payment or run, without a crash: the same
//! windows as those of the crash points, reached in order.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bursar::domain::secret::Secret;
use bursar::domain::signature::Signer;
use bursar::runner::Answer;
use bursar::simulator::{self, Options};
use serde_json::{Value, json};

use super::scene::deposit;
use crate::kit::SetClock;
use crate::stage::{Running, SENDER, Stage, eventually, everything, executed};

fn options(listen: &str) -> Options {
    Options {
        listen: listen.parse().unwrap(),
        ..Options::default()
    }
}

/// Hands a callback to the daemon.
pub async fn accept(daemon: &Running, body: &str) {
    let Options { key, secret, .. } = Options::default();
    let signature = Signer::new(&Secret::new(&secret)).sign(body.as_bytes());
    let runner = &daemon.runner;
    let answer = runner.accept(Some(&key), Some(&signature), body.as_bytes());
    assert_eq!(answer.await, Answer::Accepted);
}

/// A payment waits because the gateway cannot be reached; meanwhile the gateway reports it, because
/// somebody else has made it under the same key.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_the_gateway_reports_before_it_is_sent_is_not_sent_any_more() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    drop(free);
    let stage = Stage::with(options(&listen)).await.script(
        "pay.rhai",
        &format!(
            r#"schedule("pay", "0 0 1 1 *", |tick| {{
                gateway::withdraw(#{{ {SENDER}
                    foreign_id: "row-0", currency: "BTC", amount: 0.01, address: "tb1q",
                }});
            }});"#
        ),
    );
    let daemon = stage.start().await;
    stage.simulator.stop().await;
    let run = daemon.runner.trigger("pay", "pay", None).await.unwrap();
    eventually("it waits the longest between two tries", || async {
        let payment = daemon.runner.payment("row-0").ok()?;
        (payment["attempts"] == 3 && payment["status"] == "intended").then_some(())
    })
    .await;

    let sample = include_str!("../callbacks/withdrawal-confirmed.json");
    let mut body: Value = serde_json::from_str(sample).unwrap();
    body["foreign_id"] = json!("row-0");
    // A callback that shows another destination would not be taken for ours.
    body["crypto_address"]["address"] = json!("tb1q");
    body["transactions"][0]["address"] = json!("tb1q");
    let body = body.to_string();
    accept(&daemon, &body).await;

    let simulator = simulator::start(options(&listen)).await.unwrap();
    let run = daemon.closed(&run.to_string()).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.payment("row-0", "confirmed").await;
    // Whatever was on its way has arrived.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(simulator.control().executions(), []);
    daemon.stop().await;
}

/// Two runs want the same `once`. The first fails in the midst of it, for now, after what it did
/// is durable; it will go on. The second must not begin it again meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_once_that_a_run_will_go_on_with_is_not_begun_by_another() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    drop(free);
    let stage = Stage::with(options(&listen)).await.script(
        "pay.rhai",
        r#"
        on("deposit.confirmed", #{ retry: #{ first: "300ms", max: "1s", attempts: 20 } }, |event| {
            once("welcome", || {
                state::add("begun", 1);
                csv::write("welcome.csv", [#{ id: event.id }]);
                gateway::list_accounts();
                state::add("ended", 1);
            });
            state::add("runs", 1);
        });
        schedule("tell", "0 0 1 1 *", |tick| {
            state::list("");
        });"#,
    );
    let daemon = stage.start().await;
    stage.simulator.stop().await;
    for id in 1..=2 {
        accept(&daemon, &deposit(id, "customer")).await;
        eventually("the run has failed once", || async {
            let runs = daemon.runner.runs(&everything()).unwrap();
            (runs[0]["tries"].as_u64() >= Some(1)).then_some(())
        })
        .await;
    }
    let simulator = simulator::start(options(&listen)).await.unwrap();
    let runs = daemon.all_closed(2).await;
    let told = daemon.trigger("pay", "tell").await;
    let counts = &told["journal"][0]["value"];
    assert_eq!(
        *counts,
        json!({"begun": 1, "ended": 1, "runs": 2}),
        "{runs:#?}"
    );
    daemon.stop().await;
    simulator.stop().await;
}

/// A run catches that its `once` failed and pays outside of it: that payment is its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_after_a_once_that_failed_belongs_to_its_run_alone() {
    let stage = Stage::new().await.script(
        "pay.rhai",
        &format!(
            r#"on("deposit.confirmed", |event| {{
                for attempt in 0..2 {{
                    try {{
                        once("welcome", || {{ throw "no" }});
                    }} catch {{}}
                }}
                gateway::withdraw(#{{ {SENDER} currency: "BTC", amount: 0.01, address: "tb1q" }});
            }});"#
        ),
    );
    let daemon = stage.start().await;
    for id in 1..=2 {
        accept(&daemon, &deposit(id, "customer")).await;
    }
    let runs = daemon.all_closed(2).await;
    let ended = runs.iter().all(|run| run["state"] == "succeeded");
    assert!(ended, "{runs:#?}");
    assert_eq!(executed(&stage.control).len(), 2);
    daemon.stop().await;
}

/// The clock is set back and a schedule is changed, so that a slot is due a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_has_its_record_is_passed_over_and_keeps_nothing_back() {
    let script = |hours: &str| {
        format!(
            r#"schedule("first", "0 {hours} * * *", |tick| {{ }});
            schedule("second", "30 {hours} * * *", |tick| {{ }});"#
        )
    };
    let clock = SetClock::at("2026-03-02T10:59:59Z");
    let stage = Stage::new()
        .await
        .clock(Arc::<SetClock>::clone(&clock))
        .script("pay.rhai", &script("*"));
    let daemon = stage.start().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    clock.set("2026-03-02T11:00:00Z");
    daemon.all_closed(1).await;

    clock.set("2026-03-02T10:00:00Z");
    let set = daemon.runner.scripts()["set"].clone();
    stage.write("scripts/pay.rhai", &script("9-17"));
    eventually("the changed script is in use", || async {
        (daemon.runner.scripts()["set"] != set).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for (now, runs) in [("2026-03-02T11:30:00Z", 2), ("2026-03-02T12:00:00Z", 3)] {
        clock.set(now);
        daemon.all_closed(runs).await;
    }
    let runs = daemon.all_closed(3).await;
    let mut firings: Vec<_> = runs
        .iter()
        .map(|run| format!("{} {}", run["handler"], run["firing"]))
        .collect();
    firings.sort();
    firings.dedup();
    assert_eq!(firings.len(), 3, "{runs:#?}");
    daemon.stop().await;
}
