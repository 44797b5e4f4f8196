//! The gateway in a box: the same contract from the other side, strict, over real HTTP.
//!
//! It answers every operation the client may call, keeps a ledger of what was really executed,
//! sends signed callbacks on the documented schedule, and fails on purpose when told to. It shares
//! no code with the client — signing, wire shapes and clock are its own — so that a mistake cannot
//! cancel out. It never talks to the real gateway and keeps nothing after it stops. Used by
//! `bursar simulate`, by `dev`, and by the tests.

mod addresses;
mod callbacks;
mod clock;
mod control;
mod control_http;
mod currencies;
mod exchanges;
mod faults;
mod invoices;
mod ledger;
mod lookup;
mod payment_requests;
mod server;
mod signing;
#[cfg(test)]
mod tests;
mod wire;
mod withdrawals;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use callbacks::{Attempt, Forgery, SentCallback};
pub use control::{Control, ControlError};
pub use faults::{Fault, Faults, Operation, Rule};
pub use ledger::Execution;

/// What every account starts with unless told otherwise.
const PLENTY: i64 = 1_000_000;

/// How a simulator is to behave. Durations are real time unless they say otherwise.
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The public key requests must carry.
    pub key: String,
    /// The secret that signs requests and callbacks.
    pub secret: String,
    /// Where callbacks go; nowhere when absent.
    pub callback_url: Option<String>,
    /// Decides everything that looks random.
    pub seed: u64,
    /// How much faster the simulator's clock runs: 60 makes a minute of every second.
    pub speed: u32,
    /// How long every request takes before it has an effect.
    pub latency: Duration,
    /// How long operations take to their final status; `None` leaves that to the controls.
    pub settle_after: Option<Duration>,
    /// Withdrawals of more than this, in their own currency, wait for a person.
    pub pending_above: Option<Decimal>,
    /// What goes wrong.
    pub faults: Faults,
    /// What is on the account.
    pub balances: BTreeMap<String, Decimal>,
}

impl Default for Options {
    /// A free port, real time, no latency, no faults, plenty of money, settled after 50 ms.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            key: "simulator-key".to_owned(),
            secret: "simulator-secret".to_owned(),
            callback_url: None,
            seed: 1,
            speed: 1,
            latency: Duration::ZERO,
            settle_after: Some(Duration::from_millis(50)),
            pending_above: None,
            faults: Faults::default(),
            balances: currencies::all()
                .map(|currency| (currency.code.to_owned(), Decimal::from(PLENTY)))
                .collect(),
        }
    }
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
#[error("the simulator cannot listen on {listen}")]
pub struct StartError {
    /// Where it was told to listen.
    pub listen: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// A running simulator. Dropping it stops it.
#[derive(Debug)]
pub struct Simulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// Starts a simulator on the current tokio runtime. It listens when this returns.
///
/// # Errors
/// When the address cannot be listened on, for instance because it is taken.
pub async fn start(options: Options) -> Result<Simulator, StartError> {
    let listen = options.listen;
    let refuse = |source| StartError { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refuse)?;
    let addr = listener.local_addr().map_err(refuse)?;
    let shared = Arc::new(Shared {
        key: options.key,
        secret: options.secret,
        seed: options.seed,
        clock: clock::Clock::start(options.speed),
        settings: Mutex::new(Settings {
            callback_url: options.callback_url,
            latency: options.latency,
            settle_after: options.settle_after,
            pending_above: options.pending_above,
        }),
        faults: Mutex::new(faults::FaultBook::new(options.seed, options.faults)),
        state: Mutex::new(ledger::State::new(options.balances)),
        sender: callbacks::sender(),
        sending: Semaphore::new(callbacks::IN_FLIGHT),
        delivered: watch::Sender::new(0),
        tasks: Mutex::new(Some(JoinSet::new())),
    });
    shared.spawn(server::serve(Arc::clone(&shared), listener));
    Ok(Simulator { addr, shared })
}

impl Simulator {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for clients, `http://127.0.0.1:PORT/api/v2`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/api/v2", self.addr)
    }

    /// The handle to look behind the scenes.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Closes the port and every connection, and drops callbacks that are still on their way.
    pub async fn stop(self) {
        let tasks = self.shared.tasks().take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.tasks().take();
    }
}

/// What can be changed while it runs.
#[derive(Debug, Clone)]
struct Settings {
    callback_url: Option<String>,
    latency: Duration,
    settle_after: Option<Duration>,
    pending_above: Option<Decimal>,
}

/// Everything the parts of a simulator share. Locks are held for moments only, `state` before
/// `faults` where both are needed.
struct Shared {
    key: String,
    secret: String,
    seed: u64,
    clock: clock::Clock,
    settings: Mutex<Settings>,
    faults: Mutex<faults::FaultBook>,
    state: Mutex<ledger::State>,
    sender: callbacks::Sender,
    /// Places for callbacks on the wire.
    sending: Semaphore,
    /// Changes whenever a callback was answered.
    delivered: watch::Sender<u64>,
    /// Everything that runs; none once stopped.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").finish_non_exhaustive()
    }
}

/// A panic in a test must not turn into other panics here, so poisoned locks are taken as they are.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    fn faults(&self) -> MutexGuard<'_, faults::FaultBook> {
        lock(&self.faults)
    }

    fn state(&self) -> MutexGuard<'_, ledger::State> {
        lock(&self.state)
    }

    fn tasks(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        lock(&self.tasks)
    }

    /// Runs a task that ends with the simulator.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.tasks().as_mut() {
            // Finished ones are kept until somebody asks.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    /// Takes an operation to the status it gets by itself, after the settling time.
    fn settle_later(self: &Arc<Self>, id: u64) {
        let wait = self.settings().settle_after;
        if let Some(wait) = wait {
            let shared = Arc::clone(self);
            self.spawn(async move {
                tokio::time::sleep(wait).await;
                if let Some(subject) = shared.settle_by_itself(id) {
                    callbacks::send(&shared, &subject);
                }
            });
        }
    }

    /// Takes an operation to the status it gets by itself, now. The callback to send, if any.
    fn settle_by_itself(&self, id: u64) -> Option<callbacks::Subject> {
        withdrawals::settle_by_itself(self, id)
            .or_else(|| exchanges::settle_by_itself(self, id))
            .or_else(|| addresses::settle_by_itself(self, id))
            .or_else(|| invoices::settle_by_itself(self, id))
            .or_else(|| payment_requests::settle_by_itself(self, id))
    }
}
