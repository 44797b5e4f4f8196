//! From a configuration to a daemon that answers.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch as flag;
use tokio::task::JoinSet;

use super::watch::{LOOK_EVERY, Watch};
use super::{Daemon, policy, reload, tidy_up, wake};
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::domain::diagnostic::{Diagnostic, render};
use crate::domain::payment::Patience;
use crate::gateway::{self, Client};
use crate::http::{self, BindError};
use crate::outbound::{self, DataFolder, ScriptHttp};
use crate::runner::{self, Handle, Parts, Reload};
use crate::scripting::Known;
use crate::store::{CommitError, OpenError, Options, ReadError, Store};
use crate::telemetry::Telemetry;
use crate::triggers::intake::Verifier;
use crate::triggers::wakeups::{WakeupError, Wakeups};

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The scripts have mistakes, and no earlier set is in the store to go on with.
    #[error("the scripts cannot be used\n{}", render(.0))]
    Scripts(Vec<Diagnostic>),
    /// The store does not open: damaged, newer, or used by another daemon.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store holds something unreadable.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The gateway client cannot be set up.
    #[error(transparent)]
    Gateway(#[from] gateway::BuildError),
    /// The scripts' HTTP client cannot be set up.
    #[error(transparent)]
    Outbound(#[from] outbound::BuildError),
    /// The runner cannot be built.
    #[error(transparent)]
    Runner(#[from] runner::StartError),
    /// The wake-up cannot be started.
    #[error(transparent)]
    Wakeups(#[from] WakeupError),
    /// A task of the start has died.
    #[error("the start was interrupted")]
    Interrupted,
}

pub(super) async fn start(
    config: Config,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
) -> Result<Daemon, StartError> {
    let store = open(&config, &telemetry).await?;
    let parts = parts(&config, store.clone(), clock, &telemetry)?;
    let callbacks = http::bind(config.callbacks.listen, "callbacks").await?;
    let admin = http::bind(config.admin.listen, "admin").await?;
    let handle = Handle::build(parts)?;
    let (changed, watch) = Watch::start(config.scripts.dir.clone(), LOOK_EVERY, telemetry.clone());
    let first = reload::look(&handle, &config.scripts.dir).await?;
    if let Reload::Refused(errors) = first
        && !handle.go_on_with_last_scripts()?
    {
        return Err(StartError::Scripts(errors));
    }
    handle.learn_rates().await;
    let (beats, wakeups) = Wakeups::start().await?;
    handle.start().await?;
    let (stop, stopped) = flag::channel(false);
    let mut loops = vec![
        tokio::spawn(wake(handle.clone(), beats, wakeups, stopped.clone())),
        tokio::spawn(reload::follow(
            handle.clone(),
            config.scripts.dir.clone(),
            changed,
            watch,
            telemetry.clone(),
        )),
        tokio::spawn(tidy_up(handle.clone(), stopped.clone())),
    ];
    telemetry.policy_doubted(&config.policy.doubts);
    loops.extend(config.reread.map(|reread| {
        let (handle, telemetry) = (handle.clone(), telemetry.clone());
        let follow = policy::follow(handle, reread, config.policy, telemetry, stopped.clone());
        tokio::spawn(follow)
    }));
    let addresses = (local(&callbacks)?, local(&admin)?);
    let routers = (
        http::callbacks(handle.clone(), &config.callbacks, &telemetry),
        http::admin(handle.clone(), &config.admin, &telemetry),
    );
    let listeners = serve([(callbacks, routers.0), (admin, routers.1)], &stopped);
    telemetry.started(addresses.0, addresses.1);
    Ok(Daemon {
        handle,
        store,
        telemetry,
        callbacks_addr: addresses.0,
        admin_addr: addresses.1,
        stop,
        listeners,
        loops,
    })
}

fn parts(
    config: &Config,
    store: Store,
    clock: Arc<dyn Clock>,
    telemetry: &Telemetry,
) -> Result<Parts, StartError> {
    Ok(Parts {
        store,
        gateway: Client::new(&config.gateway, telemetry)?,
        verifier: Verifier::new(&config.gateway.key, &config.gateway.secret),
        http: ScriptHttp::new(&config.scripts.http, config.secrets.clone(), telemetry)?,
        files: DataFolder::new(&config.scripts.data_dir),
        clock,
        telemetry: telemetry.clone(),
        limits: config.scripts.limits.clone(),
        names: Known {
            secrets: config.secrets.keys().cloned().collect(),
        },
        max_in_flight: config.gateway.max_in_flight,
        patience: Patience {
            after: config.gateway.unknown_after,
            resend: config.gateway.resend_unknown,
        },
        sweep_every: config.gateway.sweep_every,
        balance_check_every: config.gateway.balance_check_every,
        history: config.history,
        policy: config.policy.rules.clone(),
    })
}

/// Serves each listener until `stopped` is set.
fn serve(
    listeners: [(TcpListener, http::Router); 2],
    stopped: &flag::Receiver<bool>,
) -> JoinSet<std::io::Result<()>> {
    let mut serving = JoinSet::new();
    for (listener, router) in listeners {
        let mut stopped = stopped.clone();
        let stop = async move {
            // The sender is gone only when the daemon is.
            drop(stopped.changed().await);
        };
        serving.spawn(http::serve(listener, router, stop));
    }
    serving
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|_| StartError::Interrupted)
}

async fn open(config: &Config, telemetry: &Telemetry) -> Result<Store, StartError> {
    let path = config.store.path.clone();
    let options = Options {
        cache_bytes: config.store.cache,
        ..Options::default()
    };
    let telemetry = telemetry.clone();
    tokio::task::spawn_blocking(move || Store::open(&path, &options, &telemetry))
        .await
        .map_err(|_| StartError::Interrupted)?
        .map_err(StartError::Store)
}
