//! Builds the daemon from its parts, runs it and shuts it down.
//!
//! The order of the start: everything that can fail is built, then the listeners are bound, then
//! scripts are loaded, and only then does anything happen. The order of the stop: nothing new is
//! taken in, what runs ends by itself or at its next step, the store is closed last.

mod policy;
mod reload;
mod start;
pub mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as flag};
use tokio::task::{JoinHandle, JoinSet};

use crate::config::Config;
use crate::domain::clock::Clock;
use crate::runner::Handle;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::triggers::wakeups::Wakeups;

pub use start::StartError;

/// How long executions may go on after a stop was asked for. After that they end at their next
/// step, and after as long again they are abandoned.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long after the start the past is tidied up for the first time: other work goes first then.
const FIRST_TIDYING: Duration = Duration::from_mins(5);

/// How long after that for the next time.
const NEXT_TIDYING: Duration = Duration::from_hours(24);

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    handle: Handle,
    store: Store,
    telemetry: Telemetry,
    callbacks_addr: SocketAddr,
    admin_addr: SocketAddr,
    /// Tells the listeners and the loops to end.
    stop: flag::Sender<bool>,
    listeners: JoinSet<std::io::Result<()>>,
    loops: Vec<JoinHandle<()>>,
}

/// Why a daemon ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store has stopped taking writes. Nothing acknowledged is lost; a start recovers.
    #[error(
        "the store can no longer write (the log says why): nothing more is sent or acknowledged; what is on disk is safe, start the daemon again once the cause is removed"
    )]
    Poisoned,
    /// A listener has ended.
    #[error("a listener has ended")]
    Listener(#[source] std::io::Error),
}

impl Daemon {
    /// Starts a daemon. When this returns, its listeners answer and everything that was open goes
    /// on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        start::start(config, clock, Telemetry::default()).await
    }

    /// Where callbacks are taken.
    #[must_use]
    pub fn callbacks_addr(&self) -> SocketAddr {
        self.callbacks_addr
    }

    /// Where people and monitoring are served.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The runner, for whoever has the daemon in its own process.
    #[must_use]
    pub fn runner(&self) -> &Handle {
        &self.handle
    }

    /// Runs until `stop` resolves, then shuts down.
    ///
    /// # Errors
    /// When it ends for another reason, see [`RunError`].
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let ended = tokio::select! {
            () = stop => Ok(()),
            () = self.handle.poisoned() => Err(RunError::Poisoned),
            Some(ended) = self.listeners.join_next() => match ended {
                Ok(Err(error)) => Err(RunError::Listener(error)),
                Ok(Ok(())) | Err(_) => Err(RunError::Listener(std::io::ErrorKind::Other.into())),
            },
        };
        self.shut_down().await;
        ended
    }

    async fn shut_down(mut self) {
        self.telemetry.stopping();
        self.stop.send_replace(true);
        let drained = self.handle.stop(PATIENCE).await;
        let listeners = async { while self.listeners.join_next().await.is_some() {} };
        drop(tokio::time::timeout(PATIENCE, listeners).await);
        for task in self.loops.drain(..) {
            task.abort();
            // What it holds of the store is released when it has ended.
            drop(task.await);
        }
        match self.store.close().await {
            Ok(()) => self.telemetry.stopped(drained),
            Err(error) => self.telemetry.store_not_closed(&error),
        }
    }
}

/// Passes the wake-ups on, until `stop` is set.
async fn wake(
    handle: Handle,
    mut beats: mpsc::Receiver<()>,
    wakeups: Wakeups,
    mut stop: flag::Receiver<bool>,
) {
    loop {
        tokio::select! {
            beat = beats.recv() => match beat {
                Some(()) => handle.wake().await,
                None => break,
            },
            _ = stop.changed() => break,
        }
    }
    drop(wakeups);
}

/// Deletes what is older than is kept, some time after the start and then once a day, until `stop`
/// is set.
async fn tidy_up(handle: Handle, mut stop: flag::Receiver<bool>) {
    let mut pause = FIRST_TIDYING;
    loop {
        let pass = async {
            tokio::time::sleep(pause).await;
            handle.tidy_up().await;
        };
        tokio::select! {
            () = pass => pause = NEXT_TIDYING,
            _ = stop.changed() => return,
        }
    }
}
