//! The payout script: a CSV of 2,000 rows, read and paid with `withdraw_all` under a policy of twenty
//! limits and rules, against a gateway that takes 20 ms to answer, 16 in flight, beside what that
//! allows at most.

use std::fmt::Write;
use std::time::{Duration, Instant};

use bursar::simulator::Options;

use crate::world;

const ROWS: u32 = 2_000;
const LATENCY: Duration = Duration::from_millis(20);
const IN_FLIGHT: u32 = 16;

pub fn measure() {
    let script = r#"
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
    let runtime = world::runtime();
    let took = runtime.block_on(async {
        let options = Options {
            latency: LATENCY,
            settle_after: None,
            ..Options::default()
        };
        let world = world::start_with(script, &policy(), options).await;
        std::fs::write(world.folder.path().join("data/payouts.csv"), payouts()).unwrap();
        let runner = world.daemon.runner().clone();
        let begin = Instant::now();
        let run = runner.trigger("bench", "pay", None).await.unwrap();
        // Looking at the run reads all of its payments, which would take from what is looked at;
        // it cannot be over before this.
        tokio::time::sleep(LATENCY * ROWS / IN_FLIGHT).await;
        while world.simulator.control().executions().len() < ROWS as usize {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        loop {
            let state = runner.run(&run.to_string()).unwrap()["state"].clone();
            if state == "succeeded" {
                break;
            }
            assert_ne!(state, "parked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = begin.elapsed();
        let executed = world.simulator.control().executions().len();
        assert_eq!(executed, ROWS as usize, "each once");
        took
    });
    runtime.shutdown_background();
    let rate = f64::from(ROWS) / took.as_secs_f64();
    let ideal = f64::from(IN_FLIGHT) / LATENCY.as_secs_f64();
    println!(
        "{ROWS} payments in {:.2} s: {rate:.0} per second, {:.0} % of the ideal {ideal:.0}",
        took.as_secs_f64(),
        rate / ideal * 100.0
    );
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
