//! An address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:8080`.

use std::net::SocketAddr;

use super::refusal::Refusal;

/// Reads a numeric address with a port. Names are refused: what they resolve to may change, and
/// with it who can reach the listener. Port 0 lets the system choose.
pub fn parse(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| {
        let refusal = Refusal::new(format!(
            "`{text}` is not an address to listen on, such as \"127.0.0.1:8080\" or \"[::1]:8080\""
        ));
        match text.split_once(':') {
            Some(("localhost", port)) => refusal.help(format!("write \"127.0.0.1:{port}\"")),
            Some(("" | "*", port)) => refusal.help(format!(
                "write \"0.0.0.0:{port}\" to listen on every address of the machine"
            )),
            Some(_) | None => refusal,
        }
    })
}

/// Whether two listeners would ask the system for the same port.
pub fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() != 0
        && left.port() == right.port()
        && (left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_numeric_and_has_a_port() {
        for text in [
            "127.0.0.1:8080",
            "0.0.0.0:1",
            "[::1]:8080",
            "[::]:0",
            "10.0.0.1:65535",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for (text, message) in [
            (
                "8080",
                "`8080` is not an address to listen on, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            ),
            (
                "127.0.0.1",
                "`127.0.0.1` is not an address to listen on, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            ),
            (
                "127.0.0.1:65536",
                "`127.0.0.1:65536` is not an address to listen on, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            ),
            (
                "localhost:8080",
                "`localhost:8080` is not an address to listen on, such as \"127.0.0.1:8080\" or \"[::1]:8080\"; write \"127.0.0.1:8080\"",
            ),
            (
                ":8080",
                "`:8080` is not an address to listen on, such as \"127.0.0.1:8080\" or \"[::1]:8080\"; write \"0.0.0.0:8080\" to listen on every address of the machine",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn two_listeners_collide_on_one_port_unless_their_addresses_differ() {
        for (left, right, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "10.0.0.1:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(
                collide(parse(left).unwrap(), parse(right).unwrap()),
                expected,
                "{left} and {right}"
            );
        }
    }
}
