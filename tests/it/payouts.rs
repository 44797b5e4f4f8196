//! Payments from scripts: each once, whatever the gateway does.

use std::time::Duration;

use bursar::simulator::{Fault, Faults, Options, Rule};

use crate::stage::{SENDER, Stage, eventually, everything, executed};

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

/// Of a batch nothing is on record that has not its turn: a run that is cancelled, or a daemon that
/// dies, leaves the rest of the rows unasked for. A payment that is alone is on record at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_batch_are_decided_in_their_turn_and_a_single_payment_at_once() {
    let single = format!(
        r#"schedule("one", "0 0 1 1 *", |tick| {{
            gateway::withdraw(#{{ {SENDER} foreign_id: "single", currency: "BTC", amount: 0.01, address: "tb1q" }});
        }});"#
    );
    let stage = Stage::new()
        .await
        .config("gateway.max_in_flight = 4\n")
        .script("pay.rhai", &payout(20))
        .script("one.rhai", &single);
    let slow = Rule::always(Fault::Delay(5_000));
    stage.control.set_faults(Faults(vec![slow]));
    let daemon = stage.start().await;
    let in_state = |state| {
        let payments = daemon.runner.payments(&everything()).unwrap();
        let payments = payments.as_array().unwrap().clone();
        payments.iter().filter(|one| one["status"] == state).count()
    };
    let batch = daemon.runner.trigger("pay", "pay", None).await.unwrap();
    // Four are under way and two are next, decided and marked in one.
    eventually("as many as have their turn are marked", || async {
        (in_state("sending") == 6).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((in_state("sending"), in_state("intended")), (6, 0));
    let single = daemon.runner.trigger("one", "one", None).await.unwrap();
    daemon.payment("single", "intended").await;
    stage.control.set_faults(Faults::default());
    for run in [batch, single] {
        let run = daemon.closed(&run.to_string()).await;
        assert_eq!(run["state"], "succeeded", "{run:#}");
    }
    let executed = executed(&stage.control);
    assert_eq!(executed.len(), 21);
    assert!(executed.values().all(|count| *count == 1), "{executed:?}");
    daemon.stop().await;
}
