//! The client: one connection pool, one place that sends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::classify::{Disposition, classify};
use super::limiter::{HOLD, Limiter};
use super::operations::{self, Path};
use super::prepare::Prepared;
use crate::config;
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
    limiter: Mutex<Limiter>,
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
            limiter: Mutex::default(),
            telemetry: telemetry.clone(),
        })))
    }

    /// Sends a request once and says what became of it.
    ///
    /// Waits while `max_in_flight` requests are out, and up to about a minute for a rate limit.
    /// Not cancel safe: whoever drops the future must take the request's fate as unknown.
    pub async fn send(&self, prepared: &Prepared) -> Disposition {
        let operation = prepared.operation();
        let disposition = match self.0.admit(prepared).await {
            Ok(_permit) => self.0.exchange(prepared).await,
            Err(disposition) => disposition,
        };
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
    async fn admit(&self, prepared: &Prepared) -> Result<SemaphorePermit<'_>, Disposition> {
        let operation = prepared.operation();
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            let permit = self
                .permits
                .acquire()
                .await
                .map_err(|_| Disposition::not_sent("the client is closed"))?;
            let departure = self.limiter().depart(operation, Instant::now());
            match departure {
                Ok(()) => return Ok(permit),
                Err(free_at) if free_at > deadline => {
                    return Err(Disposition::not_sent(format!(
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
            Ok(body) => agrees_with(
                prepared,
                classify(
                    prepared.operation(),
                    status.as_u16(),
                    content_type.as_deref(),
                    &body,
                ),
            ),
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
fn agrees_with(prepared: &Prepared, disposition: Disposition) -> Disposition {
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
            None,
        ),
        (Some(_) | None, Some(_) | None) => disposition,
    }
}
