//! Durable runs: what a step costs, what a long journal costs, and what suspended runs cost: a
//! hundred thousand, or as many as `BURSAR_SUSPENDED_RUNS` says.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bursar::runner::{Filter, Handle};
use bursar::simulator::Options;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::start;
use crate::world::{self, World};

/// Steps of one run that are durable one by one, and appends to a file beside them.
const STEPS: u32 = 1_000;
const APPENDS: u32 = 1_000;
/// About what a step's record in the guard journal has.
const APPENDED: usize = 600;

const RUNS_OF_THREE: u32 = 640;
const RECORDED: u32 = 10_000;

/// Suspended runs, begun by events of which each run emits so many.
const SUSPENDED: u64 = 100_000;
const BURST: u64 = 1_000;
/// Runs that wait for the same event.
const BELL: u64 = 10_000;

pub fn measure() {
    steps();
    concurrent();
    replay();
    suspended();
}

fn steps() {
    let script = format!(
        "schedule(\"go\", \"0 0 1 1 *\", |tick| {{ for n in 0..{STEPS} {{ once(`${{tick.fired_at}}/${{n}}`, || n); }} }});\n"
    );
    let runtime = world::runtime();
    let world = runtime.block_on(world::start(&script, Options::default()));
    for _ in 0..3 {
        let synced = synced_appends(world.folder.path());
        let step = executed(&run(&runtime, &world, "go")) / STEPS;
        println!(
            "a durable step: {} µs; an append of {APPENDED} bytes with fdatasync: {} µs; ratio {:.2}",
            step.as_micros(),
            synced.as_micros(),
            step.as_secs_f64() / synced.as_secs_f64()
        );
    }
    runtime.shutdown_background();
}

fn synced_appends(folder: &Path) -> Duration {
    let mut file = File::create(folder.join("appended")).unwrap();
    let bytes = [7; APPENDED];
    let begin = Instant::now();
    for _ in 0..APPENDS {
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
    }
    begin.elapsed() / APPENDS
}

fn concurrent() {
    let script = format!(
        r#"
schedule("go", "0 0 1 1 *", |tick| {{ for n in 0..{RUNS_OF_THREE} {{ emit("work", n); }} }});
on("work", |n| {{ for step in 0..3 {{ once(`${{n}}/${{step}}`, || n); }} }});
"#
    );
    let rate = |at_once: u32| {
        let runtime = world::runtime();
        let limits = format!(
            "scripts.limits.concurrent_runs = {at_once}\nscripts.limits.concurrent_runs_per_script = {at_once}\n"
        );
        let world = runtime.block_on(world::start_with(&script, &limits, Options::default()));
        let begin = Instant::now();
        run(&runtime, &world, "go");
        let end = runtime.block_on(ended(world.daemon.runner()));
        let rate = f64::from(RUNS_OF_THREE) / (end - begin).as_secs_f64();
        runtime.shutdown_background();
        rate
    };
    let (one, many) = (rate(1), rate(64));
    println!(
        "runs of three durable steps: {one:.0} per second one after the other, {many:.0} with 64 at once; ratio {:.1}",
        many / one
    );
}

fn replay() {
    let script = format!(
        r#"
schedule("go", "0 0 1 1 *", |tick| {{
    for n in 0..{RECORDED} {{ state::get("nothing"); }}
    sleep("1ms");
}});
"#
    );
    let runtime = world::runtime();
    let world = runtime.block_on(world::start(&script, Options::default()));
    for _ in 0..3 {
        let took = executed(&run(&runtime, &world, "go"));
        println!(
            "replay of {RECORDED} recorded steps, from taking the run up to its end on disk: {} ms",
            took.as_millis()
        );
    }
    runtime.shutdown_background();
}

fn suspended() {
    let wanted = std::env::var("BURSAR_SUSPENDED_RUNS");
    let bursts = wanted.map_or(SUSPENDED, |count| count.parse().unwrap()) / BURST;
    let script = format!(
        r#"
schedule("go", "0 0 1 1 *", |tick| {{ for n in 0..{bursts} {{ emit("burst", n); }} }});
on("burst", |burst| {{ for n in 0..{BURST} {{ emit("work", burst * {BURST} + n); }} }});
on("work", |n| {{ wait_for("bell", #{{ number: n / {BELL} }}, "30d"); }});
schedule("ring", "0 0 1 1 *", |tick| {{ emit("bell", #{{ number: 7 }}); }});
"#
    );
    let count = bursts * BURST;
    let runtime = world::runtime();
    let world = runtime.block_on(world::start(&script, Options::default()));
    let toml = world::toml(&world.simulator.base_url());
    std::fs::write(world.folder.path().join("daemon.toml"), toml).unwrap();
    let begin = Instant::now();
    run(&runtime, &world, "go");
    runtime.block_on(ended(world.daemon.runner()));
    println!(
        "{count} runs begun and suspended in {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    let begin = Instant::now();
    run(&runtime, &world, "ring");
    let end = runtime.block_on(ended(world.daemon.runner()));
    println!(
        "{BELL} of them woken and ended in {} ms",
        (end - begin).as_millis()
    );
    let World { folder, daemon, .. } = world;
    runtime
        .block_on(daemon.run_until(std::future::ready(())))
        .unwrap();
    runtime.shutdown_background();
    let disk = size(&folder.path().join("state"));
    println!("disk: {} bytes for each", disk / count);
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("scripts")).unwrap();
    for name in ["daemon.toml", "scripts/bench.rhai"] {
        std::fs::copy(folder.path().join(name), empty.path().join(name)).unwrap();
    }
    let (_, idle) = start::start(empty.path());
    for _ in 0..2 {
        let (took, memory) = start::start(folder.path());
        println!(
            "start until ready with {count} suspended runs: {} ms; memory {memory} KiB, {} bytes for each beyond that of an empty store",
            took.as_millis(),
            memory.saturating_sub(idle) * 1024 / count
        );
    }
}

/// Fires a schedule by hand and waits until its run has ended.
fn run(runtime: &Runtime, world: &World, name: &str) -> Value {
    let runner = world.daemon.runner();
    runtime.block_on(async {
        let id = runner.trigger("bench", name, None).await.unwrap();
        loop {
            let run = runner.run(&id.to_string()).unwrap();
            assert_ne!(run["state"], "parked", "{run:#}");
            if run["state"] == "succeeded" {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// How long the last execution of a run took, to the millisecond.
fn executed(run: &Value) -> Duration {
    let at = |field: &str| -> chrono::DateTime<chrono::Utc> {
        run[field].as_str().unwrap().parse().unwrap()
    };
    (at("ended_at") - at("started_at")).to_std().unwrap()
}

/// How long a moment without an open run must last to be the end: what wakes runs takes a breath
/// between them.
const QUIET: Duration = Duration::from_millis(500);

/// Waits until nothing is executed any more. Answers since when.
async fn ended(runner: &Handle) -> Instant {
    let mut since = None;
    loop {
        if runner.overview()["open_runs"] != 0 {
            since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() >= QUIET {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let parked = Filter {
        limit: 1,
        state: Some("parked".to_owned()),
        ..Filter::EVERYTHING
    };
    assert_eq!(runner.runs(&parked).unwrap(), serde_json::json!([]));
    since.unwrap_or_else(Instant::now)
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        bytes += if metadata.is_dir() {
            size(&entry.path())
        } else {
            metadata.len()
        };
    }
    bytes
}
