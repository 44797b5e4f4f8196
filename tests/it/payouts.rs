//! Payments from scripts: each once, whatever the gateway does.

use std::time::Duration;

use bursar::simulator::{Fault, Faults, Options, Rule};

use crate::stage::{SENDER, Stage, executed};

fn payout(rows: usize) -> String {
    format!(
        r#"
schedule("pay", "0 0 1 1 *", |tick| {{
    let rows = [];
    for n in 0..{rows} {{
        rows.push(#{{ {SENDER}
            foreign_id: `row-${{n}}`, currency: "BTC", amount: 0.01, address: `tb1q${{n}}`,
        }});
    }}
    let payments = gateway::withdraw_all(rows);
    log::info(`${{payments.len()}} payments`, #{{ first: payments[0].status }});
}});
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_paid_once_and_confirmed_by_callbacks() {
    let stage = Stage::new().await.script("pay.rhai", &payout(20));
    let daemon = stage.start().await;
    let run = daemon.trigger("pay", "pay").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    for row in 0..20 {
        let payment = daemon.payment(&format!("row-{row}"), "confirmed").await;
        assert_eq!(payment["attempts"], 1);
        assert_eq!(payment["place"], "pay.rhai:14");
    }
    let again = daemon.trigger("pay", "pay").await;
    assert_eq!(again["state"], "succeeded", "{again:#}");
    let executed = executed(&stage.control);
    assert_eq!(executed.len(), 20);
    assert!(executed.values().all(|count| *count == 1), "{executed:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_up_and_never_sent_again() {
    let faults = Faults(vec![Rule {
        per_mille: Some(300),
        ..Rule::always(Fault::DropAnswer)
    }]);
    let stage = Stage::with(Options {
        faults,
        settle_after: Some(Duration::from_millis(200)),
        ..Options::default()
    })
    .await
    .script("pay.rhai", &payout(40));
    let daemon = stage.start().await;
    let run = daemon.trigger("pay", "pay").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    for row in 0..40 {
        daemon.payment(&format!("row-{row}"), "confirmed").await;
    }
    let executions = stage.control.executions();
    assert_eq!(executions.len(), 40);
    assert!(executions.iter().all(|one| one.times_requested == 1));
    daemon.stop().await;
}
