//! A script's HTTP request: as the script asked for it, and as it goes out.
//!
//! Turning the one into the other resolves secrets and refuses what a script may not decide; the
//! jail is asked by whoever sends, for this URL and for those it is redirected to.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::http::HttpError;
use super::secrets::{self, MARK};
use crate::domain::secret::Secret;

/// What a script asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// The absolute URL. Its userinfo may refer to secrets: U+0001, the name, U+0001.
    pub url: String,
    /// Header names and values. Values may refer to secrets in the same way.
    pub headers: Vec<(String, String)>,
    /// Goes out as JSON, unless it is a text and a `content-type` header is given.
    pub body: Option<Value>,
    /// The longest the whole exchange may take; never longer than configured.
    pub timeout: Option<Duration>,
}

/// Headers that frame the message or route it; a script deciding them could get around the jail.
const NOT_FOR_SCRIPTS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What goes out next: the request, or what a redirect made of it.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// Without userinfo, so that it can stand in errors.
    pub(super) url: Url,
    /// User and password, percent-encoded.
    pub(super) userinfo: Option<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Vec<u8>>,
    /// The headers that carry secrets.
    secret_headers: Vec<HeaderName>,
}

impl Outgoing {
    /// Resolves a request. A write gets `idempotency_key` unless the script gave one.
    pub(super) fn new(
        request: &Request,
        secrets: &BTreeMap<String, Secret>,
        idempotency_key: &str,
    ) -> Result<Self, HttpError> {
        let method = match request.method.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            _ => {
                return Err(HttpError::Invalid(
                    "the method must be GET, POST, PUT, PATCH or DELETE".to_owned(),
                ));
            }
        };
        let (url, userinfo) = target(&request.url, secrets)?;
        let mut outgoing = Self {
            method,
            url,
            userinfo,
            headers: HeaderMap::new(),
            body: None,
            secret_headers: Vec::new(),
        };
        for (name, value) in &request.headers {
            outgoing.add_header(name, value, secrets)?;
        }
        if outgoing.method != Method::GET && !outgoing.headers.contains_key(IDEMPOTENCY_KEY) {
            let key = HeaderValue::from_str(idempotency_key)
                .map_err(|_| HttpError::Invalid("the idempotency key is no header".to_owned()))?;
            outgoing.headers.insert(IDEMPOTENCY_KEY, key);
        }
        if let Some(body) = &request.body {
            outgoing.set_body(body)?;
        }
        Ok(outgoing)
    }

    fn add_header(
        &mut self,
        name: &str,
        value: &str,
        secrets: &BTreeMap<String, Secret>,
    ) -> Result<(), HttpError> {
        let bad_name = || {
            let name: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
            HttpError::Invalid(format!("`{name}` is no header that a script may set"))
        };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad_name())?;
        if NOT_FOR_SCRIPTS.contains(&header.as_str()) {
            return Err(bad_name());
        }
        let has_secret = value.contains(MARK);
        let text = secrets::resolve(value, secrets, |secret| secret.expose().to_owned())?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            HttpError::Invalid(format!("the value of `{header}` is no header text"))
        })?;
        value.set_sensitive(has_secret);
        if has_secret {
            self.secret_headers.push(header.clone());
        }
        self.headers.append(header, value);
        Ok(())
    }

    fn set_body(&mut self, body: &Value) -> Result<(), HttpError> {
        if secrets::refers(body) {
            return Err(HttpError::Invalid(
                "a secret may stand in header values and in a URL's userinfo only, not in a body"
                    .to_owned(),
            ));
        }
        self.body = Some(match body.as_str() {
            Some(text) if self.headers.contains_key(CONTENT_TYPE) => text.as_bytes().to_vec(),
            Some(_) | None => body.to_string().into_bytes(),
        });
        if !self.headers.contains_key(CONTENT_TYPE) {
            let json = HeaderValue::from_static("application/json");
            self.headers.insert(CONTENT_TYPE, json);
        }
        Ok(())
    }

    /// What a redirect makes of the request; nothing when the answer is no redirect. What belongs
    /// to one origin does not go to another.
    pub(super) fn redirected(mut self, status: StatusCode, location: &str) -> Option<Self> {
        let becomes_get = match status.as_u16() {
            303 => true,
            301 | 302 => self.method == Method::POST,
            307 | 308 => false,
            _ => return None,
        };
        let mut next = self.url.join(location).ok()?;
        if next.has_authority() {
            // Fails where there is no host, which the jail refuses.
            next.set_username("").ok();
            next.set_password(None).ok();
        }
        if next.origin() != self.url.origin() {
            self.userinfo = None;
            for header in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                self.headers.remove(header);
            }
            for header in &self.secret_headers {
                self.headers.remove(header);
            }
        }
        if becomes_get {
            self.method = Method::GET;
            self.body = None;
            self.headers.remove(CONTENT_TYPE);
        }
        self.url = next;
        Some(self)
    }

    /// The URL as it is requested, with its userinfo.
    pub(super) fn url_with_userinfo(&self) -> Url {
        let mut url = self.url.clone();
        if let Some((user, password)) = &self.userinfo {
            url.set_username(user)
                .and_then(|()| url.set_password(Some(password)))
                .expect("an http URL can have userinfo");
        }
        url
    }
}

