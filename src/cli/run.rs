//! `bursar run`: the daemon, until it is told to stop.

use std::sync::Arc;

use super::exit_code::{Failure, Outcome, with_causes};
use super::output::print;
use super::settings::Settings;
use super::stop::Stop;
use super::store;
use crate::config::{Config, LogFormat, Need};
use crate::daemon::{Daemon, StartError};
use crate::domain::clock::SystemClock;
use crate::telemetry::logging;

#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) fn run(settings: &Settings, _options: Options) -> Outcome {
    let config = settings.load(Need::Everything)?;
    let json = config.log.format == LogFormat::Json;
    logging::init(json, config.log.level, Arc::new(SystemClock));
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?
        .block_on(serve(config))
}

async fn serve(config: Config) -> Outcome {
    // Before anything is started, so that a signal during the start is not lost.
    let stop = Stop::new()?;
    let daemon = Daemon::start(config, Arc::new(SystemClock))
        .await
        .map_err(|error| not_started(&error))?;
    print(&format!(
        "bursar runs: callbacks at {}, admin at http://{}",
        daemon.callbacks_addr(),
        daemon.admin_addr()
    ));
    daemon
        .run_until(stop.asked())
        .await
        .map_err(|error| Failure::failed(with_causes(&error)))
}

/// Why a daemon did not start, and the exit code for it.
pub(super) fn not_started(error: &StartError) -> Failure {
    if let StartError::Scripts(mistakes) = error {
        Failure::bad_input(mistakes)
    } else if let StartError::Store(error) = error {
        store::refused(error)
    } else {
        Failure::failed(with_causes(error))
    }
}
