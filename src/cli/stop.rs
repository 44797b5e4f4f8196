//! The signals that end what runs until it is told to stop: SIGTERM and SIGINT (Ctrl-C).

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit_code::Failure;

/// Listens for the signals from when it is made; from then on they end nothing by themselves.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Starts to listen. Must be called within a runtime, before anything is started that has to
    /// end in good order.
    pub(super) fn new() -> Result<Self, Failure> {
        let refused =
            |error: io::Error| Failure::failed(format!("signals cannot be received: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(refused)?,
            interrupt: signal(SignalKind::interrupt()).map_err(refused)?,
        })
    }

    /// Resolves when the process is told to stop.
    pub(super) async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
