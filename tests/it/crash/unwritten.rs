//! Runs that the store does not have yet when the process dies, but for their events.

use std::collections::BTreeMap;
use std::io::Write;

use bursar::domain::id::RunId;
use bursar::runner::Filter;
use bursar::simulator::Options;
use bursar::store::schema::{OPEN_RUNS, RUNS, UNWRITTEN};
use bursar::store::{Order, Range, Store};
use bursar::telemetry::Telemetry;
use serde_json::{Value, json};

use super::machine::Machine;
use super::races::accept;
use super::scene::deposit;
use crate::kit::{SetClock, Shop, deliver};
use crate::stage::{Stage, eventually, everything};

const CALLBACKS: usize = 6;

fn open(path: &std::path::Path) -> Store {
    let options = bursar::store::Options {
        cache_bytes: 1024 * 1024,
        segment_bytes: 1024 * 1024,
    };
    Store::open(path, &options, &Telemetry::default()).unwrap()
}

/// The runs as people are shown them, oldest first, without what changes as they go on.
async fn shown(machine: &Machine) -> Vec<Value> {
    let mut runs = machine.list("runs?script=pay&handler=hook").await.unwrap();
    runs.reverse();
    for run in &mut runs {
        let run = run.as_object_mut().unwrap();
        run.retain(|name, _| !["state", "ended_at"].contains(&name.as_str()));
    }
    runs
}

async fn states(machine: &Machine) -> Vec<String> {
    let runs = machine.list("runs?script=pay&handler=hook").await.unwrap();
    let states = runs.iter().rev().map(|run| run["state"].as_str().unwrap());
    states.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_runs_are_shown_cancelled_and_found_again_although_only_their_events_are_written() {
    let shop = Shop::open().await;
    shop.hold("/gate");
    let script = format!(
        r#"
on("deposit.confirmed", #{{ name: "hook" }}, |event| {{
    http::post("{}/gate", 1);
    state::add(`handled/${{event.crypto_address.foreign_id}}`, 1);
}});
schedule("tell", "0 0 1 1 *", |tick| {{ state::list("handled/"); }});
"#,
        shop.url
    );
    let machine = Machine::new(&script, Options::default()).await;
    let toml = std::fs::OpenOptions::new()
        .append(true)
        .open(machine.path("daemon.toml"));
    let limits = "scripts.limits.concurrent_runs = 1\n";
    write!(toml.unwrap(), "{limits}{}", shop.allowed()).unwrap();

    let process = machine.started().await;
    for number in 0..CALLBACKS {
        let customer = format!("c{number}");
        assert!(machine.post_callback(&deposit(number + 1, &customer)).await);
    }
    shop.visited("/gate", 1).await;
    let expected = ["running", "queued", "queued", "queued", "queued", "queued"];
    assert_eq!(states(&machine).await, expected);
    let before = shown(&machine).await;
    let ids: Vec<&str> = before
        .iter()
        .map(|run| run["id"].as_str().unwrap())
        .collect();
    let one = machine.get(&format!("/api/v1/runs/{}", ids[5])).await;
    assert_eq!(one.unwrap()["state"], "queued");
    let limited = machine.list("runs?handler=hook&limit=2").await.unwrap();
    assert_eq!(
        (&limited[0]["id"], &limited[1]["id"]),
        (&json!(ids[5]), &json!(ids[4]))
    );
    let (code, said) = machine.bursar(&["runs", "cancel", ids[3]]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(states(&machine).await[3], "cancelled");
    process.kill();

    // All of them were answered with 200, and only the cancelled one has a record.
    let store = open(&machine.path("state"));
    let written = store.keys(&RUNS, &Range::all(), 100, Order::Ascending);
    let cancelled: RunId = ids[3].parse().unwrap();
    assert_eq!(written.unwrap(), [cancelled]);
    store.close().await.unwrap();

    // It dies again as soon as it has written them.
    let process = machine.started().await;
    process.kill();
    let mut process = machine.started().await;
    assert_eq!(shown(&machine).await, before);
    shop.release("/gate");
    machine.idle(&mut process).await;
    assert_eq!(shown(&machine).await, before);
    let ended = [
        "succeeded",
        "succeeded",
        "succeeded",
        "cancelled",
        "succeeded",
        "succeeded",
    ];
    assert_eq!(states(&machine).await, ended);
    let handled = machine.tell().await;
    let customers = [0, 1, 2, 4, 5].map(|number| (format!("handled/c{number}"), json!(1)));
    assert_eq!(handled, customers.into());
    process.kill();
    let store = open(&machine.path("state"));
    let open = store.keys(&OPEN_RUNS, &Range::all(), 100, Order::Ascending);
    assert_eq!(open.unwrap(), []);
}

