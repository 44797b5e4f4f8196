//! Who may use the admin listener, and what for.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::failure::Failure;
use crate::config;
use crate::domain::person::{Person, Role};
use crate::domain::secret::Secret;
use crate::domain::signature::Signer;
use crate::telemetry::Telemetry;

/// Decides about requests.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// Everybody who has a token. Without any, whoever is on the machine is `admin`.
    people: Arc<[(Token, Person)]>,
    telemetry: Telemetry,
}

/// A configured token, kept as its signature under itself: tokens are compared by signatures,
/// which cannot be aimed at, so the time a comparison takes tells nothing.
#[derive(Debug, Clone)]
struct Token {
    signer: Signer,
    signature: String,
}

impl Token {
    fn new(token: &Secret) -> Self {
        let signer = Signer::new(token);
        let signature = signer.sign(token.expose().as_bytes());
        Self { signer, signature }
    }
}

impl Access {
    pub(super) fn new(config: &config::Admin, telemetry: &Telemetry) -> Self {
        let admin = config.token.as_ref().map(|token| (token, Person::admin()));
        let users = config.users.iter().map(|user| {
            let person = Person {
                name: user.name.clone(),
                role: user.role,
            };
            (&user.token, person)
        });
        let people = admin.into_iter().chain(users);
        Self {
            people: people
                .map(|(token, person)| (Token::new(token), person))
                .collect(),
            telemetry: telemetry.clone(),
        }
    }

    /// Whose token was presented. Looks at all of them, whether or not one has matched.
    fn who(&self, given: &[u8]) -> Option<&Person> {
        let matches = |(token, person): &'_ (Token, Person)| {
            let same = token.signer.verify(given, &token.signature);
            same.then(|| person.name.clone())
        };
        let names: Vec<String> = self.people.iter().filter_map(matches).collect();
        let (_, person) = self
            .people
            .iter()
            .find(|(_, person)| names.first() == Some(&person.name))?;
        Some(person)
    }
}

/// Lets a request pass that presents a token, and every request when none is configured; and tells
/// what comes after it who asks.
pub(super) async fn require_token(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let person = if access.people.is_empty() {
        Person::admin()
    } else {
        let Some(given) = bearer(request.headers()) else {
            return Err(Failure::unauthorized());
        };
        let Some(person) = access.who(given) else {
            access.telemetry.admin_token_refused();
            return Err(Failure::unauthorized());
        };
        person.clone()
    };
    request.extensions_mut().insert(person);
    Ok(next.run(request).await)
}

/// The role that a route needs, and what its caller does there, for the refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs(pub(super) Role, pub(super) &'static str);

/// Lets a request pass whose sender has the role.
pub(super) async fn require_role(
    State(Needs(role, action)): State<Needs>,
    Extension(person): Extension<Person>,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    person.may(role, action)?;
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
    if access.people.is_empty() && !host.is_some_and(is_local) {
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
