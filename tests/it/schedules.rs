//! Slots of schedules: each fires once, whatever the clock, a reload or a restart does.

use std::sync::Arc;
use std::time::Duration;

use bursar::domain::clock::{Timestamp, shown};
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop};
use crate::stage::{Running, Stage, eventually};

/// A schedule that posts its tick to the shop, at the path of its name.
fn schedule(shop: &Shop, name: &str, cron: &str, options: &str) -> String {
    format!(
        r#"schedule("{name}", "{cron}", #{{ {options} }}, |tick| {{ http::post("{}/{name}", tick); }});
"#,
        shop.url
    )
}

async fn stage(clock: &Arc<SetClock>, shop: &Shop, script: &str) -> Stage {
    let stage = Stage::new().await.config(&shop.allowed());
    stage.clock(clock.clone()).script("s.rhai", script)
}

/// Sets the clock and lets the planner see it.
async fn at(clock: &SetClock, daemon: &Running, time: &str) {
    clock.set(time);
    daemon.runner.wake().await;
}

/// The slots that ran, as the shop was told.
fn slots(shop: &Shop, name: &str) -> Vec<String> {
    let received = shop.received(&format!("/{name}"));
    let slot = |one: &Value| {
        one["scheduled_at"]
            .as_str()
            .unwrap()
            .replace(":00.000Z", "")
    };
    received.iter().map(|one| slot(&one.body)).collect()
}

/// Waits until that many slots of a schedule ran.
async fn ran(shop: &Shop, name: &str, count: usize) -> Vec<Value> {
    let received = shop.visited(&format!("/{name}"), count).await;
    received.into_iter().map(|one| one.body).collect()
}

