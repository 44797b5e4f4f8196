//! Backing up, restoring and rebuilding the store through the real binary.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bursar::store::{Changes, Options, Order, Range, Store, Table, verify};
use bursar::telemetry::Telemetry;
use tempfile::TempDir;

const TABLE: Table<u64, String> = Table::new("backup/", 1);
const RECORDS: u64 = 3000;
/// More than a process may write that is started by [`with_small_disk`].
const LARGE_BLOB: usize = 40 * 1024 * 1024;

/// The files of an operator, with a store of some records and one blob in `state`.
fn folder(blob: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        "[callbacks]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:{port}\"\n[gateway]\nbase_url = \"http://127.0.0.1:9/api/v2\"\n"
    );
    fs::write(folder.path().join("daemon.toml"), config).unwrap();
    let script = "schedule(\"often\", \"0 9 * * *\", |tick| { state::set(\"a\", 1); });\n";
    fs::create_dir(folder.path().join("scripts")).unwrap();
    fs::write(folder.path().join("scripts/a.rhai"), script).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(&folder.path().join("state"));
    runtime.block_on(async {
        for first in (0..RECORDS).step_by(100) {
            let mut changes = Changes::new();
            for number in first..first + 100 {
                changes.put(&TABLE, &number, &"x".repeat(100));
            }
            store.commit(changes).await.unwrap();
        }
        store.put_blob(vec![1; blob]).await.unwrap();
        store.close().await.unwrap();
    });
    // sled writes a snapshot when it opens what is there.
    drop(open(&folder.path().join("state")));
    folder
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn open(dir: &Path) -> Store {
    let options = Options {
        segment_bytes: 100_000,
        ..Options::default()
    };
    Store::open(dir, &options, &Telemetry::default()).unwrap()
}

fn records(dir: &Path) -> usize {
    let all = open(dir).scan(&TABLE, &Range::all(), usize::MAX, Order::Ascending);
    all.unwrap().len()
}

fn bursar(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(arguments);
    prepared(command, folder)
}

/// The same, in a process that fails to write beyond the first MiBs of a file, as on a full disk.
fn with_small_disk(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = r#"trap "" XFSZ; ulimit -f 20000; exec "$0" "$@""#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_bursar")]);
    command.args(arguments);
    prepared(command, folder)
}

fn prepared(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("BURSAR_GATEWAY_KEY", "key");
    command.env("BURSAR_GATEWAY_SECRET", "secret");
    command
}

/// Exit code, and everything that was said.
fn told(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), format!("{out}{err}"))
}

/// A daemon that ends with the test.
struct Daemon {
    process: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(folder: &Path, mut command: Command) -> Self {
        let log = folder.join("log");
        let daemon = Self {
            process: command
                .stdout(Stdio::piped())
                .stderr(fs::File::create(&log).unwrap())
                .spawn()
                .unwrap(),
            log,
        };
        daemon.wait_until_it_runs()
    }

    fn wait_until_it_runs(mut self) -> Self {
        let lines = BufReader::new(self.process.stdout.take().unwrap()).lines();
        let runs = lines
            .map_while(Result::ok)
            .any(|line| line.starts_with("bursar runs: "));
        assert!(runs, "{}", self.logged());
        self
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_backup_is_made_with_and_without_a_daemon_and_comes_back() {
    let folder = folder(1000);
    let path = folder.path();
    let (code, text) = told(bursar(path, &["backup", "copies/closed"]));
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("3000 records and 1 blobs, up to commit 30"),
        "{text}"
    );

    let daemon = Daemon::start(path, bursar(path, &["run"]));
    let (code, text) = told(bursar(path, &["backup", "copies/running"]));
    assert_eq!(code, 0, "{text}");
    assert!(
        verify(&path.join("copies/running"))
            .unwrap()
            .damage
            .is_empty()
    );
    let (code, text) = told(bursar(path, &["backup", "copies/running"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("is not empty"), "{text}");
    let (code, text) = told(bursar(path, &["backup", "state/copy"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("name another"), "{text}");
    let (code, text) = told(bursar(path, &["restore", "copies/running"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another bursar uses `state`"), "{text}");
    drop(daemon);

    let (code, text) = told(bursar(path, &["restore", "copies/running"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("`mv state state.replaced`"), "{text}");
    fs::rename(path.join("state"), path.join("state.replaced")).unwrap();
    let (code, text) = told(bursar(path, &["restore", "copies/running"]));
    assert_eq!(code, 0, "{text}");
    for warns in [true, false] {
        let daemon = Daemon::start(path, bursar(path, &["run"]));
        let warned = daemon.logged().contains("restored from a backup");
        drop(daemon);
        assert_eq!(warned, warns);
    }
    assert_eq!(records(&path.join("state")), 3000);
}

#[test]
fn a_full_disk_fails_the_backup_and_leaves_the_daemon_healthy() {
    let folder = folder(LARGE_BLOB);
    let path = folder.path();
    let daemon = Daemon::start(path, with_small_disk(path, &["run"]));
    let (code, text) = told(bursar(path, &["backup", "copy"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("File too large"), "{text}");
    assert_eq!(fs::read_dir(path.join("copy")).unwrap().count(), 0);
    let (code, text) = told(bursar(path, &["trigger", "a", "often"]));
    assert_eq!(code, 0, "{text}");
    drop(daemon);
    let (code, text) = told(with_small_disk(path, &["backup", "copy"]));
    assert_eq!(code, 1, "{text}");
    assert_eq!(records(&path.join("state")), 3000);
}

#[test]
fn a_rebuild_that_is_killed_again_and_again_comes_to_its_end() {
    let folder = folder(1000);
    let state = folder.path().join("state");
    for part in fs::read_dir(state.join("index")).unwrap() {
        let part = part.unwrap().path();
        let name = part.file_name().unwrap().to_str().unwrap();
        if name.starts_with("snap.") {
            fs::write(&part, "damaged").unwrap();
        }
    }
    for note in ["manifest.0", "manifest.1", "high-water", "format"] {
        fs::remove_file(state.join(note)).unwrap();
    }
    let (code, text) = told(bursar(folder.path(), &["store", "verify"]));
    assert_eq!(code, 65, "{text}");
    assert!(text.contains("`bursar store rebuild`"), "{text}");
    for pause in (0..300).step_by(15) {
        let mut rebuild = bursar(folder.path(), &["store", "rebuild"]);
        let mut rebuild = rebuild.stdout(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(Duration::from_millis(pause));
        rebuild.kill().unwrap();
        rebuild.wait().unwrap();
    }
    let (code, text) = told(bursar(folder.path(), &["store", "rebuild"]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("3000 records, up to commit 30"), "{text}");
    assert_eq!(records(&state), 3000);
}

#[test]
fn a_rebuild_says_what_it_did_or_what_is_missing() {
    let folder = folder(1000);
    let path = folder.path();
    let (code, text) = told(bursar(path, &["store", "rebuild"]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("needed no repair: 3000 records"), "{text}");
    fs::remove_dir_all(path.join("state/journal")).unwrap();
    let (code, text) = told(bursar(path, &["store", "rebuild"]));
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("began the guard journal anew after group 30"),
        "{text}"
    );
    assert!(text.contains("is whole again: 3000 records"), "{text}");
    fs::remove_dir_all(path.join("state/index")).unwrap();
    let (code, text) = told(bursar(path, &["store", "rebuild"]));
    assert_eq!(code, 65, "{text}");
    assert!(
        text.contains("`mv state state.replaced`, then `bursar restore DIR`"),
        "{text}"
    );
}
