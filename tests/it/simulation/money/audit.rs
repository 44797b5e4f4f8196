//! The auditor: what must hold after every step and at the end, and what all cases together must
//! have met.

use std::collections::BTreeMap;

use bursar::domain::payment::{Event, State};

use super::gateway::Fault;
use super::{Broken, Model};

/// What the auditor may find, with the number of the payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The gateway has executed it more than once.
    Duplicate(usize),
    /// The gateway has executed what nobody has on disk, or says something about it.
    Unrecorded(usize),
    /// It was executed though it was refused or rejected, or is said to have ended otherwise.
    Contradiction(usize, State),
    /// In the end it is neither final nor left to a person, or a person is asked about something
    /// that the gateway knows.
    Lost(usize, State),
    /// More is spent and reserved than the cap allows.
    OverTheCap {
        /// Spent, or on disk as reserved.
        taken: u64,
        /// What may be.
        cap: u64,
    },
    /// Something is still reserved for a payment that moved no money.
    NotReleased(usize),
    /// The state machine objects to what has happened.
    FalseAlarm(State, Event),
}

/// What has been met: a simulation that meets nothing proves nothing.
#[derive(Debug, Default)]
pub struct Seen {
    pub(super) crashes: usize,
    pub(super) pauses: usize,
    pub(super) sends: usize,
    pub(super) asked_again: usize,
    pub(super) resends: usize,
    pub(super) keys_taken: usize,
    pub(super) refused_again: usize,
    pub(super) callbacks: usize,
    pub(super) forged: usize,
    pub(super) resolved: usize,
    left_to_people: usize,
    states: BTreeMap<&'static str, usize>,
    pairs: BTreeMap<(usize, usize), usize>,
}

impl Seen {
    /// Counts a state that a payment came to.
    pub(super) fn state(&mut self, state: State) {
        *self.states.entry(state.as_str()).or_default() += 1;
    }

    fn counts(&mut self) -> [(&'static str, &mut usize); 11] {
        [
            ("crash", &mut self.crashes),
            ("pause", &mut self.pauses),
            ("send", &mut self.sends),
            ("second request for one payment", &mut self.asked_again),
            ("resend", &mut self.resends),
            ("key that is taken", &mut self.keys_taken),
            ("resend that is refused", &mut self.refused_again),
            ("callback", &mut self.callbacks),
            ("forged callback", &mut self.forged),
            ("payment that a person resolved", &mut self.resolved),
            ("payment that is left to a person", &mut self.left_to_people),
        ]
    }

    /// Adds what another case has met.
    pub(super) fn add(&mut self, other: &Self) {
        let mut other = Self {
            states: other.states.clone(),
            pairs: other.pairs.clone(),
            ..*other
        };
        for ((_, all), (_, one)) in self.counts().into_iter().zip(other.counts()) {
            *all += *one;
        }
        for (state, times) in other.states {
            *self.states.entry(state).or_default() += times;
        }
        for (pair, times) in other.pairs {
            *self.pairs.entry(pair).or_default() += times;
        }
    }

    /// Asserts that everything was met that the simulation is there for.
    pub fn everything(&mut self) {
        for state in State::ALL {
            let met = self.states.contains_key(state.as_str()) || state == State::Planned;
            assert!(met, "no payment was {state}: {self:?}");
        }
        let pairs = Fault::ALL.len() * Fault::ALL.len();
        assert_eq!(self.pairs.len(), pairs, "pairs of faults");
        let missing: Vec<_> = self
            .counts()
            .into_iter()
            .filter(|(_, times)| **times == 0)
            .collect();
        assert!(missing.is_empty(), "never met: {missing:?}");
    }
}

impl Model {
    /// What must hold at every instant.
    pub(super) fn audit(&mut self) {
        let found = self.at_this_instant();
        self.finding = self.finding.or(found);
    }

