//! What must have come of a case, and what all cases together must have met.

use std::collections::{BTreeMap, BTreeSet};

use bursar::domain::id::ForeignId;
use bursar::domain::idempotency::{Position, derive};
use bursar::domain::payment::State;
use bursar::domain::run::RunState;

use super::super::program::Step;
use super::execution::once_id;
use super::{Model, is_done, set_hash};

/// What has been met: a simulation that meets nothing proves nothing.
#[derive(Debug, Default)]
pub struct Seen {
    pub(super) crashes: usize,
    pub(super) woken: usize,
    pub(super) timeouts: usize,
    pub(super) resends: usize,
    pub(super) taken: usize,
    pub(super) strangers: usize,
    pub(super) reconciled: usize,
    runs: BTreeMap<&'static str, usize>,
    payments: BTreeMap<&'static str, usize>,
    repeated: usize,
    old_versions: usize,
}

impl Seen {
    /// Counts a state that a run came to.
    pub(super) fn run(&mut self, state: RunState) {
        *self.runs.entry(state.as_str()).or_default() += 1;
    }

    /// Counts a state that a payment came to.
    pub(super) fn state(&mut self, state: State) {
        *self.payments.entry(state.as_str()).or_default() += 1;
    }

    /// Adds what another case has met.
    pub(super) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.woken += other.woken;
        self.timeouts += other.timeouts;
        self.resends += other.resends;
        self.taken += other.taken;
        self.strangers += other.strangers;
        self.reconciled += other.reconciled;
        self.repeated += other.repeated;
        self.old_versions += other.old_versions;
        for (state, times) in &other.runs {
            *self.runs.entry(state).or_default() += times;
        }
        for (state, times) in &other.payments {
            *self.payments.entry(state).or_default() += times;
        }
    }

    /// Asserts that everything was met that the simulation is there for.
    pub fn everything(&self) {
        for state in ["succeeded", "waiting", "retrying"] {
            assert!(
                self.runs.contains_key(state),
                "no run was {state}: {self:?}"
            );
        }
        for state in State::ALL {
            let met = self.payments.contains_key(state.as_str());
            // Nothing refuses, and an intent is written by the run itself.
            let is_left_out = matches!(state, State::Planned | State::Refused);
            assert!(met || is_left_out, "no payment was {state}: {self:?}");
        }
        for (what, times) in [
            ("crash", self.crashes),
            ("waking", self.woken),
            ("timeout", self.timeouts),
            ("resend", self.resends),
            ("key that is taken", self.taken),
            ("key that a stranger has", self.strangers),
            ("end that a look-up found", self.reconciled),
            ("step that was performed again", self.repeated),
            ("run that ended on an old version", self.old_versions),
        ] {
            assert!(times > 0, "no {what} was met: {self:?}");
        }
    }
}

impl Model {
    /// Compares what came of it with what the handlers say.
    pub(super) fn audit(&mut self) {
        let mut payments = BTreeSet::new();
        let (mut sum, mut emitted) = (0, 0);
        for run in self.disk.runs.values() {
            assert!(is_done(run), "{run:?}");
            let version = self.began[&run.id];
            assert_eq!(run.set, set_hash(version));
            self.seen.old_versions += usize::from(version + 1 < self.versions.len());
            let program = &self.versions[version][&run.handler];
            let journal = self.disk.journals.get(&run.id);
            assert_eq!(journal.map_or(0, Vec::len), program.len());
            for (number, (step, asked)) in program.iter().enumerate() {
                let times = self.performed.get(&(run.id, number));
                let times = times.copied().unwrap_or_default();
                assert!(times > 0, "step {number} of {run:?} was never performed");
                self.seen.repeated += usize::from(times > 1);
                assert_eq!(self.disk.journals[&run.id][number].request, *asked);
                let row = |row| {
                    derive(Position::Step {
                        handler: &run.handler,
                        firing: &run.firing,
                        step: u64::try_from(number).unwrap(),
                        row,
                    })
                };
                match step {
                    Step::Pay => payments.extend([row(0)]),
                    Step::PayAll(rows) => payments.extend((0..*rows).map(row)),
                    Step::Once(key) => payments.extend([once_id(*key)]),
                    Step::Add(number) => sum += number,
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
        assert_eq!(self.disk.sum, sum, "what was added");
        assert_eq!(self.disk.events.len(), emitted, "what was emitted");
        self.audit_payments(&payments);
    }

    fn audit_payments(&self, intended: &BTreeSet<ForeignId>) {
        let made: BTreeSet<ForeignId> = self.disk.payments.keys().cloned().collect();
        assert_eq!(made, *intended, "what was paid");
        for id in intended {
            let state = self.disk.payments[id].state;
            let executed = self.gateway.executed.get(id).copied().unwrap_or_default();
            let ends = self.disk.ends.get(id).copied().unwrap_or_default();
            assert_eq!(
                ends,
                usize::from(state.is_final()),
                "the end of {id} is delivered {ends} times"
            );
            let never_came = self.gateway.rejected.contains(id) || self.gateway.never_got(id);
            let story = &self.disk.payments[id].story;
            assert_eq!(
                executed,
                usize::from(!never_came),
                "{id} is {state}: {story:#?}"
            );
            assert!(
                executed == 1 || state != State::Confirmed,
                "{id}: {story:#?}"
            );
        }
    }
}
