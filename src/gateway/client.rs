//! The client: one connection pool, one place that sends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::classify::{Disposition, classify};
use super::limiter::{HOLD, Limiter};
use super::operations::{self, Path};
use super::prepare::Prepared;
use crate::config;
use crate::domain::operation::Operation;
use crate::domain::signature::Signer;
use crate::telemetry::Telemetry;

/// The largest answer that is read. The longest list the gateway is known to give has some
/// hundreds of entries.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;

/// The longest a request waits for a rate limit before it is given back unsent.
const LONGEST_WAIT: Duration = Duration::from_secs(65);

/// Idle connections are dropped before the servers on the way drop theirs: a request written into
/// a connection that is just being closed has an unknown fate.
const IDLE_CONNECTION: Duration = Duration::from_secs(20);

/// The longest a connection may take to be made, however long the exchange may take.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);

/// The gateway client. Cheap to clone; all clones share connections and limits.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    v2: String,
    root: String,
    key: HeaderValue,
    signer: Signer,
    permits: Semaphore,
    turns: Semaphore,
    limiter: Mutex<Limiter>,
    /// Whether the last request got no answer, or one of a server in trouble.
    failing: AtomicBool,
    telemetry: Telemetry,
}

/// Why there is no client; the daemon does not start without one.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The key has characters that no HTTP header can carry.
    #[error("gateway.key has characters that cannot stand in an HTTP header")]
    Key,
    /// TLS could not be set up.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

/// A turn among the requests that are under way or will be next.
#[derive(Debug)]
pub struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
}

/// A place among the requests under way.
#[derive(Debug)]
pub struct Admission<'a> {
    _permit: SemaphorePermit<'a>,
}

/// A request was not let out in time. Certainly nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAdmitted(pub String);

impl Client {
    /// Makes a client; opens no connection yet.
    ///
    /// The payment-request API hangs beside the v2 API: its requests go to the base URL with the
    /// trailing `/api/v2` taken off, then `/api/payments/v1/requests`.
    ///
    /// # Errors
    /// [`BuildError`]
    pub fn new(gateway: &config::Gateway, telemetry: &Telemetry) -> Result<Self, BuildError> {
        let mut key = HeaderValue::from_str(gateway.key.expose()).map_err(|_| BuildError::Key)?;
        key.set_sensitive(true);
        let http = reqwest::Client::builder()
            .user_agent(concat!("bursar/", env!("CARGO_PKG_VERSION")))
            // One exchange per connection: a reset then leaves one fate unknown, not sixteen.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .no_gzip()
            .timeout(gateway.timeout)
            // Shorter than the whole, so that a failed connection is known to be just that.
            .connect_timeout((gateway.timeout / 2).min(LONGEST_CONNECT))
            .pool_idle_timeout(IDLE_CONNECTION)
            .build()
            .map_err(BuildError::Http)?;
        let v2 = gateway.base_url.as_str().trim_end_matches('/').to_owned();
        let root = v2.strip_suffix("/api/v2").unwrap_or(&v2).to_owned();
        Ok(Self(Arc::new(Inner {
            http,
            v2,
            root,
            key,
            signer: Signer::new(&gateway.secret),
            permits: Semaphore::new(gateway.max_in_flight.max(1)),
            turns: Semaphore::new(turns(gateway.max_in_flight.max(1))),
            limiter: Mutex::default(),
            failing: AtomicBool::new(false),
            telemetry: telemetry.clone(),
        })))
    }

    /// Sends a request once and says what became of it.
    ///
    /// Waits while `max_in_flight` requests are out, and up to about a minute for a rate limit.
    /// Not cancel safe: whoever drops the future must take the request's fate as unknown.
    pub async fn send(&self, prepared: &Prepared) -> Disposition {
        match self.admit(prepared.operation()).await {
            Ok(admission) => self.send_admitted(admission, prepared).await,
            Err(NotAdmitted(reason)) => self.told(prepared, Disposition::not_sent(reason)),
        }
    }