    fn at_this_instant(&self) -> Option<Finding> {
        let mut taken = 0;
        for (number, executions) in self.gateway.executions.iter().enumerate() {
            if executions.len() > 1 {
                return Some(Finding::Duplicate(number));
            }
            let Some(payment) = &self.disk.payments[number] else {
                if executions.is_empty() {
                    continue;
                }
                return Some(Finding::Unrecorded(number));
            };
            let word = executions.first().copied();
            let agrees = match payment.state {
                State::Planned | State::AwaitingApproval | State::Rejected | State::Refused => {
                    word.is_none()
                }
                State::Confirmed => word == Some("confirmed"),
                State::Declined => word == Some("declined"),
                State::Cancelled => word == Some("cancelled"),
                State::Accepted | State::Pending => word.is_some(),
                State::Intended | State::Sending | State::Unknown | State::Held => true,
            };
            if !agrees {
                return Some(Finding::Contradiction(number, payment.state));
            }
            let moves = word.is_some_and(|word| !["cancelled", "declined"].contains(&word));
            let spent = if moves {
                self.setting.amounts[number]
            } else {
                0
            };
            let reserved = self.disk.reserved[number];
            let ended_without_money = payment.state.is_final() && payment.state != State::Confirmed;
            if ended_without_money && reserved != 0 {
                return Some(Finding::NotReleased(number));
            }
            taken += spent.max(reserved);
        }
        let cap = self.setting.cap;
        (taken > cap).then_some(Finding::OverTheCap { taken, cap })
    }

    /// What must have come of it in the end.
    pub(super) fn audit_the_end(&mut self) {
        let [first, second] = self.setting.faults.map(|fault| {
            let mut all = Fault::ALL.iter();
            all.position(|other| *other == fault).unwrap()
        });
        *self.seen.pairs.entry((first, second)).or_default() += 1;
        for number in 0..self.setting.amounts.len() {
            let Some(payment) = &self.disk.payments[number] else {
                self.finding.get_or_insert(Finding::Unrecorded(number));
                continue;
            };
            let state = payment.state;
            let executions = self.gateway.executions[number].len();
            let is_named = state == State::Held && executions == 0;
            if !state.is_final() && !is_named {
                self.finding.get_or_insert(Finding::Lost(number, state));
            }
            if state == State::Rejected && !self.gateway.rejected[number] {
                let contradiction = Finding::Contradiction(number, state);
                self.finding.get_or_insert(contradiction);
            }
            self.seen.left_to_people += usize::from(is_named);
        }
    }
}

/// The first thing that the auditor finds in so many cases of a broken daemon, with its seed.
fn found(broken: Broken, cases: u64) -> Option<(u64, Finding)> {
    let mut seen = Seen::default();
    (1..=cases).find_map(|seed| {
        let simulated = super::simulate(seed, Some(broken), &mut seen);
        simulated.err().map(|finding| (seed, finding))
    })
}

#[test]
fn a_duplicate_is_found_where_unknown_payments_are_resent_and_repeats_are_executed() {
    let found = found(Broken::ResendsWhereRepeatsAreExecuted, 300);
    assert!(
        matches!(found, Some((_, Finding::Duplicate(_)))),
        "{found:?}"
    );
}

#[test]
fn a_contradiction_is_found_where_the_refusal_of_a_resend_is_taken_for_the_end() {
    let found = found(Broken::BelievesARefusedResend, 1_000);
    assert!(
        matches!(found, Some((_, Finding::Contradiction(_, State::Rejected)))),
        "{found:?}"
    );
}

#[test]
fn a_duplicate_is_found_where_the_request_leaves_before_its_mark_is_on_disk() {
    let found = found(Broken::SendsBeforeTheMark, 300);
    assert!(
        matches!(found, Some((_, Finding::Duplicate(_)))),
        "{found:?}"
    );
}

#[test]
fn a_duplicate_is_found_where_one_look_up_that_finds_nothing_is_taken_for_proof() {
    let found = found(Broken::TrustsNotFound, 300);
    assert!(
        matches!(found, Some((_, Finding::Duplicate(_)))),
        "{found:?}"
    );
}

#[test]
fn more_than_the_cap_is_found_where_a_lost_reply_gives_back_what_was_reserved() {
    let found = found(Broken::ReleasesWhatIsUnknown, 300);
    assert!(
        matches!(found, Some((_, Finding::OverTheCap { .. }))),
        "{found:?}"
    );
}

#[test]
fn what_is_never_given_back_is_found() {
    let found = found(Broken::ReleasesNothing, 300);
    assert!(
        matches!(found, Some((_, Finding::NotReleased(_)))),
        "{found:?}"
    );
}

#[test]
fn a_lost_payment_is_found_where_a_start_forgets_what_was_open() {
    let found = found(Broken::ForgetsAtStart, 300);
    assert!(matches!(found, Some((_, Finding::Lost(..)))), "{found:?}");
}
