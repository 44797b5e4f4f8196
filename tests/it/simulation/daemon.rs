//! Scripts written by a seed, on the daemon itself: over restarts, reloads, faults of the gateway
//! and of a shop, and a clock that jumps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bursar::simulator::{Fault, Faults, Operation, Options, Rule};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::chance::Chance;
use super::program::{self, Step};
use crate::kit::{SetClock, Shop, deliver};
use crate::stage::{Running, SENDER, Stage, eventually, everything, executed};

/// What the seed does before the world calms down.
const TURNS: usize = 25;

/// Rounds of calm until everything must have ended.
const ROUNDS: usize = 200;

const SCRIPTS: [&str; 2] = ["s0", "s1"];

/// The handlers of one version, by script.
type Version = BTreeMap<&'static str, Vec<Vec<Step>>>;

struct Simulation {
    chance: Chance,
    stage: Stage,
    shop: Shop,
    clock: Arc<SetClock>,
    now: DateTime<Utc>,
    versions: Vec<Version>,
    /// The events that were taken, each with the version that was in use.
    taken: Vec<(usize, usize)>,
}

/// Simulates one case and audits it.
pub async fn simulate(seed: u64) {
    let mut simulation = Simulation::new(seed).await;
    let mut daemon = simulation.stage.start().await;
    for _ in 0..TURNS {
        daemon = simulation.turn(daemon).await;
    }
    daemon = simulation.calm(daemon).await;
    simulation.audit(&daemon).await;
    daemon.stop().await;
}

