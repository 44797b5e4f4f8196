//! Callbacks that were answered with 200 are handled once, whatever happens to the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bursar::simulator::Options;
use serde_json::{Value, json};

use super::chance::Chance;
use super::machine::Machine;
use super::scene::deposit;

/// Clients that post callbacks at the same time.
const CLIENTS: usize = 6;

const KILLS: usize = 6;

const SCRIPT: &str = r#"
on("deposit.confirmed", |event| {
    let customer = event.crypto_address.foreign_id;
    state::add(`handled/${customer}`, 1);
    // Durable before the file is written: state on both sides of an outside step.
    if customer.ends_with("7") {
        csv::write(`${customer}.csv`, [#{ customer: customer }]);
        state::add("sum/outside", 1);
    }
    state::add("sum/total", 1);
    state::add("sum/received", event.currency_received.amount);
});

schedule("tell", "0 0 1 1 *", |tick| {
    state::list("sum/");
    for group in 0..30 {
        state::list(`handled/${group}-`);
    }
});
"#;

/// Posts callbacks until told to stop: those that get no answer again and again, as the gateway
/// does, but of every third one the first attempt is the only one. Answers the acknowledged ones.
async fn post(
    machine: Arc<Machine>,
    numbers: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    while !stop.load(Ordering::SeqCst) {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let customer = format!("{}-{number}", number % 30);
        let body = deposit(number, &customer);
        loop {
            if machine.post_callback(&body).await {
                acknowledged.insert(customer);
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            if number.is_multiple_of(3) || stop.load(Ordering::SeqCst) {
                break;
            }
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_callback_is_handled_once_however_often_the_daemon_is_killed() {
    let seed = Chance::seed();
    println!("BURSAR_TEST_SEED={seed}");
    let mut chance = Chance::new(seed);
    let machine = Arc::new(Machine::new(SCRIPT, Options::default()).await);
    let numbers = Arc::new(AtomicUsize::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let client = || {
        post(
            Arc::clone(&machine),
            Arc::clone(&numbers),
            Arc::clone(&stop),
        )
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client())).collect();
    for _ in 0..KILLS {
        let process = machine.started().await;
        tokio::time::sleep(Duration::from_millis(chance.below(400))).await;
        process.kill();
    }
    let mut process = machine.started().await;
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = BTreeSet::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    machine.idle(&mut process).await;

    let state = machine.tell().await;
    let (sums, handled): (BTreeMap<_, _>, BTreeMap<_, _>) = state
        .into_iter()
        .partition(|(key, _)| key.starts_with("sum/"));
    assert!(
        handled.values().all(|times| *times == json!(1)),
        "{handled:?}"
    );
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|customer| !handled.contains_key(&format!("handled/{customer}")))
        .collect();
    assert!(lost.is_empty(), "answered with 200 and lost: {lost:?}");
    assert!(
        acknowledged.len() > KILLS * CLIENTS,
        "{}",
        acknowledged.len()
    );

    let outside = handled.keys().filter(|customer| customer.ends_with('7'));
    let cents = handled.len();
    let received: Value =
        serde_json::from_str(&format!("{}.{:02}000000", cents / 100, cents % 100)).unwrap();
    assert_eq!(sums["sum/total"], json!(handled.len()));
    assert_eq!(sums["sum/outside"], json!(outside.count()));
    assert_eq!(sums["sum/received"], received);
    assert!(process.terminate().await.success());
}
