//! An event given to a handler that reads and writes state: the scripts alone on two threads, and
//! the whole way through the store beside it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bursar::config::{Need, resolve};
use bursar::domain::callback::{Callback, Source};
use bursar::domain::clock::Timestamp;
use bursar::scripting::effects::{Effects, Request, Site, StateAccess, Stop};
use bursar::scripting::{Ended, Known, ScriptSet};
use bursar::simulator::Options;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::world;

const SCRIPT: &str = r#"
on("deposit.confirmed", |event| {
    let key = `balance/${event.crypto_address.foreign_id}`;
    let before = state::get(key, 0.0);
    state::set(key, before + event.currency_received.amount_minus_fee);
});
"#;

const EVENTS: u64 = 200_000;
const DURABLE_EVENTS: u64 = 50_000;

/// State in memory: what a step costs when nothing is durable.
#[derive(Default)]
struct Memory(Mutex<HashMap<String, Value>>);

impl Effects for Memory {
    fn perform(&self, request: Request, _site: &Site) -> Result<Value, Stop> {
        let mut state = self.0.lock().unwrap();
        if let Request::State { access, .. } = request {
            match access {
                StateAccess::Get { key } => {
                    return Ok(state
                        .get(&key)
                        .map_or(Value::Null, |value| Value::Array(vec![value.clone()])));
                }
                StateAccess::Set { key, value } => {
                    state.insert(key, value);
                }
                StateAccess::Remove { .. } | StateAccess::Add { .. } | StateAccess::List { .. } => {
                }
            }
        }
        Ok(Value::Null)
    }
}

pub fn measure() {
    let limits = resolve(None, &std::collections::BTreeMap::new(), Need::Nothing)
        .unwrap()
        .scripts
        .limits;
    let sources = [("bench.rhai".to_owned(), SCRIPT.to_owned())]
        .into_iter()
        .collect();
    let set = ScriptSet::compile(sources, &limits, &Known::default()).unwrap();
    let handler = &set.handlers()[0].id;
    for threads in [1_u64, 2] {
        let next = AtomicU64::new(0);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let effects: Arc<dyn Effects> = Arc::new(Memory::default());
                    loop {
                        let id = next.fetch_add(1, Ordering::Relaxed);
                        if id >= EVENTS {
                            return;
                        }
                        let callback = Callback::parse(world::deposit(id + 1).as_bytes()).unwrap();
                        let event = callback.event(Timestamp::UNIX_EPOCH, Source::Callback);
                        let deadline = Instant::now() + Duration::from_mins(1);
                        let ended = set.execute(handler, event, Arc::clone(&effects), deadline);
                        assert!(matches!(ended, Ended::Returned(_)), "{ended:?}");
                    }
                });
            }
        });
        let rate = EVENTS as f64 / begin.elapsed().as_secs_f64();
        println!(
            "body to event to handler to state in memory, {threads} threads: {rate:.0} per second"
        );
    }
    let runtime = world::runtime();
    let rate = runtime.block_on(durable());
    println!("the same, accepted and ended durably: {rate:.0} per second");
    runtime.shutdown_background();
}

/// Callbacks accepted in process by 64 tasks, until the last run has ended.
async fn durable() -> f64 {
    let world = world::start(SCRIPT, Options::default()).await;
    let runner = world.daemon.runner().clone();
    let next = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let (runner, next) = (runner.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let signer = world::signer();
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id >= DURABLE_EVENTS {
                    return;
                }
                let body = world::deposit(id + 1);
                let signature = signer.sign(body.as_bytes());
                let answer = runner
                    .accept(Some(world::KEY), Some(&signature), body.as_bytes())
                    .await;
                assert_eq!(answer, bursar::runner::Answer::Accepted);
            }
        });
    }
    tasks.join_all().await;
    while runner.overview()["open_runs"] != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    DURABLE_EVENTS as f64 / begin.elapsed().as_secs_f64()
}