/// A handler that visits the shop, and one that the handling of one customer starts.
fn visits(shop: &Shop) -> String {
    format!(
        r#"
on("deposit.confirmed", |event| {{
    let customer = event.crypto_address.foreign_id;
    http::post(`{}/${{customer}}`, 1);
    state::add(`handled/${{customer}}`, 1);
    emit(`handled.${{customer}}`, 1);
}});
on("handled.after", #{{ name: "after" }}, |event| {{ state::add("after", 1); }});
schedule("tell", "0 0 1 1 *", |tick| {{ state::list(""); }});
"#,
        shop.url
    )
}

/// What is copied while the daemon works is what a process leaves that dies at that moment.
#[tokio::test(flavor = "multi_thread")]
async fn runs_from_before_and_after_the_last_note_are_found_again_and_no_other_is_made_anew() {
    let shop = Shop::open().await;
    let clock = SetClock::at("2026-03-01T12:00:00Z");
    let stage = Stage::new()
        .await
        .clock(clock.clone())
        .config(&format!("history.keep = \"1d\"\n{}", shop.allowed()))
        .script("a.rhai", &visits(&shop));
    let daemon = stage.start().await;
    let posted = async |number: usize, customer: &str| {
        let body = deposit(number, customer);
        assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
    };
    posted(1, "old").await;
    daemon.all_closed(1).await;
    clock.set("2026-04-01T12:00:00Z");
    shop.hold("/before");
    shop.hold("/after");
    posted(2, "before").await;
    shop.visited("/before", 1).await;
    // This notes that one run is not written, and deletes one that is.
    assert_eq!(daemon.runner.tidy_up().await.runs, 1);
    posted(3, "done").await;
    eventually("one of three runs has ended", || async {
        let runs = daemon.runner.runs(&everything()).unwrap();
        let ended = |run: &&Value| run["state"] == "succeeded";
        (runs.as_array()?.iter().filter(ended).count() == 1).then_some(())
    })
    .await;
    posted(4, "after").await;
    shop.visited("/after", 1).await;
    let copy = stage.path("copy");
    daemon.runner.backup(&copy).await.unwrap();
    shop.release("/before");
    shop.release("/after");
    daemon.stop().await;

    let mut config = stage.resolved();
    config.store.path = copy;
    // What comes now comes after them all the same.
    clock.set("2026-03-01T12:00:00Z");
    let daemon = stage.start_as(config).await;
    daemon.trigger("a", "tell").await;
    // That, three deposits, and what follows one of them.
    daemon.all_closed(5).await;
    let told = daemon.trigger("a", "tell").await;
    let kept = &told["journal"][0]["value"];
    let expected = [
        "handled/old",
        "handled/before",
        "handled/after",
        "handled/done",
        "after",
    ];
    let expected: BTreeMap<_, _> = expected.map(|key| (key, 1)).into();
    assert_eq!(kept, &json!(expected));
    for (customer, times) in [("old", 1), ("before", 2), ("after", 2), ("done", 1)] {
        assert_eq!(
            shop.received(&format!("/{customer}")).len(),
            times,
            "{customer}"
        );
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_start_looks_through_does_not_grow_with_the_history() {
    const ROUNDS: usize = 4;
    const CALLBACKS: usize = 300;
    let script = r#"on("deposit.confirmed", |event| { state::add("n", 1); });"#;
    let stage = Stage::new().await.script("a.rhai", script);
    let daemon = stage.start().await;
    let mut newest = Vec::new();
    for number in 1..=ROUNDS * CALLBACKS {
        accept(&daemon, &deposit(number, "c")).await;
        if number.is_multiple_of(CALLBACKS) {
            eventually("all are handled", || async {
                (daemon.runner.overview()["open_runs"] == 0).then_some(())
            })
            .await;
            daemon.runner.wake().await;
            let one = Filter {
                limit: 1,
                ..Filter::EVERYTHING
            };
            let rows = daemon.runner.runs(&one).unwrap();
            let run: RunId = rows[0]["id"].as_str().unwrap().parse().unwrap();
            newest.push(run.order());
        }
    }
    let copy = stage.path("copy");
    daemon.runner.backup(&copy).await.unwrap();
    daemon.stop().await;
    let store = open(&copy);
    let note = store.get(&UNWRITTEN, &String::new()).unwrap().unwrap();
    assert!(
        note.until >= newest[ROUNDS / 2 - 1],
        "{} of {newest:?}",
        note.until
    );
    let runs = store.keys(&RUNS, &Range::all(), usize::MAX, Order::Ascending);
    assert_eq!(runs.unwrap().len(), ROUNDS * CALLBACKS);
}
