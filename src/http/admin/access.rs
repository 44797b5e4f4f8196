//! Who may use the admin listener.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::failure::Failure;
use crate::domain::secret::Secret;
use crate::domain::signature::Signer;
use crate::telemetry::Telemetry;

/// Decides about requests.
#[derive(Debug, Clone)]
pub(super) struct Access {
    token: Option<Token>,
    telemetry: Telemetry,
}

/// The configured token, kept as its signature under itself: tokens are compared by signatures,
/// which cannot be aimed at, so the time a comparison takes tells nothing.
#[derive(Debug, Clone)]
struct Token {
    signer: Signer,
    signature: String,
}

impl Access {
    pub(super) fn new(token: Option<&Secret>, telemetry: &Telemetry) -> Self {
        let token = token.map(|token| {
            let signer = Signer::new(token);
            let signature = signer.sign(token.expose().as_bytes());
            Token { signer, signature }
        });
        Self {
            token,
            telemetry: telemetry.clone(),
        }
    }
}

/// Lets a request pass that presents the token, and every request when none is configured.
pub(super) async fn require_token(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    if let Some(token) = &access.token {
        let Some(given) = bearer(request.headers()) else {
            return Err(Failure::unauthorized());
        };
        if !token.signer.verify(given, &token.signature) {
            access.telemetry.admin_token_refused();
            return Err(Failure::unauthorized());
        }
    }
    Ok(next.run(request).await)
}

/// Lets a request pass that is meant for this machine, and every request when a token protects the
/// listener.
pub(super) async fn require_local_host(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let host = request.headers().get(HOST);
    if access.token.is_none() && !host.is_some_and(is_local) {
        return Err(Failure::wrong_host());
    }
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn is_local(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8081", true),
            ("127.0.0.1:8081", true),
            ("127.1.2.3", true),
            ("[::1]:8081", true),
            ("10.0.0.1:8081", false),
            ("evil.example:8081", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(
                is_local(&HeaderValue::from_static(host)),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn the_token_is_what_follows_the_scheme() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer a b", Some("a b")),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bearer(&headers), expected.map(str::as_bytes), "{value}");
        }
    }
}
