//! What people see of runs and do with them, and what is deleted of the past.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bursar::domain::clock::Timestamp;
use bursar::domain::handler::EventTrigger;
use bursar::domain::id::{ForeignId, HandlerId, RunId};
use bursar::domain::run::RunState;
use bursar::domain::wait::{Payments, Shape, Wait, WaitFor, wanted};
use bursar::simulator::{Operation, Options};
use bursar::store::schema::{
    Mark, RUNS, SETS, SLOTS, STEPS, WAITS_BY_EVENT, WAITS_BY_PAYMENT, WAITS_BY_PLAN, WAITS_BY_TIME,
};
use bursar::store::{Changes, Order, Range, Store, Table};
use bursar::telemetry::Telemetry;
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop, counted, deliver};
use crate::payments::{by_hand, withdraw};
use crate::stage::{Running, Stage, eventually};

/// Retries come at once.
const SOON: &str = r#"retry: #{ first: "1ms", max: "1ms" }"#;

/// The command line against a daemon: exit code, standard output, standard error.
async fn bursar(daemon: &Running, arguments: &[&str]) -> (i32, String, String) {
    let listen = daemon.admin.strip_prefix("http://").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(arguments).env_clear();
    command.env("BURSAR__ADMIN__LISTEN", listen);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Its output, when it has to succeed.
async fn shown(daemon: &Running, arguments: &[&str]) -> String {
    let (code, out, err) = bursar(daemon, arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out
}

/// Its error, when it has to fail.
async fn refused(daemon: &Running, arguments: &[&str]) -> String {
    let (code, out, err) = bursar(daemon, arguments).await;
    assert_eq!((code, out.as_str()), (1, ""), "{arguments:?}: {err}");
    err
}

/// The ids that `runs list` shows with these filters, newest first.
async fn listed(daemon: &Running, filters: &[&str]) -> Vec<String> {
    let arguments = [&["runs", "list", "--json"], filters].concat();
    let rows: Value = serde_json::from_str(&shown(daemon, &arguments).await).unwrap();
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| text(&row["id"])).collect()
}

/// Posts to the admin API. Answers status and body.
async fn post(daemon: &Running, path: &str, body: &Value) -> (u16, Value) {
    let request = reqwest::Client::new()
        .post(format!("{}/api/v1/{path}", daemon.admin))
        .header("content-type", "application/json")
        .body(body.to_string());
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

async fn fire(daemon: &Running, script: &str) -> String {
    let run = daemon.runner.trigger(script, "go", None).await.unwrap();
    run.to_string()
}

async fn happens(daemon: &Running, kind: &str, id: u64, status: &str) {
    let body = json!({"id": id, "type": kind, "status": status}).to_string();
    assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
}

async fn is_in_state(daemon: &Running, run: &str, state: &str) -> Value {
    eventually(&format!("{run} is {state}"), || async {
        let shown = daemon.runner.run(run).unwrap();
        (shown["state"] == state).then_some(shown)
    })
    .await
}

/// Saves a script and waits until it is in use.
async fn save(stage: &Stage, daemon: &Running, source: &str) {
    let before = daemon.runner.scripts()["set"].clone();
    stage.write("scripts/a.rhai", source);
    eventually("the new script is in use", || async {
        (daemon.runner.scripts()["set"] != before).then_some(())
    })
    .await;
}

fn withdrawals(stage: &Stage) -> u64 {
    let requests = stage.control.requests();
    requests
        .get(&Operation::Withdrawal)
        .copied()
        .unwrap_or_default()
}

/// Waits until no run is open.
async fn nothing_is_open(daemon: &Running) {
    eventually("no run is open", || async {
        (daemon.runner.overview()["open_runs"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_run_goes_on_with_the_mended_script_and_repeats_nothing() {
    let shop = Shop::open().await;
    let script = |end: &str| {
        by_hand(&format!(
            r#"let payment = {}; http::post("{}/told", payment.foreign_id); {end};"#,
            withdraw("one", "0.01"),
            shop.url
        ))
    };
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .script("a.rhai", &script("payment.nonsense.more"));
    let daemon = stage.start().await;
    let id = fire(&daemon, "a").await;
    let parked = daemon.closed(&id).await;
    assert_eq!(parked["state"], "parked", "{parked:#}");

    // On its own scripts it makes the same mistake again.
    let told = shown(&daemon, &["runs", "retry", &id]).await;
    assert!(told.contains(&format!("bursar runs show {id}")), "{told}");
    let again = daemon.closed(&id).await;
    assert_eq!(again["state"], "parked", "{again:#}");
    assert_eq!(again["journal"], parked["journal"]);

    save(&stage, &daemon, &script(r#"log::info("mended")"#)).await;
    let (status, body) = post(
        &daemon,
        &format!("runs/{id}/retry"),
        &json!({"latest": true}),
    )
    .await;
    assert_eq!((status, &body["state"]), (200, &json!("queued")), "{body}");
    let mended = daemon.closed(&id).await;
    assert_eq!(mended["state"], "succeeded", "{mended:#}");
    assert_eq!(
        (&mended["error"], &mended["tries"]),
        (&Value::Null, &json!(0))
    );
    assert_eq!(mended["set_is_current"], true);
    assert_eq!((withdrawals(&stage), shop.received("/told").len()), (1, 1));

    let (status, body) = post(&daemon, &format!("runs/{id}/retry"), &json!({})).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (409, &json!("not_parked"))
    );
    let err = refused(&daemon, &["runs", "retry", &id]).await;
    assert!(err.contains("is succeeded: only a parked run"), "{err}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_run_that_asks_for_something_else_is_parked_and_never_guesses() {
    let shop = Shop::open().await;
    let script =
        |path: &str, end: &str| by_hand(&format!(r#"http::post("{}{path}", 1); {end};"#, shop.url));
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script("/first", r#"throw "broken""#));
    let daemon = stage.start().await;
    let id = fire(&daemon, "a").await;
    daemon.closed(&id).await;
    save(&stage, &daemon, &script("/other", "let fine = 1")).await;
    shown(&daemon, &["runs", "retry", &id, "--latest"]).await;
    let run = daemon.closed(&id).await;
    assert_eq!(run["state"], "parked", "{run:#}");
    let error = text(&run["error"]);
    assert!(
        error.contains("/first") && error.contains("/other"),
        "{error}"
    );
    assert!(shop.received("/other").is_empty());

    // Scripts without its handler are none to go on with.
    save(&stage, &daemon, r#"on("a.b", |event| {});"#).await;
    let err = refused(&daemon, &["runs", "retry", &id, "--latest"]).await;
    assert!(err.contains("no handler `go` in the script `a`"), "{err}");
    save(
        &stage,
        &daemon,
        r#"on("a.b", #{ name: "go" }, |event| {});"#,
    )
    .await;
    let (status, body) = post(
        &daemon,
        &format!("runs/{id}/retry"),
        &json!({"latest": true}),
    )
    .await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (409, &json!("no_handler"))
    );
    assert_eq!(is_in_state(&daemon, &id, "parked").await["set"], run["set"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_run_survives_a_restart_and_keeps_its_turn() {
    let shop = Shop::open().await;
    let script = format!(
        r#"on("deposit.*", |event| {{
            let answer = http::post("{0}/got", event.status);
            if event.status == "confirmed" && http::post("{0}/check", 1).status != 201 {{ throw "not yet"; }}
        }});"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    happens(&daemon, "deposit", 1, "confirmed").await;
    let run = text(&daemon.all_closed(1).await[0]["id"]);
    assert_eq!(daemon.runner.run(&run).unwrap()["state"], "parked");

    // Another run of its lane is under way: the retried one waits for it.
    shop.hold("/got");
    happens(&daemon, "deposit", 1, "not_confirmed").await;
    shop.visited("/got", 2).await;
    shown(&daemon, &["runs", "retry", &run]).await;
    let waiting = daemon.runner.run(&run).unwrap();
    assert_eq!(waiting["state"], "queued", "{waiting:#}");
    assert_eq!(waiting["error"], Value::Null);
    daemon.runner.wake().await;
    shop.release("/got");
    let runs = daemon.all_closed(2).await;
    let states: Vec<&Value> = runs.iter().map(|run| &run["state"]).collect();
    assert_eq!(states, ["succeeded", "parked"], "{runs:#?}");

    daemon.stop().await;
    let daemon = stage.start().await;
    shown(&daemon, &["runs", "retry", &run]).await;
    assert_eq!(daemon.closed(&run).await["state"], "parked");
    assert_eq!(shop.received("/got").len(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_run_never_executes_a_once_that_another_run_has_finished() {
    let shop = Shop::open().await;
    let script = format!(
        r#"on("deposit.*", |event| {{
            once("welcome", || {{
                http::post("{0}/welcome", event.id);
                if event.id == 1 {{ throw "broken"; }}
                http::post("{0}/gift", event.id);
            }});
        }});"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    happens(&daemon, "deposit", 1, "confirmed").await;
    let broken = text(&daemon.all_closed(1).await[0]["id"]);
    happens(&daemon, "deposit", 2, "confirmed").await;
    daemon.all_closed(2).await;
    assert_eq!(shop.received("/gift").len(), 1);

    save(&stage, &daemon, &script.replace("event.id == 1", "false")).await;
    shown(&daemon, &["runs", "retry", &broken, "--latest"]).await;
    let run = daemon.closed(&broken).await;
    assert_eq!(run["state"], "parked", "{run:#}");
    let error = text(&run["error"]);
    assert!(error.contains("`once(\"welcome\")`"), "{error}");
    assert!(error.contains("finished by another run"), "{error}");
    assert_eq!(shop.received("/gift").len(), 1, "the closure ran twice");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_run_goes_on_inside_of_a_once_that_is_still_its_own() {
    let shop = Shop::open().await;
    let script = format!(
        r#"on("deposit.*", |event| {{
            once("welcome", || {{
                http::post("{0}/welcome", event.id);
                if true {{ throw "broken"; }}
                http::post("{0}/gift", event.id);
            }});
        }});"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    happens(&daemon, "deposit", 1, "confirmed").await;
    happens(&daemon, "deposit", 2, "confirmed").await;
    let runs = daemon.all_closed(2).await;
    // The second one has taken the claim of the first over: only it goes on.
    let claimed = shop.received("/welcome").pop().unwrap().body;
    save(&stage, &daemon, &script.replace("if true", "if false")).await;
    for run in &runs {
        let id = text(&run["id"]);
        shown(&daemon, &["runs", "retry", &id, "--latest"]).await;
        let run = daemon.closed(&id).await;
        let key = text(&run["input"]["event"]);
        if key.contains(&format!(":{claimed}:")) {
            assert_eq!(run["state"], "succeeded", "{run:#}");
        } else {
            assert_eq!(run["state"], "parked", "{run:#}");
            assert!(text(&run["error"]).contains("must not be executed twice"));
        }
    }
    let gifts = shop.received("/gift");
    assert_eq!(gifts.len(), 1);
    assert_eq!(
        (&gifts[0].body, shop.received("/welcome").len()),
        (&claimed, 2)
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_lets_its_lane_go_on() {
    let shop = Shop::open().await;
    let script = format!(
        r#"on("deposit.*", #{{ {SOON} }}, |event| {{ http::post("{0}/got", event.status); http::post("{0}/then", event.status); }});"#,
        shop.url
    );
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    shop.hold("/got");
    for status in ["processing", "confirmed", "cancelled"] {
        happens(&daemon, "deposit", 1, status).await;
    }
    shop.visited("/got", 1).await;
    let runs = listed(&daemon, &[]).await;
    let [last, behind, first] = runs.as_slice() else {
        panic!("{runs:?}")
    };

    let told = shown(&daemon, &["runs", "cancel", behind]).await;
    assert!(told.starts_with("cancelled; payments"), "{told}");
    let run = daemon.runner.run(behind).unwrap();
    assert_eq!(
        (&run["state"], run["ended_at"].is_null()),
        (&json!("cancelled"), false)
    );

    // The one that is executed is told to end, and does so before its next step.
    let told = shown(&daemon, &["runs", "cancel", first]).await;
    assert!(told.starts_with("it ends at its next step"), "{told}");
    assert_eq!(daemon.runner.run(first).unwrap()["state"], "running");
    shop.release("/got");
    assert_eq!(daemon.closed(first).await["state"], "cancelled");
    assert_eq!(daemon.closed(last).await["state"], "succeeded");
    let then = shop.received("/then");
    let then: Vec<&Value> = then.iter().map(|one| &one.body).collect();
    assert_eq!(then, [&json!("cancelled")]);

    for (id, state) in [(first, "cancelled"), (last, "succeeded")] {
        let err = refused(&daemon, &["runs", "cancel", id]).await;
        assert!(err.contains(&format!("is {state}: it has ended")), "{err}");
        let (status, body) = post(&daemon, &format!("runs/{id}/cancel"), &json!({})).await;
        assert_eq!((status, &body["error"]["code"]), (409, &json!("ended")));
        let err = refused(&daemon, &["runs", "retry", id]).await;
        assert!(err.contains("only a parked run"), "{err}");
    }
    nothing_is_open(&daemon).await;

    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(daemon.runner.run(behind).unwrap()["state"], "cancelled");
    assert_eq!(shop.received("/then").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_goes_on_when_the_first_of_its_lane_is_cancelled_before_its_turn() {
    let shop = Shop::open().await;
    let script = format!(
        r#"on("deposit.*", #{{ retry: #{{ first: "1h", max: "1h" }} }}, |event| {{ http::post("{0}/got", event.status); }});
        schedule("go", "0 0 1 1 *", |tick| {{ http::post("{0}/fired", 1); }});"#,
        shop.url
    );
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .config("scripts.limits.concurrent_runs = 1\n")
        .script("a.rhai", &script);
    let daemon = stage.start().await;
    shop.answers("/got", &[500]);
    happens(&daemon, "deposit", 1, "processing").await;
    let first = listed(&daemon, &[]).await.remove(0);
    is_in_state(&daemon, &first, "retrying").await;
    happens(&daemon, "deposit", 1, "confirmed").await;
    let second = listed(&daemon, &[]).await.remove(0);
    shown(&daemon, &["runs", "cancel", &first]).await;
    assert_eq!(daemon.closed(&second).await["state"], "succeeded");

    shop.hold("/fired");
    let long = fire(&daemon, "a").await;
    shop.visited("/fired", 1).await;
    happens(&daemon, "deposit", 2, "processing").await;
    let queued = listed(&daemon, &[]).await.remove(0);
    happens(&daemon, "deposit", 2, "confirmed").await;
    let behind = listed(&daemon, &[]).await.remove(0);
    shown(&daemon, &["runs", "cancel", &queued]).await;
    shop.release("/fired");
    assert_eq!(daemon.closed(&long).await["state"], "succeeded");
    assert_eq!(daemon.closed(&behind).await["state"], "succeeded");
    assert_eq!(daemon.runner.run(&queued).unwrap()["state"], "cancelled");
    let told: Vec<Value> = shop
        .received("/got")
        .into_iter()
        .map(|one| one.body)
        .collect();
    assert_eq!(told, ["processing", "confirmed", "confirmed"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retrying_and_parked_runs_are_cancelled_at_once_and_for_good() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage
        .script(
            "retrying.rhai",
            &by_hand(&format!(r#"http::post("{}/down", 1);"#, shop.url))
                .replace(r#"first: "1s""#, r#"first: "1h", max: "1h""#),
        )
        .script("parked.rhai", &by_hand(r#"throw "broken";"#));
    let daemon = stage.start().await;
    shop.answers("/down", &[500]);
    for (script, state) in [("retrying", "retrying"), ("parked", "parked")] {
        let id = fire(&daemon, script).await;
        is_in_state(&daemon, &id, state).await;
        if state == "retrying" {
            let err = refused(&daemon, &["runs", "retry", &id]).await;
            assert!(err.contains("goes on by itself"), "{err}");
        }
        shown(&daemon, &["runs", "cancel", &id]).await;
        let run = daemon.runner.run(&id).unwrap();
        assert_eq!(run["state"], "cancelled", "{run:#}");
        assert_eq!(run["due_at"], Value::Null);
        assert!(!run["error"].is_null(), "why it had failed is still told");
    }
    nothing_is_open(&daemon).await;
    // Its script takes up other work.
    let other = fire(&daemon, "retrying").await;
    assert_eq!(daemon.closed(&other).await["state"], "succeeded");
    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(shop.received("/down").len(), 2);
    daemon.stop().await;
}

/// Makes a parked run one that waits, with its index rows, while no daemon runs.
async fn make_wait(store: &Store, id: &str, on: WaitFor) {
    let id: RunId = id.parse().unwrap();
    let deadline: Timestamp = "2999-01-01T00:00:00Z".parse().unwrap();
    let mut run = store.get(&RUNS, &id).unwrap().unwrap();
    let mut changes = Changes::new();
    match &on {
        WaitFor::Plan { plan } => {
            changes.put(&WAITS_BY_PLAN, &(plan.clone(), id), &Mark);
        }
        WaitFor::Time => {}
        WaitFor::Payments { watched, .. } => {
            changes.put(&WAITS_BY_PAYMENT, &(watched.clone(), id), &Mark);
        }
        WaitFor::Event { trigger: event, .. } => {
            let Shape { pattern, paths } = Shape::of(event);
            let row = (pattern, paths, wanted(event), id);
            changes.put(&WAITS_BY_EVENT, &row, &Mark);
        }
    }
    changes.put(&WAITS_BY_TIME, &(deadline, id), &Mark);
    (run.state, run.ended_at, run.error) = (RunState::Waiting, None, None);
    run.wait = Some(Wait {
        step: 1,
        on,
        deadline: Some(deadline),
    });
    changes.put(&RUNS, &id, &run);
    store.commit(changes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_says_for_what_and_is_cancelled_with_its_rows() {
    let stage = Stage::with(Options {
        settle_after: None,
        ..Options::default()
    });
    let stage = stage
        .await
        .script("pay.rhai", &by_hand(&withdraw("open", "0.01")))
        .script("a.rhai", &by_hand(r#"throw "broken";"#));
    let daemon = stage.start().await;
    let maker = fire(&daemon, "pay").await;
    let (first, second) = (fire(&daemon, "a").await, fire(&daemon, "a").await);
    daemon.all_closed(3).await;
    daemon.stop().await;
    let store = open(&stage);
    let watched: ForeignId = "open".parse().unwrap();
    let all = Payments::Here(vec![watched.clone()]);
    make_wait(&store, &first, WaitFor::Payments { watched, all }).await;
    let event = EventTrigger {
        pattern: "shop.paid".into(),
        filter: [("order".to_owned(), json!(7))].into(),
    };
    make_wait(
        &store,
        &second,
        WaitFor::Event {
            trigger: event,
            searched: 0,
        },
    )
    .await;
    store.close().await.unwrap();

    let daemon = stage.start().await;
    assert_eq!(
        listed(&daemon, &["--foreign-id", "open"]).await,
        [first.as_str(), maker.as_str()]
    );
    for (id, expected) in [
        (&first, "the payment open, until 2999-01-01"),
        (
            &second,
            "the event shop.paid where {\"order\":7}, until 2999",
        ),
    ] {
        let told = shown(&daemon, &["runs", "show", id]).await;
        assert!(told.contains(expected), "{told}");
        let err = refused(&daemon, &["runs", "retry", id]).await;
        assert!(err.contains("is waiting: only a parked run"), "{err}");
        shown(&daemon, &["runs", "cancel", id]).await;
        assert_eq!(daemon.runner.run(id).unwrap()["state"], "cancelled");
    }
    daemon.stop().await;
    let store = open(&stage);
    let all = |rows: usize| assert_eq!(rows, 0);
    all(store
        .keys(&WAITS_BY_PAYMENT, &Range::all(), 9, Order::Ascending)
        .unwrap()
        .len());
    all(store
        .keys(&WAITS_BY_EVENT, &Range::all(), 9, Order::Ascending)
        .unwrap()
        .len());
    all(store
        .keys(&WAITS_BY_TIME, &Range::all(), 9, Order::Ascending)
        .unwrap()
        .len());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_people_at_one_run_change_it_once() {
    let shop = Shop::open().await;
    let script = by_hand(&format!(
        r#"http::post("{0}/got", 1); if http::post("{0}/check", 1).status == 200 {{ throw "broken"; }}"#,
        shop.url
    ));
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("a.rhai", &script);
    let daemon = stage.start().await;
    let id = fire(&daemon, "a").await;
    daemon.closed(&id).await;
    for _ in 0..10 {
        let handle = &daemon.runner;
        let (first, cancelled, second) = tokio::join!(
            handle.retry(&id, false),
            handle.cancel(&id),
            handle.retry(&id, false)
        );
        if cancelled.is_ok() {
            break;
        }
        drop((first, second));
        is_in_state(&daemon, &id, "parked").await;
    }
    let end = eventually("the run is closed", || async {
        let end = text(&daemon.runner.run(&id).unwrap()["state"]);
        ["parked", "cancelled"]
            .contains(&end.as_str())
            .then_some(end)
    })
    .await;
    if end == "parked" {
        shown(&daemon, &["runs", "cancel", &id]).await;
    }
    nothing_is_open(&daemon).await;
    assert_eq!(shop.received("/got").len(), 1);
    let next = fire(&daemon, "a").await;
    assert_eq!(
        daemon.closed(&next).await["state"],
        "parked",
        "the next one has its turn"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_found_by_state_script_handler_time_and_payment() {
    let clock = SetClock::at("2026-03-02T12:00:00Z");
    let stage = Stage::new()
        .await
        .clock(clock.clone())
        .script("pay.rhai", &by_hand(&withdraw("order/7", "0.01")))
        .script(
            "a.rhai",
            r#"on("withdrawal.*", #{ name: "hook" }, |event| {}); schedule("go", "0 0 1 1 *", |tick| { throw "broken"; });"#,
        );
    let daemon = stage.start().await;
    let broken = fire(&daemon, "a").await;
    daemon.closed(&broken).await;
    clock.set("2026-03-02T13:00:00Z");
    let paying = fire(&daemon, "pay").await;
    daemon.closed(&paying).await;
    daemon.payment("order/7", "confirmed").await;
    let hooks = eventually("the callbacks are handled", || async {
        let hooks = listed(&daemon, &["--handler", "hook", "--state", "succeeded"]).await;
        (!hooks.is_empty()).then_some(hooks)
    })
    .await;

    assert_eq!(
        listed(&daemon, &["--state", "parked"]).await,
        [broken.as_str()]
    );
    assert_eq!(
        listed(&daemon, &["--script", "pay"]).await,
        [paying.as_str()]
    );
    assert_eq!(
        listed(&daemon, &["--until", "2026-03-02T12:30:00Z"]).await,
        [broken.as_str()]
    );
    assert!(!listed(&daemon, &["--since", "30m"]).await.contains(&broken));
    assert!(listed(&daemon, &["--since", "2h"]).await.contains(&broken));
    assert_eq!(
        listed(&daemon, &["--since", "2h", "--until", "30m"]).await,
        [broken.as_str()]
    );
    let about = listed(&daemon, &["--foreign-id", "order/7"]).await;
    assert_eq!(about.last(), Some(&paying));
    assert!(hooks.iter().all(|hook| about.contains(hook)), "{about:?}");
    assert!(!about.contains(&broken));

    let (code, out, err) = bursar(&daemon, &["runs", "list", "--limit", "1"]).await;
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    assert!(err.contains("there may be more"), "{err}");
    let (_, _, err) = bursar(&daemon, &["runs", "list", "--limit", "1000"]).await;
    assert_eq!(err, "");

    let story = shown(&daemon, &["runs", "show", &paying]).await;
    for expected in ["order/7 confirmed 0.01 BTC", "(in use)", "pay.rhai:1"] {
        assert!(story.contains(expected), "{expected} in {story}");
    }
    let payments = shown(
        &daemon,
        &["payments", "list", "--since", "30m", "--handler", "go"],
    )
    .await;
    assert!(payments.contains("order/7"), "{payments}");
    let payments = shown(&daemon, &["payments", "list", "--until", "30m"]).await;
    assert_eq!(payments, "nothing to show\n");
    let events = shown(&daemon, &["callbacks", "list", "--since", "30m"]).await;
    assert!(events.contains("withdrawal."), "{events}");
    let older = "callbacks list --until 30m --kind withdrawal.confirmed";
    let older: Vec<&str> = older.split(' ').collect();
    assert_eq!(shown(&daemon, &older).await, "nothing to show\n");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_reads_on_until_it_has_found_what_is_wanted() {
    let stage = Stage::new().await.script(
        "a.rhai",
        r#"on("deposit.first", |event| {}); on("deposit.later", |event| {});"#,
    );
    let daemon = stage.start().await;
    happens(&daemon, "deposit", 1, "first").await;
    for id in 0..1200 {
        happens(&daemon, "deposit", 1_000_000 + id, "later").await;
    }
    daemon.all_closed(1201).await;
    assert_eq!(
        listed(&daemon, &["--handler", "deposit.first"]).await.len(),
        1
    );
    assert_eq!(listed(&daemon, &["--handler", "none"]).await.len(), 0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrongly_asked_for_is_refused_with_what_would_be_right() {
    let stage = Stage::new().await;
    let daemon = stage.start().await;
    for (arguments, expected) in [
        (
            &["runs", "list", "--state", "waitng"][..],
            "did you mean `waiting`?",
        ),
        (
            &["runs", "list", "--since", "yesterday"],
            "how long ago such as `24h`, not `yesterday`",
        ),
        (
            &["runs", "list", "--until", "24"],
            "`until` must be an instant",
        ),
        (
            &["runs", "list", "--since", "1h", "--until", "2h"],
            "`since` must be before `until`",
        ),
        (
            &["runs", "list", "--foreign-id", "none"],
            "there is no payment `none`",
        ),
        (&["runs", "list", "--foreign-id", ""], "is not a foreign_id"),
        (&["payments", "list", "--since", "noon"], "`since` must be"),
        (&["callbacks", "list", "--until", "noon"], "`until` must be"),
        (&["runs", "show", "r1"], "there is no run `r1`"),
        (
            &["runs", "logs", "r00000000000000000000"],
            "there is no run `r0000",
        ),
        (&["runs", "retry", "x/../y"], "there is no run `x/../y`"),
        (
            &["runs", "cancel", "r00000000000000000000"],
            "there is no run `r0000",
        ),
    ] {
        let err = refused(&daemon, arguments).await;
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    for (path, body, status) in [
        ("runs/r1/retry", json!({"lastest": true}), 400),
        ("runs/r1/retry", json!({"latest": 1}), 400),
        ("runs/r1/cancel", json!({"now": true}), 400),
        ("runs/r1/cancel", json!({}), 404),
        ("runs/r1/logs", json!({}), 405),
    ] {
        assert_eq!(post(&daemon, path, &body).await.0, status, "{path} {body}");
    }
    let handle = daemon.runner.clone();
    daemon.stop().await;
    assert!(handle.retry("r00000000000000000000", false).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_is_retried_while_the_daemon_stops() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage
        .script("a.rhai", &by_hand(r#"throw "broken";"#))
        .script(
            "b.rhai",
            &by_hand(&format!(r#"http::post("{}/long", 1);"#, shop.url)),
        );
    let daemon = stage.start().await;
    let mut parked = Vec::new();
    for _ in 0..50 {
        parked.push(fire(&daemon, "a").await);
    }
    daemon.all_closed(50).await;
    shop.hold("/long");
    fire(&daemon, "b").await;
    shop.visited("/long", 1).await;
    let handle = daemon.runner.clone();
    let stopping = tokio::spawn(daemon.stop());
    let mut error = None;
    for id in &parked {
        error = handle.retry(id, false).await.err();
        if error.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = error.expect("a retry is refused").to_string();
    assert_eq!(
        error,
        "the daemon is stopping; try again once it has started"
    );
    shop.release("/long");
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_script_logged_is_shown_whole_and_in_order() {
    let stage = Stage::new().await.script(
        "a.rhai",
        r#"schedule("go", "0 0 1 1 *", |tick| {
            let long = "";
            for i in 0..150 { long += "0123456789"; }
            print(long);
            log::warn("low", #{ balance: 1.50 });
            debug("here");
            for i in 0..10 { long += long.sub_string(0, 1000); }
            log::error(long);
        });
        schedule("much", "0 0 1 1 *", |tick| {
            let long = "";
            for i in 0..500 { long += "\"\\"; }
            for i in 0..5 { long += long; }
            for i in 0..990 { log::info(long); }
        });"#,
    );
    let daemon = stage.start().await;
    let id = fire(&daemon, "a").await;
    assert_eq!(daemon.closed(&id).await["state"], "succeeded");
    let logs = shown(&daemon, &["runs", "logs", &id, "--json"]).await;
    let logs: Value = serde_json::from_str(&logs).unwrap();
    let lines = logs["lines"].as_array().unwrap();
    let levels: Vec<&Value> = lines.iter().map(|line| &line["level"]).collect();
    assert_eq!(levels, ["info", "warn", "debug", "error"], "{logs:#}");
    assert_eq!(text(&lines[0]["text"]), "0123456789".repeat(150));
    assert_eq!(lines[0]["site"], "a.rhai:4");
    assert_eq!(
        (&lines[0]["cut"], &lines[3]["cut"]),
        (&json!(false), &json!(true))
    );
    assert!(text(&lines[3]["text"]).len() > 5_000);
    let told = shown(&daemon, &["runs", "logs", &id]).await;
    assert!(told.contains("low  {\"balance\":1.5"), "{told}");
    assert!(
        told.contains("… (the rest is too long to be kept)"),
        "{told}"
    );
    let empty = daemon.trigger("a", "much").await;
    assert_eq!(empty["state"], "succeeded", "{}", empty["error"]);
    daemon.stop().await;
}

fn open(stage: &Stage) -> Store {
    let options = bursar::store::Options::default();
    Store::open(&stage.path("state"), &options, &Telemetry::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_shown_as_it_is_and_hides_no_other() {
    let stage = Stage::new()
        .await
        .script("a.rhai", &by_hand(r#"log::info("first"); throw "broken";"#));
    let daemon = stage.start().await;
    let id = fire(&daemon, "a").await;
    let other = fire(&daemon, "a").await;
    daemon.all_closed(2).await;
    daemon.stop().await;
    let steps: Table<(RunId, u64), String> = Table::new("step/", 1);
    let runs: Table<RunId, String> = Table::new("run/", 1);
    let store = open(&stage);
    let mut changes = Changes::new();
    changes.put(
        &steps,
        &(id.parse().unwrap(), 7),
        &"not a journal".to_owned(),
    );
    changes.put(&runs, &other.parse().unwrap(), &"not a run".to_owned());
    store.commit(changes).await.unwrap();
    store.close().await.unwrap();

    let daemon = stage.start().await;
    let told = shown(&daemon, &["runs", "show", &id]).await;
    for expected in [
        "first",
        "   7  from here on, a record cannot be read",
        "6a6f75726e616c22",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    let logs = shown(&daemon, &["runs", "logs", &id]).await;
    assert!(
        logs.contains("first") && logs.contains("cannot be read"),
        "{logs}"
    );
    let list = shown(&daemon, &["runs", "list"]).await;
    assert!(list.contains(&id) && list.contains("unreadable"), "{list}");
    assert_eq!(daemon.runner.tidy_up().await.unreadable, 1);
    daemon.stop().await;
}

const MONTHLY: &str = r#"schedule("month", "0 12 1 * *", |tick| {});"#;

/// A stage on which the past is kept for thirty days.
async fn forgetful(clock: &Arc<SetClock>) -> Stage {
    let stage = Stage::with(Options {
        settle_after: None,
        ..Options::default()
    });
    let stage = stage.await.config("history.keep = \"30d\"\n");
    stage.clock(clock.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_ended_and_is_old_is_deleted() {
    let clock = SetClock::at("2026-03-01T11:00:00Z");
    let shop = Shop::open().await;
    let retrying = by_hand(&format!(r#"http::post("{}/down", 1);"#, shop.url));
    let retrying = retrying.replace(r#"first: "1s""#, r#"first: "300d", max: "300d""#);
    let hook =
        r#"on("deposit.*", |event| { state::add("n", 1); once("o", || 1); log::info("line"); });"#;
    let stage = forgetful(&clock)
        .await
        .config(&shop.allowed())
        .script("parked.rhai", &by_hand(r#"throw "broken";"#))
        .script("retrying.rhai", &retrying)
        .script("a.rhai", &format!("{hook}\n{MONTHLY}"));
    shop.answers("/down", &[500]);
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    let mut kept = Vec::new();
    for state in ["parked", "retrying"] {
        let id = fire(&daemon, state).await;
        is_in_state(&daemon, &id, state).await;
        kept.push(id);
    }
    happens(&daemon, "deposit", 1, "confirmed").await;
    clock.set("2026-03-01T12:00:00Z");
    daemon.runner.wake().await;
    let gone = succeeded(&daemon, 2).await;

    clock.set("2026-03-31T11:00:00Z");
    assert_eq!(daemon.runner.tidy_up().await.runs, 0, "not old enough");
    happens(&daemon, "deposit", 2, "confirmed").await;
    kept.push(succeeded(&daemon, 3).await.remove(0));
    clock.set("2026-03-31T13:00:00Z");
    let done = daemon.runner.tidy_up().await;
    assert_eq!((done.runs, done.slots, done.sets), (2, 1, 0), "{done:?}");
    let deleted = r#"bursar_history_deleted_total{kind="runs"}"#;
    assert_eq!(counted(&daemon, deleted).await, 2);
    for id in &gone {
        assert!(daemon.runner.run(id).is_err(), "{id}");
    }
    let mut left = listed(&daemon, &[]).await;
    left.reverse();
    assert_eq!(left, kept);

    // What is known for ever is still known: the event is a duplicate, the slot does not fire.
    let duplicates = r#"bursar_callbacks_total{outcome="duplicate"}"#;
    let before = counted(&daemon, duplicates).await;
    happens(&daemon, "deposit", 1, "confirmed").await;
    assert_eq!(counted(&daemon, duplicates).await, before + 1);
    daemon.runner.wake().await;
    assert_eq!(listed(&daemon, &[]).await.len(), kept.len());
    daemon.stop().await;
    // A run that was deleted is not taken for one that was never written.
    let daemon = stage.start().await;
    assert_eq!(listed(&daemon, &[]).await.len(), kept.len());
    daemon.stop().await;
}

/// Waits until so many runs have succeeded. Answers them, newest first.
async fn succeeded(daemon: &Running, count: usize) -> Vec<String> {
    eventually(&format!("{count} runs have succeeded"), || async {
        let done = listed(daemon, &["--state", "succeeded"]).await;
        (done.len() == count).then_some(done)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_stays_until_its_payment_is_final_and_then_goes_with_its_journal() {
    let clock = SetClock::at("2026-03-01T11:00:00Z");
    let stage = forgetful(&clock).await;
    let stage = stage.script("a.rhai", &by_hand(&withdraw("open", "0.01")));
    let daemon = stage.start().await;
    let id = fire(&daemon, "a").await;
    assert_eq!(daemon.closed(&id).await["state"], "succeeded");
    clock.set("2026-06-01T11:00:00Z");
    assert_eq!(daemon.runner.tidy_up().await.runs, 0);
    assert!(daemon.runner.run(&id).is_ok());

    stage.control.settle("open", "confirmed").unwrap();
    daemon.payment("open", "confirmed").await;
    assert_eq!(daemon.runner.tidy_up().await.runs, 1);
    assert!(daemon.runner.run(&id).is_err());
    assert!(daemon.runner.payment("open").is_ok());
    daemon.stop().await;
    let store = open(&stage);
    let steps = store
        .keys(&STEPS, &Range::all(), 1000, Order::Ascending)
        .unwrap();
    assert_eq!(steps, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_its_schedule_has_not_passed_keeps_its_record() {
    let clock = SetClock::at("2026-03-01T11:59:00Z");
    let stage = Stage::new()
        .await
        .clock(clock.clone())
        .config("history.keep = \"1d\"\n")
        .script("a.rhai", MONTHLY);
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    clock.set("2026-03-01T12:00:00Z");
    daemon.runner.wake().await;
    daemon.all_closed(1).await;
    daemon.stop().await;
    // As after a schedule was written anew while the clock was set back.
    let store = open(&stage);
    let record: Table<HandlerId, Value> = Table::new("schedule/", 1);
    let found = store
        .scan(&record, &Range::all(), 10, Order::Ascending)
        .unwrap();
    let (schedule, mut value) = found.into_iter().next().unwrap();
    value["settled_until"] = json!("2026-03-01T11:59:30Z");
    let mut changes = Changes::new();
    changes.put(&record, &schedule, &value);
    store.commit(changes).await.unwrap();
    store.close().await.unwrap();

    // Nobody plans it now, so its record stays as it is.
    stage.write("scripts/a.rhai", r#"on("a.b", |event| {});"#);
    clock.set("2026-04-15T12:00:00Z");
    let daemon = stage.start().await;
    let done = daemon.runner.tidy_up().await;
    assert_eq!(done.slots, 0, "{done:?}");
    daemon.stop().await;
    let store = open(&stage);
    let slot: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    assert!(store.get(&SLOTS, &(schedule, slot)).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_runs_the_oldest_go_and_a_stop_in_between_loses_nothing() {
    let stage = Stage::new()
        .await
        .config("history.keep_most = 1000\n")
        .script(
            "a.rhai",
            r#"on("deposit.*", |event| { log::info(event.id); });"#,
        );
    let daemon = stage.start().await;
    for id in 0..1050 {
        happens(&daemon, "deposit", id, "confirmed").await;
    }
    daemon.all_closed(1050).await;
    let all = daemon
        .runner
        .runs(&bursar::runner::Filter::EVERYTHING)
        .unwrap();
    let oldest = text(&all.as_array().unwrap().last().unwrap()["id"]);
    // A pass that is dropped wherever it is leaves whole runs behind.
    tokio::time::timeout(Duration::from_millis(120), daemon.runner.tidy_up())
        .await
        .ok();
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.runner.tidy_up().await;
    let left = daemon
        .runner
        .runs(&bursar::runner::Filter::EVERYTHING)
        .unwrap();
    let left = left.as_array().unwrap();
    assert_eq!(left.len(), 1000);
    assert!(daemon.runner.run(&oldest).is_err());
    for row in [&left[0], &left[999]] {
        let run = daemon.runner.run(row["id"].as_str().unwrap()).unwrap();
        assert_eq!(run["journal"].as_array().unwrap().len(), 1);
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_no_run_is_pinned_to_are_deleted_after_a_restart() {
    let stage = Stage::new()
        .await
        .script("a.rhai", &by_hand(r#"throw "one";"#));
    let daemon = stage.start().await;
    let pinned = fire(&daemon, "a").await;
    daemon.closed(&pinned).await;
    save(&stage, &daemon, &by_hand(r#"throw "two";"#)).await;
    save(&stage, &daemon, &by_hand(r#"throw "three";"#)).await;
    // Somebody may have them in hand still.
    assert_eq!(daemon.runner.tidy_up().await.sets, 0);
    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(daemon.runner.tidy_up().await.sets, 1);
    shown(&daemon, &["runs", "retry", &pinned]).await;
    let run = daemon.closed(&pinned).await;
    assert!(text(&run["error"]).contains("one"), "{run:#}");
    shown(&daemon, &["runs", "cancel", &pinned]).await;
    daemon.stop().await;
    let store = open(&stage);
    let sets = store
        .keys(&SETS, &Range::all(), 10, Order::Ascending)
        .unwrap();
    assert_eq!(sets.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_contents_go_with_what_named_them() {
    // The files' age is told by the clock of this machine, which is long behind this one.
    let clock = SetClock::at("2098-03-01T11:00:00Z");
    let stage = forgetful(&clock)
        .await
        .script("a.rhai", &by_hand(r#"file::read("gone.txt");"#))
        .script(
            "b.rhai",
            &by_hand(r#"file::read("kept.txt"); throw "broken";"#),
        )
        .data("gone.txt", &"gone".repeat(30_000))
        .data("kept.txt", &"kept".repeat(30_000));
    let daemon = stage.start().await;
    let gone = fire(&daemon, "a").await;
    assert_eq!(daemon.closed(&gone).await["state"], "succeeded");
    let parked = fire(&daemon, "b").await;
    is_in_state(&daemon, &parked, "parked").await;
    let done = daemon.runner.tidy_up().await;
    assert_eq!((done.runs, done.blobs), (0, 0), "{done:?}");

    clock.set("2098-06-01T11:00:00Z");
    let done = daemon.runner.tidy_up().await;
    assert_eq!((done.runs, done.blobs), (1, 1), "{done:?}");
    // What is left is whole: the parked run goes on with what it has read.
    std::fs::remove_file(stage.path("data/kept.txt")).unwrap();
    shown(&daemon, &["runs", "retry", &parked]).await;
    let run = daemon.closed(&parked).await;
    assert!(text(&run["error"]).contains("broken"), "{run:#}");
    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(daemon.runner.tidy_up().await.blobs, 0);
    daemon.stop().await;
}
