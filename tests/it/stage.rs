//! A daemon and a simulated gateway in this process, over real HTTP on ports of their own, with
//! real files in a folder of their own.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bursar::config::{Config, File, Need, resolve};
use bursar::daemon::{Daemon, StartError};
use bursar::domain::clock::{Clock, SystemClock};
use bursar::runner::Filter;
use bursar::simulator::{self, Control, Options, Simulator};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The longest anything in a test may take. Generous: it only bounds tests that have failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Sender data that the gateway wants with every withdrawal, as the fields of a map literal.
pub const SENDER: &str = r#"
    sender_type: "legal",
    sender_data: #{ legal_name: "Shop Ltd", country_of_registration: "DEU" },
    receiver_type: "natural",
    receiver_data: #{ first_name: "Ada", last_name: "Lovelace", date_of_birth: "1990-12-10" },
    end_user_reference: "customer-1","#;

/// The stage: what survives a restart of the daemon.
pub struct Stage {
    pub folder: TempDir,
    pub simulator: Simulator,
    pub control: Control,
    extra: String,
    clock: Arc<dyn Clock>,
}

/// A running daemon.
pub struct Running {
    daemon: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    pub runner: bursar::runner::Handle,
    pub callbacks: String,
    pub admin: String,
}

impl Stage {
    /// An empty scripts folder and a well-behaved gateway.
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// A gateway with these options.
    pub async fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["scripts", "data"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let simulator = simulator::start(options).await.unwrap();
        let control = simulator.control();
        Self {
            folder,
            simulator,
            control,
            extra: String::new(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Adds a script.
    pub fn script(self, path: &str, source: &str) -> Self {
        self.write(&format!("scripts/{path}"), source);
        self
    }

    /// Adds a file to the data folder.
    pub fn data(self, path: &str, text: &str) -> Self {
        self.write(&format!("data/{path}"), text);
        self
    }

    /// Adds lines to the configuration.
    pub fn config(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self
    }

    /// Gives the daemon another clock than the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Writes a file below the folder.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A path below the folder.
    pub fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    /// The text of the configuration file.
    pub fn toml(&self) -> String {
        format!(
            "gateway.base_url = \"{}\"\ngateway.key = \"env:KEY\"\ngateway.secret = \"env:SECRET\"\ncallbacks.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n{}",
            self.simulator.base_url(),
            self.extra
        )
    }

    /// The configuration.
    pub fn resolved(&self) -> Config {
        let text = self.toml();
        let file = File {
            name: "daemon.toml",
            text: &text,
            folder: self.folder.path(),
        };
        let options = Options::default();
        let environment = BTreeMap::from([
            ("KEY".to_owned(), options.key),
            ("SECRET".to_owned(), options.secret),
        ]);
        match resolve(Some(file), &environment, Need::Everything) {
            Ok(config) => config,
            Err(errors) => panic!("{}", bursar::domain::diagnostic::render(&errors)),
        }
    }

    /// Starts a daemon, and points the gateway's callbacks at it.
    pub async fn start(&self) -> Running {
        self.try_start()
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, with a configuration of its own.
    pub async fn start_as(&self, config: Config) -> Running {
        self.try_start_as(config)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, when it may fail.
    pub async fn try_start(&self) -> Result<Running, StartError> {
        self.try_start_as(self.resolved()).await
    }

    async fn try_start_as(&self, config: Config) -> Result<Running, StartError> {
        let daemon = Daemon::start(config, Arc::clone(&self.clock)).await?;
        let callbacks = format!("http://{}/callbacks", daemon.callbacks_addr());
        let admin = format!("http://{}", daemon.admin_addr());
        self.control.set_callback_url(Some(callbacks.clone()));
        let runner = daemon.runner().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = tokio::spawn(async move {
            let stopped = async {
                drop(stopped.await);
            };
            if let Err(error) = daemon.run_until(stopped).await {
                panic!("{error}");
            }
        });
        Ok(Running {
            daemon,
            stop: Some(stop),
            runner,
            callbacks,
            admin,
        })
    }
}

impl Running {
    /// Stops the daemon properly.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.daemon)
            .await
            .expect("the daemon stops")
            .expect("the daemon stops without a panic");
    }

    /// Fires a schedule by hand and waits until the run is closed. Answers the run.
    pub async fn trigger(&self, script: &str, name: &str) -> Value {
        let run = self.runner.trigger(script, name, None).await.unwrap();
        self.closed(&run.to_string()).await
    }

    /// Waits until a run is closed. Answers it with its journal.
    pub async fn closed(&self, id: &str) -> Value {
        eventually(&format!("run {id} is closed"), || async {
            let run = self.runner.run(id).unwrap();
            ["succeeded", "parked", "cancelled"]
                .contains(&run["state"].as_str().unwrap())
                .then_some(run)
        })
        .await
    }

    /// Waits until there are `count` runs and all are closed. Answers them, newest first.
    pub async fn all_closed(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} runs are closed"), || async {
            let runs = self.runner.runs(&everything()).unwrap();
            let runs = runs.as_array().unwrap().clone();
            let closed = runs.iter().all(|run| {
                ["succeeded", "parked", "cancelled"].contains(&run["state"].as_str().unwrap())
            });
            (closed && runs.len() >= count).then_some(runs)
        })
        .await
    }

    /// Waits until a payment has that status. Answers it.
    pub async fn payment(&self, foreign_id: &str, status: &str) -> Value {
        eventually(&format!("payment {foreign_id} is {status}"), || async {
            let payment = self.runner.payment(foreign_id).ok()?;
            (payment["status"] == status).then_some(payment)
        })
        .await
    }
}

/// A filter that leaves nothing out.
pub fn everything() -> Filter {
    Filter::EVERYTHING
}

/// Asks again and again until there is an answer, and fails the test when there never is.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How often the gateway executed each `foreign_id`.
pub fn executed(control: &Control) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for execution in control.executions() {
        *counts.entry(execution.foreign_id).or_default() += 1;
    }
    counts
}
