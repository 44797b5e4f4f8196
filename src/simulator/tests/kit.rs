//! A signing client and a callback receiver for the tests beside this file.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::simulator::callbacks::sender;
use crate::simulator::{
    Control, Execution, Fault, Faults, Options, Rule, Simulator, signing, start,
};

pub(super) const KEY: &str = "the-key";
pub(super) const SECRET: &str = "AbCdEfG123456";

/// What came back; none when the connection closed without an answer.
pub(super) type Reply = Option<(u16, String)>;

pub(super) struct Rig {
    pub(super) simulator: Simulator,
    pub(super) control: Control,
}

/// Options that settle at once and run an hour in a third of a second.
pub(super) fn options() -> Options {
    Options {
        key: KEY.to_owned(),
        secret: SECRET.to_owned(),
        settle_after: Some(Duration::from_millis(5)),
        speed: 10_000,
        ..Options::default()
    }
}

pub(super) async fn rig(options: Options) -> Rig {
    let simulator = start(options).await.unwrap();
    let control = simulator.control();
    Rig { simulator, control }
}

/// A simulator with one rule, and no settling by itself.
pub(super) async fn rig_with(fault: Fault) -> Rig {
    rig(Options {
        faults: Faults(vec![Rule::always(fault)]),
        settle_after: None,
        ..options()
    })
    .await
}

/// One request with the given headers.
pub(super) async fn raw(
    rig: &Rig,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let uri = format!("http://{}{path}", rig.simulator.addr());
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = sender().request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = to_bytes(Body::new(response.into_body()), usize::MAX)
        .await
        .unwrap();
    Some((status, String::from_utf8(body.to_vec()).unwrap()))
}

/// One signed request to the API.
pub(super) async fn send(rig: &Rig, path: &str, body: &Value) -> Reply {
    let text = body.to_string();
    let signature = signing::sign(SECRET, text.as_bytes());
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Processing-Key", KEY),
        ("X-Processing-Signature", signature.as_str()),
    ];
    let (method, path) = match path {
        "transactions/info" => ("GET", "/api/v2/transactions/info".to_owned()),
        "requests" => ("POST", "/api/payments/v1/requests".to_owned()),
        _ => ("POST", format!("/api/v2/{path}")),
    };
    raw(rig, method, &path, &headers, &text).await
}

/// One signed request that must be answered with this status and JSON.
pub(super) async fn expect(rig: &Rig, path: &str, body: &Value, status: u16) -> Value {
    let (got, text) = send(rig, path, body).await.expect("an answer");
    assert_eq!(got, status, "{path} {body}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// The message about one field of a request that must be refused.
pub(super) async fn refused(rig: &Rig, path: &str, body: &Value, field: &str) -> String {
    let errors = expect(rig, path, body, 400).await;
    let message = errors["errors"][field].as_str();
    message
        .unwrap_or_else(|| panic!("no {field} in {errors}"))
        .to_owned()
}

/// A document with some fields replaced; null removes one.
pub(super) fn with(mut document: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        document[name] = value.clone();
        if value.is_null() {
            document.as_object_mut().unwrap().remove(name);
        }
    }
    document
}

pub(super) fn person() -> Value {
    json!({"first_name": "Ada", "last_name": "Müller", "date_of_birth": "1990-01-31"})
}

/// A valid withdrawal.
pub(super) fn withdrawal(foreign_id: &str) -> Value {
    json!({
        "currency": "BTC",
        "amount": "0.01",
        "address": "tb1qurv0m4ufsj8xqejvmn0y43kqew33kvqrrxswgm",
        "foreign_id": foreign_id,
        "end_user_reference": "user-1",
        "sender_type": "legal",
        "sender_data": {"legal_name": "Merchant", "country_of_registration": "DEU"},
        "receiver_type": "natural",
        "receiver_data": person(),
    })
}

/// A valid invoice, without a timer.
pub(super) fn invoice(foreign_id: &str) -> Value {
    json!({
        "timer": false,
        "title": "Order",
        "currency": "EUR",
        "amount": "100",
        "foreign_id": foreign_id,
        "end_user_reference": "user-1",
        "url_success": "https://shop.example/yes",
        "url_failed": "https://shop.example/no",
        "email_user": "ada@example.com",
    })
}

/// A valid payment request.
pub(super) fn request(foreign_id: &str) -> Value {
    json!({
        "amount": "0.3",
        "currency": {"iso": "ETH", "network_name": "ethereum"},
        "payment_currency": {"iso": "BTC", "network_name": "bitcoin"},
        "life_time_duration": 3600,
        "foreign_id": foreign_id,
        "end_user_email": "ada@example.com",
    })
}

/// What the ledger says about a `foreign_id`.
pub(super) fn executed(rig: &Rig, foreign_id: &str) -> Vec<Execution> {
    let mut all = rig.control.executions();
    all.retain(|execution| execution.foreign_id == foreign_id);
    all
}

pub(super) fn balance(rig: &Rig, currency: &str) -> Decimal {
    rig.control.balances()[currency]
}

pub(super) fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// Waits until something holds. A test that waits in vain fails by this.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("in vain: {what}");
}

/// A callback as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) genuine: bool,
    pub(super) body: Value,
}

impl Received {
    pub(super) fn status(&self) -> &str {
        self.body["status"].as_str().unwrap()
    }
}

/// A receiver that verifies every callback and answers 200, or what it is told to first.
#[derive(Debug, Clone, Default)]
pub(super) struct Receiver {
    received: Arc<Mutex<Vec<Received>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    /// Starts one; returns it with its URL.
    pub(super) async fn start(answers: &[u16]) -> (Self, String) {
        let receiver = Self::default();
        receiver.answers.lock().unwrap().extend(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/callbacks", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    pub(super) fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(super) fn statuses(&self) -> Vec<String> {
        let all = self.all();
        all.iter()
            .map(|callback| callback.status().to_owned())
            .collect()
    }

    /// Waits for so many callbacks and returns all there are.
    pub(super) async fn wait_for(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} callbacks"), || self.all().len() >= count).await;
        self.all()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let signature = headers["X-Processing-Signature"].to_str().unwrap();
    let genuine = headers["X-Processing-Key"] == KEY && signing::verify(SECRET, &body, signature);
    let body = serde_json::from_slice(&body).unwrap();
    receiver
        .received
        .lock()
        .unwrap()
        .push(Received { genuine, body });
    let answer = receiver.answers.lock().unwrap().pop_front();
    StatusCode::from_u16(answer.unwrap_or(200)).unwrap()
}