    /// Whether the last request got no usable answer.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.failing.load(Ordering::SeqCst)
    }

    /// Whether as many requests are under way as may be.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.permits.available_permits() == 0
    }

    /// Waits until a request is under way or will be among the next few that are. For whoever has
    /// something to do before the first byte that takes as long as a part of a request: done while
    /// it is not yet admitted, that costs nobody a place.
    ///
    /// # Errors
    /// [`NotAdmitted`]: nothing was sent; try again later.
    pub async fn turn(&self) -> Result<Turn<'_>, NotAdmitted> {
        let permit = self.0.turns.acquire().await.map_err(closed)?;
        Ok(Turn { _permit: permit })
    }

    /// The same for whoever does not wait: `None` when all turns are taken.
    #[must_use]
    pub fn turn_at_once(&self) -> Option<Turn<'_>> {
        let permit = self.0.turns.try_acquire().ok()?;
        Some(Turn { _permit: permit })
    }

    /// Waits until a request of `operation` may leave: while `max_in_flight` requests are out, and
    /// up to about a minute for a rate limit. The place is held until the answer is here or the
    /// admission is dropped.
    ///
    /// # Errors
    /// [`NotAdmitted`]: nothing was sent; try again later.
    pub async fn admit(&self, operation: Operation) -> Result<Admission<'_>, NotAdmitted> {
        let permit = self.0.admit(operation).await?;
        Ok(Admission { _permit: permit })
    }

    /// Sends a request that has been admitted, and says what became of it. Not cancel safe, as
    /// [`Client::send`].
    pub async fn send_admitted(
        &self,
        admission: Admission<'_>,
        prepared: &Prepared,
    ) -> Disposition {
        let disposition = self.0.exchange(prepared).await;
        drop(admission);
        // Whoever has waited for the place goes first: the gateway idles meanwhile, and what is left to
        // do with this answer holds nobody up.
        tokio::task::yield_now().await;
        self.told(prepared, disposition)
    }

    fn told(&self, prepared: &Prepared, disposition: Disposition) -> Disposition {
        let failed = match &disposition {
            Disposition::Accepted(_) | Disposition::Rejected(_) => false,
            Disposition::NotSent { .. } => true,
            // Whoever says that it is too much is there.
            Disposition::Unknown { status, .. } => *status != Some(429),
        };
        self.0.failing.store(failed, Ordering::SeqCst);
        let operation = prepared.operation();
        let (status, reason) = match &disposition {
            Disposition::Accepted(_) => (None, ""),
            Disposition::NotSent { reason } => (None, reason.as_str()),
            Disposition::Unknown { reason, status } => (*status, reason.as_str()),
            // The gateway's prose may quote what was sent; it goes to the caller, not to the log.
            Disposition::Rejected(rejection) => (Some(rejection.status), ""),
        };
        self.0
            .telemetry
            .gateway_request(operation, disposition.name(), status, reason);
        disposition
    }
}

