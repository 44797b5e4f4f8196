//! People approve, reject and resolve payments, over the admin API of a running daemon.

use std::sync::Arc;

use bursar::domain::clock::Timestamp;
use bursar::domain::id::{HandlerId, RunId, SetHash};
use bursar::domain::operation;
use bursar::domain::payment::{Content, Event, Origin, Payment};
use bursar::domain::policy::{Decision, Terms, Verdict};
use bursar::gateway::prepare;
use bursar::simulator::{Fault, Faults, Operation, Rule};
use bursar::store::schema::{AWAITED, Awaited, Mark, OPEN_PAYMENTS, PAYMENTS, PAYMENTS_BY_TIME};
use bursar::store::{Changes, Options, Store};
use bursar::telemetry::Telemetry;
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop, ask};
use crate::payments::{by_hand, withdraw};
use crate::stage::{Running, Stage, eventually, executed};

/// Ana and Ben may approve, Olga may operate, Vera may look.
pub const PEOPLE: [(&str, &str); 4] = [
    ("ana", "approve"),
    ("ben", "approve"),
    ("olga", "operate"),
    ("vera", "view"),
];

const NOON: &str = "2026-11-20T12:00:00Z";

/// A stage with people, each of whom has their name as their token.
pub async fn with_people() -> Stage {
    let stage = Stage::new().await;
    let people = PEOPLE.map(|(name, role)| {
        stage.write(&format!("tokens/{name}"), name);
        format!(r#"{{ name = "{name}", role = "{role}", token = "file:tokens/{name}" }}"#)
    });
    stage.config(&format!("admin.user = [{}]\n", people.join(", ")))
}

/// Does something as somebody. Answers the status and the note or the error's text.
pub async fn act(daemon: &Running, who: &str, path: &str, body: Value) -> (u16, String) {
    let (status, answer) = ask(daemon, Some(who), path, Some(&body)).await;
    let text = answer["error"]["message"].as_str();
    let text = text.or(answer["note"].as_str()).unwrap_or_default();
    (status, text.to_owned())
}

const TWO: Terms = Terms {
    quorum: 2,
    expires_after: 3_600,
    editor_may_approve: true,
};

const ONE: Terms = Terms { quorum: 1, ..TWO };

const SCRIPT: &str = "pay";

/// A script that waits for the payment and tells the shop what became of it.
fn waiting(shop: &Shop, id: &str) -> String {
    by_hand(&format!(
        r#"let payment = payments::get("{id}"); http::post("{}/settled", payment.wait("9d"));"#,
        shop.url
    ))
}

/// Puts a payment into the store of a stage whose daemon does not run: asked for at noon, and
/// left to people by policy.
async fn asked_for(stage: &Stage, id: &str, terms: Terms, set: &SetHash) -> Payment {
    let at: Timestamp = NOON.parse().unwrap();
    let arguments = json!({
        "foreign_id": id, "currency": "BTC", "amount": "0.01", "address": "tb1q",
        "end_user_reference": "customer-1", "receiver_type": "natural",
        "receiver_data": {"first_name": "Ada", "last_name": "Lovelace", "date_of_birth": "1990-12-10"},
        "sender_type": "legal",
        "sender_data": {"legal_name": "Shop Ltd", "country_of_registration": "DEU"},
    });
    let prepared = prepare(operation::Operation::Withdraw, &arguments).unwrap();
    let content = Content::new(
        operation::Operation::Withdraw,
        String::from_utf8(prepared.body().to_vec()).unwrap(),
    );
    let origin = Origin {
        run: RunId::new(1),
        handler: HandlerId {
            script: SCRIPT.into(),
            name: "go".into(),
        },
        step: 0,
        file: "pay.rhai".into(),
        line: 1,
        set: set.as_str().to_owned(),
    };
    let mut payment = Payment::planned(id.parse().unwrap(), content, origin, at);
    payment.decision = Some(Decision {
        verdict: Verdict::Approve(terms),
        by: "large payouts".into(),
        reasons: Vec::new(),
    });
    payment.apply(Event::ApprovalNeeded, None, at).unwrap();
    let until = at + chrono::TimeDelta::seconds(i64::try_from(terms.expires_after).unwrap());
    let mut changes = Changes::new();
    let key = payment.foreign_id.clone();
    changes.put(&PAYMENTS, &key, &payment);
    changes.put(&PAYMENTS_BY_TIME, &(at, key.clone()), &Mark);
    changes.put(&OPEN_PAYMENTS, &key, &Mark);
    let row = (until, format!("payment:{id}"));
    changes.put(&AWAITED, &row, &Awaited::Payment(key));
    let options = Options {
        cache_bytes: 1 << 20,
        ..Options::default()
    };
    let store = Store::open(&stage.path("state"), &options, &Telemetry::default()).unwrap();
    store.commit(changes).await.unwrap();
    store.close().await.unwrap();
    payment
}

fn clock() -> Arc<SetClock> {
    SetClock::at("2026-11-20T12:10:00Z")
}

/// What handlers of alerts told the shop.
async fn alert(shop: &Shop, kind: &str) -> Value {
    shop.visited(&format!("/{kind}"), 1).await[0].body.clone()
}

/// A script that tells the shop of every alert about payments.
fn telling_alerts(shop: &Shop) -> String {
    ["approval_needed", "approval_expired", "payment_held"]
        .map(|what| {
            format!(
                r#"on("alert.{what}", |event| {{ http::post("{}/alert.{what}", event); }});"#,
                shop.url
            )
        })
        .join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_of_different_people_lets_a_payment_go_and_whoever_waits_hears_of_it() {
    let shop = Shop::open().await;
    let stage = with_people().await.config(&shop.allowed()).clock(clock());
    let source = waiting(&shop, "big");
    let stage = stage.script("pay.rhai", &source);
    let set = SetHash::of([("pay.rhai", source.as_str())]);
    let payment = asked_for(&stage, "big", TWO, &set).await;
    let hash = payment.fingerprint;
    let daemon = stage.start().await;
    let run = daemon.runner.trigger("pay", "go", None).await.unwrap();
    eventually("the run waits", || async {
        (daemon.runner.run(&run.to_string()).unwrap()["state"] == "waiting").then_some(())
    })
    .await;
    let approve = |hash: &str| json!({"payment": "big", "hash": hash});

    // Without the role, without the right hash, and twice by one person: nothing.
    for (who, role) in [("vera", "view"), ("olga", "operate")] {
        let (status, text) = act(&daemon, who, "approve", approve(&hash)).await;
        assert_eq!(status, 403);
        assert_eq!(
            text,
            format!("{who} has the role {role}; approving needs approve")
        );
    }
    let (status, _) = ask(&daemon, Some("eve"), "approve", Some(&approve(&hash))).await;
    assert_eq!(status, 401);
    let (status, text) = act(&daemon, "ana", "approve", approve("0000")).await;
    assert_eq!(status, 409);
    assert!(text.contains(&hash) && text.contains("not 0000"), "{text}");
    let (status, text) = act(&daemon, "ana", "approve", approve(&hash)).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("1 of 2 approvals"), "{text}");
    let (status, text) = act(&daemon, "ana", "approve", approve(&hash)).await;
    assert_eq!(status, 200);
    assert!(
        text.starts_with("nothing has changed: ana has approved"),
        "{text}"
    );
    let shown = daemon.runner.payment("big").unwrap();
    assert_eq!(shown["status"], "awaiting_approval");
    assert_eq!(
        (&shown["approved_by"], &shown["quorum"]),
        (&json!(1), &json!(2))
    );
    assert!(shown["content"]["receiver_data"].is_null(), "{shown}");
    assert!(executed(&stage.control).is_empty());

    // What one person has approved outlives the daemon; the second one lets it go.
    daemon.stop().await;
    let daemon = stage.start().await;
    let (status, text) = act(&daemon, "ben", "approve", approve(&hash)).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("2 of 2 approvals"), "{text}");
    let settled = shop.visited("/settled", 1).await;
    assert_eq!(settled[0].body["status"], "confirmed");
    assert_eq!(executed(&stage.control), [("big".into(), 1)].into());
    let (status, text) = act(&daemon, "ben", "approve", approve(&hash)).await;
    assert_eq!(status, 409);
    assert!(
        text.contains("the payment `big` is confirmed") && text.contains("approved by ana, ben"),
        "{text}"
    );
    let (status, text) = act(&daemon, "ana", "reject", json!({"payment": "big"})).await;
    assert_eq!(status, 409, "{text}");
    let story = daemon.runner.payment("big").unwrap()["story"].to_string();
    assert!(story.contains("by ana, ben"), "{story}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_approved_before_a_restart_is_sent_after_it_once() {
    let stage = with_people().await.clock(clock());
    let stage = stage.script("pay.rhai", &by_hand(""));
    let set = SetHash::of([("pay.rhai", by_hand("").as_str())]);
    let payment = asked_for(&stage, "big", ONE, &set).await;
    let daemon = stage.start().await;
    // Approved while money is paused: so the daemon ends between the approval and the send.
    let (status, text) = act(&daemon, "olga", "pause", json!({})).await;
    assert_eq!(status, 200, "{text}");
    let body = json!({"payment": "big", "hash": payment.fingerprint});
    let (status, text) = act(&daemon, "ana", "approve", body).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(daemon.runner.payment("big").unwrap()["status"], "intended");
    daemon.stop().await;
    let daemon = stage.start().await;
    assert!(executed(&stage.control).is_empty());
    let (status, text) = act(&daemon, "vera", "resume", json!({})).await;
    assert_eq!(status, 403);
    assert_eq!(text, "vera has the role view; resuming money needs operate");
    act(&daemon, "olga", "resume", json!({})).await;
    daemon.payment("big", "confirmed").await;
    assert_eq!(executed(&stage.control), [("big".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_payment_is_refused_for_good() {
    let shop = Shop::open().await;
    let stage = with_people().await.config(&shop.allowed()).clock(clock());
    let source = waiting(&shop, "big");
    let stage = stage.script("pay.rhai", &source);
    let set = SetHash::of([("pay.rhai", source.as_str())]);
    let payment = asked_for(&stage, "big", TWO, &set).await;
    let daemon = stage.start().await;
    daemon.runner.trigger("pay", "go", None).await.unwrap();
    let body = json!({"payment": "big", "reason": "wrong customer"});
    let (status, text) = act(&daemon, "ana", "reject", body).await;
    assert_eq!(status, 200, "{text}");
    let settled = shop.visited("/settled", 1).await;
    assert_eq!(settled[0].body["status"], "refused");
    assert_eq!(settled[0].body["error"], "rejected by ana: wrong customer");
    let body = json!({"payment": "big", "hash": payment.fingerprint});
    let (status, text) = act(&daemon, "ben", "approve", body).await;
    assert_eq!(status, 409);
    assert!(
        text.contains("refused") && text.contains("rejected by ana"),
        "{text}"
    );
    let (status, _) = act(&daemon, "ben", "reject", json!({"payment": "none"})).await;
    assert_eq!(status, 404);
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_approves_in_time_is_refused_with_an_alert() {
    let shop = Shop::open().await;
    let clock = clock();
    let stage = with_people().await.config(&shop.allowed());
    let stage = stage.clock(Arc::<SetClock>::clone(&clock) as _);
    let source = waiting(&shop, "big");
    let alerts = telling_alerts(&shop);
    let stage = stage
        .script("pay.rhai", &source)
        .script("alerts.rhai", &alerts);
    let set = SetHash::of([("pay.rhai", source.as_str())]);
    let payment = asked_for(&stage, "big", TWO, &set).await;
    let approve = json!({"payment": "big", "hash": payment.fingerprint});
    let daemon = stage.start().await;
    daemon.runner.trigger("pay", "go", None).await.unwrap();
    act(&daemon, "ana", "approve", approve.clone()).await;
    clock.set("2026-11-20T12:59:59Z");
    daemon.runner.wake().await;
    assert_eq!(
        daemon.runner.payment("big").unwrap()["status"],
        "awaiting_approval"
    );
    clock.set("2026-11-20T13:00:00Z");
    let (status, text) = act(&daemon, "ben", "approve", approve).await;
    assert_eq!(status, 409);
    assert!(
        text.contains("nobody decided in time: 1 of 2 approvals"),
        "{text}"
    );
    let settled = shop.visited("/settled", 1).await;
    assert_eq!(settled[0].body["status"], "refused");
    let told = alert(&shop, "alert.approval_expired").await;
    assert_eq!(told["foreign_id"], "big");
    assert_eq!(told["amount"].to_string(), "0.01");
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_editor_of_a_script_may_be_barred_and_an_unknown_one_bars_everybody() {
    let barred = Terms {
        editor_may_approve: false,
        ..ONE
    };
    let stage = with_people().await.clock(clock());
    let source = by_hand("");
    let stage = stage.script("pay.rhai", &source);
    let set = SetHash::of([("pay.rhai", source.as_str())]);
    let payment = asked_for(&stage, "big", barred, &set).await;
    let approve = json!({"payment": "big", "hash": payment.fingerprint});
    let daemon = stage.start().await;
    let (status, text) = act(&daemon, "ben", "approve", approve.clone()).await;
    assert_eq!(status, 409);
    assert!(text.contains("bursar scripts edited pay --as"), "{text}");
    let (status, _) = act(&daemon, "vera", "edited", json!({"script": "pay"})).await;
    assert_eq!(status, 403);
    let (status, _) = act(&daemon, "ana", "edited", json!({"script": "none"})).await;
    assert_eq!(status, 404);
    let (status, _) = act(&daemon, "ana", "edited", json!({"script": "pay"})).await;
    assert_eq!(status, 200);
    let (status, text) = act(&daemon, "ana", "approve", approve.clone()).await;
    assert_eq!(status, 409);
    assert!(
        text.starts_with("ana edited the script `pay` last"),
        "{text}"
    );
    let (status, text) = act(&daemon, "ben", "approve", approve).await;
    assert_eq!(status, 200, "{text}");
    daemon.payment("big", "confirmed").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_drifts_from_what_was_decided_is_not_approved_and_not_sent() {
    let stage = with_people().await.clock(clock());
    let stage = stage.script("pay.rhai", &by_hand(""));
    let set = SetHash::of([("pay.rhai", by_hand("").as_str())]);
    let mut payment = asked_for(&stage, "big", ONE, &set).await;
    let hash = payment.fingerprint.clone();
    let evil = payment.content.body().replace("tb1q", "evil");
    payment.content = Content::new(payment.content.operation, evil);
    let mut changes = Changes::new();
    changes.put(&PAYMENTS, &payment.foreign_id, &payment);
    let options = Options {
        cache_bytes: 1 << 20,
        ..Options::default()
    };
    let store = Store::open(&stage.path("state"), &options, &Telemetry::default()).unwrap();
    store.commit(changes).await.unwrap();
    store.close().await.unwrap();
    let daemon = stage.start().await;
    let body = json!({"payment": "big", "hash": hash});
    let (status, text) = act(&daemon, "ana", "approve", body).await;
    assert_eq!(status, 409);
    assert!(text.contains("does not match its fingerprint"), "{text}");
    assert!(executed(&stage.control).is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_payment_is_resolved_by_somebody_who_may_and_is_sent_at_most_once() {
    let shop = Shop::open().await;
    let clock = clock();
    let pay = by_hand(&format!(
        "{}; {}",
        withdraw("gone", "0.01"),
        withdraw("there", "0.01")
    ));
    let stage = with_people()
        .await
        .config(&shop.allowed())
        .clock(Arc::<SetClock>::clone(&clock) as _)
        .script("pay.rhai", &pay)
        .script("alerts.rhai", &telling_alerts(&shop));
    let of = |fault, foreign_id: &str| Rule {
        foreign_id: Some(foreign_id.to_owned()),
        ..Rule::always(fault)
    };
    let withdrawal = |rule| Rule {
        operation: Some(Operation::Withdrawal),
        ..rule
    };
    // One never arrives; of the other the answer is lost, and nobody can find it.
    stage.control.set_faults(Faults(vec![
        withdrawal(of(Fault::ErrorBeforeActing, "gone")),
        withdrawal(of(Fault::DropAnswer, "there")),
        of(Fault::BlindLookup(3_600_000), "there"),
        of(Fault::CallbackNever, "there"),
    ]));
    let daemon = stage.start().await;
    daemon.trigger("pay", "go").await;
    let resolve = |id: &str, sent: bool| json!({"payment": id, "sent": sent, "reason": "looked"});
    clock.set("2026-11-20T14:00:00Z");
    for id in ["gone", "there"] {
        daemon.payment(id, "held").await;
    }
    let told = shop.visited("/alert.payment_held", 2).await;
    assert_eq!(told.len(), 2);
    let (status, text) = act(&daemon, "olga", "resolve", resolve("gone", false)).await;
    assert_eq!(status, 403);
    assert_eq!(text, "olga has the role operate; resolving needs approve");

    let (status, text) = act(&daemon, "ana", "resolve", resolve("there", true)).await;
    assert_eq!(status, 200, "{text}");
    let there = daemon.runner.payment("there").unwrap();
    assert_eq!(there["status"], "accepted");
    let story = there["story"].to_string();
    assert!(
        story.contains("ana says that the gateway has it: looked"),
        "{story}"
    );
    let (status, text) = act(&daemon, "ben", "resolve", resolve("there", false)).await;
    assert_eq!(status, 409);
    assert!(text.contains("the payment `there` is accepted"), "{text}");

    stage.control.set_faults(Faults::default());
    let (status, text) = act(&daemon, "ana", "resolve", resolve("gone", false)).await;
    assert_eq!(status, 200, "{text}");
    daemon.payment("gone", "confirmed").await;
    let (status, _) = act(&daemon, "ana", "resolve", resolve("gone", false)).await;
    assert_eq!(status, 409);
    let once = [("gone".into(), 1), ("there".into(), 1)].into();
    assert_eq!(executed(&stage.control), once);
    daemon.stop().await;
}
