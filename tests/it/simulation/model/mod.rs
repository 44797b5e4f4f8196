//! The model: what the runner, the store, the gateway and the clock do, as little of it as is
//! needed to ask the pure parts for every decision. One turn follows the other.

mod audit;
mod execution;
mod gateway;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use bursar::domain::clock::Timestamp;
use bursar::domain::handler::{Missed, Overlap};
use bursar::domain::id::{Firing, ForeignId, HandlerId, RunId, SetHash};
use bursar::domain::payment::{
    AtTheEnd, Event, NextStep, Patience, Payment, Reported, State, next_step,
};
use bursar::domain::run::{Asked, Input, JournalEntry, Outcome, Run, RunEvent, RunState};
use bursar::domain::schedule::{Ahead, Schedule, Verdict, decide};
use bursar::domain::wait::{Payments, Settled, Shape, WaitFor, wanted};
use chrono::TimeDelta;
use serde_json::Value;

pub use audit::Seen;

use super::chance::Chance;
use super::program::{self, Step};
use gateway::Gateway;

/// Turns before the world calms down and everything must end.
const TURNS: usize = 80;

/// What survives a crash.
#[derive(Debug, Clone, Default)]
struct Disk {
    runs: BTreeMap<RunId, Run>,
    journals: BTreeMap<RunId, Vec<JournalEntry>>,
    payments: BTreeMap<ForeignId, Payment>,
    /// How often the end of each payment was delivered.
    ends: BTreeMap<ForeignId, usize>,
    once: BTreeMap<usize, Value>,
    sum: usize,
    events: Vec<Happened>,
    /// Keys of events and payments that waiting runs have not been compared with yet.
    news: BTreeSet<News>,
    settled_until: BTreeMap<HandlerId, Timestamp>,
}

#[derive(Debug, Clone)]
struct Happened {
    order: u64,
    key: String,
    kind: String,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Event(usize),
    Payment(ForeignId),
}

/// The process has died. What was not on disk is gone.
#[derive(Debug)]
struct Crash;

/// The handlers of one version: their steps, and what the journal knows each by.
type Version = BTreeMap<HandlerId, Vec<(Step, Asked)>>;

/// Every hour.
static SCHEDULE: LazyLock<Schedule> =
    LazyLock::new(|| Schedule::parse("0 * * * *", "UTC").unwrap());

struct Model {
    chance: Chance,
    /// Nothing goes wrong any more.
    calm: bool,
    now: Timestamp,
    order: u64,
    disk: Disk,
    gateway: Gateway,
    versions: Vec<Version>,
    /// The version that was current when each run was fired.
    began: BTreeMap<RunId, usize>,
    /// Outcomes that were on disk or were shown to a handler that went on.
    outcomes: BTreeMap<(RunId, usize), Outcome>,
    performed: BTreeMap<(RunId, usize), usize>,
    seen: Seen,
}

