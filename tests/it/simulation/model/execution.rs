//! The model's executor: from the top of the handler through the journal to the commit that ends
//! the execution.

use std::collections::BTreeSet;

use bursar::domain::handler::{EventTrigger, Retry};
use bursar::domain::id::{ForeignId, RunId};
use bursar::domain::idempotency::{Position, derive};
use bursar::domain::operation::Operation;
use bursar::domain::payment::{Content, Event, Origin, Payment, State};
use bursar::domain::retry::delay;
use bursar::domain::run::{Asked, JournalEntry, Outcome, Replay, Run, RunEvent, replay};
use bursar::domain::wait::{Payments, Settled, Wait, WaitFor};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::super::program::Step;
use super::{Crash, Disk, Happened, Model, News, set_hash};

/// What a step came to.
enum Came {
    Value(Value),
    /// The world failed, and the handler does not catch it.
    Failed,
    Waits(WaitFor),
}

/// What an execution has done and not yet written.
#[derive(Default)]
struct Buffer {
    entries: Vec<JournalEntry>,
    sum: usize,
    emitted: Vec<Happened>,
    once: Option<(usize, Value)>,
}

/// One execution of a run.
struct Execution {
    run: Run,
    buffer: Buffer,
    /// The payments made so far, in order.
    paid: Vec<ForeignId>,
    /// The keys of the events answered so far.
    answered: BTreeSet<String>,
}

impl Model {
    /// Executes a run that is queued.
    pub(super) fn execute(&mut self, id: RunId) -> Result<(), Crash> {
        let run = self.disk.runs[&id].clone();
        let version = self.began[&id];
        assert_eq!(run.set, set_hash(version), "the version it began with");
        let program = self.versions[version][&run.handler].clone();
        let journal = self.disk.journals.get(&id).cloned().unwrap_or_default();
        let mut execution = Execution {
            run,
            buffer: Buffer::default(),
            paid: Vec::new(),
            answered: BTreeSet::new(),
        };
        for (number, (step, asked)) in program.iter().enumerate() {
            let value = match replay(journal.get(number), asked) {
                Replay::Recorded(outcome) => {
                    let before = self.outcomes.get(&(id, number));
                    assert_eq!(before, Some(outcome), "an outcome has changed");
                    let Outcome::Value(value) = outcome else {
                        panic!("the model keeps values in the journal")
                    };
                    value.clone()
                }
                Replay::Diverged { recorded } => panic!("{recorded:?} became {asked:?}"),
                Replay::New => match self.step(&mut execution, number, step)? {
                    Came::Value(value) => {
                        self.keep(&mut execution, asked.clone(), &value);
                        if step.writes_outside() {
                            self.flush(&mut execution)?;
                        }
                        value
                    }
                    Came::Failed => return self.end(execution, RunEvent::WorldFailed),
                    Came::Waits(on) => return self.suspend(execution, number, step, on),
                },
            };
            execution.learn(&value);
        }
        self.end(execution, RunEvent::Returned)
    }

    fn keep(&mut self, execution: &mut Execution, asked: Asked, value: &Value) {
        execution.buffer.entries.push(JournalEntry {
            request: asked,
            outcome: Outcome::Value(value.clone()),
            site: "script.rhai:1".to_owned(),
            at: self.now,
        });
    }

    /// Performs a step that the journal does not know.
    fn step(
        &mut self,
        execution: &mut Execution,
        number: usize,
        step: &Step,
    ) -> Result<Came, Crash> {
        if step.writes_outside() {
            self.flush(execution)?;
        }
        let run = execution.run.id;
        *self.performed.entry((run, number)).or_default() += 1;
        Ok(match step {
            Step::Pay => self.pay(execution, number, 1)?,
            Step::PayAll(rows) => self.pay(execution, number, *rows)?,
            Step::Once(key) => self.once(execution, number, *key)?,
            Step::Http | Step::HttpCaught => {
                let fails = !self.calm && self.chance.per_mille(250);
                match (fails, step == &Step::HttpCaught) {
                    (true, false) => Came::Failed,
                    (true, true) => Came::Value(json!({"caught": "http"})),
                    (false, _) => Came::Value(json!({"status": 200})),
                }
            }
            Step::Add(number) => {
                execution.buffer.sum += number;
                Came::Value(Value::Null)
            }
            Step::Emit(tag) => {
                execution.buffer.emitted.push(Happened {
                    order: self.next_order(),
                    key: format!("custom:{}:{number}", execution.run.id),
                    kind: format!("tag{tag}.done"),
                    value: json!({"about": {"tag": tag}}),
                });
                Came::Value(Value::Null)
            }
            Step::Sleep(_) => self.wait(execution, number, step, WaitFor::Time, None),
            Step::Wait(_) => match execution.paid.last().cloned() {
                Some(id) => self.wait_for_payments(execution, number, step, vec![id]),
                None => Came::Value(Value::Null),
            },
            Step::WaitAll(_) => {
                let ids = execution.paid.clone();
                self.wait_for_payments(execution, number, step, ids)
            }
            Step::WaitFor(tag, _) => self.wait_for_event(execution, number, step, *tag),
        })
    }

