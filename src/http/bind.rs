//! Opens the port of a listener, or says in the operator's words why not.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why a listener has no port; the daemon does not start without it.
#[derive(Debug, thiserror::Error)]
#[error("the {what} listener cannot listen on {addr}: {}", advice(.source, .what))]
pub struct BindError {
    /// The section of the configuration: `callbacks` or `admin`.
    pub what: &'static str,
    /// Where it was told to listen.
    pub addr: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

fn advice(source: &io::Error, what: &str) -> String {
    let key = format!("`{what}.listen` in daemon.toml");
    let kind = source.kind();
    if kind == ErrorKind::AddrInUse {
        format!("the port is taken, perhaps by another bursar; stop that process or change {key}")
    } else if kind == ErrorKind::AddrNotAvailable {
        format!("this machine does not have that address; change {key}")
    } else if kind == ErrorKind::PermissionDenied {
        format!("ports below 1024 need a privilege; change {key}")
    } else {
        format!("{source}; see {key}")
    }
}

/// Listens on `addr`; port 0 takes a free one. `what` is the section of the configuration that the
/// address comes from.
///
/// # Errors
/// [`BindError`]; its text says which key to change.
pub async fn bind(addr: SocketAddr, what: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| BindError { what, addr, source })
}
