//! The gateway's base URL: `https://app.sandbox.cryptoprocessing.com/api/v2`.

use url::{Host, Url};

use super::refusal::Refusal;

const EXAMPLE: &str = "\"https://app.sandbox.cryptoprocessing.com/api/v2\"";

/// Reads an absolute https URL (http on loopback) of a host and a path, and drops slashes at its
/// end. Keys travel to it and money follows them, so nothing is guessed.
pub fn parse(text: &str) -> Result<Url, Refusal> {
    // A password may stand before the `@`: such a text is never repeated.
    if text.contains('@') {
        return Err(Refusal::new("a user or password has no place in the URL")
            .help("the account is named by `gateway.key` and `gateway.secret`"));
    }
    let malformed = || Refusal::new(format!("`{text}` is not a URL, such as {EXAMPLE}"));
    if !(text.starts_with("https://") || text.starts_with("http://"))
        || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\')
    {
        return Err(malformed());
    }
    let mut url = Url::parse(text).map_err(|_| malformed())?;
    if text.contains(['?', '#']) {
        return Err(Refusal::new(format!(
            "`{text}` goes on after its path: a base URL has no `?` and no `#`"
        )));
    }
    if url.scheme() == "http" && !url.host().is_some_and(|host| is_loopback(&host)) {
        return Err(
            Refusal::new(format!("`{text}` would send requests in the clear"))
                .help("write https; http is for loopback addresses only"),
        );
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path.contains("//") {
        return Err(malformed());
    }
    url.set_path(&path);
    Ok(url)
}

/// Whether a host never leaves the machine.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_https_or_on_loopback() {
        for (text, expected) in [
            (
                "https://app.sandbox.cryptoprocessing.com/api/v2",
                "https://app.sandbox.cryptoprocessing.com/api/v2",
            ),
            ("https://host.example/v2//", "https://host.example/v2"),
            ("https://host.example:8443", "https://host.example:8443/"),
            (
                "http://127.0.0.1:9000/api/v2/",
                "http://127.0.0.1:9000/api/v2",
            ),
            ("http://[::1]:9000/v2", "http://[::1]:9000/v2"),
            ("http://localhost/v2", "http://localhost/v2"),
        ] {
            assert_eq!(parse(text).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn anything_doubtful_is_refused() {
        let malformed = |text: &str| {
            format!(
                "`{text}` is not a URL, such as \"https://app.sandbox.cryptoprocessing.com/api/v2\""
            )
        };
        for text in [
            "",
            "app.cryptoprocessing.com/api/v2",
            "ftp://host.example",
            "https:host.example",
            "https://",
            "https://host.example/v2 ",
            "https://host.example\\v2",
            "https://host.example/a//b",
            "https://host.example:99999",
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), malformed(text));
        }
        for (text, message) in [
            (
                "http://host.example/v2",
                "`http://host.example/v2` would send requests in the clear; write https; http is for loopback addresses only",
            ),
            (
                "http://127.0.0.1.host.example/v2",
                "`http://127.0.0.1.host.example/v2` would send requests in the clear; write https; http is for loopback addresses only",
            ),
            (
                "https://host.example/v2?x=1",
                "`https://host.example/v2?x=1` goes on after its path: a base URL has no `?` and no `#`",
            ),
            (
                "https://ana:hunter2@host.example/v2",
                "a user or password has no place in the URL; the account is named by `gateway.key` and `gateway.secret`",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
