//! The payout script: a CSV of 2,000 rows, read and paid with `withdraw_all`, without policy and
//! under one of twenty limits and rules, against a gateway that takes 20 ms to answer, 16 in flight.
//! Beside it the same requests from the gateway client alone, which is what client and simulated
//! gateway allow on the machine, and what the latency alone would.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bursar::domain::operation::Operation;
use bursar::gateway::{Client, Disposition, prepare};
use bursar::simulator::{self, Options};
use bursar::telemetry::Telemetry;
use serde_json::json;
use tokio::task::JoinSet;

use crate::world;

const ROWS: u32 = 2_000;
const LATENCY: Duration = Duration::from_millis(20);
const IN_FLIGHT: u32 = 16;

const SCRIPT: &str = r#"
schedule("pay", "0 0 1 1 *", |tick| {
    gateway::withdraw_all(csv::read("payouts.csv").map(|row| #{
        foreign_id: `payroll-${tick.date}-${row.id}`,
        currency: row.currency, amount: row.amount, address: row.address,
        end_user_reference: row.customer, sender_type: "legal",
        sender_data: #{ legal_name: "Shop Ltd", country_of_registration: "DEU" },
        receiver_type: "natural",
        receiver_data: #{ first_name: row.first_name, last_name: row.last_name, date_of_birth: row.born },
    }));
});
"#;

/// How often each is measured, in turn: single ones differ by some hundredths from one another.
const ROUNDS: usize = 5;

pub fn measure() {
    let policy = policy();
    let rounds = (0..ROUNDS).map(|_| {
        [
            requests_alone(),
            payouts_made("policy.max_batch = 2000\n"),
            payouts_made(&policy),
        ]
    });
    let rounds: Vec<_> = rounds.collect();
    let sorted = |of: fn(&[Duration; 3]) -> Duration| {
        let mut took: Vec<_> = rounds.iter().map(of).collect();
        took.sort();
        took
    };
    let alone = sorted(|[alone, _, _]| *alone);
    show("the requests alone", &alone, &alone);
    show(
        "without policy",
        &sorted(|[_, without, _]| *without),
        &alone,
    );
    show("with policy", &sorted(|[_, _, with]| *with), &alone);
}

/// What the rounds took, the shortest first.
fn show(name: &str, took: &[Duration], alone: &[Duration]) {
    let ideal = f64::from(IN_FLIGHT) / LATENCY.as_secs_f64();
    let percent = |took: Duration| f64::from(ROWS) / took.as_secs_f64() / ideal * 100.0;
    let middle = took[ROUNDS / 2];
    println!(
        "{name}: {ROWS} in {:.2} s, {:.0} per second, {:.1} % of the {ideal:.0} that the latency allows ({:.1} to {:.1} % in {ROUNDS} rounds), {:.0} % of the requests alone",
        middle.as_secs_f64(),
        f64::from(ROWS) / middle.as_secs_f64(),
        percent(middle),
        percent(took[ROUNDS - 1]),
        percent(took[0]),
        alone[ROUNDS / 2].as_secs_f64() / middle.as_secs_f64() * 100.0
    );
}

fn options() -> Options {
    Options {
        latency: LATENCY,
        settle_after: None,
        ..Options::default()
    }
}

/// The requests of the batch as the gateway client sends them, with nothing else around them.
fn requests_alone() -> Duration {
    let runtime = world::runtime();
    let took = runtime.block_on(async {
        let simulator = simulator::start(options()).await.unwrap();
        let config = world::config(&tempfile::tempdir().unwrap(), &world::toml(&simulator.base_url()));
        let client = Client::new(&config.gateway, &Telemetry::default()).unwrap();
        let next = Arc::new(AtomicU32::new(0));
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (client, next) = (client.clone(), Arc::clone(&next));
            tasks.spawn(async move {
                loop {
                    let row = next.fetch_add(1, Ordering::Relaxed);
                    if row >= ROWS {
                        return;
                    }
                    let prepared = prepare(Operation::Withdraw, &json!({
                        "foreign_id": format!("alone-{row}"), "currency": "BTC", "amount": "0.01",
                        "address": format!("tb1q{row}"), "end_user_reference": format!("customer-{row}"),
                        "sender_type": "legal",
                        "sender_data": { "legal_name": "Shop Ltd", "country_of_registration": "DEU" },
                        "receiver_type": "natural",
                        "receiver_data": { "first_name": "Ada", "last_name": "Lovelace", "date_of_birth": "1990-12-10" },
                    }));
                    let sent = client.send(&prepared.unwrap()).await;
                    assert!(matches!(sent, Disposition::Accepted(_)), "{sent:?}");
                }
            });
        }
        tasks.join_all().await;
        begin.elapsed()
    });
    runtime.shutdown_background();
    took
}

/// How long the payout script takes, from its firing to its end.
fn payouts_made(more: &str) -> Duration {
    let runtime = world::runtime();
    let took = runtime.block_on(async {
        let world = world::start_with(SCRIPT, more, options()).await;
        std::fs::write(world.folder.path().join("data/payouts.csv"), payouts()).unwrap();
        let runner = world.daemon.runner().clone();
        let begin = Instant::now();
        let run = runner.trigger("bench", "pay", None).await.unwrap();
        // Whatever looks at the run or at the ledger reads all payments, which would take from what is
        // looked at: only the number of open runs is asked for until there is none.
        tokio::time::sleep(LATENCY * ROWS / IN_FLIGHT).await;
        while runner.overview()["open_runs"] != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = begin.elapsed();
        let executed = world.simulator.control().executions().len();
        assert_eq!(executed, ROWS as usize, "each once");
        assert_eq!(runner.run(&run.to_string()).unwrap()["state"], "succeeded");
        took
    });
    runtime.shutdown_background();
    took
}

/// The rows to pay.
fn payouts() -> String {
    let row = |n| format!("{n},BTC,0.01,tb1q{n},customer-{n},Ada,Lovelace,1990-12-10\n");
    let head = "id,currency,amount,address,customer,first_name,last_name,born\n".to_owned();
    (0..ROWS)
        .map(row)
        .fold(head, |csv: String, row| csv + row.as_str())
}

/// Ten limits and ten rules that speak of every payment and refuse none.
fn policy() -> String {
    let mut text = "policy.max_batch = 2000\n".to_owned();
    for number in 0..10 {
        let (per, by) = [
            ("day", "all"),
            ("24h", "script"),
            ("month", "address"),
            ("payment", "all"),
        ][number % 4];
        write!(
            text,
            "[[policy.limit]]\nname = \"limit {number}\"\ncurrency = \"BTC\"\namount = \"1000\"\nper = \"{per}\"\nby = \"{by}\"\n"
        )
        .unwrap();
    }
    for number in 0..9 {
        write!(
            text,
            "[[policy.rule]]\nname = \"rule {number}\"\ncurrency = \"BTC\"\nabove = \"{}\"\ndecide = \"refuse\"\n",
            number + 1
        )
        .unwrap();
    }
    text.push_str("[[policy.rule]]\nname = \"rest\"\nfirst_seen = \"24h\"\ndecide = \"allow\"\n");
    text
}