/// The records of a schedule's last slots, newest first.
fn records(daemon: &Running, name: &str) -> Vec<(String, Value)> {
    let schedules = daemon.runner.schedules().unwrap();
    let schedules = schedules.as_array().unwrap();
    let row = schedules.iter().find(|row| row["name"] == name).unwrap();
    row["last"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| {
            (
                slot["record"].as_str().unwrap().to_owned(),
                slot["reason"].clone(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_fires_once_whatever_the_clock_a_restart_or_a_reload_does() {
    let clock = SetClock::at("2026-11-22T08:00:00Z");
    let shop = Shop::open().await;
    let script = schedule(&shop, "nine", "0 9 * * *", "");
    let stage = stage(&clock, &shop, &script).await;
    let daemon = stage.start().await;
    at(&clock, &daemon, "2026-11-22T08:59:59.999Z").await;
    assert!(records(&daemon, "nine").is_empty());
    shop.hold("/nine");
    at(&clock, &daemon, "2026-11-22T09:00:00Z").await;
    let tick = ran(&shop, "nine", 1).await.remove(0);
    assert_eq!(tick["scheduled_at"], "2026-11-22T09:00:00.000Z");
    assert_eq!((&tick["late"], &tick["missed"]), (&json!(false), &json!(0)));
    assert_eq!(tick["date"], "2026-11-22");
    // In mid-slot: the handler still waits for its answer.
    stage.write("scripts/other.rhai", "on(\"*\", |event| { });");
    eventually("the new script is in use", || async {
        let scripts = daemon.runner.scripts();
        (scripts["scripts"].as_array()?.len() == 2).then_some(())
    })
    .await;
    at(&clock, &daemon, "2026-11-22T09:00:30Z").await;
    shop.release("/nine");
    daemon.all_closed(1).await;
    for time in [
        "2026-11-22T08:30:00Z",
        "2026-11-22T09:00:00Z",
        "2026-11-22T09:00:01Z",
        "2026-11-21T00:00:00Z",
        "2026-11-22T09:10:00Z",
    ] {
        at(&clock, &daemon, time).await;
    }
    daemon.stop().await;
    clock.set("2026-11-22T09:00:00Z");
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:00:10Z").await;
    assert_eq!(daemon.all_closed(1).await.len(), 1);
    at(&clock, &daemon, "2026-11-23T09:00:05Z").await;
    ran(&shop, "nine", 2).await;
    assert_eq!(
        slots(&shop, "nine"),
        ["2026-11-22T09:00", "2026-11-23T09:00"]
    );
    let ran = ("ran".to_owned(), Value::Null);
    assert_eq!(records(&daemon, "nine"), [ran.clone(), ran]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_slots_are_skipped_or_run_as_the_schedule_says_also_when_it_was_down() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let shop = Shop::open().await;
    let script = ["skip", "last", "all"]
        .map(|missed| {
            schedule(
                &shop,
                missed,
                "0 * * * *",
                &format!(r#"missed: "{missed}""#),
            )
        })
        .concat();
    let stage = stage(&clock, &shop, &script).await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T11:30:00Z").await;
    assert_eq!(ran(&shop, "last", 1).await[0]["missed"], 2);
    assert_eq!(ran(&shop, "all", 3).await.len(), 3);
    daemon.all_closed(4).await;
    daemon.stop().await;
    clock.set("2026-11-22T13:30:00Z");
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    ran(&shop, "last", 2).await;
    ran(&shop, "all", 5).await;
    // A run that has told the shop has not ended yet.
    daemon.all_closed(7).await;
    at(&clock, &daemon, "2026-11-22T14:00:00Z").await;
    let tick = ran(&shop, "skip", 1).await.remove(0);
    assert_eq!(tick["scheduled_at"], "2026-11-22T14:00:00.000Z");
    daemon.all_closed(10).await;
    let hours = |hours: &[u32]| -> Vec<String> {
        let hour = |hour: &u32| format!("2026-11-22T{hour:02}:00");
        hours.iter().map(hour).collect()
    };
    assert_eq!(slots(&shop, "all"), hours(&[9, 10, 11, 12, 13, 14]));
    assert_eq!(slots(&shop, "last"), hours(&[11, 13, 14]));
    let (late, skipped) = (
        ("late".to_owned(), Value::Null),
        ("skipped".to_owned(), json!("missed")),
    );
    let records = |name| records(&daemon, name)[1..].to_vec();
    assert_eq!(
        records("last"),
        [&late, &skipped, &late, &skipped].map(Clone::clone)
    );
    assert_eq!(records("all"), [&late; 4].map(Clone::clone));
    assert_eq!(records("skip"), [&skipped; 4].map(Clone::clone));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_daylight_saving_switches_in_two_zones_fire_each_slot_once() {
    // The switch, nine o'clock on the wall of that day, and when half past two is taken to be in
    // spring, where there is none.
    for (zone, switch, nine, gap) in [
        (
            "Europe/Berlin",
            "2026-03-29T01:00:00Z",
            "2026-03-29T07:00",
            Some("2026-03-29T01:00"),
        ),
        (
            "Europe/Berlin",
            "2026-10-25T01:00:00Z",
            "2026-10-25T08:00",
            None,
        ),
        (
            "America/New_York",
            "2026-03-08T07:00:00Z",
            "2026-03-08T13:00",
            Some("2026-03-08T07:00"),
        ),
        (
            "America/New_York",
            "2026-11-01T06:00:00Z",
            "2026-11-01T14:00",
            None,
        ),
    ] {
        let switch: Timestamp = switch.parse().unwrap();
        let clock = SetClock::at(&moved(switch, -12 * 60 - 15));
        let shop = Shop::open().await;
        let zone = format!(r#"timezone: "{zone}", overlap: "allow""#);
        let script = [
            schedule(&shop, "hourly", "0 * * * *", &zone),
            schedule(&shop, "gap", "30 2 * * *", &zone),
            schedule(&shop, "nine", "0 9 * * *", &zone),
        ]
        .concat();
        let stage = stage(&clock, &shop, &script).await;
        let daemon = stage.start().await;
        daemon.runner.wake().await;
        for step in -24..24 {
            at(&clock, &daemon, &moved(switch, step * 30)).await;
        }
        at(&clock, &daemon, &moved(switch, 12 * 60 - 15)).await;
        daemon.all_closed(26).await;
        let hours: std::collections::BTreeSet<String> =
            slots(&shop, "hourly").into_iter().collect();
        assert_eq!(
            (hours.len(), slots(&shop, "hourly").len()),
            (24, 24),
            "{switch}"
        );
        assert_eq!(slots(&shop, "nine"), [nine]);
        let gaps = slots(&shop, "gap");
        assert_eq!(gaps.len(), 1, "{switch}");
        assert!(gap.is_none_or(|gap| gaps == [gap]), "{gaps:?}");
        daemon.stop().await;
    }
}

fn moved(from: Timestamp, minutes: i64) -> String {
    let distance = Duration::from_secs(minutes.unsigned_abs() * 60);
    shown(if minutes < 0 {
        from - distance
    } else {
        from + distance
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_meet_an_open_run_are_skipped_queued_or_allowed() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let shop = Shop::open().await;
    let script = ["skip", "queue", "allow"]
        .map(|overlap| {
            schedule(
                &shop,
                overlap,
                "0 * * * *",
                &format!(r#"overlap: "{overlap}""#),
            )
        })
        .concat();
    let stage = stage(&clock, &shop, &script).await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    for name in ["/skip", "/queue", "/allow"] {
        shop.hold(name);
    }
    at(&clock, &daemon, "2026-11-22T09:00:00Z").await;
    for name in ["skip", "queue", "allow"] {
        ran(&shop, name, 1).await;
    }
    at(&clock, &daemon, "2026-11-22T10:00:00Z").await;
    at(&clock, &daemon, "2026-11-22T11:00:00Z").await;
    ran(&shop, "allow", 3).await;
    let skipped = ("skipped".to_owned(), json!("overlap"));
    eventually("the slots have records", || async {
        (records(&daemon, "skip")[..2] == [skipped.clone(), skipped.clone()]).then_some(())
    })
    .await;
    assert_eq!(
        (slots(&shop, "skip").len(), slots(&shop, "queue").len()),
        (1, 1)
    );
    for name in ["/skip", "/queue", "/allow"] {
        shop.release(name);
    }
    ran(&shop, "queue", 3).await;
    daemon.all_closed(7).await;
    let hours = ["2026-11-22T09:00", "2026-11-22T10:00", "2026-11-22T11:00"];
    assert_eq!(slots(&shop, "queue"), hours);
    at(&clock, &daemon, "2026-11-22T12:00:00Z").await;
    assert_eq!(ran(&shop, "skip", 2).await[1]["missed"], 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catching_up_runs_one_slot_after_the_other() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let shop = Shop::open().await;
    let script = schedule(&shop, "all", "0 * * * *", r#"missed: "all""#);
    let stage = stage(&clock, &shop, &script).await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    shop.hold("/all");
    at(&clock, &daemon, "2026-11-22T11:30:00Z").await;
    ran(&shop, "all", 1).await;
    // Long enough for a second thread to come by, if there were something to do.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(slots(&shop, "all"), ["2026-11-22T09:00"]);
    shop.release("/all");
    ran(&shop, "all", 3).await;
    let hours = ["2026-11-22T09:00", "2026-11-22T10:00", "2026-11-22T11:00"];
    assert_eq!(slots(&shop, "all"), hours);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schedule_neither_repeats_a_recorded_slot_nor_stumbles_over_it() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let shop = Shop::open().await;
    let stage = stage(&clock, &shop, &schedule(&shop, "it", "0 * * * *", "")).await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:00:00Z").await;
    ran(&shop, "it", 1).await;
    daemon.all_closed(1).await;
    // The clock had been ahead; somebody changes the schedule while it is being set right.
    clock.set("2026-11-22T08:40:00Z");
    daemon.stop().await;
    let changed = [
        schedule(&shop, "it", "0,30 * * * *", ""),
        schedule(&shop, "later", "5 * * * *", ""),
    ];
    stage.write("scripts/s.rhai", &changed.concat());
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:00:00Z").await;
    at(&clock, &daemon, "2026-11-22T09:05:00Z").await;
    ran(&shop, "later", 1).await;
    at(&clock, &daemon, "2026-11-22T09:30:00Z").await;
    ran(&shop, "it", 2).await;
    daemon.all_closed(3).await;
    assert_eq!(slots(&shop, "it"), ["2026-11-22T09:00", "2026-11-22T09:30"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_puts_a_run_off_by_the_same_time_after_a_restart() {
    let clock = SetClock::at("2026-11-22T08:30:00Z");
    let shop = Shop::open().await;
    let script = schedule(&shop, "it", "0 * * * *", r#"jitter: "10m""#);
    let stage = stage(&clock, &shop, &script).await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    at(&clock, &daemon, "2026-11-22T09:00:00Z").await;
    let due = eventually("the slot has a run", || async {
        let runs = daemon.runner.runs(&crate::stage::everything()).unwrap();
        runs[0]["due_at"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        due.as_str() > "2026-11-22T09:00:00" && due.as_str() <= "2026-11-22T09:10:00",
        "{due}"
    );
    daemon.stop().await;
    let daemon = stage.start().await;
    daemon.runner.wake().await;
    assert!(slots(&shop, "it").is_empty());
    at(&clock, &daemon, &due).await;
    assert_eq!(ran(&shop, "it", 1).await[0]["late"], false);
    daemon.stop().await;
}
