//! `withdraw_all` of 2,000 against a gateway that takes 20 ms to answer, 16 in flight, beside what
//! that allows at most.

use std::time::{Duration, Instant};

use bursar::simulator::Options;

use crate::world;

const ROWS: u32 = 2_000;
const LATENCY: Duration = Duration::from_millis(20);
const IN_FLIGHT: u32 = 16;

pub fn measure() {
    let script = format!(
        r#"
schedule("pay", "0 0 1 1 *", |tick| {{
    let rows = [];
    for n in 0..{ROWS} {{
        rows.push(#{{
            foreign_id: `row-${{n}}`, currency: "BTC", amount: 0.01, address: `tb1q${{n}}`,
            end_user_reference: "customer", sender_type: "legal",
            sender_data: #{{ legal_name: "Shop Ltd", country_of_registration: "DEU" }},
            receiver_type: "natural",
            receiver_data: #{{ first_name: "Ada", last_name: "Lovelace", date_of_birth: "1990-12-10" }},
        }});
    }}
    gateway::withdraw_all(rows);
}});
"#
    );
    let runtime = world::runtime();
    let took = runtime.block_on(async {
        let options = Options {
            latency: LATENCY,
            settle_after: None,
            ..Options::default()
        };
        let world = world::start(&script, options).await;
        let runner = world.daemon.runner().clone();
        let begin = Instant::now();
        let run = runner.trigger("bench", "pay", None).await.unwrap();
        loop {
            let state = runner.run(&run.to_string()).unwrap()["state"].clone();
            if state == "succeeded" {
                break;
            }
            assert_ne!(state, "parked");
            tokio::time::sleep(Duration::from_millis(2)).await;
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
