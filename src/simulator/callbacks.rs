//! Sends callbacks: signed, to the configured URL, again on the documented schedule until the
//! answer is exactly 200. Applies the callback faults. Everything sent is remembered with its
//! answers, for [`super::Control::callbacks`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde_json::Value;

use super::Shared;
use super::faults::{Fault, Operation};
use super::signing;

/// Minutes before each retry, counted from the attempt before it.
pub(super) const RETRY_AFTER_MINUTES: [u64; 12] =
    [1, 5, 15, 30, 60, 90, 120, 180, 240, 240, 240, 240];

/// How long an answer may take, in real time. Not documented; long enough for any honest receiver.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a reordered callback waits for the one that is to overtake it.
const REORDER_LIMIT: Duration = Duration::from_secs(2);

/// How many callbacks are on the wire at once.
pub(super) const IN_FLIGHT: usize = 32;

/// The HTTP client of the sender; targets are plain `http` on the same machine.
pub(super) type Sender = Client<HttpConnector, Body>;

/// The client with its defaults.
pub(super) fn sender() -> Sender {
    Client::builder(TokioExecutor::new()).build_http()
}

/// What a callback is about.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) operation: Operation,
    pub(super) foreign_id: String,
    pub(super) id: u64,
    pub(super) body: Value,
}

/// A callback with what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SentCallback {
    /// The simulator's number for it, from 1.
    pub id: u64,
    /// The gateway's number of the operation.
    pub operation_id: u64,
    /// The caller's name for the operation; for deposits the customer's.
    pub foreign_id: String,
    /// `deposit`, `withdrawal`…
    #[serde(rename = "type")]
    pub kind: String,
    /// The status it tells.
    pub status: String,
    /// The exact body.
    pub body: String,
    /// Every time it was sent, forged ones included.
    pub attempts: Vec<Attempt>,
    /// Whether an attempt with the right signature was answered with 200.
    pub delivered: bool,
}

/// One time a callback was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Unix seconds on the simulator's clock.
    pub at: u64,
    /// Where to.
    pub url: String,
    /// The HTTP status that came back; none when there was no answer.
    pub answer: Option<u16>,
    /// Whether key or signature were wrong on purpose.
    pub forged: bool,
}

/// What is wrong about a forged callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgery {
    /// Signed with another secret.
    Signature,
    /// Signed with the right secret under another key.
    Key,
}

/// Records a callback and starts to send it.
pub(super) fn send(shared: &Arc<Shared>, subject: &Subject) {
    let faults = shared
        .faults()
        .callback(subject.operation, &subject.foreign_id);
    let id = record(shared, subject);
    shared.spawn(deliver(Arc::clone(shared), id, subject.id, faults));
}

/// Records a callback, starts to send it, and returns when the first attempt has ended or `limit`
/// has passed.
pub(super) async fn send_and_wait(shared: &Arc<Shared>, subject: &Subject, limit: Duration) {
    let id = record(shared, subject);
    let (ended, first_attempt) = tokio::sync::oneshot::channel();
    let sending = Arc::clone(shared);
    shared.spawn(async move {
        let delivered = attempt(&sending, id, None).await;
        // Nobody waits any more when the limit has passed.
        ended.send(()).ok();
        if !delivered {
            retry(sending, id).await;
        }
    });
    tokio::time::timeout(limit, first_attempt).await.ok();
}

fn record(shared: &Shared, subject: &Subject) -> u64 {
    let text = |name: &str| {
        let value = subject.body.get(name).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let mut state = shared.state();
    let id = state.callbacks.last_key_value().map_or(1, |(id, _)| id + 1);
    let callback = SentCallback {
        id,
        operation_id: subject.id,
        foreign_id: subject.foreign_id.clone(),
        kind: text("type"),
        status: text("status"),
        body: subject.body.to_string(),
        attempts: Vec::new(),
        delivered: false,
    };
    state.callbacks.insert(id, callback);
    id
}

async fn deliver(shared: Arc<Shared>, id: u64, operation_id: u64, faults: Vec<Fault>) {
    if faults.contains(&Fault::CallbackNever) {
        return;
    }
    for fault in &faults {
        if let Fault::CallbackLate(millis) = fault {
            tokio::time::sleep(Duration::from_millis(*millis)).await;
        }
    }
    if faults.contains(&Fault::CallbackReordered) {
        let overtaken = wait_until_overtaken(&shared, id, operation_id);
        // Nothing may follow; then it is late and no more.
        tokio::time::timeout(REORDER_LIMIT, overtaken).await.ok();
    }
    if faults.contains(&Fault::CallbackForged) {
        attempt(&shared, id, Some(Forgery::Signature)).await;
    }
    let delivered = attempt(&shared, id, None).await;
    if faults.contains(&Fault::CallbackTwice) {
        attempt(&shared, id, None).await;
    }
    if !delivered {
        retry(shared, id).await;
    }
}

async fn wait_until_overtaken(shared: &Shared, id: u64, operation_id: u64) {
    let mut delivered = shared.delivered.subscribe();
    loop {
        let overtaken = shared
            .state()
            .callbacks
            .range(id + 1..)
            .any(|(_, later)| later.operation_id == operation_id && later.delivered);
        if overtaken || delivered.changed().await.is_err() {
            return;
        }
    }
}

/// Tries again on the documented schedule.
pub(super) async fn retry(shared: Arc<Shared>, id: u64) {
    for minutes in RETRY_AFTER_MINUTES {
        shared.clock.sleep(Duration::from_mins(minutes)).await;
        let delivered = shared.state().callbacks.get(&id).map(|c| c.delivered);
        let delivered = delivered.unwrap_or_default();
        if delivered || attempt(&shared, id, None).await {
            return;
        }
    }
}

/// Posts a callback once. True when it was answered with 200.
pub(super) async fn attempt(shared: &Shared, id: u64, forgery: Option<Forgery>) -> bool {
    let Some(url) = shared.settings().callback_url.clone() else {
        return false;
    };
    let body = shared.state().callbacks.get(&id).map(|c| c.body.clone());
    let Some(body) = body else {
        return false;
    };
    let at = shared.clock.unix();
    let answer = post(shared, &url, body, forgery).await;
    let delivered = answer == Some(200) && forgery.is_none();
    if let Some(callback) = shared.state().callbacks.get_mut(&id) {
        callback.delivered |= delivered;
        callback.attempts.push(Attempt {
            at,
            url,
            answer,
            forged: forgery.is_some(),
        });
    }
    shared.delivered.send_modify(|count| *count += 1);
    delivered
}

async fn post(shared: &Shared, url: &str, body: String, forgery: Option<Forgery>) -> Option<u16> {
    let secret = match forgery {
        Some(Forgery::Signature) => "not the secret",
        Some(Forgery::Key) | None => &shared.secret,
    };
    let key = match forgery {
        Some(Forgery::Key) => "not-the-key",
        Some(Forgery::Signature) | None => &shared.key,
    };
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header("X-Processing-Key", key)
        .header(
            "X-Processing-Signature",
            signing::sign(secret, body.as_bytes()),
        )
        .body(Body::from(body))
        .ok()?;
    let _turn = shared.sending.acquire().await.ok()?;
    let exchange = async {
        let response = shared.sender.request(request).await.ok()?;
        let status = response.status().as_u16();
        // Read to the end, or the connection cannot be used again.
        let body = Body::new(response.into_body());
        axum::body::to_bytes(body, 65_536).await.ok();
        Some(status)
    };
    tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.ok()?
}
