//! Looks at what happened from both sides: the daemon's records and the simulator's ledger. What
//! `dev` says comes from here, and nothing else is claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;
use tokio::time::Instant;

use super::stage::Stage;
use crate::cli::exit_code::{Failure, Outcome};
use crate::cli::output::{field, items, list};
use crate::domain::clock::Timestamp;
use crate::domain::id::RunId;
use crate::domain::money::decimal_from_json;
use crate::runner::{Filter, NotFired, ViewError};
use crate::simulator::SentCallback;

/// The longest anything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(40);

/// Everything; there are few rows.
const ALL: Filter = Filter::EVERYTHING;

/// Sees the stage, and remembers what it has told.
pub(super) struct Observer<'a> {
    stage: &'a Stage,
    told: BTreeSet<String>,
}

/// What became of one payment, as both sides have it.
pub(super) struct Fate {
    pub(super) foreign_id: String,
    /// The daemon's record with its story; null when only the gateway knows the payment.
    pub(super) payment: Value,
    /// How often the gateway executed it.
    pub(super) executed: usize,
    /// How many requests for it reached the gateway.
    pub(super) requested: u64,
}

impl Fate {
    /// Whether its story has this event.
    pub(super) fn has(&self, event: &str) -> bool {
        let story = list(&self.payment, "story");
        story.iter().any(|line| field(line, "event") == event)
    }

    /// Whether both sides agree that it was asked for, sent once, executed once and confirmed.
    pub(super) fn is_sound(&self) -> bool {
        (self.executed, self.requested) == (1, 1) && field(&self.payment, "status") == "confirmed"
    }
}

impl<'a> Observer<'a> {
    pub(super) fn new(stage: &'a Stage) -> Self {
        Self {
            stage,
            told: BTreeSet::new(),
        }
    }

    /// Fires a schedule by hand.
    pub(super) async fn fire(
        &self,
        script: &str,
        name: &str,
        slot: Timestamp,
    ) -> Result<RunId, NotFired> {
        self.stage.runner.trigger(script, name, Some(slot)).await
    }

    /// Waits until there are `count` callbacks of that kind and nothing is under way: every
    /// callback was answered with 200, every payment is final, every run has ended.
    pub(super) async fn rest(&self, kind: &str, status: &str, count: usize) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let sent = self.callbacks(kind, status).len();
            let open = self.under_way().map_err(unreadable)?;
            if sent >= count && open.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::failed(format!(
                    "waited in vain: {sent} of {count} {kind}.{status} callbacks were sent; under way: {}",
                    open.join(", ")
                )));
            }
        }
    }

    fn under_way(&self) -> Result<Vec<String>, ViewError> {
        let callbacks = self.stage.control.callbacks().into_iter();
        let callbacks = callbacks.filter(|sent| !sent.delivered);
        let mut open: Vec<_> = callbacks
            .map(|sent| format!("callback {}", sent.id))
            .collect();
        for payment in items(&self.stage.runner.payments(&ALL)?) {
            if payment.get("is_final") != Some(&Value::Bool(true)) {
                open.push(field(payment, "foreign_id"));
            }
        }
        for run in items(&self.stage.runner.runs(&ALL)?) {
            if !["succeeded", "parked", "cancelled"].contains(&field(run, "state").as_str()) {
                open.push(format!("run {}", field(run, "id")));
            }
        }
        Ok(open)
    }

    /// What scripts have logged, and why runs were parked, since this was asked last; in the order
    /// in which it happened.
    pub(super) fn news(&mut self) -> Result<Vec<String>, Failure> {
        let mut news = Vec::new();
        for run in self.runs()? {
            if !self.told.insert(field(&run, "id")) {
                continue;
            }
            let script = format!("{}.rhai", field(&run, "script"));
            for (at, log) in requests(&run, "log") {
                let level = match field(&log, "level").as_str() {
                    "info" => String::new(),
                    level => format!("{level}: "),
                };
                news.push((at, format!("{script}: {level}{}", field(&log, "text"))));
            }
            if field(&run, "state") == "parked" {
                let error = field(&run, "error");
                news.push((
                    field(&run, "ended_at"),
                    format!("{script}: parked: {error}"),
                ));
            }
        }
        news.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(news.into_iter().map(|(_, line)| line).collect())
    }

    /// Every payment that a script asked for or that the gateway executed, by its key.
    pub(super) fn fates(&self) -> Result<Vec<Fate>, Failure> {
        let mut fates = BTreeMap::new();
        let fate = |foreign_id: &str, payment| Fate {
            foreign_id: foreign_id.to_owned(),
            payment,
            executed: 0,
            requested: 0,
        };
        for row in items(&self.stage.runner.payments(&ALL).map_err(unreadable)?) {
            let id = field(row, "foreign_id");
            let payment = self.stage.runner.payment(&id).map_err(unreadable)?;
            fates.insert(id.clone(), fate(&id, payment));
        }
        for execution in self.stage.control.executions() {
            if execution.kind.starts_with("withdrawal") {
                let id = execution.foreign_id;
                let fate = fates
                    .entry(id.clone())
                    .or_insert_with(|| fate(&id, Value::Null));
                fate.executed += 1;
                fate.requested = execution.times_requested;
            }
        }
        Ok(fates.into_values().collect())
    }

    /// What scripts have added to a state key below `balance/`, one by one.
    pub(super) fn credits(&self) -> Result<Vec<Decimal>, Failure> {
        let runs = self.runs()?;
        let state = runs.iter().flat_map(|run| requests(run, "state"));
        let added = state.filter_map(|(_, state)| {
            let add = state.get("access")?.get("add")?;
            let credits = field(add, "key").starts_with("balance/");
            decimal_from_json(add.get("number")?)
                .ok()
                .filter(|_| credits)
        });
        Ok(added.collect())
    }

    /// The callbacks of that kind that the gateway has sent.
    pub(super) fn callbacks(&self, kind: &str, status: &str) -> Vec<SentCallback> {
        let mut sent = self.stage.control.callbacks();
        sent.retain(|sent| sent.kind == kind && sent.status == status);
        sent
    }

    /// All runs with their journals, oldest first.
    fn runs(&self) -> Result<Vec<Value>, Failure> {
        let runner = &self.stage.runner;
        let rows = runner.runs(&ALL).map_err(unreadable)?;
        items(&rows)
            .iter()
            .rev()
            .map(|row| runner.run(&field(row, "id")).map_err(unreadable))
            .collect()
    }
}

/// What a run asked of the world, of that kind, and when. Long requests are cut in the journal and
/// left out.
fn requests(run: &Value, kind: &str) -> Vec<(String, Value)> {
    let steps = list(run, "journal").iter();
    let steps = steps.filter(|step| field(step, "kind").starts_with(kind));
    steps
        .filter_map(|step| {
            let request: Value = serde_json::from_str(&field(step, "request")).ok()?;
            Some((field(step, "at"), request.get(kind)?.clone()))
        })
        .collect()
}

fn unreadable(error: ViewError) -> Failure {
    Failure::failed(error)
}