fn faults(chance: &mut Chance) -> Vec<Rule> {
    let faults = [
        Fault::DropAnswer,
        Fault::ActThenBadGateway,
        Fault::SlowAnswer(30),
        Fault::BlindLookup(200),
        Fault::CallbackTwice,
        Fault::CallbackLate(100),
        Fault::CallbackReordered,
        Fault::CallbackForged,
        Fault::CallbackNever,
        Fault::CallbackBeforeReply,
    ];
    let mut rules = vec![Rule::always(Fault::ExecuteRepeat)];
    for fault in faults {
        rules.push(Rule {
            operation: Some(Operation::Withdrawal),
            per_mille: Some(u16::try_from(chance.below(150)).unwrap()),
            ..Rule::always(fault)
        });
    }
    rules
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let mut chance = Chance::of(seed);
        let shop = Shop::open().await;
        let start = "2026-11-22T08:30:00Z";
        let clock = SetClock::at(start);
        let options = Options {
            seed,
            settle_after: Some(Duration::from_millis(150)),
            faults: Faults(faults(&mut chance)),
            ..Options::default()
        };
        let stage = Stage::with(options).await.config(&shop.allowed());
        let mut simulation = Self {
            chance,
            stage: stage.clock(clock.clone()),
            shop,
            clock,
            now: start.parse().unwrap(),
            versions: Vec::new(),
            taken: Vec::new(),
        };
        simulation.write_scripts();
        simulation
    }

    fn write_scripts(&mut self) {
        let number = self.versions.len();
        let mut version = Version::new();
        for script in SCRIPTS {
            let handlers = vec![
                program::any(&mut self.chance),
                program::any(&mut self.chance),
            ];
            let source = source(script, &handlers, number, &self.shop.url);
            self.stage.write(&format!("scripts/{script}.rhai"), &source);
            version.insert(script, handlers);
        }
        self.versions.push(version);
    }

    async fn turn(&mut self, daemon: Running) -> Running {
        match self.chance.below(10) {
            0..=3 => self.fire(&daemon).await,
            4..=6 => {
                let minutes = i64::try_from(self.chance.below(24 * 60)).unwrap();
                let back = self.chance.per_mille(300);
                self.set_clock(TimeDelta::minutes(if back { -minutes } else { minutes }));
                daemon.runner.wake().await;
            }
            7 => {
                let pause = u64::try_from(self.chance.below(60)).unwrap();
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            8 => {
                let old = daemon.runner.overview()["set"].clone();
                self.write_scripts();
                eventually("the new version is in use", || async {
                    (daemon.runner.overview()["set"] != old).then_some(())
                })
                .await;
            }
            _ => return self.restart(daemon).await,
        }
        daemon
    }

    fn set_clock(&mut self, by: TimeDelta) {
        self.now += by;
        self.clock.set(&self.now.to_rfc3339());
    }

    async fn restart(&self, daemon: Running) -> Running {
        daemon.stop().await;
        self.stage.start().await
    }

    /// An event that every handler of the version in use gets.
    async fn fire(&mut self, daemon: &Running) {
        let number = self.taken.len();
        // Some are about the same transaction and follow one another.
        let status = if number.is_multiple_of(2) {
            "pending"
        } else {
            "confirmed"
        };
        let body = json!({
            "id": 1 + number / 2, "type": "deposit", "status": status, "number": number,
        });
        for path in self.paths(number, self.versions.len() - 1) {
            let failing = self.chance.below(3);
            self.shop.answers(&path, &vec![500; failing]);
        }
        assert_eq!(
            deliver(&daemon.callbacks, body.to_string().as_bytes())
                .await
                .0,
            200
        );
        self.taken.push((number, self.versions.len() - 1));
    }

    /// Where an event makes handlers post to.
    fn paths(&self, event: usize, version: usize) -> Vec<String> {
        let mut paths = Vec::new();
        for (script, handlers) in &self.versions[version] {
            for (handler, steps) in handlers.iter().enumerate() {
                for (number, step) in steps.iter().enumerate() {
                    if matches!(step, Step::Http | Step::HttpCaught) {
                        paths.push(format!("/v{version}-{event}-{script}-{handler}-{number}"));
                    }
                }
            }
        }
        paths
    }

    /// Gives everything the time it needs.
    async fn calm(&mut self, mut daemon: Running) -> Running {
        self.stage
            .control
            .set_faults(Faults(vec![Rule::always(Fault::ExecuteRepeat)]));
        for round in 1_usize.. {
            let open = unfinished(&daemon);
            if open.is_empty() {
                return daemon;
            }
            let payments = daemon.runner.payments(&everything()).unwrap();
            assert!(
                round < ROUNDS,
                "some runs do not end: {open:#?}\n{payments:#}"
            );
            self.set_clock(TimeDelta::hours(5));
            daemon.runner.wake().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if round.is_multiple_of(20) {
                daemon = self.restart(daemon).await;
            }
        }
        daemon
    }

    async fn audit(&self, daemon: &Running) {
        let mut payments = BTreeSet::new();
        let mut sums: BTreeMap<&str, usize> = SCRIPTS.iter().map(|script| (*script, 0)).collect();
        let mut emitted = 0;
        for (event, version) in &self.taken {
            for path in self.paths(*event, *version) {
                let received = self.shop.received(&path);
                let keys: BTreeSet<_> = received.iter().map(|one| &one.idempotency_key).collect();
                assert_eq!(keys.len(), 1, "{path}: {received:?}");
            }
            for (script, handlers) in &self.versions[*version] {
                for (handler, steps) in handlers.iter().enumerate() {
                    for (number, step) in steps.iter().enumerate() {
                        let label = format!("v{version}-{event}-{script}-{handler}-{number}");
                        match step {
                            Step::Pay => payments.extend([format!("{label}-0")]),
                            Step::PayAll(rows) => {
                                payments.extend((0..*rows).map(|row| format!("{label}-{row}")));
                            }
                            Step::Once(key) => payments.extend([format!("once-{script}-{key}")]),
                            Step::Add(number) => *sums.get_mut(script).unwrap() += number,
                            Step::Emit(_) => emitted += 1,
                            Step::Wait(_)
                            | Step::WaitAll(_)
                            | Step::Sleep(_)
                            | Step::WaitFor(..)
                            | Step::Http
                            | Step::HttpCaught => {}
                        }
                    }
                }
            }
        }
        let wanted: BTreeMap<String, usize> = payments.into_iter().map(|id| (id, 1)).collect();
        assert_eq!(executed(&self.stage.control), wanted, "what was paid");
        for script in SCRIPTS {
            daemon.trigger(script, "tell").await;
            let told = self.shop.received(&format!("/{script}"));
            let wanted = json!([sums[script], emitted]);
            assert_eq!(
                told.last().unwrap().body,
                wanted,
                "sum and events of {script}"
            );
        }
    }
}