    fn pay(&mut self, execution: &Execution, number: usize, rows: usize) -> Result<Came, Crash> {
        let mut ids = Vec::new();
        for row in 0..rows {
            let id = derive(Position::Step {
                handler: &execution.run.handler,
                firing: &execution.run.firing,
                step: u64::try_from(number).unwrap(),
                row,
            });
            self.make(execution, &id)?;
            ids.push(id);
        }
        let unsent = |id: &&ForeignId| self.disk.payments[*id].state == State::Intended;
        if ids.iter().any(|id| unsent(&id)) {
            return Ok(Came::Failed);
        }
        Ok(Came::Value(json!({ "paid": ids })))
    }

    fn once(
        &mut self,
        execution: &mut Execution,
        number: usize,
        key: usize,
    ) -> Result<Came, Crash> {
        if let Some(value) = self.disk.once.get(&key) {
            return Ok(Came::Value(value.clone()));
        }
        let id = once_id(key);
        self.make(execution, &id)?;
        if self.disk.payments[&id].state == State::Intended {
            return Ok(Came::Failed);
        }
        let value = json!({ "paid": [id], "by": [execution.run.id, number] });
        execution.buffer.once = Some((key, value.clone()));
        Ok(Came::Value(value))
    }

    /// Makes sure that a payment exists and goes on with it.
    fn make(&mut self, execution: &Execution, id: &ForeignId) -> Result<(), Crash> {
        let content = Content::new(
            Operation::Withdraw,
            json!({ "foreign_id": id, "amount": "1" }).to_string(),
        );
        if let Some(payment) = self.disk.payments.get(id) {
            assert_eq!(payment.content.difference(&content), None);
        } else {
            let run = &execution.run;
            let origin = Origin {
                run: run.id,
                handler: run.handler.clone(),
                step: 0,
                file: "script.rhai".to_owned(),
                line: 1,
                set: run.set.as_str().to_owned(),
            };
            let mut planned = Payment::planned(id.clone(), content, origin, self.now);
            let decided = if self.chance.per_mille(200) {
                Event::ApprovalNeeded
            } else {
                Event::Allowed
            };
            planned.apply(decided, None, self.now).unwrap();
            self.seen.state(planned.state);
            self.commit(|disk| drop(disk.payments.insert(id.clone(), planned)))?;
        }
        if self.disk.payments[id].state == State::Intended {
            self.drive(id)?;
        }
        Ok(())
    }

    fn wait_for_payments(
        &mut self,
        execution: &Execution,
        number: usize,
        step: &Step,
        ids: Vec<ForeignId>,
    ) -> Came {
        let settled = ids.iter().map(|id| self.settled(id)).collect::<Vec<_>>();
        let counted = |wanted| settled.iter().filter(|one| **one == wanted).count();
        let answer = json!({
            "confirmed": counted(Settled::Confirmed),
            "failed": counted(Settled::Failed),
            "open": counted(Settled::Open),
        });
        let open = ids.iter().find(|id| self.settled(id) == Settled::Open);
        let Some(watched) = open.cloned() else {
            return Came::Value(answer);
        };
        let on = WaitFor::Payments {
            watched,
            all: Payments::Here(ids),
        };
        self.wait(execution, number, step, on, Some(answer))
    }

    fn wait_for_event(
        &mut self,
        execution: &Execution,
        number: usize,
        step: &Step,
        tag: usize,
    ) -> Came {
        let trigger = EventTrigger {
            pattern: "*.done".to_owned(),
            filter: [("about.tag".to_owned(), json!(tag))].into(),
        };
        let searched = execution.run.id.order();
        let found = self.disk.events.iter().find(|event| {
            event.order > searched
                && !execution.answered.contains(&event.key)
                && trigger.matches(&event.kind, &event.value)
        });
        if let Some(event) = found {
            return Came::Value(json!({ "key": event.key }));
        }
        let on = WaitFor::Event { trigger, searched };
        self.wait(execution, number, step, on, None)
    }

    /// Waits, unless the time is over.
    fn wait(
        &mut self,
        execution: &Execution,
        number: usize,
        step: &Step,
        on: WaitFor,
        at_the_end: Option<Value>,
    ) -> Came {
        match self.deadline(execution, number, step) {
            Some(deadline) if deadline <= self.now => {
                self.seen.timeouts += 1;
                Came::Value(at_the_end.unwrap_or_else(|| json!({"caught": "timeout"})))
            }
            Some(_) | None => Came::Waits(on),
        }
    }

