//! Builds the daemon from its parts, runs it and shuts it down.

pub mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Config;
use crate::domain::clock::Clock;
use crate::domain::diagnostic::{Diagnostic, render};
use crate::http::BindError;
use crate::store::OpenError;

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    callbacks: SocketAddr,
    admin: SocketAddr,
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The scripts have mistakes.
    #[error("{}", render(.0))]
    Scripts(Vec<Diagnostic>),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A listener has no port.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
#[error("the store refuses writes")]
pub struct RunError;

impl Daemon {
    /// Starts it.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(config: Config, _clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let listener = crate::http::bind(config.callbacks.listen, "callbacks").await?;
        drop(listener);
        Ok(Self {
            callbacks: config.callbacks.listen,
            admin: config.admin.listen,
        })
    }

    /// Where callbacks are taken.
    #[must_use]
    pub fn callbacks_addr(&self) -> SocketAddr {
        self.callbacks
    }

    /// Where people and monitoring ask.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Runs until `stop` resolves.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        stop.await;
        Ok(())
    }
}
