//! Which URLs scripts may reach: the origins of the configuration, and behind their names only
//! addresses that are out in the open.
//!
//! A name is judged twice: as it stands in the URL, and again by the addresses it resolves to, in
//! the resolver that the connection itself uses, so that a name cannot change its meaning between
//! the check and the connection.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::addresses::{is_local, is_public};
use crate::config::AllowedOrigin;

/// The name that may stand for this machine when it is listed as such.
const LOCALHOST: &str = "localhost";

/// Whether a URL may be requested: its origin is listed, and when its host is an address, it is a
/// public one or one that an operator can open by listing it.
pub(super) fn allows(allowed: &[AllowedOrigin], url: &Url) -> bool {
    let Some(host) = url.host() else {
        return false;
    };
    let address = match &host {
        Host::Domain(_) => None,
        Host::Ipv4(v4) => Some(IpAddr::V4(*v4)),
        Host::Ipv6(v6) => Some(IpAddr::V6(*v6)),
    };
    address.is_none_or(|address| is_public(address) || is_local(address))
        && allowed.iter().any(|origin| {
            origin.scheme == url.scheme()
                && Some(origin.port) == url.port_or_known_default()
                && is_host(&origin.host, &host)
        })
}

fn is_host(allowed: &str, host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => match allowed.strip_prefix("*.") {
            Some(parent) => {
                let label = name
                    .strip_suffix(parent)
                    .and_then(|rest| rest.strip_suffix('.'));
                !parent.is_empty() && label.is_some_and(|label| !label.is_empty())
            }
            None => allowed == *name,
        },
        Host::Ipv4(address) => allowed.parse() == Ok(*address),
        Host::Ipv6(address) => {
            let bare = allowed.trim_start_matches('[').trim_end_matches(']');
            bare.parse() == Ok(*address)
        }
    }
}

/// Whether `localhost` itself is listed, which opens loopback addresses to that name.
pub(super) fn opens_localhost(allowed: &[AllowedOrigin]) -> bool {
    allowed.iter().any(|origin| origin.host == LOCALHOST)
}

/// Resolves names, and keeps only the addresses that scripts may reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolver {
    /// Whether `localhost` may be this machine.
    pub(super) localhost: bool,
}

/// A name has no address that scripts may reach.
#[derive(Debug, thiserror::Error)]
#[error("{0} resolves to addresses that scripts may not reach")]
pub(super) struct Forbidden(String);

impl Resolver {
    async fn addresses(
        self,
        name: &str,
    ) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
        let nothing_found = found.is_empty();
        let reachable: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| {
                let ip = address.ip();
                is_public(ip) || (self.localhost && name == LOCALHOST && ip.is_loopback())
            })
            .collect();
        if reachable.is_empty() && !nothing_found {
            return Err(Box::new(Forbidden(name.to_owned())));
        }
        Ok(reachable)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = *self;
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(scheme: &str, host: &str, port: u16) -> AllowedOrigin {
        AllowedOrigin {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        let allowed = [
            origin("https", "shop.example", 443),
            origin("https", "*.api.example", 443),
            origin("http", "127.0.0.1", 9000),
            origin("http", "[::1]", 9000),
            origin("http", "169.254.169.254", 80),
        ];
        for (url, expected) in [
            ("https://shop.example/x?y=1", true),
            ("https://SHOP.example:443/", true),
            ("https://user:pass@shop.example/", true),
            ("https://eu.api.example/", true),
            ("https://a.b.api.example/", true),
            ("http://127.0.0.1:9000/", true),
            ("http://0x7f.1:9000/", true),
            ("http://[::1]:9000/", true),
            // Scheme, port, or host differ.
            ("http://shop.example/", false),
            ("https://shop.example:8443/", false),
            ("https://www.shop.example/", false),
            ("https://shop.example./", false),
            ("https://shop.example.evil.example/", false),
            ("https://shop.example@evil.example/", false),
            ("https://evil.example/shop.example", false),
            ("https://evil.example#@shop.example/", false),
            ("https://evil.example\\@shop.example/", false),
            ("https://xshop.example/", false),
            ("https://api.example/", false),
            ("https://.api.example/", false),
            ("https://xapi.example/", false),
            ("http://127.0.0.1/", false),
            ("http://127.0.0.2:9000/", false),
            ("http://localhost:9000/", false),
            ("http://[::ffff:127.0.0.1]:9000/", false),
            ("https://shop%2eexample/", true),
            ("http://2130706434:9000/", false),
            ("file:///etc/passwd", false),
            ("data:text/plain,x", false),
            // Listed, but no operator can mean this.
            ("http://169.254.169.254/", false),
        ] {
            let allows = Url::parse(url).is_ok_and(|url| allows(&allowed, &url));
            assert_eq!(allows, expected, "{url}");
        }
    }

    #[test]
    fn a_star_stands_for_names_and_never_for_parts_of_an_address() {
        let allowed = [origin("http", "*.0.0.1", 80), origin("http", "*.", 80)];
        for url in [
            "http://127.0.0.1/",
            "http://shop.example/",
            "http://shop.example./",
        ] {
            assert!(!allows(&allowed, &Url::parse(url).unwrap()), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_has_no_address_unless_it_is_listed() {
        let closed = Resolver { localhost: false };
        let error = closed.addresses("localhost").await.unwrap_err();
        assert!(error.downcast_ref::<Forbidden>().is_some(), "{error}");

        let open = Resolver { localhost: true };
        let addresses = open.addresses("localhost").await.unwrap();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    }
}