    /// Fixed when the step is asked for the first time.
    fn deadline(
        &self,
        execution: &Execution,
        number: usize,
        step: &Step,
    ) -> Option<bursar::domain::clock::Timestamp> {
        let begun = execution.run.wait.as_ref();
        if let Some(wait) = begun.filter(|wait| wait.step == u64::try_from(number).unwrap()) {
            return wait.deadline;
        }
        step.patience().map(|patience| self.now + patience)
    }

    fn suspend(
        &mut self,
        mut execution: Execution,
        number: usize,
        step: &Step,
        on: WaitFor,
    ) -> Result<(), Crash> {
        let wait = Wait {
            step: u64::try_from(number).unwrap(),
            on,
            deadline: self.deadline(&execution, number, step),
        };
        execution.run.wait = Some(wait);
        self.end(execution, RunEvent::Suspended)
    }

    /// Makes everything so far durable.
    fn flush(&mut self, execution: &mut Execution) -> Result<(), Crash> {
        let buffer = std::mem::take(&mut execution.buffer);
        let run = execution.run.id;
        self.remember(run, &buffer);
        self.commit(|disk| buffer.write(run, disk))
            .inspect_err(|_| self.forget(run))
    }

    /// Ends the execution.
    fn end(&mut self, mut execution: Execution, event: RunEvent) -> Result<(), Crash> {
        let run = &mut execution.run;
        let mut event = event;
        if event == RunEvent::WorldFailed {
            run.tries += 1;
            let retry = Retry::default();
            let after = delay(retry.first, retry.max, run.tries, &run.id.to_string());
            run.due_at = Some(self.now + TimeDelta::from_std(after).unwrap());
            if run.tries >= retry.attempts {
                event = RunEvent::Failed;
                run.tries = 0;
            }
        }
        if event != RunEvent::Suspended {
            run.wait = None;
        }
        run.state = run
            .state
            .next(RunEvent::Started)
            .unwrap()
            .next(event)
            .unwrap();
        self.seen.run(run.state);
        let (run, buffer) = (execution.run, execution.buffer);
        let id = run.id;
        self.remember(id, &buffer);
        let committed = self.commit(|disk| {
            buffer.write(id, disk);
            disk.runs.insert(run.id, run);
        });
        committed.inspect_err(|_| self.forget(id))
    }

    /// Keeps outcomes that are about to be durable: from then on they must never change.
    fn remember(&mut self, run: RunId, buffer: &Buffer) {
        let first = self.disk.journals.get(&run).map_or(0, Vec::len);
        for (number, entry) in (first..).zip(&buffer.entries) {
            let outcome = entry.outcome.clone();
            let before = self.outcomes.insert((run, number), outcome);
            assert_eq!(before, None, "a step is recorded twice");
        }
    }

    /// Forgets outcomes that a crash has kept from the disk.
    fn forget(&mut self, run: RunId) {
        let durable = self.disk.journals.get(&run).map_or(0, Vec::len);
        self.outcomes
            .retain(|(of, number), _| *of != run || *number < durable);
    }
}

impl Execution {
    /// Takes what a step answered over into what the handler knows.
    fn learn(&mut self, value: &Value) {
        let paid = value["paid"].as_array().into_iter().flatten();
        self.paid
            .extend(paid.map(|id| id.as_str().unwrap().parse().unwrap()));
        if let Some(key) = value["key"].as_str() {
            assert!(
                self.answered.insert(key.to_owned()),
                "{key} is answered twice"
            );
        }
    }
}

impl Buffer {
    fn write(self, run: RunId, disk: &mut Disk) {
        disk.journals.entry(run).or_default().extend(self.entries);
        disk.sum += self.sum;
        for event in self.emitted {
            disk.news.insert(News::Event(disk.events.len()));
            disk.events.push(event);
        }
        if let Some((key, value)) = self.once {
            let before = disk.once.insert(key, value);
            assert_eq!(before, None, "a closure is recorded twice");
        }
    }
}

/// The key of what is paid once.
pub(super) fn once_id(key: usize) -> ForeignId {
    derive(Position::Once {
        script: "script",
        key: &key.to_string(),
        step: 0,
        row: 0,
    })
}

impl Step {
    /// How long a wait lasts at most.
    fn patience(&self) -> Option<TimeDelta> {
        match self {
            Self::Wait(hours) | Self::WaitFor(_, hours) | Self::WaitAll(Some(hours)) => {
                Some(TimeDelta::hours(i64::from(*hours)))
            }
            Self::Sleep(minutes) => Some(TimeDelta::minutes(i64::from(*minutes))),
            Self::WaitAll(None)
            | Self::Pay
            | Self::PayAll(_)
            | Self::Emit(_)
            | Self::Add(_)
            | Self::Http
            | Self::HttpCaught
            | Self::Once(_) => None,
        }
    }
}
