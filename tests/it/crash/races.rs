//! Things that happen between two steps of the same payment or run, without a crash: the same
//! windows as those of the crash points, reached in order.

use std::net::TcpListener;
use std::time::Duration;

use bursar::domain::secret::Secret;
use bursar::domain::signature::Signer;
use bursar::runner::Answer;
use bursar::simulator::{self, Options};
use serde_json::{Value, json};

use crate::stage::{SENDER, Stage, eventually};

fn options(listen: &str) -> Options {
    Options {
        listen: listen.parse().unwrap(),
        ..Options::default()
    }
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
    let body = body.to_string();
    let Options { key, secret, .. } = Options::default();
    let signature = Signer::new(&Secret::new(&secret)).sign(body.as_bytes());
    let runner = &daemon.runner;
    let answer = runner.accept(Some(&key), Some(&signature), body.as_bytes());
    assert_eq!(answer.await, Answer::Accepted);

    let simulator = simulator::start(options(&listen)).await.unwrap();
    let run = daemon.closed(run.as_str()).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.payment("row-0", "confirmed").await;
    // Whatever was on its way has arrived.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(simulator.control().executions(), []);
    daemon.stop().await;
}
