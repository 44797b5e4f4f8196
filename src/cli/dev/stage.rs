//! Sets the stage: a folder, the simulator, a daemon that talks to nobody else, and the shop.

use std::error::Error;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::shipped;
use crate::cli::exit_code::{Failure, with_causes};
use crate::cli::run::not_started;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::domain::clock::SystemClock;
use crate::domain::operation::Operation;
use crate::domain::secret::Secret;
use crate::gateway::{Client, Disposition, prepare};
use crate::runner::Handle;
use crate::simulator::{self, Control, Simulator};
use crate::telemetry::{Telemetry, logging};

/// How long the simulated gateway takes to a final status.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// How much faster its clock runs, so that callbacks it has to send again come soon.
const SPEED: u32 = 60;

/// What the scenario plays on.
pub(super) struct Stage {
    pub(super) runner: Handle,
    pub(super) control: Control,
    /// The scripts folder, for people to edit.
    pub(super) scripts: PathBuf,
    folder: PathBuf,
    /// The shop's own way to the gateway: it opens invoices and takes addresses.
    shop: Client,
    simulator: Simulator,
    callbacks: SocketAddr,
    admin: SocketAddr,
    /// Removes the folder in the end.
    _temporary: Option<TempDir>,
}

impl Stage {
    /// Starts everything, in `folder` or a temporary one.
    pub(super) async fn set(
        mut config: Config,
        folder: Option<PathBuf>,
    ) -> Result<(Self, Daemon), Failure> {
        let failed = |error: &dyn Error| Failure::failed(with_causes(error));
        let (temporary, folder) = if let Some(folder) = folder {
            (None, fresh(folder)?)
        } else {
            let temporary = tempfile::tempdir().map_err(|error| failed(&error))?;
            let folder = temporary.path().to_owned();
            (Some(temporary), folder)
        };
        let simulator = simulator::start(simulator::Options {
            speed: SPEED,
            settle_after: Some(SETTLE),
            ..simulator::Options::default()
        })
        .await
        .map_err(|error| failed(&error))?;
        furnish(&mut config, &folder, &simulator).map_err(|error| failed(error.as_ref()))?;
        let log = File::create(folder.join("daemon.log")).map_err(|error| failed(&error))?;
        logging::init_file(log, config.log.level, Arc::new(SystemClock));
        let shop =
            Client::new(&config.gateway, &Telemetry::default()).map_err(|error| failed(&error))?;
        let scripts = std::path::absolute(&config.scripts.dir).map_err(|error| failed(&error))?;
        let path = config.callbacks.path.clone();
        let daemon = Daemon::start(config, Arc::new(SystemClock))
            .await
            .map_err(|error| not_started(&error))?;
        let control = simulator.control();
        control.set_callback_url(Some(format!("http://{}{path}", daemon.callbacks_addr())));
        let stage = Self {
            runner: daemon.runner().clone(),
            control,
            scripts,
            folder,
            shop,
            simulator,
            callbacks: daemon.callbacks_addr(),
            admin: daemon.admin_addr(),
            _temporary: temporary,
        };
        Ok((stage, daemon))
    }

    /// Puts a table into the data folder.
    pub(super) fn put_data(&self, name: &str, text: &str) -> Result<(), Failure> {
        std::fs::write(self.folder.join("data").join(name), text)
            .map_err(|error| Failure::failed(format!("{name} cannot be written: {error}")))
    }

    /// The shop asks the gateway for something.
    pub(super) async fn ask(&self, operation: Operation, with: &Value) -> Result<(), Failure> {
        let prepared = prepare(operation, with)
            .map_err(|errors| Failure::failed(format!("{operation}: {errors:?}")))?;
        let answer = self.shop.send(&prepared).await;
        if matches!(answer, Disposition::Accepted(_)) {
            Ok(())
        } else {
            Err(Failure::failed(format!("{operation}: {answer:?}")))
        }
    }

    /// Where everything is.
    pub(super) fn greeting(&self) -> String {
        format!(
            "\
Everything here is simulated: no account, no keys, no money.

  gateway    simulated, at {}
  daemon     takes callbacks at http://{}
  dashboard  http://{}/
  scripts    {}
  its log    {}
",
            self.simulator.base_url(),
            self.callbacks,
            self.admin,
            self.scripts.display(),
            self.folder.join("daemon.log").display(),
        )
    }

    /// What to do next.
    pub(super) fn farewell(&self) -> String {
        format!(
            "
The dashboard is at http://{}/. Now edit {} and save it:
it is in use within a second, and a mistake is told here and changes nothing. Ctrl-C ends it all.
",
            self.admin,
            self.scripts.join("hooks.rhai").display(),
        )
    }
}

/// A folder that nothing was played in before: the simulator begins anew each time, and a state
/// that remembers another one would make no sense.
fn fresh(folder: PathBuf) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    if std::fs::read_dir(&folder).map_err(failed)?.next().is_some() {
        return Err(Failure::usage(format!(
            "{} is not empty; `dev` always starts clean, so name an empty or a new folder",
            folder.display()
        )));
    }
    Ok(folder)
}

/// Points the configuration at the simulator and the folder, and at nothing real.
fn furnish(
    config: &mut Config,
    folder: &Path,
    simulator: &Simulator,
) -> Result<(), Box<dyn Error>> {
    let account = simulator::Options::default();
    config.gateway.base_url = simulator.base_url().parse()?;
    config.gateway.key = Secret::new(account.key);
    config.gateway.secret = Secret::new(account.secret);
    config.callbacks.listen = free(config.callbacks.listen);
    config.admin.listen = free(config.admin.listen);
    // It listens on loopback alone, and nothing behind it is real.
    config.admin.token = None;
    config.store.path = folder.join("state");
    config.scripts.data_dir = folder.join("data");
    config.scripts.http.allow = Vec::new();
    std::fs::create_dir_all(&config.scripts.data_dir)?;
    if !config.scripts.dir.exists() {
        config.scripts.dir = folder.join("scripts");
        shipped::write_scripts(&config.scripts.dir)?;
    }
    Ok(())
}

/// The same port on loopback if nobody has it, otherwise any.
fn free(listen: SocketAddr) -> SocketAddr {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port()));
    if TcpListener::bind(wanted).is_ok() {
        wanted
    } else {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }
}
