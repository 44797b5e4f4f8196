//! Memory of the idle daemon, and the time from its start until it answers: with an empty store,
//! and with a million records. The real binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bursar::store::{Changes, Options, Store, Table};
use bursar::telemetry::Telemetry;
use tokio::task::JoinSet;

use crate::world;

const RECORDS: u64 = 1_000_000;
const FILLER: Table<u64, String> = Table::new("bench/", 1);

pub fn measure() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scripts")).unwrap();
    let script = "on(\"deposit.confirmed\", |event| { log::info(event.kind); });\n";
    std::fs::write(folder.path().join("scripts/bench.rhai"), script).unwrap();
    let toml = world::toml("http://127.0.0.1:9/api/v2");
    std::fs::write(folder.path().join("daemon.toml"), toml).unwrap();
    for _ in 0..3 {
        let (took, memory) = start(folder.path());
        println!(
            "start until ready, empty store: {} ms; idle memory: {memory} KiB",
            took.as_millis()
        );
    }
    fill(&folder.path().join("state"));
    for _ in 0..3 {
        let (took, memory) = start(folder.path());
        println!(
            "start until ready, a million records: {} ms; idle memory: {memory} KiB",
            took.as_millis()
        );
    }
}

fn fill(path: &Path) {
    let runtime = world::runtime();
    runtime.block_on(async {
        let store = Store::open(path, &Options::default(), &Telemetry::default()).unwrap();
        let mut tasks = JoinSet::new();
        for task in 0..64_u64 {
            let store = store.clone();
            tasks.spawn(async move {
                for chunk in 0..=(RECORDS / 64 / 125) {
                    let mut changes = Changes::new();
                    for n in 0..125 {
                        let key = (task << 32) + chunk * 125 + n;
                        changes.put(&FILLER, &key, &"x".repeat(150));
                    }
                    store.commit(changes).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        store.close().await.unwrap();
    });
}

/// Starts the daemon, waits until it is ready, reads its memory, and stops it.
pub fn start(folder: &Path) -> (Duration, u64) {
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bursar"))
        .args(["run", "--config", "daemon.toml"])
        .current_dir(folder)
        .env("KEY", world::KEY)
        .env("SECRET", "simulator-secret")
        .env("BURSAR__LOG__FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = admin_address(&mut child);
    while !is_ready(&address) {
        assert!(child.try_wait().unwrap().is_none(), "the daemon runs");
    }
    let took = begin.elapsed();
    std::thread::sleep(Duration::from_secs(3));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    child.wait().unwrap();
    (took, memory)
}

/// The daemon says where it listens once it does.
fn admin_address(child: &mut Child) -> String {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the daemon ended");
        if let Some(rest) = line.split("\"admin\":\"").nth(1) {
            let address = rest.split('"').next().unwrap().to_owned();
            // Whatever it says further is read and forgotten, or it would block.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return address;
        }
    }
}

fn is_ready(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
}
