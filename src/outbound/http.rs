//! The scripts' HTTP client: sends what the jail allows, follows redirects only to where it
//! allows, and reads answers only up to a size.
//!
//! It does not retry: a failed step is the run's business, and the `Idempotency-Key` makes doing
//! it again safe for whoever heeds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::LOCATION;
use serde_json::{Map, Value};

use super::jail::{self, Forbidden, Resolver};
use super::request::{Outgoing, Request};
use crate::config;
use crate::domain::secret::Secret;
use crate::telemetry::Telemetry;

/// The most redirects that are followed.
const MOST_REDIRECTS: usize = 5;

/// The client. Cheap to clone; all clones share connections.
#[derive(Debug, Clone)]
pub struct ScriptHttp(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    config: config::ScriptsHttp,
    secrets: BTreeMap<String, Secret>,
    telemetry: Telemetry,
}

/// Why there is no client; the daemon does not start without one.
#[derive(Debug, thiserror::Error)]
#[error("the scripts' HTTP client cannot be set up")]
pub struct BuildError(#[source] reqwest::Error);

/// Why a request has no answer. None of the texts quotes a secret, a path or a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The request itself is wrong; the script must change.
    #[error("malformed request: {0}")]
    Invalid(String),
    /// The script refers to a secret that is not configured.
    #[error("there is no secret `{0}`")]
    UnknownSecret(String),
    /// The origin, or the address behind its name, is not open to scripts.
    #[error("{0} is not open to scripts (scripts.http.allow)")]
    NotAllowed(String),
    /// Nothing answered. Whether the request arrived is not known.
    #[error("{origin} did not answer: {reason}")]
    Unavailable {
        /// Scheme, host and port.
        origin: String,
        /// The innermost cause.
        reason: String,
    },
    /// The time was up. Whether the request arrived is not known.
    #[error("no whole answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The answer is larger than configured; it was not read to its end.
    #[error("the answer is larger than {0} bytes (scripts.http.max_response)")]
    TooLarge(u64),
}

impl HttpError {
    /// The word in metrics.
    const fn name(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::UnknownSecret(_) => "unknown_secret",
            Self::NotAllowed(_) => "not_allowed",
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::TooLarge(_) => "too_large",
        }
    }
}

/// What came back, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values; several of one name joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// The bytes, decompressed.
    pub body: Vec<u8>,
}

impl Answer {
    /// `{status, headers, body}` as scripts see it: the body parsed when its type says JSON and it
    /// is, a text otherwise (what is not UTF-8 in it replaced).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        let parsed = if self.says_json() {
            serde_json::from_slice(&self.body).ok()
        } else {
            None
        };
        let text = || Value::from(String::from_utf8_lossy(&self.body).into_owned());
        Value::Object(Map::from_iter([
            ("status".to_owned(), Value::from(self.status)),
            ("headers".to_owned(), Value::Object(headers)),
            ("body".to_owned(), parsed.unwrap_or_else(text)),
        ]))
    }

    fn says_json(&self) -> bool {
        let type_ = self.headers.get("content-type").map(String::as_str);
        let media = type_
            .and_then(|text| text.split(';').next())
            .unwrap_or_default();
        let media = media.trim().to_ascii_lowercase();
        media == "application/json" || media.ends_with("+json")
    }
}

impl ScriptHttp {
    /// Makes a client; opens no connection yet. `secrets` are those scripts may refer to.
    ///
    /// # Errors
    /// [`BuildError`]
    pub fn new(
        config: &config::ScriptsHttp,
        secrets: BTreeMap<String, Secret>,
        telemetry: &Telemetry,
    ) -> Result<Self, BuildError> {
        let resolver = Resolver {
            localhost: jail::opens_localhost(&config.allow),
        };
        Self::with_resolver(config, secrets, telemetry, resolver)
    }

    fn with_resolver(
        config: &config::ScriptsHttp,
        secrets: BTreeMap<String, Secret>,
        telemetry: &Telemetry,
        resolver: Resolver,
    ) -> Result<Self, BuildError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("bursar/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .dns_resolver(resolver)
            .build()
            .map_err(BuildError)?;
        Ok(Self(Arc::new(Inner {
            http,
            config: config.clone(),
            secrets,
            telemetry: telemetry.clone(),
        })))
    }

