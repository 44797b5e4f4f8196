//! An origin that scripts may reach: `https://shop.example`, `https://*.shop.example`,
//! `http://127.0.0.1:9000`. Whether a request fits one is for `outbound` to say.

use url::Host;

use super::refusal::Refusal;

/// One allowed origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    /// `http` or `https`.
    pub scheme: String,
    /// Host in lower case as `Url::host_str` writes it (IPv6 in brackets, international names in
    /// punycode); after a leading `*.`, every sub-domain but not the domain itself.
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
}

/// Reads `[scheme://]host[:port]`; a bare host means https.
pub fn parse(text: &str) -> Result<AllowedOrigin, Refusal> {
    // A password may stand before the `@`: such a text is never repeated.
    if text.contains('@') {
        return Err(Refusal::new("a user or password has no place in an origin")
            .help("give scripts the password as a secret, to be sent in a header or in the URL"));
    }
    let malformed = || {
        Refusal::new(format!(
            "`{text}` is not an origin, such as \"https://shop.example\", \"https://*.shop.example\" or \"http://127.0.0.1:9000\""
        ))
    };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        None => ("https", text),
        Some(_) => return Err(malformed()),
    };
    if rest.contains(['/', '?', '#']) {
        return Err(Refusal::new(format!(
            "`{text}` goes on after host and port: an origin has no path"
        )));
    }
    let (host, port) = split_port(rest).ok_or_else(malformed)?;
    let port = match port {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(malformed)?,
        Some(_) => return Err(malformed()),
        None if scheme == "http" => 80,
        None => 443,
    };
    Ok(AllowedOrigin {
        scheme: scheme.to_owned(),
        host: host_text(host, text)?,
        port,
    })
}

/// The host and, if there is one, the port behind it; `None` when brackets do not match.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let (host, after) = text.split_at(text.find(']')? + 1);
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    Some(match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

fn host_text(host: &str, text: &str) -> Result<String, Refusal> {
    let malformed = || Refusal::new(format!("`{text}` is not an origin: `{host}` is not a host"));
    let (star, name) = match host.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", host),
    };
    if name.contains('*') {
        return Err(Refusal::new(format!(
            "`{text}` has its `*` in the wrong place: it stands for sub-domains, as in \"https://*.shop.example\""
        )));
    }
    match Host::parse(name).map_err(|_| malformed())? {
        Host::Domain(name) if star.is_empty() => Ok(name),
        Host::Domain(name) if name.trim_end_matches('.').contains('.') => {
            Ok(format!("{star}{name}"))
        }
        Host::Domain(_) => Err(Refusal::new(format!(
            "`{text}` allows a whole top-level domain: name at least two parts after `*.`"
        ))),
        Host::Ipv4(_) | Host::Ipv6(_) if !star.is_empty() => Err(Refusal::new(format!(
            "`{text}` puts `*.` before an address, which has no sub-domains"
        ))),
        // The parser also takes `127.1` and `0x7f000001`; what is allowed must be plain to read.
        Host::Ipv4(address) if address.to_string() != name => Err(Refusal::new(format!(
            "`{text}` is an unusual way to write {address}"
        ))
        .help("write the address in full")),
        Host::Ipv4(address) => Ok(address.to_string()),
        Host::Ipv6(address) => Ok(format!("[{address}]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, scheme, host, port) in [
            ("https://shop.example", "https", "shop.example", 443),
            ("https://*.shop.example", "https", "*.shop.example", 443),
            ("http://127.0.0.1:9000", "http", "127.0.0.1", 9_000),
            ("http://10.0.0.5", "http", "10.0.0.5", 80),
            ("shop.example", "https", "shop.example", 443),
            ("shop.example:8443", "https", "shop.example", 8_443),
            ("*.shop.example", "https", "*.shop.example", 443),
            ("https://Shop.Example", "https", "shop.example", 443),
            (
                "https://bücher.example",
                "https",
                "xn--bcher-kva.example",
                443,
            ),
            ("http://[::1]:9000", "http", "[::1]", 9_000),
            ("[0:0::1]", "https", "[::1]", 443),
            ("localhost", "https", "localhost", 443),
        ] {
            assert_eq!(
                parse(text),
                Ok(AllowedOrigin {
                    scheme: scheme.to_owned(),
                    host: host.to_owned(),
                    port
                })
            );
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        let malformed = |text: &str| {
            format!(
                "`{text}` is not an origin, such as \"https://shop.example\", \"https://*.shop.example\" or \"http://127.0.0.1:9000\""
            )
        };
        for text in [
            "ftp://shop.example",
            "https://shop.example:",
            "https://shop.example:0",
            "https://shop.example:65536",
            "https://shop.example:+80",
            "https://[::1",
            "https://[::1]x",
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), malformed(text));
        }
        for (text, message) in [
            ("", "`` is not an origin: `` is not a host"),
            (
                "https://shop example",
                "`https://shop example` is not an origin: `shop example` is not a host",
            ),
            (
                "https://shop.example/credit",
                "`https://shop.example/credit` goes on after host and port: an origin has no path",
            ),
            (
                "https://shop.example/",
                "`https://shop.example/` goes on after host and port: an origin has no path",
            ),
            (
                "*",
                "`*` has its `*` in the wrong place: it stands for sub-domains, as in \"https://*.shop.example\"",
            ),
            (
                "https://shop.*",
                "`https://shop.*` has its `*` in the wrong place: it stands for sub-domains, as in \"https://*.shop.example\"",
            ),
            (
                "https://*.example",
                "`https://*.example` allows a whole top-level domain: name at least two parts after `*.`",
            ),
            (
                "https://*.127.0.0.1",
                "`https://*.127.0.0.1` puts `*.` before an address, which has no sub-domains",
            ),
            (
                "http://127.1",
                "`http://127.1` is an unusual way to write 127.0.0.1; write the address in full",
            ),
            (
                "https://ana:hunter2@shop.example",
                "a user or password has no place in an origin; give scripts the password as a secret, to be sent in a header or in the URL",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