impl Inner {
    /// Waits until the request may leave.
    async fn admit(&self, operation: Operation) -> Result<SemaphorePermit<'_>, NotAdmitted> {
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            let permit = self.permits.acquire().await.map_err(closed)?;
            let departure = self.limiter().depart(operation, Instant::now());
            match departure {
                Ok(()) => return Ok(permit),
                Err(free_at) if free_at > deadline => {
                    return Err(NotAdmitted(format!(
                        "{operation} would exceed the gateway's rate limit"
                    )));
                }
                Err(free_at) => {
                    drop(permit);
                    tokio::time::sleep_until(free_at).await;
                }
            }
        }
    }

    fn limiter(&self) -> std::sync::MutexGuard<'_, Limiter> {
        self.limiter
            .lock()
            .expect("nothing panics while the limiter is locked")
    }

    async fn exchange(&self, prepared: &Prepared) -> Disposition {
        let response = match self.request(prepared).send().await {
            Ok(response) => response,
            Err(error) => return unanswered(&error),
        };
        let status = response.status();
        let header = |name| {
            let value: &HeaderValue = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let content_type = header(CONTENT_TYPE);
        if status == StatusCode::TOO_MANY_REQUESTS {
            self.hold(prepared, header(RETRY_AFTER).as_deref());
        }
        match read(response).await {
            Ok(body) => {
                let status = status.as_u16();
                let content_type = content_type.as_deref();
                let disposition = classify(prepared.operation(), status, content_type, &body);
                agrees_with(prepared, status, disposition)
            }
            Err(reason) => Disposition::unknown(reason, Some(status.as_u16())),
        }
    }

    fn request(&self, prepared: &Prepared) -> reqwest::RequestBuilder {
        let url = match prepared.path() {
            Path::V2(path) => format!("{}{path}", self.v2),
            Path::Root(path) => format!("{}{path}", self.root),
        };
        let operation = prepared.operation();
        let method = if operations::is_get(operation) {
            Method::GET
        } else {
            Method::POST
        };
        let request = self.http.request(method, url);
        if !operations::is_signed(operation) {
            return request;
        }
        request
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("X-Processing-Key", self.key.clone())
            .header("X-Processing-Signature", self.signer.sign(prepared.body()))
            .body(prepared.body().to_vec())
    }

    /// Holds back what comes next. `Retry-After` may shorten the documented minute.
    fn hold(&self, prepared: &Prepared, retry_after: Option<&str>) {
        let length = retry_after
            .and_then(|text| text.trim().parse().ok())
            .map_or(HOLD, Duration::from_secs)
            .min(HOLD);
        let operation = prepared.operation();
        self.limiter().hold(operation, Instant::now(), length);
        self.telemetry.gateway_rate_limited(operation, length);
    }
}

/// How many requests are under way or next: a few more than may be under way. What is done before a
/// request's first byte takes about a tenth of what a quick gateway takes to answer, and twice as long
/// when the disk is slow.
const fn turns(max_in_flight: usize) -> usize {
    max_in_flight + 1 + max_in_flight / 4
}

fn closed(_: AcquireError) -> NotAdmitted {
    NotAdmitted("the client is closed".to_owned())
}

/// No answer came. Only where no connection could be made is it certain that no byte of the
/// request left: DNS, TCP and the TLS handshake all come before it.
fn unanswered(error: &reqwest::Error) -> Disposition {
    if error.is_connect() || error.is_builder() {
        Disposition::not_sent(format!("the gateway cannot be reached: {}", root_of(error)))
    } else if error.is_timeout() {
        Disposition::unknown("the gateway did not answer in time", None)
    } else {
        Disposition::unknown(
            format!("the connection to the gateway broke: {}", root_of(error)),
            None,
        )
    }
}

/// The innermost cause, which is the one that says something.
fn root_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The whole body, or why there is none.
async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST_ANSWER => {
                return Err(format!("the answer is larger than {LARGEST_ANSWER} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => {
                return Err("the answer did not arrive in time".to_owned());
            }
            Err(error) => return Err(format!("the answer broke off: {}", root_of(&error))),
        }
    }
}