/// Simulates one case and audits it.
pub fn simulate(seed: u64, all: &mut Seen) {
    let mut model = Model::new(seed);
    for _ in 0..TURNS {
        if model.turn().is_err() {
            model.seen.crashes += 1;
        }
    }
    model.finish();
    model.audit();
    all.add(&model.seen);
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut model = Self {
            chance: Chance::of(seed),
            calm: false,
            now: "2026-11-22T08:30:00Z".parse().unwrap(),
            order: 0,
            disk: Disk::default(),
            gateway: Gateway::default(),
            versions: Vec::new(),
            began: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            performed: BTreeMap::new(),
            seen: Seen::default(),
        };
        model.reload();
        model
    }

    /// Everything becomes durable together, or nothing does; the process may die before or after.
    fn commit(&mut self, change: impl FnOnce(&mut Disk)) -> Result<(), Crash> {
        let dies = !self.calm && self.chance.per_mille(25);
        if dies && self.chance.per_mille(500) {
            return Err(Crash);
        }
        change(&mut self.disk);
        if dies { Err(Crash) } else { Ok(()) }
    }

    fn turn(&mut self) -> Result<(), Crash> {
        match self.chance.below(16) {
            0 => self.fire(),
            1..=4 => match self.any_run(RunState::Queued) {
                Some(run) => self.execute(run),
                None => Ok(()),
            },
            5 => self.deliver(),
            6 => {
                self.gateway.settle(&mut self.chance);
                Ok(())
            }
            7 => self.settle_news(),
            8 => self.end_waits(),
            9 => self.retry(),
            10 | 11 => self.sweep(),
            12 => {
                self.reload();
                Ok(())
            }
            13 => {
                self.gateway.is_blind = !self.gateway.is_blind;
                Ok(())
            }
            _ => {
                let minutes = i64::try_from(self.chance.below(24 * 60)).unwrap();
                let back = self.chance.per_mille(300);
                self.now += TimeDelta::minutes(if back { -minutes } else { minutes });
                Ok(())
            }
        }
    }

    /// Calms the world down and gives everything the time it needs.
    fn finish(&mut self) {
        self.calm = true;
        self.gateway.is_blind = false;
        let mut rounds = 0;
        while self.disk.runs.values().any(|run| !is_done(run)) {
            rounds += 1;
            assert!(rounds < 200, "some runs never end: {:#?}", self.open_runs());
            self.calm_round().expect("nothing goes wrong any more");
        }
    }

    fn calm_round(&mut self) -> Result<(), Crash> {
        self.now += TimeDelta::hours(7);
        self.gateway.settle_all(&mut self.chance);
        while !self.gateway.callbacks.is_empty() {
            self.deliver()?;
        }
        for id in self.open_payments() {
            self.go_on_with(&id)?;
            let state = self.disk.payments[&id].state;
            let is_lost = matches!(state, State::Unknown | State::Held);
            if self.gateway.never_got(&id) && is_lost {
                self.record(&id, Event::GaveUp)?;
                // A person finds out that it never came to anything.
                self.record(&id, Event::Reported(Reported::Cancelled))?;
            }
        }
        self.settle_news()?;
        self.end_waits()?;
        self.retry()?;
        for run in self.runs_in(RunState::Queued) {
            self.execute(run)?;
        }
        Ok(())
    }

    fn reload(&mut self) {
        let handlers = ["a", "b"].map(|name| HandlerId {
            script: "script".to_owned(),
            name: name.to_owned(),
        });
        let version = self.versions.len();
        let known = |step: Step| {
            let asked = Asked::new("step", &step.request(version).to_string());
            (step, asked)
        };
        let programs = handlers.map(|handler| {
            let steps = program::any(&mut self.chance);
            (handler, steps.into_iter().map(known).collect())
        });
        self.versions.push(programs.into());
    }

    fn current(&self) -> usize {
        self.versions.len() - 1
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Fires what is due of the schedules.
    fn fire(&mut self) -> Result<(), Crash> {
        let version = self.current();
        let handlers: Vec<HandlerId> = self.versions[version].keys().cloned().collect();
        for handler in handlers {
            let until = self.now;
            let since = self.disk.settled_until.get(&handler).copied();
            let since = since.unwrap_or(until - TimeDelta::hours(2));
            let due = SCHEDULE.slots(since, until, 3).instants;
            let late_after = Duration::from_mins(10);
            let decisions = decide(
                &due,
                until,
                Missed::All,
                Overlap::Allow,
                Ahead::Nothing,
                late_after,
            );
            let mut runs = Vec::new();
            for decision in decisions {
                match decision.verdict {
                    Verdict::Run { .. } => runs.push(self.run(&handler, decision.slot, version)),
                    Verdict::Queue { .. } | Verdict::Skip(_) => panic!("{decision:?}"),
                }
            }
            for run in &runs {
                self.began.insert(run.id, version);
            }
            self.commit(|disk| {
                for run in runs {
                    let same = |other: &&Run| {
                        (&other.handler, &other.firing) == (&run.handler, &run.firing)
                    };
                    let before = disk.runs.values().find(same);
                    assert!(before.is_none(), "a slot fires twice: {before:?}");
                    let before = disk.runs.insert(run.id, run);
                    assert!(before.is_none(), "two runs of one number: {before:?}");
                }
                disk.settled_until.insert(handler, since.max(until));
            })?;
        }
        Ok(())
    }

    fn run(&mut self, handler: &HandlerId, slot: Timestamp, version: usize) -> Run {
        let order = self.next_order();
        let input = Input::Tick(Value::Null);
        let set = set_hash(version);
        let firing = Firing::Slot(slot);
        Run::queued(handler.clone(), firing, input, set, order, self.now)
    }

    fn any_run(&mut self, state: RunState) -> Option<RunId> {
        let runs = self.runs_in(state);
        (!runs.is_empty()).then(|| runs[self.chance.below(runs.len())])
    }

    fn runs_in(&self, state: RunState) -> Vec<RunId> {
        let runs = self.disk.runs.values().filter(|run| run.state == state);
        runs.map(|run| run.id).collect()
    }

    fn open_runs(&self) -> Vec<&Run> {
        let runs = self.disk.runs.values();
        runs.filter(|run| !is_done(run)).collect()
    }

    /// Lets runs go on whose delay is over, and those a person lets go on.
    fn retry(&mut self) -> Result<(), Crash> {
        let now = self.now;
        self.commit(|disk| {
            for run in disk.runs.values_mut() {
                let event = match run.state {
                    RunState::Retrying if run.due_at.is_some_and(|at| at <= now) => RunEvent::Due,
                    RunState::Parked => RunEvent::Retried,
                    RunState::Queued
                    | RunState::Running
                    | RunState::Waiting
                    | RunState::Retrying
                    | RunState::Succeeded
                    | RunState::Cancelled => continue,
                };
                run.state = run.state.next(event).unwrap();
            }
        })
    }

    /// Wakes runs whose time is over.
    fn end_waits(&mut self) -> Result<(), Crash> {
        let now = self.now;
        self.commit(|disk| {
            for run in disk.runs.values_mut() {
                let deadline = run.wait.as_ref().and_then(|wait| wait.deadline);
                if run.state == RunState::Waiting && deadline.is_some_and(|at| at <= now) {
                    run.state = run.state.next(RunEvent::Woken).unwrap();
                }
            }
        })
    }

    /// Compares what happened with what is waited for.
    fn settle_news(&mut self) -> Result<(), Crash> {
        for news in self.disk.news.clone() {
            let mut woken = Vec::new();
            for run in self.disk.runs.values() {
                let wait = run.wait.as_ref().filter(|_| run.state == RunState::Waiting);
                if let Some(wait) = wait
                    && let Some(run) = self.after_news(run, &wait.on, &news)
                {
                    woken.push(run);
                }
            }
            self.seen.woken += woken.len();
            self.commit(|disk| {
                for run in woken {
                    disk.runs.insert(run.id, run);
                }
                disk.news.remove(&news);
            })?;
        }
        Ok(())
    }

    /// The run as the news leaves it; `None` when it is not concerned.
    fn after_news(&self, run: &Run, on: &WaitFor, news: &News) -> Option<Run> {
        let mut run = run.clone();
        match (on, news) {
            (WaitFor::Event { trigger, .. }, News::Event(index)) => {
                let event = &self.disk.events[*index];
                let shape = Shape::of(trigger);
                let found = shape.found(&event.value);
                if !trigger.matches_kind(&event.kind) || found != Some(wanted(trigger)) {
                    return None;
                }
            }
            (WaitFor::Payments { watched, all }, News::Payment(id)) if watched == id => {
                let Payments::Here(ids) = all else {
                    panic!("the model keeps keys in the record")
                };
                let mut behind = ids.iter().skip_while(|id| *id != watched);
                if let Some(open) = behind.find(|id| self.settled(id) == Settled::Open) {
                    let wait = run.wait.as_mut().unwrap();
                    wait.on = WaitFor::Payments {
                        watched: open.clone(),
                        all: all.clone(),
                    };
                    return Some(run);
                }
            }
            (WaitFor::Plan { .. }, _) => panic!("no run of the model asks for approval"),
            (WaitFor::Time | WaitFor::Event { .. } | WaitFor::Payments { .. }, _) => return None,
        }
        run.state = run.state.next(RunEvent::Woken).unwrap();
        Some(run)
    }

    fn settled(&self, id: &ForeignId) -> Settled {
        Settled::of(self.disk.payments[id].state)
    }

    fn open_payments(&self) -> Vec<ForeignId> {
        let payments = self.disk.payments.values();
        let open = payments.filter(|payment| !payment.state.is_final());
        open.map(|payment| payment.foreign_id.clone()).collect()
    }

    /// Goes on with one open payment, as after a restart.
    fn sweep(&mut self) -> Result<(), Crash> {
        let open = self.open_payments();
        if open.is_empty() {
            return Ok(());
        }
        let id = open[self.chance.below(open.len())].clone();
        self.go_on_with(&id)
    }

    fn go_on_with(&mut self, id: &ForeignId) -> Result<(), Crash> {
        if self.disk.payments[id].state == State::AwaitingApproval {
            if self.calm || self.chance.per_mille(500) {
                self.record(id, Event::Approved)?;
                self.drive(id)?;
            }
        } else {
            if let Some(event) = self.gateway.look_up(id, &mut self.chance, self.calm) {
                self.found(id, event)?;
            }
            self.lose_patience(id)?;
        }
        if self.disk.payments[id].state == State::Intended {
            self.drive(id)?;
        }
        Ok(())
    }

    /// Records what a look-up says.
    fn found(&mut self, id: &ForeignId, event: Event) -> Result<(), Crash> {
        let was_final = self.disk.payments[id].state.is_final();
        self.record(id, event)?;
        let payment = &self.disk.payments[id];
        self.seen.reconciled += usize::from(payment.state.is_final() && !was_final);
        self.seen.strangers += usize::from(event == Event::NotOurs);
        Ok(())
    }

    /// Ends the search for the fate of a payment as the operator allows.
    fn lose_patience(&mut self, id: &ForeignId) -> Result<(), Crash> {
        let patience = Patience {
            after: Duration::from_mins(15),
            resend: true,
        };
        match patience.at_the_end(&self.disk.payments[id], self.now) {
            Some(AtTheEnd::Resend) => {
                self.seen.resends += 1;
                self.record(id, Event::Resend)
            }
            Some(AtTheEnd::Hold(_)) if !self.calm => self.record(id, Event::GaveUp),
            Some(AtTheEnd::Hold(_)) | None => Ok(()),
        }
    }

    /// Records the answer to a request. A resend that is refused proves nothing about the request
    /// before it.
    fn answered(&mut self, id: &ForeignId, answer: Event) -> Result<(), Crash> {
        if answer != Event::Rejected || self.disk.payments[id].resends == 0 {
            self.seen.taken += usize::from(answer == Event::KeyTaken);
            return self.record(id, answer);
        }
        self.record(id, Event::AnswerLost)?;
        if self.disk.payments[id].state == State::Unknown {
            self.record(id, Event::GaveUp)?;
        }
        Ok(())
    }

    /// Performs steps of a payment until somebody else has to do something.
    fn drive(&mut self, id: &ForeignId) -> Result<(), Crash> {
        for _ in 0..4 {
            match next_step(self.disk.payments[id].state) {
                NextStep::Decide => self.record(id, Event::Allowed)?,
                NextStep::Send => {
                    self.record(id, Event::SendStarted)?;
                    let answer = self.gateway.send(id, &mut self.chance, self.calm);
                    if self.chance.per_mille(300) {
                        self.deliver()?;
                    }
                    self.answered(id, answer)?;
                }
                NextStep::LookUp => {
                    if let Some(event) = self.gateway.look_up(id, &mut self.chance, self.calm) {
                        self.found(id, event)?;
                    }
                    return Ok(());
                }
                NextStep::WaitForApproval
                | NextStep::WaitForCallback
                | NextStep::WaitForPerson
                | NextStep::Done => {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Delivers any callback that is under way.
    fn deliver(&mut self) -> Result<(), Crash> {
        match self.gateway.callback(&mut self.chance) {
            Some((id, word)) => self.record(&id, Event::Reported(Reported::from_word(word))),
            None => Ok(()),
        }
    }

    fn record(&mut self, id: &ForeignId, event: Event) -> Result<(), Crash> {
        let mut payment = self.disk.payments[id].clone();
        let was_final = payment.state.is_final();
        if let Err(alarm) = payment.apply(event, None, self.now) {
            panic!("a false alarm about {id}: {alarm}");
        }
        self.seen.state(payment.state);
        self.commit(|disk| {
            if payment.state.is_final() && !was_final {
                // The event of the end, from a callback or a look-up, is in the same commit.
                *disk.ends.entry(payment.foreign_id.clone()).or_default() += 1;
                disk.news.insert(News::Payment(payment.foreign_id.clone()));
            }
            disk.payments.insert(payment.foreign_id.clone(), payment);
        })
    }
}

fn set_hash(version: usize) -> SetHash {
    SetHash::of([("script.rhai", version.to_string().as_str())])
}

fn is_done(run: &Run) -> bool {
    run.state == RunState::Succeeded
}
