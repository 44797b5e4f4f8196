//! The same with Bursar: its real binary, the script and the configuration of this folder.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::{Scene, until_executed};

/// The longest anything may take.
const PATIENCE: Duration = Duration::from_mins(5);

struct Daemon<'a> {
    bursar: &'a Path,
    folder: &'a Path,
    environment: Vec<(&'static str, String)>,
}

/// Lets it pay the file of the scene, kills it when the gateway has executed a third of the rows
/// and again at two thirds, and starts it again each time, the last time until it knows what became
/// of every payment, or that it does not. Answers the addresses of those of which it does not.
pub async fn killed_twice(
    scene: &Scene,
    bursar: &Path,
    hurry: bool,
) -> anyhow::Result<Vec<String>> {
    let folder = scene.folder.path();
    std::fs::write(folder.join("daemon.toml"), include_str!("daemon.toml"))?;
    std::fs::write(folder.join("payouts.rhai"), include_str!("payouts.rhai"))?;
    let (callbacks, admin) = (free_port()?, free_port()?);
    scene
        .control
        .set_callback_url(Some(format!("http://{callbacks}/callbacks")));
    let daemon = Daemon {
        bursar,
        folder,
        environment: vec![
            ("BURSAR__GATEWAY__BASE_URL", scene.base_url.clone()),
            ("BURSAR__CALLBACKS__LISTEN", callbacks),
            ("BURSAR__ADMIN__LISTEN", admin),
            ("BURSAR_GATEWAY_KEY", "simulator-key".to_owned()),
            ("BURSAR_GATEWAY_SECRET", "simulator-secret".to_owned()),
        ],
    };
    let mut process = daemon.start().await?;
    daemon.ask(&["trigger", "payouts", "payroll"]).await?;
    for third in 1..=2 {
        until_executed(scene, scene.rows * third / 3).await?;
        process.kill().await?;
        process = daemon.start().await?;
    }
    let settled = async {
        loop {
            let payments = daemon.payments().await?;
            let executed = scene.executed();
            let open = |payment: &&Value| {
                let status = text(payment, "status");
                let never_came = !executed.contains(text(payment, "foreign_id"));
                let is_given_up = status == "held" || hurry && status == "unknown" && never_came;
                !is_final(payment) && !is_given_up
            };
            if payments.len() == scene.rows && !payments.iter().any(|payment| open(&payment)) {
                return anyhow::Ok(payments);
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let settled = timeout(PATIENCE, settled)
        .await
        .context("not every payment came to an end in time")??;
    process.kill().await?;
    // Every row has an address of its own, and so has every key.
    Ok(settled
        .iter()
        .filter(|payment| !is_final(payment))
        .filter_map(|payment| text(payment, "foreign_id").rsplit('-').next())
        .map(|row| format!("TPayee{row}"))
        .collect())
}

impl Daemon<'_> {
    /// Starts it and waits until it answers.
    async fn start(&self) -> anyhow::Result<Child> {
        let process = self
            .command(&["run"])
            .stdout(Stdio::null())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(self.folder.join("log"))?,
            )
            .spawn()
            .with_context(|| format!("{} does not start", self.bursar.display()))?;
        let answers = async {
            while self.payments().await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, answers).await.is_err() {
            let log = std::fs::read_to_string(self.folder.join("log"))?;
            anyhow::bail!("the daemon does not answer; it wrote:\n{log}");
        }
        Ok(process)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bursar);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.folder.join("daemon.toml"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// One of its commands; answers what it prints.
    async fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "bursar {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn payments(&self) -> anyhow::Result<Vec<Value>> {
        let listed = self
            .ask(&["payments", "list", "--json", "--limit", "1000"])
            .await?;
        Ok(serde_json::from_str(&listed)?)
    }
}

fn is_final(payment: &Value) -> bool {
    payment.get("is_final").and_then(Value::as_bool) == Some(true)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// An address that nobody listens on, in this moment.
fn free_port() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
