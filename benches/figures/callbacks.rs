//! A signed callback, durable, answered 200 — beside a server that reads the body and does
//! nothing, under the same client in the same process.
//!
//! In rounds, because a shared machine is not as fast from one minute to the next: the ratios are of one
//! round, and the middle one counts. Every other round goes the other way round, because each
//! measurement may leave something to the next.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use bursar::simulator::Options;

use crate::load::{Outcome, middle, post_callbacks};
use crate::world;

const ROUNDS: usize = 9;
const CONNECTIONS: usize = 64;
const LENGTH: Duration = Duration::from_secs(4);

const HANDLER: &str = "on(\"deposit.confirmed\", |event| { state::add(`balance/${event.crypto_address.foreign_id}`, event.currency_received.amount_minus_fee); });\n";

pub fn measure() {
    let (mut accepted, mut handled, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let nothing = no_op();
        let [plain, with_handler] = if round % 2 == 0 {
            ["// no handler\n", HANDLER].map(durable)
        } else {
            let [with_handler, plain] = [HANDLER, "// no handler\n"].map(durable);
            [plain, with_handler]
        };
        let ((taken, all), (also_taken, ended)) = (plain, with_handler);
        println!(
            "no-op axum server: {:.0} per second; durable, no handler: {all:.0}, p50 {:.2} ms, p99 {:.2} ms; with a handler that writes state, until all runs have ended: {ended:.0}, p99 {:.2} ms",
            nothing.per_second,
            millis(taken.p50),
            millis(taken.p99),
            millis(also_taken.p99),
        );
        accepted.push(all / nothing.per_second);
        handled.push(ended / all);
        slowest.push(millis(taken.p99));
    }
    println!(
        "in the middle of {ROUNDS} rounds: {:.2} of the no-op server, p99 {:.1} ms; with a handler {:.2} of those without",
        middle(accepted),
        middle(slowest),
        middle(handled)
    );
}

fn no_op() -> Outcome {
    let runtime = world::runtime();
    let address = runtime.block_on(async {
        let app = Router::new().route(
            "/callbacks",
            post(|body: Bytes| async move {
                std::hint::black_box(body);
                StatusCode::OK
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    });
    let outcome = post_callbacks(address, CONNECTIONS, LENGTH);
    runtime.shutdown_background();
    outcome
}

/// Posts callbacks to a daemon with that script. Answers what the client saw, and how many a second
/// were taken in with all their runs ended.
fn durable(script: &str) -> (Outcome, f64) {
    let runtime = world::runtime();
    let world = runtime.block_on(world::start(script, Options::default()));
    let runner = world.daemon.runner();
    let begin = Instant::now();
    let outcome = post_callbacks(world.daemon.callbacks_addr(), CONNECTIONS, LENGTH);
    while runner.overview()["open_runs"] != 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let all = outcome.count as f64 / begin.elapsed().as_secs_f64();
    // To its end, so that its last checkpoint does not take the time of what is measured next.
    let stopped = runtime.block_on(world.daemon.run_until(async {}));
    stopped.unwrap();
    runtime.shutdown_timeout(Duration::from_secs(5));
    (outcome, all)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