    /// Sends a request and reads the answer, over at most five redirects, each of which is checked
    /// like the request itself. `idempotency_key` goes with every write that has none of its own;
    /// it must be the same when the same step is performed again.
    ///
    /// # Errors
    /// [`HttpError`]; an answer with any status is no error.
    pub async fn send(
        &self,
        request: &Request,
        idempotency_key: &str,
    ) -> Result<Answer, HttpError> {
        let outcome = self.0.send(request, idempotency_key).await;
        match &outcome {
            Ok(answer) => self
                .0
                .telemetry
                .script_request("answered", Some(answer.status)),
            Err(error) => self.0.telemetry.script_request(error.name(), None),
        }
        outcome
    }
}

impl Inner {
    async fn send(&self, request: &Request, idempotency_key: &str) -> Result<Answer, HttpError> {
        let outgoing = Outgoing::new(request, &self.secrets, idempotency_key)?;
        let longest = self.config.timeout;
        let timeout = request.timeout.map_or(longest, |wish| wish.min(longest));
        tokio::time::timeout(timeout, self.follow(outgoing))
            .await
            .unwrap_or(Err(HttpError::Timeout(timeout)))
    }

    async fn follow(&self, mut outgoing: Outgoing) -> Result<Answer, HttpError> {
        let mut redirects = 0;
        loop {
            let origin = outgoing.url.origin().ascii_serialization();
            if !jail::allows(&self.config.allow, &outgoing.url) {
                return Err(HttpError::NotAllowed(origin));
            }
            let response = self.exchange(&outgoing, &origin).await?;
            let location = response.headers().get(LOCATION);
            let next = location
                .and_then(|location| location.to_str().ok())
                .and_then(|location| outgoing.clone().redirected(response.status(), location));
            match next {
                Some(_) if redirects == MOST_REDIRECTS => {
                    return Err(HttpError::Unavailable {
                        origin,
                        reason: format!("more than {MOST_REDIRECTS} redirects"),
                    });
                }
                Some(next) => outgoing = next,
                None => return self.read(response, &origin).await,
            }
            redirects += 1;
        }
    }

    async fn exchange(
        &self,
        outgoing: &Outgoing,
        origin: &str,
    ) -> Result<reqwest::Response, HttpError> {
        let mut request = self
            .http
            .request(outgoing.method.clone(), outgoing.url_with_userinfo())
            .headers(outgoing.headers.clone());
        if let Some(body) = &outgoing.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(|error| broken(&error, origin))
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        origin: &str,
    ) -> Result<Answer, HttpError> {
        let status = response.status();
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in response.headers() {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str().to_owned())
                .and_modify(|all| {
                    all.push_str(", ");
                    all.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        }
        let most = usize::try_from(self.config.max_response).unwrap_or(usize::MAX);
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| broken(&error, origin))?
        {
            if chunk.len() > most - body.len() {
                return Err(HttpError::TooLarge(self.config.max_response));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: status.as_u16(),
            headers,
            body,
        })
    }
}

