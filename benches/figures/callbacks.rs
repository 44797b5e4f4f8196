//! A signed callback, durable, answered 200 — beside a server that reads the body and does
//! nothing, under the same client in the same process.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use bursar::simulator::Options;

use crate::load::{Outcome, post_callbacks};
use crate::world;

const CONNECTIONS: usize = 64;
const LENGTH: Duration = Duration::from_secs(6);

pub fn measure() {
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
    let nothing = post_callbacks(address, CONNECTIONS, LENGTH);
    runtime.shutdown_background();
    show("no-op axum server", &nothing);
    for (name, script) in [
        ("durable, no handler", "// no handler\n"),
        (
            "durable, a handler with one state write",
            "on(\"deposit.confirmed\", |event| { state::add(`balance/${event.crypto_address.foreign_id}`, event.currency_received.amount_minus_fee); });\n",
        ),
    ] {
        let runtime = world::runtime();
        let world = runtime.block_on(world::start(script, Options::default()));
        let outcome = post_callbacks(world.daemon.callbacks_addr(), CONNECTIONS, LENGTH);
        show(name, &outcome);
        println!(
            "  against the no-op server: {:.2}",
            outcome.per_second / nothing.per_second
        );
        runtime.shutdown_background();
    }
}

fn show(name: &str, outcome: &Outcome) {
    println!(
        "{name}: {:.0} per second, p50 {:.2} ms, p99 {:.2} ms",
        outcome.per_second,
        outcome.p50.as_secs_f64() * 1000.0,
        outcome.p99.as_secs_f64() * 1000.0
    );
}
