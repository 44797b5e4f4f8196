//! The real binary as a process that can be killed, and what outlives it: the folder with its
//! state, scripts and configuration, the gateway, and whoever looks in from outside.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bursar::domain::secret::Secret;
use bursar::domain::signature::Signer;
use bursar::simulator::{self, Control, Options, Simulator};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::stage::{PATIENCE, eventually};

/// The key and the secret, see [`Options::default`].
const KEY: &str = "simulator-key";
const SECRET: &str = "simulator-secret";

/// The machine that the daemon runs on, and the world around it.
pub struct Machine {
    folder: TempDir,
    pub control: Control,
    _simulator: Simulator,
    callbacks: SocketAddr,
    admin: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The daemon's process. Killed when dropped.
pub struct Process(std::process::Child);

impl Machine {
    /// A machine with one script, on which the daemon has never run. The gateway's callbacks go to
    /// the daemon; unanswered ones are sent again within seconds.
    pub async fn new(script: &str, options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["scripts", "data"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (callbacks, admin) = (free_port(), free_port());
        let simulator = simulator::start(Options {
            callback_url: Some(format!("http://{callbacks}/callbacks")),
            // The gateway sends again after a minute, five minutes, fifteen…: here 0.1 s, 0.5 s…
            speed: 600,
            ..options
        });
        let simulator = simulator.await.unwrap();
        // What a kill leaves open is caught up with as fast as the machine can, not at the usual pace,
        // at which a thousand runs take a minute.
        let toml = format!(
            "scripts.limits.catch_up_per_second = 1000\ngateway.base_url = '{}'\ngateway.key = 'env:KEY'\ngateway.secret = 'env:SECRET'\ncallbacks.listen = '{callbacks}'\nadmin.listen = '{admin}'\n",
            simulator.base_url()
        );
        std::fs::write(folder.path().join("daemon.toml"), toml).unwrap();
        let machine = Self {
            folder,
            control: simulator.control(),
            _simulator: simulator,
            callbacks,
            admin,
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        machine.write_script(script);
        machine
    }

    /// A path below the machine's folder.
    pub fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    /// Exit code of a command beside the daemon, and everything that it said.
    pub fn bursar(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_bursar"))
            .args(arguments)
            .args(["--config".as_ref(), self.path("daemon.toml").as_os_str()])
            .env_clear()
            .envs([("KEY", KEY), ("SECRET", SECRET)])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }

    /// Replaces the script, in one step.
    pub fn write_script(&self, source: &str) {
        let new = self.folder.path().join("pay.rhai.new");
        std::fs::write(&new, source).unwrap();
        std::fs::rename(new, self.folder.path().join("scripts/pay.rhai")).unwrap();
    }

    /// Starts the daemon, which aborts at `crash_at` if there is one. Does not wait for it.
    pub fn start(&self, crash_at: Option<&str>) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command
            .args(["run", "--config"])
            .arg(self.folder.path().join("daemon.toml"))
            .env_clear()
            .envs([("KEY", KEY), ("SECRET", SECRET)])
            .stdin(Stdio::null())
            .stdout(self.log())
            .stderr(self.log());
        if let Some(point) = crash_at {
            command.env("BURSAR_CRASH_AT", point);
        }
        Process(command.spawn().unwrap())
    }

    /// Starts a daemon that has one request to the gateway under way at a time, and takes a limit on
    /// the size of its files for a failure to write instead of being killed by it. Does not wait.
    pub fn start_with_one_request_at_once(&self) -> Process {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"trap "" XFSZ; exec "$0" run --config "$1""#])
            .arg(env!("CARGO_BIN_EXE_bursar"))
            .arg(self.folder.path().join("daemon.toml"))
            .env_clear()
            .envs([("KEY", KEY), ("SECRET", SECRET)])
            .env("BURSAR__GATEWAY__MAX_IN_FLIGHT", "1")
            .stdin(Stdio::null())
            .stdout(self.log())
            .stderr(self.log());
        Process(command.spawn().unwrap())
    }

    /// Starts the daemon and waits until it answers.
    pub async fn started(&self) -> Process {
        let mut process = self.start(None);
        eventually("the daemon answers", || {
            let ended = process.ended();
            assert!(ended.is_none(), "{ended:?}, it wrote:\n{}", self.written());
            self.get("/api/v1/overview")
        })
        .await;
        process
    }

    /// Waits until the daemon has no open run.
    pub async fn idle(&self, process: &mut Process) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let overview = self.get("/api/v1/overview").await;
            if overview.is_some_and(|overview| overview["open_runs"] == 0) {
                return;
            }
            if Instant::now() > deadline {
                let (ended, runs) = (process.ended(), self.list("runs?limit=1000").await);
                let open = runs.into_iter().flatten();
                let open: Vec<_> = open.filter(|run| run["state"] != "succeeded").collect();
                let written = self.written();
                panic!("open runs: {open:#?}\nprocess: {ended:?}, it wrote:\n{written}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> File {
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        options.open(self.path("stderr")).unwrap()
    }

    /// What the daemon wrote, in all its lives.
    fn written(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Asks the admin listener; `None` when nobody answers.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let request = Request::get(format!("http://{}{path}", self.admin));
        let request = request.body(Full::default()).unwrap();
        let (status, body) = self.send(request).await?;
        (status == StatusCode::OK).then(|| serde_json::from_slice(&body).unwrap())
    }

    /// The rows of a list of the admin API; `None` when nobody answers.
    pub async fn list(&self, path: &str) -> Option<Vec<Value>> {
        let rows = self.get(&format!("/api/v1/{path}")).await?;
        Some(rows.as_array().unwrap().clone())
    }

    /// Posts a callback as the gateway would. Answers whether it was taken with 200.
    pub async fn post_callback(&self, body: &str) -> bool {
        let signature = Signer::new(&Secret::new(SECRET)).sign(body.as_bytes());
        let request = Request::post(format!("http://{}/callbacks", self.callbacks))
            .header("content-type", "application/json")
            .header("x-processing-key", KEY)
            .header("x-processing-signature", signature)
            .body(Full::from(body.to_owned()))
            .unwrap();
        let answer = self.send(request).await;
        answer.is_some_and(|(status, _)| status == StatusCode::OK)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Option<(StatusCode, Bytes)> {
        let exchange = async {
            let response = self.client.request(request).await.ok()?;
            let status = response.status();
            let body = response.into_body().collect().await.ok()?;
            Some((status, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, exchange).await.ok()?
    }

    /// Fires the schedule `tell` by hand, and answers every entry of every map that it was given:
    /// the state of the script.
    pub async fn tell(&self) -> BTreeMap<String, Value> {
        let wanted = json!({"script": "pay", "name": "tell"}).to_string();
        let request = Request::post(format!("http://{}/api/v1/trigger", self.admin))
            .header("content-type", "application/json")
            .body(Full::from(wanted))
            .unwrap();
        let (status, body) = self.send(request).await.expect("the daemon answers");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, StatusCode::OK, "{body:#}");
        let path = format!("/api/v1/runs/{}", body["run"].as_str().unwrap());
        let run = eventually("the state is told", || async {
            let run = self.get(&path).await?;
            (run["state"] == "succeeded").then_some(run)
        })
        .await;
        let mut state = BTreeMap::new();
        for step in run["journal"].as_array().unwrap() {
            assert!(step.get("long").is_none(), "shown by its hash only: {step}");
            state.extend(
                step["value"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.clone())),
            );
        }
        state
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the daemon wrote:\n{}", self.written());
        }
    }
}

impl Process {
    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Kills it on the spot.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to stop and waits until it has ended.
    pub async fn terminate(mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.0.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success(), "SIGTERM was sent");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not stop");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A port that nobody listens on, and that the system gives to no client while the daemon is down.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(first) % 10_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000 + number));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
