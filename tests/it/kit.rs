//! What tests of the daemon need besides the [`Stage`](crate::stage::Stage): a clock that they
//! set, callbacks that they sign, and a shop that answers a script's requests as they say.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use bursar::domain::clock::{Clock, Timestamp};
use bursar::domain::secret::Secret;
use bursar::domain::signature::Signer;
use bursar::simulator::Options;
use serde_json::Value;
use tokio::sync::watch;

use crate::stage::{Running, eventually, everything};

/// A clock that stands still until it is set.
#[derive(Debug)]
pub struct SetClock(Mutex<Timestamp>);

impl SetClock {
    /// A clock that shows that time.
    pub fn at(text: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(text.parse().unwrap())))
    }

    /// Sets it, forwards or back.
    pub fn set(&self, text: &str) {
        *self.0.lock().unwrap() = text.parse().unwrap();
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// The signature that the gateway would put on a body.
pub fn sign(body: &[u8]) -> String {
    Signer::new(&Secret::new(Options::default().secret)).sign(body)
}

/// Posts a signed callback. Answers status and body.
pub async fn deliver(url: &str, body: &[u8]) -> (u16, String) {
    let key = Options::default().key;
    let signature = sign(body);
    let headers = [
        ("X-Processing-Key", key.as_str()),
        ("X-Processing-Signature", signature.as_str()),
    ];
    post(url, &headers, body).await
}

/// Posts a body with these headers. Answers status and body.
pub async fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut request = reqwest::Client::new().post(url).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The text behind a URL.
pub async fn get(url: &str) -> String {
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

/// The value of a counter on `/metrics`, as it is written there; 0 when it is not there yet.
pub async fn counted(daemon: &Running, counter: &str) -> u64 {
    let metrics = get(&format!("{}/metrics", daemon.admin)).await;
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(counter)?.strip_prefix(' '))
        .map_or(0, |number| number.parse().unwrap())
}

/// The number of events in the store.
pub fn events(daemon: &Running) -> usize {
    let events = daemon.runner.callbacks(&everything()).unwrap();
    events.as_array().unwrap().len()
}

/// A merchant's web shop: keeps what scripts post to it, and answers as it is told.
#[derive(Clone)]
pub struct Shop {
    pub url: String,
    counter: Arc<Counter>,
}

#[derive(Default)]
struct Counter {
    received: Mutex<Vec<Received>>,
    answers: Mutex<HashMap<String, VecDeque<u16>>>,
    lengths: Mutex<HashMap<String, usize>>,
    held: Mutex<HashMap<String, watch::Sender<bool>>>,
}

/// One request that the shop got.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub body: Value,
    pub idempotency_key: String,
}

impl Shop {
    /// A shop that answers everything with 200.
    pub async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counter = Arc::new(Counter::default());
        let router = Router::new()
            .fallback(serve)
            .with_state(Arc::clone(&counter));
        tokio::spawn(async move { axum_serve(listener, router).await });
        Self { url, counter }
    }

    /// The configuration that opens the shop to scripts.
    pub fn allowed(&self) -> String {
        format!("scripts.http.allow = [\"{}\"]\n", self.url)
    }

    /// Answers the next requests for a path with these statuses.
    pub fn answers(&self, path: &str, statuses: &[u16]) {
        let mut answers = self.counter.answers.lock().unwrap();
        answers.insert(path.to_owned(), statuses.iter().copied().collect());
    }

    /// Answers requests for a path with a text of that length.
    pub fn answers_at_length(&self, path: &str, length: usize) {
        let mut lengths = self.counter.lengths.lock().unwrap();
        lengths.insert(path.to_owned(), length);
    }

    /// Answers no request for a path until [`Self::release`].
    pub fn hold(&self, path: &str) {
        let mut held = self.counter.held.lock().unwrap();
        held.insert(path.to_owned(), watch::Sender::new(true));
    }

    /// Answers requests for a path again, those that wait first.
    pub fn release(&self, path: &str) {
        if let Some(held) = self.counter.held.lock().unwrap().remove(path) {
            held.send_replace(false);
        }
    }

    /// What came in for a path, oldest first; also what is not answered yet.
    pub fn received(&self, path: &str) -> Vec<Received> {
        let received = self.counter.received.lock().unwrap();
        received
            .iter()
            .filter(|one| one.path == path)
            .cloned()
            .collect()
    }

    /// Waits until that many requests for a path have come in. Answers them.
    pub async fn visited(&self, path: &str, count: usize) -> Vec<Received> {
        eventually(&format!("{count} requests for {path}"), || async {
            let received = self.received(path);
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

async fn serve(State(counter): State<Arc<Counter>>, request: Request) -> (StatusCode, String) {
    let path = request.uri().path().to_owned();
    let (head, body) = request.into_parts();
    let idempotency_key = head.headers.get("idempotency-key");
    let idempotency_key = idempotency_key.map_or("", |key| key.to_str().unwrap());
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    counter.received.lock().unwrap().push(Received {
        path: path.clone(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        idempotency_key: idempotency_key.to_owned(),
    });
    let waiting = counter
        .held
        .lock()
        .unwrap()
        .get(&path)
        .map(watch::Sender::subscribe);
    if let Some(mut waiting) = waiting {
        waiting.wait_for(|held| !held).await.ok();
    }
    let status = counter
        .answers
        .lock()
        .unwrap()
        .get_mut(&path)
        .and_then(VecDeque::pop_front)
        .unwrap_or(200);
    let length = counter.lengths.lock().unwrap().get(&path).copied();
    let text = length.map_or_else(|| "{}".to_owned(), |length| "x".repeat(length));
    (StatusCode::from_u16(status).unwrap(), text)
}

/// Serves until the test ends.
async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    bursar::http::serve(listener, router, std::future::pending())
        .await
        .unwrap();
}

/// Asks the admin API as the holder of a token: GET without a body, POST with one. Answers the
/// status and the JSON.
pub async fn ask(
    daemon: &Running,
    token: Option<&str>,
    path: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let url = format!("{}/api/v1/{path}", daemon.admin);
    let client = reqwest::Client::new();
    let mut request = match body {
        None => client.get(url),
        Some(body) => client
            .post(url)
            .header("content-type", "application/json")
            .body(body.to_string()),
    };
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}