/// Runs that have not succeeded.
fn unfinished(daemon: &Running) -> Vec<Value> {
    let runs = daemon.runner.runs(&everything()).unwrap();
    let runs = runs.as_array().unwrap().iter();
    let open = runs.filter(|run| run["state"] != "succeeded");
    open.inspect(|run| assert_ne!(run["state"], "parked", "{run:#}"))
        .cloned()
        .collect()
}

/// A script with these handlers.
fn source(script: &str, handlers: &[Vec<Step>], version: usize, shop: &str) -> String {
    let mut source = format!(
        r#"
schedule("tell", "0 0 1 1 *", |tick| {{
    http::post("{shop}/{script}", [state::get("sum") ?? 0, state::get("emitted") ?? 0]);
}});
on("*.done", #{{ name: "count" }}, |event| {{ state::add("emitted", 1); }});
"#
    );
    for (handler, steps) in handlers.iter().enumerate() {
        write!(
            source,
            r#"
on("deposit.*", #{{ name: "h{handler}", retry: #{{ attempts: 1000, first: "1s", max: "10m" }} }}, |event| {{
    let paid = [];
"#
        )
        .unwrap();
        for (number, step) in steps.iter().enumerate() {
            let label = format!("v{version}-${{event.number}}-{script}-{handler}-{number}");
            writeln!(source, "    {}", statement(step, script, &label, shop)).unwrap();
        }
        source.push_str("});\n");
    }
    source
}

fn statement(step: &Step, script: &str, label: &str, shop: &str) -> String {
    let row = |id: &str| {
        let sender = SENDER.replace('\n', " ");
        format!(
            "#{{ {sender} foreign_id: {id}, currency: \"BTC\", amount: 0.01, address: \"tb1q\" }}"
        )
    };
    let or_timeout = |what: &str| {
        format!(
            "try {{ {what}; }} catch (error) {{ if error.code != \"timeout\" {{ throw error; }} }}"
        )
    };
    match step {
        Step::Pay => {
            let row = row(&format!("`{label}-0`"));
            format!("paid.push(gateway::withdraw({row}));")
        }
        Step::PayAll(rows) => {
            let row = row(&format!("`{label}-${{n}}`"));
            format!(
                "let rows = []; for n in 0..{rows} {{ rows.push({row}); }} paid += gateway::withdraw_all(rows);"
            )
        }
        Step::Once(key) => {
            let row = row(&format!("\"once-{script}-{key}\""));
            // Half of them wait inside of the closure.
            let wait = if key.is_multiple_of(2) { ".wait()" } else { "" };
            format!("paid.push(once(\"{key}\", || gateway::withdraw({row}){wait}));")
        }
        Step::Wait(hours) => {
            let wait = or_timeout(&format!("paid[paid.len() - 1].wait(\"{hours}h\")"));
            format!("if paid.len() > 0 {{ {wait} }}")
        }
        Step::WaitAll(Some(hours)) => format!("paid.wait(\"{hours}h\");"),
        Step::WaitAll(None) => "paid.wait();".to_owned(),
        Step::Sleep(minutes) => format!("sleep(\"{minutes}m\");"),
        Step::WaitFor(tag, hours) => or_timeout(&format!(
            "wait_for(\"*.done\", #{{ \"about.tag\": {tag} }}, \"{hours}h\")"
        )),
        Step::Emit(tag) => {
            format!("emit(\"tag{tag}.done\", #{{ about: #{{ tag: {tag} }} }});")
        }
        Step::Add(number) => format!("state::add(\"sum\", {number});"),
        Step::Http => format!("http::post(`{shop}/{label}`, 1);"),
        Step::HttpCaught => format!("try {{ http::post(`{shop}/{label}`, 1); }} catch {{ }}"),
    }
}