/// The request or its answer broke off; or the name leads where scripts may not go.
fn broken(error: &reqwest::Error, origin: &str) -> HttpError {
    let mut cause: &dyn std::error::Error = error;
    loop {
        if cause.is::<Forbidden>() {
            return HttpError::NotAllowed(origin.to_owned());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => {
                return HttpError::Unavailable {
                    origin: origin.to_owned(),
                    reason: cause.to_string(),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::AllowedOrigin;

    /// Answers every request with `reply`, and passes on what arrived up to the end of the head.
    async fn serve(reply: String) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = Vec::new();
                while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
                    if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                        break;
                    }
                }
                sender.send(String::from_utf8(bytes).unwrap()).ok();
                stream.write_all(reply.as_bytes()).await.unwrap();
                stream.shutdown().await.ok();
            }
        });
        (address, receiver)
    }

    fn ok(headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n{body}")
    }

    fn redirect(location: &str) -> String {
        format!("HTTP/1.1 307 Go\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
    }

    fn origin(host: &str, address: SocketAddr) -> AllowedOrigin {
        AllowedOrigin {
            scheme: "http".to_owned(),
            host: host.to_owned(),
            port: address.port(),
        }
    }

    fn config(allow: Vec<AllowedOrigin>) -> config::ScriptsHttp {
        config::ScriptsHttp {
            allow,
            timeout: Duration::from_secs(20),
            max_response: 1000,
        }
    }

    fn client(allow: Vec<AllowedOrigin>) -> ScriptHttp {
        let secrets = BTreeMap::from([("KEY".to_owned(), Secret::new("s3cret"))]);
        ScriptHttp::new(&config(allow), secrets, &Telemetry::default()).unwrap()
    }

    fn client_for(addresses: &[SocketAddr]) -> ScriptHttp {
        client(
            addresses
                .iter()
                .map(|at| origin("127.0.0.1", *at))
                .collect(),
        )
    }

    fn request(method: &str, url: String) -> Request {
        Request {
            method: method.to_owned(),
            url,
            headers: Vec::new(),
            body: None,
            timeout: None,
        }
    }

    async fn get(client: &ScriptHttp, url: String) -> Result<Answer, HttpError> {
        client.send(&request("GET", url), "key").await
    }

    #[tokio::test]
    async fn a_write_arrives_whole_and_its_answer_comes_back_parsed() {
        let reply = ok(
            "content-type: application/json; charset=utf-8\r\nx-a: 1\r\nx-a: 2\r\n",
            r#"{"credited":1.10}"#,
        );
        let (address, mut seen) = serve(reply).await;
        let mut request = request("POST", format!("http://{address}/credit?x=1"));
        request.body = Some(json!({"customer": "c1"}));
        request.headers = vec![(
            "authorization".to_owned(),
            "Bearer \u{1}KEY\u{1}".to_owned(),
        )];
        let client = client_for(&[address]);
        let answer = client.send(&request, "run-1/2").await.unwrap();

        let seen = seen.recv().await.unwrap();
        for line in [
            "POST /credit?x=1 HTTP/1.1\r\n",
            "idempotency-key: run-1/2\r\n",
            "authorization: Bearer s3cret\r\n",
            "content-type: application/json\r\n",
            "content-length: 17\r\n",
        ] {
            assert!(seen.contains(line), "{line:?} in {seen}");
        }
        let expected: Value = serde_json::from_str(
            r#"{"status":200,"headers":{"content-type":"application/json; charset=utf-8","content-length":"17","x-a":"1, 2"},"body":{"credited":1.10}}"#,
        )
        .unwrap();
        assert_eq!(answer.to_json(), expected);
        assert!(!format!("{client:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn a_body_that_is_not_json_is_a_text_whatever_its_type_says() {
        for (headers, body) in [
            ("content-type: text/plain\r\n", "1"),
            ("content-type: application/json\r\n", "{"),
            ("", "{}"),
        ] {
            let (address, _seen) = serve(ok(headers, body)).await;
            let client = client_for(&[address]);
            let answer = get(&client, format!("http://{address}/")).await.unwrap();
            assert_eq!(answer.to_json()["body"], json!(body));
        }
    }

    #[tokio::test]
    async fn userinfo_becomes_basic_authorization() {
        let (address, mut seen) = serve(ok("", "")).await;
        let url = format!("http://ana:\u{1}KEY\u{1}@{address}/");
        get(&client_for(&[address]), url).await.unwrap();
        let seen = seen.recv().await.unwrap();
        // base64 of `ana:s3cret`
        assert!(
            seen.contains("authorization: Basic YW5hOnMzY3JldA==\r\n"),
            "{seen}"
        );
    }

    #[tokio::test]
    async fn statuses_are_answers_and_not_errors() {
        let reply = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned();
        let (address, _seen) = serve(reply).await;
        let client = client_for(&[address]);
        let answer = get(&client, format!("http://{address}/")).await.unwrap();
        assert_eq!(answer.status, 503);
    }

    #[tokio::test]
    async fn an_origin_that_is_not_listed_is_not_reached() {
        let (address, mut seen) = serve(ok("", "")).await;
        let client = client(Vec::new());
        for url in [
            format!("http://{address}/"),
            format!("http://localhost:{}/", address.port()),
        ] {
            let refused = get(&client, url).await;
            assert!(
                matches!(refused, Err(HttpError::NotAllowed(_))),
                "{refused:?}"
            );
        }
        assert!(seen.try_recv().is_err());
        let text = client.0.telemetry.metrics().render();
        assert!(text.contains(r#"bursar_script_requests_total{outcome="not_allowed"} 2"#));
    }

    #[tokio::test]
    async fn a_listed_name_that_resolves_to_this_machine_is_not_reached() {
        let (address, mut seen) = serve(ok("", "")).await;
        let allow = config(vec![origin("localhost", address)]);
        let url = format!("http://localhost:{}/", address.port());
        let any_name = ScriptHttp::with_resolver(
            &allow,
            BTreeMap::new(),
            &Telemetry::default(),
            Resolver { localhost: false },
        );
        let refused = get(&any_name.unwrap(), url.clone()).await;
        let expected = format!("http://localhost:{}", address.port());
        assert_eq!(refused, Err(HttpError::NotAllowed(expected)));
        assert!(seen.try_recv().is_err());

        let localhost = client(allow.allow);
        assert_eq!(get(&localhost, url).await.unwrap().status, 200);
    }

    #[tokio::test]
    async fn a_redirect_to_a_forbidden_place_is_not_followed() {
        let (inside, mut reached) = serve(ok("", "inside")).await;
        for location in [
            format!("http://{inside}/"),
            format!("http://localhost:{}/", inside.port()),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "file:///etc/passwd".to_owned(),
        ] {
            let (address, _seen) = serve(redirect(&location)).await;
            let refused = get(&client_for(&[address]), format!("http://{address}/")).await;
            assert!(
                matches!(refused, Err(HttpError::NotAllowed(_))),
                "{location}: {refused:?}"
            );
        }
        assert!(reached.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_redirect_to_another_allowed_origin_takes_no_secret_along() {
        let (target, mut reached) = serve(ok("", "there")).await;
        let (address, mut seen) = serve(redirect(&format!("http://{target}/x"))).await;
        let mut request = request("POST", format!("http://u:\u{1}KEY\u{1}@{address}/"));
        request.headers = vec![
            ("x-token".to_owned(), "\u{1}KEY\u{1}".to_owned()),
            ("x-plain".to_owned(), "1".to_owned()),
        ];
        let answer = client_for(&[address, target]).send(&request, "key").await;
        assert_eq!(answer.unwrap().body, b"there");
        let first = seen.recv().await.unwrap();
        assert!(first.contains("x-token: s3cret") && first.contains("authorization: Basic"));
        let second = reached.recv().await.unwrap();
        assert!(second.starts_with("POST /x HTTP/1.1\r\n"), "{second}");
        assert!(second.contains("x-plain: 1") && second.contains("idempotency-key: key"));
        assert!(
            !second.contains("s3cret") && !second.contains("authorization"),
            "{second}"
        );
    }

    #[tokio::test]
    async fn redirects_end_after_the_fifth() {
        let (address, mut seen) = serve(redirect("/again")).await;
        let answer = get(&client_for(&[address]), format!("http://{address}/")).await;
        assert!(
            matches!(&answer, Err(HttpError::Unavailable { reason, .. }) if reason == "more than 5 redirects"),
            "{answer:?}"
        );
        let mut requests = 0;
        while seen.try_recv().is_ok() {
            requests += 1;
        }
        assert_eq!(requests, 1 + MOST_REDIRECTS);
    }

    #[tokio::test]
    async fn an_answer_beyond_the_limit_is_not_read() {
        for (length, expected) in [(1000, None), (1001, Some(HttpError::TooLarge(1000)))] {
            let (address, _seen) = serve(ok("", &"x".repeat(length))).await;
            let answer = get(&client_for(&[address]), format!("http://{address}/")).await;
            assert_eq!(answer.err(), expected);
        }
    }

    #[tokio::test]
    async fn whoever_does_not_answer_is_unavailable_or_late() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let mut request = request("GET", format!("http://{silent}/"));
        request.timeout = Some(Duration::from_millis(200));
        let client = client_for(&[silent]);
        assert_eq!(
            client.send(&request, "key").await,
            Err(HttpError::Timeout(Duration::from_millis(200)))
        );

        drop(listener);
        request.timeout = None;
        let refused = client.send(&request, "key").await;
        assert!(
            matches!(refused, Err(HttpError::Unavailable { .. })),
            "{refused:?}"
        );

        let (broken, _seen) =
            serve("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_owned()).await;
        let half = get(&client_for(&[broken]), format!("http://{broken}/")).await;
        assert!(
            matches!(half, Err(HttpError::Unavailable { .. })),
            "{half:?}"
        );
    }
}
