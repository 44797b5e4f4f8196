//! The slot ledger: every expected slot leaves a record that says why, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bursar::domain::clock::{Clock, SystemClock, Timestamp, shown};
use bursar::domain::schedule::Schedule;
use bursar::scripting::Sources;
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop, counted, deliver, get};
use crate::stage::{Running, Stage, eventually, everything};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Sets the clock and lets the planner see it.
async fn at(clock: &SetClock, daemon: &Running, time: &str) {
    clock.set(time);
    daemon.runner.wake().await;
}

/// A schedule whose runs do nothing.
fn idle(name: &str, cron: &str, options: &str) -> String {
    format!("schedule(\"{name}\", \"{cron}\", #{{ {options} }}, |tick| {{ }});\n")
}

/// Writes the one script and has it in use when this returns.
async fn reload(stage: &Stage, daemon: &Running, script: &str) {
    stage.write("scripts/s.rhai", script);
    let sources = Sources::read(&stage.path("scripts"));
    daemon.runner.reload(sources).await.unwrap();
    daemon.runner.wake().await;
}

/// A schedule's rows, newest first.
fn history(daemon: &Running, name: &str) -> Vec<Value> {
    let history = daemon.runner.slot_history(name, usize::MAX).unwrap();
    history["slots"].as_array().unwrap().clone()
}

/// A schedule's rows, oldest first, as `hh:mm what`; stretches as `hh:mm-hh:mm*count what`.
fn told(daemon: &Running, name: &str) -> Vec<String> {
    let minute = |value: &Value| value.as_str().unwrap()[11..16].to_owned();
    let mut rows: Vec<_> = history(daemon, name)
        .iter()
        .map(|row| {
            let what = row["reason"].as_str().or(row["record"].as_str()).unwrap();
            match row["count"].as_u64().unwrap() {
                1 => format!("{} {what}", minute(&row["slot"])),
                count => format!(
                    "{}-{}*{count} {what}",
                    minute(&row["first"]),
                    minute(&row["slot"])
                ),
            }
        })
        .collect();
    rows.reverse();
    rows
}

/// What the run of the newest slot was told it missed.
fn missed(daemon: &Running, name: &str) -> u64 {
    let rows = history(daemon, name);
    tick(daemon, &rows[0])["missed"].as_u64().unwrap()
}

fn tick(daemon: &Running, row: &Value) -> Value {
    let run = daemon.runner.run(row["run"].as_str().unwrap()).unwrap();
    run["input"]["tick"].clone()
}

