//! What an outage costs: the ends of payments are found and delivered, and the report says what
//! cannot be known.

use bursar::simulator::{self, Fault, Faults, Operation, Options, Rule};

use crate::kit::{SetClock, Shop, counted};
use crate::lost::by_a_stranger;
use crate::payments::{by_hand, withdraw};
use crate::stage::{Running, Stage, eventually};

/// A gateway whose callbacks never come, and a script that tells the shop of ends and alerts.
async fn stage_with(shop: &Shop, clock: &std::sync::Arc<SetClock>, faults: Vec<Rule>) -> Stage {
    let hooks = format!(
        r#"on("withdrawal.*", |event| {{ http::post("{0}/end", event); }});
        on("alert.*", |event| {{ http::post("{0}/alert", event); }});"#,
        shop.url
    );
    let pay = [withdraw("one", "0.01"), withdraw("two", "0.02")].join("; ");
    let stage = Stage::with(Options {
        faults: Faults(faults),
        settle_after: None,
        ..Options::default()
    });
    stage
        .await
        .clock(clock.clone())
        .config(&shop.allowed())
        .script("hooks.rhai", &hooks)
        .script("a.rhai", &by_hand(&pay))
}

/// Waits until the first round after the start is over.
async fn caught_up(daemon: &Running) {
    eventually("the first round is over", || async {
        daemon.runner.is_caught_up().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_outage_what_ended_meanwhile_is_delivered_and_reported() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let stage = stage_with(&shop, &clock, vec![Rule::always(Fault::CallbackNever)]).await;
    let daemon = stage.start().await;
    caught_up(&daemon).await;
    daemon.trigger("a", "go").await;
    daemon.payment("two", "accepted").await;
    daemon.stop().await;
    stage.control.settle("one", "confirmed").unwrap();
    // As long as callbacks are sent again: no gap, whatever was found.
    clock.set("2026-11-23T12:20:00Z");
    let daemon = stage.start().await;
    daemon.payment("one", "confirmed").await;
    assert_eq!(
        shop.visited("/end", 1).await[0].body["source"],
        "reconciled"
    );
    caught_up(&daemon).await;
    daemon.stop().await;
    stage.control.settle("two", "cancelled").unwrap();
    clock.set("2026-11-26T08:00:00Z");
    let daemon = stage.start().await;
    daemon.payment("two", "cancelled").await;
    let ends = shop.visited("/end", 2).await;
    assert_eq!(ends[1].body["kind"], "withdrawal.cancelled");
    assert_eq!(ends[1].body["source"], "reconciled");
    let alert = shop.visited("/alert", 1).await.remove(0).body;
    assert_eq!(alert["kind"], "alert.gap");
    assert!(
        alert["from"]
            .as_str()
            .unwrap()
            .starts_with("2026-11-23T12:20")
    );
    assert!(
        alert["to"]
            .as_str()
            .unwrap()
            .starts_with("2026-11-26T08:00")
    );
    assert_eq!(alert["open"], 1);
    assert_eq!(alert["ended"], 1);
    assert_eq!(alert["unanswered"], 0);
    assert_eq!(alert["payments"][0]["foreign_id"], "two");
    assert_eq!(alert["payments"][0]["status"], "cancelled");
    assert!(alert["not_known"].as_str().unwrap().contains("deposits"));
    daemon.stop().await;
    // It is told once.
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    assert_eq!(shop.received("/alert").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_which_the_gateway_says_nothing_is_reported_as_such() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let stage = stage_with(&shop, &clock, Vec::new()).await;
    let daemon = stage.start().await;
    caught_up(&daemon).await;
    daemon.trigger("a", "go").await;
    daemon.payment("two", "accepted").await;
    daemon.stop().await;
    stage.control.set_faults(Faults(vec![Rule {
        operation: Some(Operation::TransactionInfo),
        ..Rule::always(Fault::ErrorBeforeActing)
    }]));
    clock.set("2026-11-24T12:00:00Z");
    let daemon = stage.start().await;
    let alert = shop.visited("/alert", 1).await.remove(0).body;
    assert_eq!(alert["kind"], "alert.gap");
    assert_eq!((&alert["open"], &alert["ended"]), (&2.into(), &0.into()));
    assert_eq!(alert["unanswered"], 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_and_a_short_stop_are_no_gap() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let stage = stage_with(&shop, &clock, Vec::new()).await;
    let daemon = stage.start().await;
    caught_up(&daemon).await;
    daemon.stop().await;
    // It goes on remembering while it runs.
    let daemon = stage.start().await;
    caught_up(&daemon).await;
    let commits = "bursar_store_commits_total{outcome=\"ok\"}";
    let before = counted(&daemon, commits).await;
    clock.set("2026-11-25T12:00:00Z");
    eventually("a note is taken", || async {
        (counted(&daemon, commits).await > before).then_some(())
    })
    .await;
    daemon.stop().await;
    clock.set("2026-11-26T12:00:00Z");
    let daemon = stage.start().await;
    caught_up(&daemon).await;
    daemon.trigger("a", "go").await;
    assert!(shop.received("/alert").is_empty());
    daemon.stop().await;
}

/// Waits until the balances have been read so many times.
async fn read(stage: &Stage, times: u64) {
    eventually(&format!("the balances are read {times} times"), || async {
        let requests = stage.control.requests();
        (requests.get(&Operation::Accounts).copied()? >= times).then_some(())
    })
    .await;
    // Answered, compared and on disk.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_leaves_by_another_way_is_an_alert_and_our_own_payments_are_none() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let stage = stage_with(&shop, &clock, Vec::new()).await;
    let daemon = stage.start().await;
    read(&stage, 1).await;
    clock.set("2026-11-22T12:05:00Z");
    daemon.trigger("a", "go").await;
    daemon.payment("two", "accepted").await;
    daemon.stop().await;
    clock.set("2026-11-22T12:10:00Z");
    let daemon = stage.start().await;
    read(&stage, 2).await;
    assert!(shop.received("/alert").is_empty());
    for payment in ["one", "two"] {
        stage.control.settle(payment, "confirmed").unwrap();
        daemon.payment(payment, "confirmed").await;
    }
    daemon.stop().await;
    clock.set("2026-11-22T12:15:00Z");
    let daemon = stage.start().await;
    read(&stage, 3).await;
    assert!(shop.received("/alert").is_empty());
    daemon.stop().await;
    by_a_stranger(&stage, "dashboard", "0.5", "tb1qstranger").await;
    clock.set("2026-11-22T12:20:00Z");
    let daemon = stage.start().await;
    let alert = shop.visited("/alert", 1).await.remove(0).body;
    assert_eq!(alert["kind"], "alert.balance_drop");
    assert_eq!(alert["currency"], "BTC");
    assert_eq!(alert["unexplained"].as_f64(), Some(0.5));
    assert_eq!(alert["may_have_left"].as_f64(), Some(0.0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_answer_for_minutes_is_told_once_and_so_is_its_return() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let shop = Shop::open().await;
    let mut stage = stage_with(&shop, &clock, Vec::new()).await;
    let daemon = stage.start().await;
    let address = stage.simulator.addr();
    let spare = simulator::start(Options::default()).await.unwrap();
    std::mem::replace(&mut stage.simulator, spare).stop().await;
    daemon.runner.trigger("a", "go", None).await.unwrap();
    daemon.payment("one", "intended").await;
    // Within the minutes nothing is said; each look of the daemon is a second apart.
    for time in ["12:02:00", "12:06:00", "12:09:00"] {
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        clock.set(&format!("2026-11-22T{time}Z"));
    }
    let told = shop.visited("/alert", 1).await;
    assert_eq!(told[0].body["kind"], "alert.gateway_unreachable");
    stage.simulator = simulator::start(Options {
        listen: address,
        ..Options::default()
    })
    .await
    .unwrap();
    clock.set("2026-11-22T12:12:00Z");
    let told = shop.visited("/alert", 2).await;
    assert_eq!(told[1].body["kind"], "alert.gateway_reachable");
    assert_eq!(told.len(), 2);
    daemon.stop().await;
}
