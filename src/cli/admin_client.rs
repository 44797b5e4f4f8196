//! Talks to the running daemon, over its admin listener.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request};
use serde_json::Value;
use url::form_urlencoded;

use super::exchange::{ExchangeError, PATIENCE, exchange};
use super::exit_code::Failure;
use super::settings::Settings;
use crate::domain::secret::Secret;

/// How long the longest work may take.
const LONG: Duration = Duration::from_hours(24);

/// How long it may take to find out whether anybody listens.
const KNOCK: Duration = Duration::from_secs(5);

/// A daemon, by the address and token in the configuration.
#[derive(Debug)]
pub(super) struct Daemon {
    addr: SocketAddr,
    token: Option<Secret>,
}

impl Daemon {
    /// The daemon of this configuration.
    pub(super) fn of(settings: &Settings) -> Result<Self, Failure> {
        let (listen, token) = settings.admin()?;
        Ok(Self {
            addr: reachable(listen),
            token,
        })
    }

    /// Asks for what is below `/api/v1`: a path, made with [`below`] and [`filtered`] where it has
    /// variable parts.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, Bytes::new(), PATIENCE)
    }

    /// Has something done.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Bytes::from(body.to_string()), PATIENCE)
    }

    /// Has something done if the daemon runs; `None` when nobody listens there.
    pub(super) fn post_if_there(&self, path: &str, body: &Value) -> Result<Option<Value>, Failure> {
        let is_there = TcpStream::connect_timeout(&self.addr, KNOCK);
        if is_there.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return Ok(None);
        }
        self.post(path, body).map(Some)
    }

    /// Has something done that may take hours.
    pub(super) fn post_long(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Bytes::from(body.to_string()), LONG)
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Value, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v1/{path}", self.addr))
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::failed(format!("the request cannot be sent: {error}")))?;
        let answer = exchange(request, patience).map_err(|error| self.unreachable(&error))?;
        let body = serde_json::from_slice(&answer.body);
        match (answer.status, body) {
            (200, Ok(body)) => Ok(body),
            (401, _) => Err(self.unauthorized()),
            (_, Ok(body)) => Err(refused(&body)),
            (status, Err(_)) => Err(Failure::failed(format!(
                "what answers at {} with status {status} is not a bursar daemon; is `admin.listen` right?",
                self.addr
            ))),
        }
    }

    fn unreachable(&self, error: &ExchangeError) -> Failure {
        match error {
            ExchangeError::NotThere => Failure::failed(format!(
                "the daemon is not running at {}: start it with `bursar run`, or name the configuration it runs with (--config)",
                self.addr
            )),
            ExchangeError::Lost(_) => {
                Failure::failed(format!("the daemon at {}: {error}", self.addr))
            }
        }
    }

    fn unauthorized(&self) -> Failure {
        let ours = match self.token {
            Some(_) => "the one in this configuration is another one",
            None => "there is none in this configuration",
        };
        Failure::failed(format!(
            "the daemon at {} asks for its admin token, and {ours}; `admin.token` (or with --as, that of the person) must give the same here as where the daemon was started",
            self.addr
        ))
    }
}

fn refused(body: &Value) -> Failure {
    let message = body.pointer("/error/message").and_then(Value::as_str);
    Failure::failed(message.unwrap_or("the daemon refused, and did not say why"))
}

/// Where to connect to for a listener on every address of the machine.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listen.port())
}

/// A path with a key as its last part, whatever characters that has.
pub(super) fn below(path: &str, key: &str) -> String {
    let key: String = form_urlencoded::byte_serialize(key.as_bytes()).collect();
    format!("{path}/{}", key.replace('+', "%20"))
}

/// A path with filters; those without a value are left out.
pub(super) fn filtered(path: &str, filters: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in filters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("{path}?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_filters_keep_their_characters() {
        assert_eq!(
            below("payments", "order/7 +ä"),
            "payments/order%2F7%20%2B%C3%A4"
        );
        assert_eq!(
            filtered(
                "runs",
                &[
                    ("limit", Some("5")),
                    ("state", None),
                    ("script", Some("a/b&c"))
                ]
            ),
            "runs?limit=5&script=a%2Fb%26c"
        );
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