/// An answer that names another key than the request's is about something else.
fn agrees_with(prepared: &Prepared, status: u16, disposition: Disposition) -> Disposition {
    let Disposition::Accepted(answer) = &disposition else {
        return disposition;
    };
    let named = answer.get("foreign_id").and_then(|value| value.as_str());
    let sent = prepared
        .fields()
        .get("foreign_id")
        .and_then(|value| value.as_str());
    match (sent, named) {
        (Some(sent), Some(named)) if sent != named => Disposition::unknown(
            "the gateway's answer names another foreign_id than the request",
            Some(status),
        ),
        (Some(_) | None, Some(_) | None) => disposition,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::super::prepare::prepare;
    use super::*;
    use crate::domain::operation::Operation;
    use crate::domain::secret::Secret;

    const ACCEPTED: &str = r#"{"data":{"id":12,"foreign_id":"p1","amount":"0.00020000"}}"#;

    /// What the server does with every request it has read.
    #[derive(Clone)]
    enum Deed {
        Answer(String),
        AnswerAndStay(String),
        Reset,
        Close,
        Hang,
    }

    /// A request as it arrived, head and body.
    struct Seen {
        head: String,
        body: Vec<u8>,
    }

    impl Seen {
        fn header(&self, name: &str) -> Option<&str> {
            self.head.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then_some(value)
            })
        }
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
        let mut bytes = Vec::new();
        loop {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let mut seen = Seen {
                    head,
                    body: bytes[end + 4..].to_vec(),
                };
                let length = seen.header("content-length").unwrap_or("0");
                let length: usize = length.parse().unwrap();
                if seen.body.len() >= length {
                    seen.body.truncate(length);
                    return Some(seen);
                }
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn serve_one(mut stream: TcpStream, deed: Deed, seen: mpsc::UnboundedSender<Seen>) {
        while let Some(request) = read_request(&mut stream).await {
            seen.send(request).ok();
            match &deed {
                Deed::Answer(text) => {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    return;
                }
                Deed::AnswerAndStay(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                Deed::Reset => return stream.set_zero_linger().unwrap(),
                Deed::Close => return,
                Deed::Hang => std::future::pending().await,
            }
        }
    }

    async fn serve(deed: Deed) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_one(stream, deed.clone(), sender.clone()));
            }
        });
        (address, receiver)
    }

    fn client(base_url: &str, secret: &str, max_in_flight: usize) -> Client {
        client_with(base_url, secret, max_in_flight, Duration::from_secs(20))
    }

    /// A client that gives up soon, for tests in which nobody answers.
    fn impatient(address: SocketAddr, max_in_flight: usize) -> Client {
        let base_url = format!("http://{address}/api/v2");
        client_with(&base_url, "s", max_in_flight, Duration::from_secs(1))
    }

    fn client_with(
        base_url: &str,
        secret: &str,
        max_in_flight: usize,
        timeout: Duration,
    ) -> Client {
        let gateway = config::Gateway {
            base_url: base_url.parse().unwrap(),
            key: Secret::new("public-key"),
            secret: Secret::new(secret),
            timeout,
            max_in_flight,
            resend_unknown: false,
            unknown_after: Duration::from_mins(15),
            sweep_every: Duration::from_mins(5),
            balance_check_every: Duration::ZERO,
        };
        Client::new(&gateway, &Telemetry::default()).unwrap()
    }

    fn client_of(address: SocketAddr) -> Client {
        client(&format!("http://{address}/api/v2"), "AbCdEfG123456", 16)
    }

    fn withdrawal() -> Prepared {
        let arguments = json!({
            "foreign_id": "p1", "currency": "BTC", "amount": "0.0002", "address": "tb1q",
            "end_user_reference": "c1", "receiver_type": "self",
        });
        prepare(Operation::Withdraw, &arguments).unwrap()
    }

    async fn fate(deed: Deed) -> Disposition {
        let (address, _seen) = serve(deed).await;
        client_of(address).send(&withdrawal()).await
    }

    fn unknown(disposition: &Disposition) -> (&str, Option<u16>) {
        match disposition {
            Disposition::Unknown { reason, status } => (reason, *status),
            other @ (Disposition::NotSent { .. }
            | Disposition::Rejected(_)
            | Disposition::Accepted(_)) => panic!("{other:?}"),
        }
    }

    fn is_not_sent(disposition: &Disposition) -> bool {
        matches!(disposition, Disposition::NotSent { .. })
    }

    #[tokio::test]
    async fn the_known_signatures_are_on_the_wire_over_the_very_bytes_of_the_body() {
        for (secret, body, signature) in [
            (
                "AbCdEfG123456",
                r#"{"currency":"BTC","foreign_id":"123456"}"#,
                "03c25fcf7cd35e7d995e402cd5d51edd72d48e1471e865907967809a0c189ba55b90815f20e2bb10f82c7a9e9d865546fda58989c2ae9e8e2ff7bc29195fa1ec",
            ),
            (
                "secretkey",
                r#"{"key":"value"}"#,
                "d2b3292793cb1f527dab4c9d8128356a0df7635aa1796a4d45276646ce914dcf29bb9244aed750a3a5b7d26aabb44ba560b05ed1233168107bed4ca684522508",
            ),
            (
                "AbCdEfG123456",
                "{}",
                "89ff570683bfcd9e2c8911332e07e3ff196ca50f91faef98126fb0eb76df90d7ccddc4372a99ba67ec072fd3aac5d0b7eac44652e2b29ce36dbcf5ee50b6fa05",
            ),
            (
                "AbCdEfG123456",
                r#"{"receiver_data":{"last_name":"Müller"}}"#,
                "584511c09c760b2535d775796db41e33cb5a049b8565ed2083a41fd0541d29fe36b6e8a9c182480c2bc674c4794eff5cef11b37f88715ab54ce88f0f20eb48db",
            ),
        ] {
            let (address, mut seen) = serve(Deed::Answer(answer("200 OK", "", ACCEPTED))).await;
            let client = client(&format!("http://{address}/api/v2"), secret, 16);
            let prepared = Prepared::of_raw_body(Operation::TakeAddress, body.as_bytes());
            client.send(&prepared).await;
            let seen = seen.recv().await.unwrap();
            assert_eq!(seen.body, body.as_bytes());
            assert_eq!(seen.header("x-processing-signature"), Some(signature));
            assert_eq!(seen.header("x-processing-key"), Some("public-key"));
            assert_eq!(seen.header("content-type"), Some("application/json"));
            assert_eq!(
                seen.header("content-length"),
                Some(body.len().to_string().as_str())
            );
        }
    }

    #[tokio::test]
    async fn every_operation_goes_to_its_own_place() {
        let (address, mut seen) = serve(Deed::AnswerAndStay(answer("200 OK", "", ACCEPTED))).await;
        let client = client_of(address);
        for (operation, line) in [
            (Operation::Ping, "GET /api/v2/ping HTTP/1.1"),
            (
                Operation::ListAccounts,
                "POST /api/v2/accounts/list HTTP/1.1",
            ),
            (
                Operation::ListRates,
                "POST /api/v2/currencies/rates HTTP/1.1",
            ),
            (
                Operation::ExchangeFixed,
                "POST /api/v2/exchange/fixed HTTP/1.1",
            ),
            (
                Operation::CreatePaymentRequest,
                "POST /api/payments/v1/requests HTTP/1.1",
            ),
            (
                Operation::TransactionInfo,
                "GET /api/v2/transactions/info HTTP/1.1",
            ),
        ] {
            let body: &[u8] = if operation == Operation::Ping {
                b""
            } else {
                b"{}"
            };
            client.send(&Prepared::of_raw_body(operation, body)).await;
            let seen = seen.recv().await.unwrap();
            assert_eq!(seen.head.lines().next(), Some(line));
            assert_eq!(seen.body, body);
            let signed = seen.header("x-processing-signature").is_some();
            assert_eq!(signed, operation != Operation::Ping, "{operation}");
        }
    }

    #[tokio::test]
    async fn an_accepted_payment_gives_its_data_with_exact_amounts() {
        let disposition = fate(Deed::Answer(answer("201 Created", "", ACCEPTED))).await;
        let expected: Value =
            serde_json::from_str(r#"{"id":12,"foreign_id":"p1","amount":0.00020000}"#).unwrap();
        assert_eq!(disposition, Disposition::Accepted(expected));
    }

    #[tokio::test]
    async fn a_documented_refusal_is_a_rejection() {
        let body = r#"{"errors":{"amount":"The amount must be at least 0.001."}}"#;
        let disposition = fate(Deed::Answer(answer("400 Bad Request", "", body))).await;
        let Disposition::Rejected(rejection) = disposition else {
            panic!("{disposition:?}");
        };
        assert_eq!(rejection.status, 400);
    }

    #[tokio::test]
    async fn what_never_left_is_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = client_of(address).send(&withdrawal()).await;
        assert!(is_not_sent(&refused), "{refused:?}");

        let no_name = client("https://gateway.invalid/api/v2", "s", 1);
        let no_name = no_name.send(&withdrawal()).await;
        assert!(is_not_sent(&no_name), "{no_name:?}");
    }

    #[tokio::test]
    async fn a_failed_tls_handshake_is_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 16];
            stream.read_exact(&mut hello).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        });
        let client = client(&format!("https://{address}/api/v2"), "s", 1);
        let disposition = client.send(&withdrawal()).await;
        assert!(is_not_sent(&disposition), "{disposition:?}");
    }

    #[tokio::test]
    async fn a_connection_lost_after_the_request_was_read_leaves_its_fate_unknown() {
        for deed in [Deed::Reset, Deed::Close] {
            let disposition = fate(deed).await;
            let (reason, status) = unknown(&disposition);
            assert!(
                reason.starts_with("the connection to the gateway broke"),
                "{reason}"
            );
            assert_eq!(status, None);
        }
    }

    #[tokio::test]
    async fn silence_leaves_the_fate_unknown() {
        let (address, _seen) = serve(Deed::Hang).await;
        let disposition = impatient(address, 1).send(&withdrawal()).await;
        assert_eq!(
            unknown(&disposition),
            ("the gateway did not answer in time", None)
        );
    }

    #[tokio::test]
    async fn half_an_answer_leaves_the_fate_unknown() {
        let whole = answer("201 Created", "", ACCEPTED);
        for half in [whole.len() - 10, whole.find("\r\n\r\n").unwrap() + 4] {
            let disposition = fate(Deed::Answer(whole[..half].to_owned())).await;
            let (reason, status) = unknown(&disposition);
            assert!(reason.starts_with("the answer broke off"), "{reason}");
            assert_eq!(status, Some(201));
        }
        let disposition = fate(Deed::Answer("HTTP/1.1 20".to_owned())).await;
        assert_eq!(unknown(&disposition).1, None);
    }

    #[tokio::test]
    async fn an_answer_that_stops_half_way_is_given_up_in_time() {
        let whole = answer("201 Created", "", ACCEPTED);
        let half = whole[..whole.len() - 10].to_owned();
        let (address, _seen) = serve(Deed::AnswerAndStay(half)).await;
        let disposition = impatient(address, 1).send(&withdrawal()).await;
        assert_eq!(
            unknown(&disposition),
            ("the answer did not arrive in time", Some(201))
        );
    }

    #[tokio::test]
    async fn rubbish_leaves_the_fate_unknown() {
        for text in [
            "hello\r\n\r\n".to_owned(),
            answer("200 OK", "", "<html></html>"),
            answer("200 OK", "", ""),
            answer("502 Bad Gateway", "", "<html></html>"),
        ] {
            unknown(&fate(Deed::Answer(text)).await);
        }
    }

    #[tokio::test]
    async fn an_answer_about_another_key_leaves_the_fate_unknown() {
        let body = ACCEPTED.replace("p1", "p2");
        let disposition = fate(Deed::Answer(answer("201 Created", "", &body))).await;
        assert!(unknown(&disposition).0.contains("another foreign_id"));
    }

    #[tokio::test]
    async fn an_answer_beyond_all_bounds_is_not_read() {
        let body = "x".repeat(LARGEST_ANSWER + 1);
        let disposition = fate(Deed::Answer(answer("200 OK", "", &body))).await;
        assert!(unknown(&disposition).0.contains("larger than"));
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let (target, mut reached) = serve(Deed::Answer(answer("201 Created", "", ACCEPTED))).await;
        for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
            let location = format!("location: http://{target}/\r\n");
            let disposition = fate(Deed::Answer(answer(status, &location, ""))).await;
            let (_, code) = unknown(&disposition);
            assert_eq!(code, status[..3].parse().ok());
        }
        assert!(reached.try_recv().is_err());
    }

    #[tokio::test]
    async fn one_connection_carries_many_requests() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, mut seen) = mpsc::unbounded_channel();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let deed = Deed::AnswerAndStay(answer("201 Created", "", ACCEPTED));
            serve_one(stream, deed, sender).await;
        });
        let client = client_of(address);
        for _ in 0..5 {
            let disposition = client.send(&withdrawal()).await;
            assert_eq!(disposition.name(), "accepted");
        }
        drop(client);
        server.await.unwrap();
        let mut requests = 0;
        while seen.recv().await.is_some() {
            requests += 1;
        }
        assert_eq!(requests, 5);
    }

    #[tokio::test]
    async fn no_more_than_max_in_flight_are_out_at_once() {
        let (address, mut seen) = serve(Deed::Hang).await;
        let client = impatient(address, 2);
        let sends: Vec<_> = (0..3)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.send(&withdrawal()).await })
            })
            .collect();
        seen.recv().await.unwrap();
        seen.recv().await.unwrap();
        assert_eq!(client.0.permits.available_permits(), 0);
        assert!(seen.try_recv().is_err());
        // The third leaves when one of the first two has been given up.
        seen.recv().await.unwrap();
        assert!(sends[0].is_finished() || sends[1].is_finished() || sends[2].is_finished());
        for send in sends {
            unknown(&send.await.unwrap());
        }
    }

    #[tokio::test]
    async fn after_a_429_requests_are_held_back_for_as_long_as_it_says() {
        let limited = answer("429 Too Many Requests", "retry-after: 1\r\n", "error 1015");
        let (address, mut seen) = serve(Deed::Answer(limited)).await;
        let client = client_of(address);
        let disposition = client.send(&withdrawal()).await;
        assert_eq!(unknown(&disposition).1, Some(429));
        seen.recv().await.unwrap();

        let second = tokio::spawn({
            let client = client.clone();
            async move { client.send(&withdrawal()).await }
        });
        let early = tokio::time::timeout(Duration::from_millis(500), seen.recv()).await;
        assert!(early.is_err(), "nothing leaves while requests are held");
        assert!(seen.recv().await.is_some());
        unknown(&second.await.unwrap());
        let text = client.0.telemetry.metrics().render();
        assert!(text.contains(r#"bursar_gateway_rate_limited_total{operation="withdraw"} 2"#));
        assert!(text.contains(
            r#"bursar_gateway_requests_total{disposition="unknown",operation="withdraw"} 2"#
        ));
    }

    #[tokio::test]
    async fn a_request_that_would_wait_too_long_for_a_limit_is_given_back_unsent() {
        let (address, mut seen) = serve(Deed::Close).await;
        let client = client_of(address);
        let now = Instant::now();
        client
            .0
            .limiter()
            .hold(Operation::Withdraw, now, LONGEST_WAIT * 2);
        let disposition = client.send(&withdrawal()).await;
        assert!(is_not_sent(&disposition), "{disposition:?}");
        assert!(seen.try_recv().is_err());
    }

    #[test]
    fn nothing_of_the_client_prints_a_secret() {
        let client = client("http://127.0.0.1:1/api/v2", "hunter2", 1);
        let text = format!("{client:?}");
        assert!(
            !text.contains("hunter2") && !text.contains("public-key"),
            "{text}"
        );
    }
}
