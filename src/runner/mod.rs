//! Runs handlers and moves money: everything that performs what the domain decides.
//!
//! ```text
//! callback ── intake ──┐                       ┌── steps ── gateway, HTTP, files
//! slot ────── slots ───┤─> one commit ─> dispatcher ─> executor ─> world (journal)
//! emit ────── firings ─┘   (event, runs)   (threads)                 └── payments (money)
//!                                                                          ▲
//!                                                           sweep (after a restart, look-ups)
//! ```
//!
//! A firing and the runs it starts are one commit, the outside steps of a run are one commit each,
//! and the end of an execution is one commit: between any two of them the process may die, and
//! the next start goes on from the store through the same code. The record of a callback stands for
//! its runs until an execution of theirs has ended; `unwritten` knows which. Others reach the runner
//! through its [`Handle`].

mod alerts;
mod approvals;
mod balances;
mod batch;
mod buffer;
mod delayed;
mod dispatcher;
mod editors;
mod ending;
mod events;
mod execution;
mod executor;
mod failures;
mod filter;
mod firings;
mod generations;
mod handle;
mod heartbeat;
mod holds;
mod intake;
mod key_locks;
mod ledger;
mod once;
mod pace;
mod pause;
mod payments;
mod people;
mod plans;
mod policy;
mod queues;
mod reachability;
mod reconciled;
mod replies;
mod retention;
mod run_views;
mod slot_history;
mod slots;
mod steps;
mod suspension;
mod sweep;
mod ticket;
mod unwritten;
mod views;
mod waits;
mod why;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime;

use crate::config::{History, Limits};
use crate::domain::clock::Clock;
use crate::domain::diagnostic::Diagnostic;
use crate::domain::id::TransactionKey;
use crate::domain::payment::Patience;
use crate::domain::policy::Policy;
use crate::gateway::Client;
use crate::outbound::{DataFolder, ScriptHttp};
use crate::scripting::Known;
use crate::store::{CommitError, ReadError, Store};
use crate::telemetry::Telemetry;
use crate::triggers::intake::Verifier;

pub use approvals::NotDecided;
pub use filter::Filter;
pub use handle::{Handle, NotFired, Reload};
pub use intake::Answer;
pub use pause::Paused;
pub use people::NotChanged;
pub use retention::TidiedUp;
pub use views::ViewError;

use dispatcher::Dispatcher;
use ending::Endings;
use firings::Firings;
use generations::Generations;
use key_locks::KeyLocks;
use pace::Pace;
use pause::Pauses;
use payments::Payments;
use policy::Guard;
use reachability::Reachability;
use slots::Slots;
use unwritten::Unwritten;
use waits::Waits;

/// What the runner is built from.
#[derive(Debug)]
pub struct Parts {
    /// The open store.
    pub store: Store,
    /// The gateway client.
    pub gateway: Client,
    /// Verifies callbacks.
    pub verifier: Verifier,
    /// The scripts' way to the network.
    pub http: ScriptHttp,
    /// The scripts' way to files.
    pub files: DataFolder,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Logs and counters.
    pub telemetry: Telemetry,
    /// Limits on scripts.
    pub limits: Limits,
    /// Names that scripts may refer to.
    pub names: Known,
    /// `gateway.max_in_flight`
    pub max_in_flight: usize,
    /// `gateway.unknown_after` and `gateway.resend_unknown`
    pub patience: Patience,
    /// `gateway.sweep_every`
    pub sweep_every: Duration,
    /// `gateway.balance_check_every`; zero for never.
    pub balance_check_every: Duration,
    /// What is kept of the past.
    pub history: History,
    /// What may be paid.
    pub policy: Policy,
}

/// What the parts of the runner share.
struct Context {
    tokio: runtime::Handle,
    store: Store,
    gateway: Client,
    verifier: Verifier,
    payments: Payments,
    pauses: Arc<Pauses>,
    policy: Arc<Guard>,
    http: ScriptHttp,
    files: DataFolder,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    limits: Limits,
    max_in_flight: usize,
    sweep_every: Duration,
    balance_check_every: Duration,
    reachability: Reachability,
    /// Whether what was missed before this start has been reported.
    reported: AtomicBool,
    history: History,
    generations: Arc<Generations>,
    firings: Arc<Firings>,
    dispatcher: Arc<Dispatcher>,
    endings: Endings,
    unwritten: Arc<Unwritten>,
    slots: Slots,
    waits: Arc<Waits>,
    catch_up: Pace,
    once_locks: KeyLocks<(String, String)>,
    address_locks: KeyLocks<(String, String, String)>,
    transaction_locks: KeyLocks<TransactionKey>,
    stopping: AtomicBool,
}

impl Context {
    /// Whether executions are to end at their next step.
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// A long value that is kept beside the index.
    fn read_json(&self, hash: &str) -> Result<Value, ReadError> {
        let hash = hash.parse().map_err(|reason| ReadError::Undecodable {
            table: "step/",
            key: hash.to_owned(),
            reason,
        })?;
        let bytes = self.store.get_blob(&hash)?;
        Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}

/// Why the runner could not be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Not even an empty script set compiles under these limits.
    #[error("the limits on scripts allow no script at all")]
    Limits(Vec<Diagnostic>),
}