/// The URL without its userinfo, and the userinfo with secrets put in.
fn target(
    text: &str,
    secrets: &BTreeMap<String, Secret>,
) -> Result<(Url, Option<(String, String)>), HttpError> {
    // Quotes nothing: a malformed URL may have a password anywhere.
    let malformed = || HttpError::Invalid("the URL is no absolute http or https URL".to_owned());
    let mut url = Url::parse(text).map_err(|_| malformed())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(malformed());
    }
    // The parser writes the mark as %01 and drops what it does not understand, so all marks are
    // where they may be only if all are found there again.
    let marks = text.matches(MARK).count();
    let place = |part: &str| {
        if marks > 0 {
            part.replace("%01", "\u{1}")
        } else {
            part.to_owned()
        }
    };
    let (user, password) = (
        place(url.username()),
        place(url.password().unwrap_or_default()),
    );
    if user.matches(MARK).count() + password.matches(MARK).count() != marks {
        return Err(HttpError::Invalid(
            "a secret may stand in header values and in a URL's userinfo only".to_owned(),
        ));
    }
    let user = secrets::resolve(&user, secrets, percent_encoded)?;
    let password = secrets::resolve(&password, secrets, percent_encoded)?;
    url.set_username("")
        .and_then(|()| url.set_password(None))
        .map_err(|()| malformed())?;
    let has_userinfo = !(user.is_empty() && password.is_empty());
    Ok((url, has_userinfo.then_some((user, password))))
}