/// The alerts so far, oldest first, as handlers get them.
fn alerts(daemon: &Running) -> Vec<Value> {
    let rows = daemon.runner.callbacks(&everything()).unwrap();
    let mut alerts: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["kind"] == "alert.slot_skipped")
        .map(|row| {
            let event = daemon.runner.callback(row["id"].as_str().unwrap());
            event.unwrap()["event"].clone()
        })
        .collect();
    alerts.reverse();
    alerts
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_while_a_script_was_not_in_use_were_never_loaded() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let script = idle("it", "0 * * * *", r#"missed: "all""#);
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage.script("s.rhai", &script);
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:00:00Z").await;
    reload(&stage, &daemon, "").await;
    at(&clock, &daemon, "2026-11-22T10:30:00Z").await;
    // Gone for good as far as anybody knows: its history can be read nevertheless.
    assert_eq!(told(&daemon, "it"), ["09:00 ran"]);
    let gone = daemon.runner.slot_history("s/it", 10).unwrap();
    assert_eq!(gone["left_at"], "2026-11-22T09:00:00.000Z");
    daemon.stop().await;
    clock.set("2026-11-22T12:30:00Z");
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    clock.set("2026-11-22T13:30:00Z");
    reload(&stage, &daemon, &script).await;
    let never = ["10:00", "11:00", "12:00", "13:00"].map(|slot| format!("{slot} never loaded"));
    assert_eq!(told(&daemon, "it")[1..], never);
    at(&clock, &daemon, "2026-11-22T14:00:00Z").await;
    assert_eq!(missed(&daemon, "it"), 4);
    let back = daemon.runner.slot_history("s/it", 10).unwrap();
    assert_eq!(back["left_at"], Value::Null);
    assert_eq!(
        alerts(&daemon),
        [json!({
            "kind": "alert.slot_skipped",
            "received_at": "2026-11-22T13:30:00.000Z",
            "script": "s",
            "schedule": "it",
            "reason": "never loaded",
            "slot": "2026-11-22T13:00:00.000Z",
            "first": "2026-11-22T10:00:00.000Z",
            "count": 4,
        })]
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_or_removed_during_a_downtime_has_missed_its_slots_and_is_not_run() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let all = r#"missed: "all""#;
    let before = [
        idle("same", "0 * * * *", all),
        idle("changed", "0 * * * *", all),
        idle("removed", "0 * * * *", all),
    ];
    let after = [
        idle("same", "0 * * * *", all),
        idle("changed", "0,30 * * * *", all),
    ];
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage.script("s.rhai", &before.concat());
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    daemon.stop().await;
    clock.set("2026-11-22T10:15:00Z");
    stage.write("scripts/s.rhai", &after.concat());
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T10:30:00Z").await;
    assert_eq!(told(&daemon, "same"), ["09:00 late", "10:00 late"]);
    assert_eq!(told(&daemon, "removed"), ["09:00 missed", "10:00 missed"]);
    assert_eq!(
        told(&daemon, "changed"),
        ["09:00 missed", "10:00 missed", "10:30 ran"]
    );
    assert_eq!(missed(&daemon, "changed"), 2);
    let mut alerted: Vec<_> = alerts(&daemon)
        .iter()
        .map(|alert| format!("{} {}", alert["schedule"], alert["count"]))
        .collect();
    alerted.sort();
    assert_eq!(alerted, ["\"changed\" 2", "\"removed\" 2"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_due_when_its_script_changes_is_fired_once_on_the_scripts_in_use_until_then()
{
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage.script("s.rhai", &idle("it", "0 * * * *", ""));
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    clock.set("2026-11-22T09:00:00.1Z");
    reload(&stage, &daemon, &idle("it", "5 * * * *", "")).await;
    assert_eq!(told(&daemon, "it"), ["09:00 ran"]);
    clock.set("2026-11-22T09:05:00.1Z");
    reload(&stage, &daemon, "").await;
    assert_eq!(told(&daemon, "it"), ["09:00 ran", "09:05 ran"]);
    assert_eq!(alerts(&daemon), [] as [Value; 0]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_missed_slots_are_one_stretch_that_is_counted_and_shown() {
    let clock = SetClock::at("2026-11-19T08:30:00Z");
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage.script("s.rhai", &idle("it", "* * * * *", ""));
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    daemon.stop().await;
    clock.set("2026-11-22T08:30:30Z");
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    let rows = told(&daemon, "it");
    assert_eq!(rows.len(), 1001);
    assert_eq!(rows[0], "08:31-15:50*3320 missed");
    assert_eq!(rows[1000], "08:30 ran");
    assert_eq!(missed(&daemon, "it"), 3 * 24 * 60 - 1);
    let [alert] = alerts(&daemon).try_into().unwrap();
    assert_eq!(alert["count"], 3 * 24 * 60 - 1);
    assert_eq!(alert["first"], "2026-11-19T08:31:00.000Z");
    assert_eq!(alert["slot"], "2026-11-22T08:29:00.000Z");
    let skipped = counted(&daemon, r#"bursar_slots_total{record="skipped"}"#).await;
    assert_eq!(skipped, 3 * 24 * 60 - 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_skipped_since_the_last_run_are_counted_across_restarts_and_reloads() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let script = idle("it", "0 * * * *", "");
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage.script("s.rhai", &script);
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:30:00Z").await;
    daemon.stop().await;
    clock.set("2026-11-22T10:30:00Z");
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    reload(&stage, &daemon, &format!("// the same\n{script}")).await;
    at(&clock, &daemon, "2026-11-22T11:30:00Z").await;
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T12:00:00Z").await;
    assert_eq!(missed(&daemon, "it"), 3);
    at(&clock, &daemon, "2026-11-22T13:00:00Z").await;
    let rows = told(&daemon, "it");
    assert_eq!(
        rows[..3],
        ["09:00", "10:00", "11:00"].map(|slot| format!("{slot} missed"))
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_missed_slots_are_recorded_oldest_first_and_run_at_a_bounded_rate() {
    let clock = SetClock::at("2026-11-21T08:30:00Z");
    let options = r#"missed: "all""#;
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage
        .config("scripts.limits.catch_up_per_second = 10\n")
        .script("s.rhai", &idle("it", "* * * * *", options));
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    daemon.stop().await;
    clock.set("2026-11-22T09:30:00Z");
    let daemon = stage.start().await;
    let rows = eventually("the first thousand are recorded", || async {
        let rows = daemon.runner.slot_history("it", usize::MAX).ok()?;
        let rows = rows["slots"].as_array()?.clone();
        (rows.len() >= 1000).then_some(rows)
    })
    .await;
    assert_eq!(rows.last().unwrap()["slot"], "2026-11-21T08:31:00.000Z");
    // Between two commits: the rest is still due, and waits for those before it.
    daemon.stop().await;
    let daemon = stage.start().await;
    eventually("all are recorded", || async {
        daemon.runner.wake().await;
        (history(&daemon, "it").len() == 1500).then_some(())
    })
    .await;
    let mut rows = history(&daemon, "it");
    rows.reverse();
    let (late, in_time) = rows.split_at(1498);
    assert!(late.iter().all(|row| row["record"] == "late"));
    // The last two are noticed within their minute: one waits, and stands in the other's way.
    assert_eq!(in_time[0]["record"], "ran");
    assert_eq!(in_time[1]["reason"], "overlap");
    assert_eq!(alerts(&daemon), [] as [Value; 0]);
    let runs = daemon.runner.runs(&everything()).unwrap();
    let due: BTreeMap<&str, &str> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            (
                run["id"].as_str().unwrap(),
                run["due_at"].as_str().unwrap_or(""),
            )
        })
        .collect();
    let due: Vec<&str> = late
        .iter()
        .map(|row| due[row["run"].as_str().unwrap()])
        .collect();
    let mut per_second = BTreeMap::new();
    for at in &due {
        *per_second
            .entry(at.get(..19).unwrap_or("at once"))
            .or_insert(0) += 1;
    }
    // One pace for each of the two starts, the second of which goes on where the first ended.
    assert!(
        per_second.values().all(|count| *count <= 20),
        "{per_second:?}"
    );
    assert!(due[..1000].is_sorted() && due[1000..].is_sorted());
    daemon.stop().await;
}

/// A process that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_between_two_commits_of_missed_slots_loses_none_and_doubles_none() {
    let now = SystemClock.now();
    let begun = shown(now - Duration::from_hours(15));
    let clock = SetClock::at(&begun);
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage.script("s.rhai", &idle("it", "* * * * *", r#"missed: "all""#));
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    daemon.stop().await;
    stage.write("daemon.toml", &stage.toml());
    let options = bursar::simulator::Options::default();
    let process = std::process::Command::new(env!("CARGO_BIN_EXE_bursar"))
        .args(["run", "--config"])
        .arg(stage.path("daemon.toml"))
        .env_clear()
        .envs([("KEY", options.key), ("SECRET", options.secret)])
        .env("BURSAR_CRASH_AT", "slot_recorded:2")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Killed(process);
    let status = eventually("the daemon has died", || {
        let status = process.0.try_wait().unwrap();
        async move { status }
    })
    .await;
    assert!(!status.success());
    let later = shown(now + Duration::from_mins(2));
    // The clock stands in the past until it is known what the dead daemon left.
    let daemon = stage.start().await;
    assert_eq!(history(&daemon, "it").len(), 500);
    at(&clock, &daemon, &later).await;
    let until = time(&later);
    let schedule = Schedule::parse("* * * * *", "UTC").unwrap();
    let (expected, _) = schedule.oldest(time(&begun), until, 10_000);
    let mut rows = history(&daemon, "it");
    rows.reverse();
    let recorded: Vec<_> = rows.iter().map(|row| row["slot"].clone()).collect();
    let slots: Vec<_> = expected.iter().map(|slot| json!(shown(*slot))).collect();
    assert_eq!(recorded, slots);
    let last = rows.len() - 3;
    assert!(rows[..last].iter().all(|row| row["record"] == "late"));
    let runs = daemon.runner.runs(&everything()).unwrap();
    let run_ids: BTreeSet<_> = rows.iter().filter_map(|row| row["run"].as_str()).collect();
    let kept = runs.as_array().unwrap();
    assert!(
        kept.iter()
            .all(|run| run_ids.contains(run["id"].as_str().unwrap()))
    );
    assert_eq!(kept.len(), run_ids.len());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_found_open_at_a_start_begin_at_a_bounded_rate() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let shop = Shop::open().await;
    let script = format!(
        "on(\"deposit.*\", |event| {{ http::post(\"{}/it\", event.id); }});",
        shop.url
    );
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage
        .config(&shop.allowed())
        .config("scripts.limits.catch_up_per_second = 2\nscripts.limits.concurrent_runs = 1\n")
        .script("s.rhai", &script);
    let daemon = stage.start().await;
    shop.answers("/it", &[500; 5]);
    for id in 1..=5 {
        let body = json!({"id": id, "type": "deposit", "status": "confirmed"}).to_string();
        assert_eq!(deliver(&daemon.callbacks, body.as_bytes()).await.0, 200);
        shop.visited("/it", id).await;
    }
    eventually("all wait for their next try", || async {
        let runs = daemon.runner.runs(&everything()).unwrap();
        let runs = runs.as_array().unwrap();
        let retrying = |run: &Value| run["state"] == "retrying";
        runs.iter().all(retrying).then_some(())
    })
    .await;
    daemon.stop().await;
    clock.set("2026-11-22T08:40:00Z");
    let daemon = stage.start().await;
    for (now, visits) in [("00", 7), ("01.5", 9), ("02.5", 10)] {
        at(&clock, &daemon, &format!("2026-11-22T08:40:{now}Z")).await;
        shop.visited("/it", visits).await;
        // Long enough for another one to come, if its time had come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(shop.received("/it").len(), visits);
    }
    let again: Vec<Value> = shop.received("/it")[5..]
        .iter()
        .map(|one| one.body.clone())
        .collect();
    assert_eq!(again, [1, 2, 3, 4, 5].map(|id| json!(id)));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_reach_the_handlers_that_ask_for_them_and_overlaps_are_none() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let shop = Shop::open().await;
    let on = |pattern: &str, path: &str| {
        format!(
            "on(\"{pattern}\", #{{ name: \"{path}\" }}, |event| {{ http::post(\"{}/{path}\", event); }});\n",
            shop.url
        )
    };
    let script = [
        on("alert.slot_skipped", "alert"),
        on("alert.*", "family"),
        on("*", "all"),
        on("deposit.*", "other"),
        idle("it", "0 * * * *", ""),
        format!(
            "schedule(\"busy\", \"0 10,11 * * *\", |tick| {{ http::post(\"{}/busy\", tick); }});",
            shop.url
        ),
    ];
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage
        .config(&shop.allowed())
        .script("s.rhai", &script.concat());
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:30:00Z").await;
    for path in ["/alert", "/family", "/all"] {
        let [alert] = shop.visited(path, 1).await.try_into().unwrap();
        assert_eq!(alert.body["kind"], "alert.slot_skipped");
        assert_eq!(alert.body["schedule"], "it");
        assert_eq!(alert.body["slot"], "2026-11-22T09:00:00.000Z");
    }
    shop.hold("/busy");
    at(&clock, &daemon, "2026-11-22T10:00:00Z").await;
    shop.visited("/busy", 1).await;
    at(&clock, &daemon, "2026-11-22T11:00:00Z").await;
    assert_eq!(told(&daemon, "busy"), ["10:00 ran", "11:00 overlap"]);
    assert_eq!(alerts(&daemon).len(), 1);
    assert!(shop.received("/other").is_empty());
    shop.release("/busy");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_found_by_name_and_says_which_names_there_are() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage
        .script(
            "pay/a.rhai",
            &[idle("one", "@hourly", ""), idle("two", "@hourly", "")].concat(),
        )
        .script("b.rhai", &idle("two", "@hourly", ""));
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:00:00Z").await;
    let ask = async |path: &str| -> Value {
        let text = get(&format!("{}/api/v1/schedules/history/{path}", daemon.admin)).await;
        serde_json::from_str(&text).unwrap()
    };
    for path in ["one", "pay%2Fa%2Fone", "pay/a/one?limit=1"] {
        let found = ask(path).await;
        assert_eq!(found["script"], "pay/a", "{path}");
        assert_eq!(found["slots"][0]["record"], "ran", "{path}");
    }
    let message = async |path: &str| ask(path).await["error"]["message"].clone();
    assert_eq!(
        message("two").await,
        "several schedules are called `two`; name one of `b/two`, `pay/a/two`"
    );
    assert_eq!(
        message("b/twoo").await,
        "there is no schedule `b/twoo`; did you mean `b/two`?"
    );
    assert_eq!(
        message("payroll").await,
        "there is no schedule `payroll`; there are `b/two`, `pay/a/one`, `pay/a/two`"
    );
    assert!(
        message("one?state=ran")
            .await
            .to_string()
            .contains("there is no parameter")
    );
    daemon.stop().await;
}

/// Numbers that look like chance and are the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Every schedule that the scripts of the test below have at some time, with what holds for it:
/// that every slot of that expression since the first has its record.
const LEDGERS: [(&str, &str); 4] = [
    ("skip", "* * * * *"),
    ("last", "*/10 * * * *"),
    ("all", "0 * * * *"),
    // Changes between two expressions, of which this is what they share.
    ("moved", "*/30 * * * *"),
];

/// A script in which each of these schedules is, or is not.
fn some(chance: &mut Chance) -> String {
    let moved = ["*/10 * * * *", "*/15 * * * *"][usize::from(chance.below(2) == 0)];
    let all = [
        idle("skip", "* * * * *", ""),
        idle(
            "last",
            "*/10 * * * *",
            r#"missed: "last", overlap: "queue""#,
        ),
        idle("all", "0 * * * *", r#"missed: "all", overlap: "allow""#),
        idle("moved", moved, r#"missed: "last""#),
    ];
    let there = all.into_iter().filter(|_| chance.below(4) != 0);
    there.collect()
}

/// Whatever happens: nothing is recorded or run twice, nothing is left out, nothing is miscounted.
fn judge(daemon: &Running, since: Timestamp, until: Timestamp, seed: u64) {
    let mut runs_recorded = BTreeSet::new();
    for (name, expression) in LEDGERS {
        let mut rows = history(daemon, name);
        rows.reverse();
        let mut last = since;
        let mut covered = Vec::new();
        let mut skipped = 0;
        for row in &rows {
            let (first, slot) = (
                time(row["first"].as_str().unwrap()),
                time(row["slot"].as_str().unwrap()),
            );
            assert!(last < first && first <= slot, "seed {seed}: {name} {row}");
            last = slot;
            covered.push((first, slot));
            if row["record"] == "skipped" {
                assert!(row["run"].is_null(), "seed {seed}: {name} {row}");
                skipped += row["count"].as_u64().unwrap();
                continue;
            }
            let run = row["run"].as_str().unwrap().to_owned();
            assert!(runs_recorded.insert(run), "seed {seed}: {name} {row}");
            let tick = tick(daemon, row);
            assert_eq!(tick["scheduled_at"], row["slot"], "seed {seed}: {name}");
            if name != "moved" {
                assert_eq!(tick["missed"], skipped, "seed {seed}: {name} {row}");
            }
            skipped = 0;
        }
        let schedule = Schedule::parse(expression, "UTC").unwrap();
        let (expected, _) = schedule.oldest(since, until, 1_000_000);
        let mut records = covered.iter().peekable();
        for slot in expected {
            while records.next_if(|(_, last)| *last < slot).is_some() {}
            let found = records.peek().is_some_and(|(first, _)| *first <= slot);
            assert!(found, "seed {seed}: {name} has no record of {slot}");
        }
    }
    let runs = daemon.runner.runs(&everything()).unwrap();
    for run in runs.as_array().unwrap() {
        let id = run["id"].as_str().unwrap();
        assert!(runs_recorded.contains(id), "seed {seed}: {run}");
    }
}

async fn play(seed: u64) {
    let mut chance = Chance(seed);
    let since = time("2026-11-22T08:30:00Z");
    let clock = SetClock::at(&shown(since));
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage
        .config("scripts.limits.catch_up_per_second = 1000\n")
        .script("s.rhai", &whole());
    let mut daemon = stage.start().await;
    daemon.runner.wake().await;
    let (mut now, mut latest) = (since, since);
    for _ in 0..24 {
        let minutes = match chance.below(8) {
            0..4 => chance.below(3),
            4..6 => chance.below(120),
            6 => chance.below(2 * 24 * 60),
            _ => 0,
        };
        now += Duration::from_secs(minutes * 60 + chance.below(60));
        if chance.below(4) == 0 {
            now = (now - Duration::from_secs(chance.below(3 * 3600))).max(since);
        }
        match chance.below(4) {
            0 => {
                if chance.below(2) == 0 {
                    stage.write("scripts/s.rhai", &some(&mut chance));
                }
                daemon.stop().await;
                clock.set(&shown(now));
                daemon = stage.start().await;
            }
            1 => {
                clock.set(&shown(now));
                reload(&stage, &daemon, &some(&mut chance)).await;
            }
            _ => clock.set(&shown(now)),
        }
        daemon.runner.wake().await;
        latest = latest.max(now);
    }
    latest += Duration::from_hours(1);
    clock.set(&shown(latest));
    reload(&stage, &daemon, &whole()).await;
    for _ in 0..5 {
        daemon.runner.wake().await;
    }
    judge(&daemon, since, latest, seed);
    daemon.stop().await;
}

/// A script in which all of them are.
fn whole() -> String {
    [
        idle("skip", "* * * * *", ""),
        idle(
            "last",
            "*/10 * * * *",
            r#"missed: "last", overlap: "queue""#,
        ),
        idle("all", "0 * * * *", r#"missed: "all", overlap: "allow""#),
        idle("moved", "*/10 * * * *", r#"missed: "last""#),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_jumps_restarts_and_reloads_every_slot_has_exactly_one_record() {
    let seeds: Vec<u64> = match std::env::var("BURSAR_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=4).map(|seed| seed * 7919).collect(),
    };
    for seed in seeds {
        play(seed).await;
    }
}
