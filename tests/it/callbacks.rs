//! Callbacks: verified, kept before they are acknowledged, handled once and in order.

use std::collections::BTreeMap;

use bursar::simulator::Options;
use serde_json::{Value, json};

use crate::kit::{Shop, counted, deliver, events, get, post, sign};
use crate::stage::{Stage, eventually, everything};

/// Sends whatever happens to the shop.
fn telling(shop: &Shop) -> String {
    format!(
        r#"on("*", |event| {{ http::post("{}/event", event); }});"#,
        shop.url
    )
}

fn sample(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/callbacks");
    std::fs::read(folder.join(name).with_extension("json")).unwrap()
}

/// A withdrawal's callback with that id and status, and a number to tell it by.
fn body(id: u64, status: &str, part: u64) -> Vec<u8> {
    json!({
        "id": id, "foreign_id": format!("payout-{id}"), "type": "withdrawal", "status": status,
        "transactions": [{"id": part, "type": "withdrawal", "currency": "BTC", "amount": "0.1"}],
        "error": "",
    })
    .to_string()
    .into_bytes()
}

/// Every published sample, what is special about its event: final, and what was paid.
const SAMPLES: [(&str, bool, &str); 12] = [
    ("deposit-cancelled", true, "0.00000500"),
    ("deposit-confirmed", true, "0.01000000"),
    ("deposit-not_confirmed", false, "0.01000000"),
    ("deposit_exchange-confirmed", true, "0.01000000"),
    ("exchange-confirmed", true, "null"),
    ("invoice-confirmed", true, "0.02000000"),
    ("invoice-failed", true, "0.0"),
    ("invoice-processing", false, "0.00309556"),
    ("payment_request-processing", false, "null"),
    ("withdrawal-cancelled", true, "null"),
    ("withdrawal-confirmed", true, "null"),
    ("withdrawal_exchange-confirmed", true, "null"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_published_callback_is_handled_exactly_and_once_also_after_a_restart() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("tell.rhai", &telling(&shop));
    let daemon = stage.start().await;
    for (name, _, _) in SAMPLES {
        assert_eq!(
            deliver(&daemon.callbacks, &sample(name)).await,
            (200, String::new()),
            "{name}"
        );
    }
    let told = shop.visited("/event", SAMPLES.len()).await;
    let told: BTreeMap<String, Value> = told
        .into_iter()
        .map(|one| (one.body["kind"].as_str().unwrap().to_owned(), one.body))
        .collect();
    for (name, is_final, paid) in SAMPLES {
        let event = &told[&name.replace('-', ".")];
        assert_eq!(event["final"], is_final, "{name}");
        assert_eq!(event["paid"].to_string(), paid, "{name}");
        assert_eq!(event["source"], "callback");
        assert!(event["received_at"].as_str().unwrap().ends_with('Z'));
        let published: Value = serde_json::from_slice(&sample(name)).unwrap();
        for path in [
            "/currency_sent/amount",
            "/currency_received/amount_minus_fee",
            "/transactions/0/amount",
        ] {
            if let Some(text) = published.pointer(path).and_then(Value::as_str) {
                assert_eq!(event.pointer(path).unwrap().to_string(), text, "{name}");
            }
        }
        assert_eq!(event.get("foreign_id"), published.get("foreign_id"));
    }
    for (name, _, _) in SAMPLES {
        assert_eq!(deliver(&daemon.callbacks, &sample(name)).await.0, 200);
    }
    daemon.stop().await;
    let daemon = stage.start().await;
    for (name, _, _) in SAMPLES {
        assert_eq!(deliver(&daemon.callbacks, &sample(name)).await.0, 200);
    }
    let duplicates = counted(&daemon, r#"bursar_callbacks_total{outcome="duplicate"}"#).await;
    assert_eq!(duplicates, 12);
    // One that is new is handled after whatever the repetitions might have started.
    deliver(&daemon.callbacks, &body(1, "confirmed", 1)).await;
    shop.visited("/event", SAMPLES.len() + 1).await;
    assert_eq!(daemon.all_closed(13).await.len(), 13);
    assert_eq!(shop.received("/event").len(), 13);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_and_parts_of_one_transaction_are_events_of_their_own_in_order() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("tell.rhai", &telling(&shop));
    let daemon = stage.start().await;
    let part = |paid: &str, legs: usize| {
        let legs: Vec<Value> = (0..legs)
            .map(|leg| json!({"id": leg, "type": "deposit", "currency": "BTC", "amount": "0.1"}))
            .collect();
        let sent = json!({"currency": "BTC", "amount": "0.3", "remaining_amount": paid});
        json!({"id": 9, "type": "invoice", "status": "processing", "currency_sent": sent, "transactions": legs})
            .to_string()
    };
    for body in [
        sample("deposit-not_confirmed"),
        sample("deposit-confirmed"),
        part("0.2", 1).into_bytes(),
        part("0.1", 2).into_bytes(),
        part("0.1", 2).into_bytes(),
        part("0", 3).into_bytes(),
    ] {
        assert_eq!(deliver(&daemon.callbacks, &body).await.0, 200);
    }
    daemon.all_closed(5).await;
    let told = shop.received("/event");
    let of = |kind: &str| -> Vec<String> {
        told.iter()
            .filter(|one| one.body["type"] == kind)
            .map(|one| format!("{} {}", one.body["status"], one.body["paid"]))
            .collect()
    };
    assert_eq!(
        of("deposit"),
        [r#""not_confirmed" 0.01000000"#, r#""confirmed" 0.01000000"#]
    );
    assert_eq!(
        of("invoice"),
        [
            r#""processing" 0.1"#,
            r#""processing" 0.2"#,
            r#""processing" 0.3"#
        ]
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_did_not_send_is_refused_and_leaves_no_trace() {
    let stage = Stage::new()
        .await
        .config("callbacks.max_body = \"1KiB\"\n")
        .script("all.rhai", r#"on("*", |event| { });"#);
    let daemon = stage.start().await;
    let url = &daemon.callbacks;
    let body = sample("withdrawal-confirmed");
    let (key, right) = (Options::default().key, sign(&body));
    let upper = right.to_uppercase();
    let padded = format!("{right}00");
    let key_header = ("X-Processing-Key", key.as_str());
    let signed = ("X-Processing-Signature", right.as_str());
    for headers in [
        vec![],
        vec![key_header],
        vec![signed],
        vec![("X-Processing-Key", "another"), signed],
        vec![key_header, ("X-Processing-Signature", "00")],
        vec![key_header, ("X-Processing-Signature", upper.as_str())],
        vec![key_header, ("X-Processing-Signature", padded.as_str())],
    ] {
        assert_eq!(post(url, &headers, &body).await.0, 403, "{headers:?}");
    }
    let mut changed = body.clone();
    changed.push(b' ');
    let headers = [key_header, signed];
    assert_eq!(post(url, &headers, &changed).await.0, 403);
    let large = vec![b' '; 1025];
    assert_eq!(deliver(url, &large).await.0, 413);
    assert_eq!(deliver(&format!("{url}/more"), &body).await.0, 404);
    assert_eq!(reqwest::get(url).await.unwrap().status(), 405);
    assert_eq!(events(&daemon), 0);
    assert!(daemon.all_closed(0).await.is_empty());
    let count = |outcome| format!(r#"bursar_callbacks_total{{outcome="{outcome}"}}"#);
    assert_eq!(counted(&daemon, &count("forged")).await, 8);
    assert_eq!(counted(&daemon, &count("too_large")).await, 1);
    // The very same body with the right headers is taken: the refusals left nothing behind.
    assert_eq!(deliver(url, &body).await.0, 200);
    assert_eq!(daemon.all_closed(1).await.len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_rubbish_is_acknowledged_kept_counted_and_offered_to_everything() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script(
        "all.rhai",
        &format!(
            r#"
on("*", |event| {{ http::post("{0}/all", event); }});
on("*.*", |event| {{ http::post("{0}/typed", event); }});
"#,
            shop.url
        ),
    );
    let daemon = stage.start().await;
    let rubbish: [&[u8]; 4] = [b"\xff\xfe", b"", b"[1]", br#"{"type":"deposit"}"#];
    for body in rubbish {
        for _ in 0..2 {
            assert_eq!(deliver(&daemon.callbacks, body).await, (200, String::new()));
        }
    }
    let told = shop.visited("/all", rubbish.len()).await;
    assert!(told.iter().all(|one| one.body["kind"] == "unreadable"));
    let bodies: Vec<&Value> = told.iter().map(|one| &one.body["body"]).collect();
    assert!(bodies.contains(&&json!("fffe")) && bodies.contains(&&json!("[1]")));
    assert_eq!(daemon.all_closed(4).await.len(), 4);
    assert!(shop.received("/typed").is_empty());
    assert_eq!(events(&daemon), 4);
    let metrics = get(&format!("{}/metrics", daemon.admin)).await;
    assert!(metrics.contains(r#"outcome="unreadable""#), "{metrics}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_transaction_keep_their_order_whatever_else_goes_on() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed()).script(
        "order.rhai",
        &format!(
            r#"
on("withdrawal.*", |event| {{
    let key = `seen/${{event.id}}`;
    let seen = state::get(key, []);
    seen.push(event.transactions[0].id);
    state::set(key, seen);
}});
on("deposit.*", #{{ name: "show" }}, |event| {{
    http::post("{}/seen", state::list("seen/"));
}});
"#,
            shop.url
        ),
    );
    let daemon = stage.start().await;
    let (transactions, each) = (8, 12);
    let mut posting = tokio::task::JoinSet::new();
    for id in 0..transactions {
        let url = daemon.callbacks.clone();
        posting.spawn(async move {
            for number in 0..each {
                let body = body(id, "processing", number);
                assert_eq!(deliver(&url, &body).await.0, 200);
            }
        });
    }
    posting.join_all().await;
    daemon
        .all_closed(usize::try_from(transactions * each).unwrap())
        .await;
    deliver(&daemon.callbacks, &sample("deposit-confirmed")).await;
    let seen = &shop.visited("/seen", 1).await[0].body;
    let expected: Vec<u64> = (0..each).collect();
    for id in 0..transactions {
        assert_eq!(seen[format!("seen/{id}")], json!(expected), "{seen}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_handler_holds_up_its_own_transaction_and_no_other() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed()).script(
        "slow.rhai",
        &format!(
            r#"on("withdrawal.*", |event| {{ http::post(`{}/${{event.id}}`, event.status); }});"#,
            shop.url
        ),
    );
    let daemon = stage.start().await;
    shop.hold("/1");
    deliver(&daemon.callbacks, &body(1, "pending", 0)).await;
    shop.visited("/1", 1).await;
    deliver(&daemon.callbacks, &body(1, "confirmed", 0)).await;
    for id in 2..40 {
        deliver(&daemon.callbacks, &body(id, "confirmed", 0)).await;
    }
    for id in 2..40 {
        shop.visited(&format!("/{id}"), 1).await;
    }
    assert_eq!(shop.received("/1").len(), 1);
    shop.release("/1");
    let statuses = shop.visited("/1", 2).await;
    assert_eq!(statuses[0].body, "pending");
    assert_eq!(statuses[1].body, "confirmed");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_exact_matches_on_dotted_paths() {
    let shop = Shop::open().await;
    let on = |name: &str, pattern: &str, filter: &str| {
        format!(
            r#"on("{pattern}", #{{ name: "{name}", where: #{{ {filter} }} }}, |event| {{ http::post("{}/{name}", event); }});
"#,
            shop.url
        )
    };
    let script = [
        on("btc", "deposit.*", r#""crypto_address.currency": "BTC""#),
        on("eth", "deposit.*", r#""crypto_address.currency": "ETH""#),
        on("amount", "*.confirmed", r#""currency_sent.amount": 0.01"#),
        on(
            "leg",
            "*.*",
            r#""transactions.0.type": "deposit", "status": "confirmed""#,
        ),
        on("none", "*", r#""no.such.path": ()"#),
    ]
    .concat();
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("filters.rhai", &script);
    let daemon = stage.start().await;
    deliver(&daemon.callbacks, &sample("deposit-confirmed")).await;
    deliver(&daemon.callbacks, &sample("withdrawal-confirmed")).await;
    daemon.all_closed(3).await;
    let got = |name: &str| shop.received(&format!("/{name}")).len();
    assert_eq!((got("btc"), got("amount"), got("leg")), (1, 1, 1));
    assert_eq!((got("eth"), got("none")), (0, 0));
    let callbacks = daemon.runner.callbacks(&everything()).unwrap();
    let runs: Vec<usize> = callbacks
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["runs"].as_array().unwrap().len())
        .collect();
    assert_eq!(runs, [0, 3]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emitted_event_reaches_every_handler_once_now_and_later() {
    let shop = Shop::open().await;
    let stage = Stage::new()
        .await
        .config(&shop.allowed())
        .script(
            "source.rhai",
            r#"on("withdrawal.confirmed", |event| {
                emit("paid_out", #{ id: event.id, amount: 0.10 });
                emit("paid_out_later", #{ id: event.id }, #{ after: "1h" });
            });"#,
        )
        .script(
            "one.rhai",
            &format!(
                r#"
on("paid_out", |event| {{ http::post("{0}/one", event); }});
on("paid_out_later", |event| {{ http::post("{0}/later", event); }});
"#,
                shop.url
            ),
        )
        .script(
            "two.rhai",
            &format!(
                r#"on("paid_out", |event| {{ http::post("{}/two", event); }});"#,
                shop.url
            ),
        );
    let clock = crate::kit::SetClock::at("2026-11-22T12:00:00Z");
    let stage = stage.clock(clock.clone());
    let daemon = stage.start().await;
    deliver(&daemon.callbacks, &body(5, "confirmed", 0)).await;
    for path in ["/one", "/two"] {
        let got = shop.visited(path, 1).await;
        assert_eq!(got[0].body.to_string(), r#"{"amount":0.10,"id":5}"#);
    }
    daemon.all_closed(3).await;
    clock.set("2026-11-22T12:59:59Z");
    daemon.runner.wake().await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    assert_eq!(daemon.all_closed(3).await.len(), 3);
    clock.set("2026-11-22T13:00:01Z");
    for _ in 0..3 {
        daemon.runner.wake().await;
    }
    assert_eq!(shop.visited("/later", 1).await.len(), 1);
    daemon.all_closed(4).await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    assert_eq!(daemon.all_closed(4).await.len(), 4);
    assert_eq!(shop.received("/later").len(), 1);
    assert_eq!(shop.received("/one").len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_accepted_while_the_daemon_stops_is_handled_after_the_next_start() {
    let shop = Shop::open().await;
    let stage = Stage::new().await.config(&shop.allowed());
    let stage = stage.script("tell.rhai", &telling(&shop));
    let mut acknowledged = 0;
    for round in 0..3 {
        let daemon = stage.start().await;
        let url = daemon.callbacks.clone();
        let posting = tokio::spawn(async move {
            let client = reqwest::Client::new();
            let mut acknowledged = 0;
            for number in 0.. {
                let body = body(round * 10_000 + number, "confirmed", number);
                let request = client
                    .post(&url)
                    .header("X-Processing-Key", Options::default().key)
                    .header("X-Processing-Signature", sign(&body))
                    .body(body);
                match request.send().await {
                    Ok(answer) if answer.status() == 200 => acknowledged += 1,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            acknowledged
        });
        eventually("something is being handled", || async {
            (events(&daemon) > 20).then_some(())
        })
        .await;
        daemon.stop().await;
        acknowledged += posting.await.unwrap();
    }
    let daemon = stage.start().await;
    let runs = daemon.all_closed(acknowledged).await;
    assert!(runs.iter().all(|run| run["state"] == "succeeded"));
    // A callback may be on disk although the connection was cut before its 200; never the reverse.
    assert_eq!(runs.len(), events(&daemon));
    assert_eq!(shop.received("/event").len(), runs.len());
    daemon.stop().await;
}