fn percent_encoded(secret: &Secret) -> String {
    let mut text = String::new();
    for byte in secret.expose().bytes() {
        text.push('%');
        text.push_str(&hex::encode_upper([byte]));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(method: &str, url: &str) -> Request {
        Request {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: None,
            timeout: None,
        }
    }

    fn outgoing(request: &Request) -> Result<Outgoing, HttpError> {
        let secrets = BTreeMap::from([
            ("KEY".to_owned(), Secret::new("s3cret")),
            ("ODD".to_owned(), Secret::new("p@ss/%41:ü")),
            ("BROKEN".to_owned(), Secret::new("a\r\nHost: evil.example")),
        ]);
        Outgoing::new(request, &secrets, "run-1/step-2")
    }

    fn refusal(request: &Request) -> String {
        match outgoing(request) {
            Ok(_) => panic!("{request:?} is refused"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn writes_carry_a_key_and_reads_do_not() {
        for (method, expected) in [
            ("GET", None),
            ("POST", Some("run-1/step-2")),
            ("PUT", Some("run-1/step-2")),
            ("PATCH", Some("run-1/step-2")),
            ("DELETE", Some("run-1/step-2")),
        ] {
            let outgoing = outgoing(&request(method, "https://shop.example/")).unwrap();
            let key = outgoing.headers.get("idempotency-key");
            assert_eq!(key.map(|key| key.to_str().unwrap()), expected, "{method}");
        }
        let mut own = request("POST", "https://shop.example/");
        own.headers = vec![("Idempotency-Key".to_owned(), "mine".to_owned())];
        let keys = outgoing(&own).unwrap().headers;
        let keys: Vec<_> = keys.get_all("idempotency-key").iter().collect();
        assert_eq!(keys, ["mine"]);
    }

    #[test]
    fn bodies_are_json_unless_a_text_comes_with_its_type() {
        let mut request = request("POST", "https://shop.example/");
        request.body = Some(serde_json::from_str(r#"{"amount":1.10}"#).unwrap());
        let sent = outgoing(&request).unwrap();
        assert_eq!(sent.body.as_deref(), Some(&br#"{"amount":1.10}"#[..]));
        assert_eq!(sent.headers["content-type"], "application/json");

        request.body = Some(json!("a=b"));
        assert_eq!(
            outgoing(&request).unwrap().body.as_deref(),
            Some(&b"\"a=b\""[..])
        );
        request.headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
        let sent = outgoing(&request).unwrap();
        assert_eq!(sent.body.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(sent.headers["content-type"], "text/plain");
    }

    #[test]
    fn secrets_are_put_into_headers_and_userinfo() {
        let mut request = request("GET", "https://u\u{1}KEY\u{1}:\u{1}ODD\u{1}@shop.example/x");
        request.headers = vec![("X-Token".to_owned(), "t \u{1}KEY\u{1}".to_owned())];
        let sent = outgoing(&request).unwrap();
        assert_eq!(sent.url.as_str(), "https://shop.example/x");
        assert_eq!(sent.headers["x-token"], "t s3cret");
        assert!(sent.headers["x-token"].is_sensitive());
        assert_eq!(
            sent.url_with_userinfo().as_str(),
            "https://u%73%33%63%72%65%74:%70%40%73%73%2F%25%34%31%3A%C3%BC@shop.example/x"
        );
    }

    #[test]
    fn secrets_stand_nowhere_else() {
        for url in [
            "https://shop.example/\u{1}KEY\u{1}",
            "https://shop.example/?token=\u{1}KEY\u{1}",
            "https://shop.example/#\u{1}KEY\u{1}",
            "https://\u{1}KEY\u{1}.example/",
            "\u{1}KEY\u{1}://shop.example/",
            "https://%01KEY%01@shop.example/\u{1}KEY\u{1}\u{1}",
        ] {
            assert!(!refusal(&request("GET", url)).contains("s3cret"), "{url:?}");
        }
        let mut name = request("GET", "https://shop.example/");
        name.headers = vec![("x-\u{1}KEY\u{1}".to_owned(), String::new())];
        refusal(&name);
        let mut body = request("POST", "https://shop.example/");
        body.body = Some(json!({"token": "\u{1}KEY\u{1}"}));
        refusal(&body);
    }

    #[test]
    fn errors_name_a_secret_and_never_quote_it() {
        let mut request = request("GET", "https://shop.example/");
        request.headers = vec![("x".to_owned(), "\u{1}NONE\u{1}".to_owned())];
        assert!(matches!(
            outgoing(&request),
            Err(HttpError::UnknownSecret(name)) if name == "NONE"
        ));
        request.headers = vec![("x".to_owned(), "\u{1}BROKEN\u{1}".to_owned())];
        assert_eq!(
            refusal(&request),
            "malformed request: the value of `x` is no header text"
        );
    }

    #[test]
    fn headers_that_frame_or_route_are_not_for_scripts() {
        for name in NOT_FOR_SCRIPTS.iter().chain(&["Host", "a b", "", "x\r\ny"]) {
            let mut request = request("GET", "https://shop.example/");
            request.headers = vec![((*name).to_owned(), "x".to_owned())];
            refusal(&request);
        }
    }

    #[test]
    fn other_methods_and_urls_are_malformed() {
        refusal(&request("TRACE", "https://shop.example/"));
        refusal(&request("get", "https://shop.example/"));
        for url in [
            "",
            "shop.example",
            "/x",
            "ftp://shop.example/",
            "data:,x",
            "https://",
        ] {
            refusal(&request("GET", url));
        }
    }

    #[test]
    fn what_belongs_to_an_origin_stays_there_when_redirected() {
        let mut request = request("POST", "https://u:p@shop.example/a");
        request.body = Some(json!({}));
        request.headers = vec![
            ("Authorization".to_owned(), "Bearer x".to_owned()),
            ("X-Token".to_owned(), "\u{1}KEY\u{1}".to_owned()),
            ("X-Plain".to_owned(), "1".to_owned()),
        ];
        let sent = outgoing(&request).unwrap();
        let see = |status: u16, location| {
            let status = StatusCode::from_u16(status).unwrap();
            sent.clone().redirected(status, location)
        };

        let same = see(307, "/b").unwrap();
        assert_eq!(same.url.as_str(), "https://shop.example/b");
        assert_eq!(same.method, Method::POST);
        assert!(same.body.is_some() && same.userinfo.is_some());
        assert!(same.headers.contains_key("x-token"));

        for location in [
            "https://other.example/",
            "//other.example/",
            "http://shop.example/",
            "https://shop.example:8443/",
            "https://u:p@other.example/",
        ] {
            let other = see(307, location).unwrap();
            assert!(other.userinfo.is_none(), "{location}");
            assert_eq!(other.url_with_userinfo().username(), "");
            assert!(!other.headers.contains_key("authorization"));
            assert!(!other.headers.contains_key("x-token"));
            assert!(other.headers.contains_key("x-plain"));
        }

        for status in [301, 302, 303] {
            let get = see(status, "/b").unwrap();
            assert_eq!((get.method, get.body), (Method::GET, None));
            assert!(!get.headers.contains_key("content-type"));
        }
        for (status, location) in [(200, "/b"), (304, "/b"), (307, "https://")] {
            assert!(see(status, location).is_none(), "{status} {location}");
        }
    }
}
