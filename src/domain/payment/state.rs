//! The state machine of a payment. Pure: what happened goes in, the new state comes out. Live
//! work, callbacks, look-ups and recovery after a crash all go through [`next`].

use serde::{Deserialize, Serialize};

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Asked for; nothing is decided and nothing is on disk.
    Planned,
    /// On disk; certainly not sent, and not before people approve it.
    AwaitingApproval,
    /// Decided and on disk; certainly not sent.
    Intended,
    /// On its way: from here on it may have reached the gateway.
    Sending,
    /// The gateway has it.
    Accepted,
    /// The gateway has it and waits for a person there.
    Pending,
    /// Done. Final.
    Confirmed,
    /// A person at the gateway said no. Final.
    Declined,
    /// The gateway gave it up. Final.
    Cancelled,
    /// The gateway refused the request: nothing happened. Final.
    Rejected,
    /// Our own policy refused it: nothing was sent. Final.
    Refused,
    /// It may or may not have reached the gateway. Looked up until it is known.
    Unknown,
    /// A person must decide.
    Held,
}

/// A status that the gateway reported of a payment, in a callback or a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reported {
    /// It exists and is being worked on (`processing`, `not_confirmed`, `created`, and every
    /// word not known here: the gateway's set is open).
    Open,
    /// `pending`
    Pending,
    /// `confirmed`, `paid`
    Confirmed,
    /// `declined`
    Declined,
    /// `cancelled`, `failed`, `expired`
    Cancelled,
}

impl Reported {
    /// Reads the gateway's word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "pending" => Self::Pending,
            "confirmed" | "paid" => Self::Confirmed,
            "declined" => Self::Declined,
            "cancelled" | "failed" | "expired" => Self::Cancelled,
            _ => Self::Open,
        }
    }
}

/// What happened to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Policy allows it.
    Allowed,
    /// Policy leaves it to people.
    ApprovalNeeded,
    /// Enough people approve of it.
    Approved,
    /// Policy refuses it, or people do.
    Refused,
    /// The first byte may leave any moment now.
    SendStarted,
    /// The request certainly never left.
    NotSent,
    /// The gateway took it.
    Accepted,
    /// The gateway refused the request.
    Rejected,
    /// The gateway says that the key has been used before.
    KeyTaken,
    /// There is no usable answer.
    AnswerLost,
    /// The gateway reported a status.
    Reported(Reported),
    /// A look-up did not find it. Proves nothing.
    NotFound,
    /// A look-up found another transaction under its key.
    NotOurs,
    /// Its fate has been unknown for so long that it may be sent again, under the same key.
    Resend,
    /// Nobody could find out in time.
    GaveUp,
    /// A person says that the gateway has it.
    SaidSent,
    /// A person says that the gateway does not have it: it may be sent.
    SaidNotSent,
}

/// Something that cannot happen in this state. Never acted upon: recorded, and an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a payment that is {state:?}")]
pub struct IllegalTransition {
    /// The state, which stays.
    pub state: State,
    /// What was said to have happened.
    pub event: Event,
}

/// What to do about a payment next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Ask policy, and record the intent or the refusal.
    Decide,
    /// Record that it is being sent, then send it.
    Send,
    /// Ask the gateway whether it has it.
    LookUp,
    /// Wait until people approve or refuse it.
    WaitForApproval,
    /// Wait for a callback; look up now and then.
    WaitForCallback,
    /// Wait for a person.
    WaitForPerson,
    /// Nothing.
    Done,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 13] = [
        Self::Planned,
        Self::AwaitingApproval,
        Self::Intended,
        Self::Sending,
        Self::Accepted,
        Self::Pending,
        Self::Confirmed,
        Self::Declined,
        Self::Cancelled,
        Self::Rejected,
        Self::Refused,
        Self::Unknown,
        Self::Held,
    ];

    /// The word for it, in scripts, on the command line and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Intended => "intended",
            Self::Sending => "sending",
            Self::Accepted => "accepted",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Held => "held",
        }
    }

    /// Whether nothing can change it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Confirmed | Self::Declined | Self::Cancelled | Self::Rejected | Self::Refused
        )
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state after `event`.
///
/// # Errors
/// [`IllegalTransition`] when that cannot happen: the caller keeps the state, records what was
/// said and raises an alarm.
pub fn next(state: State, event: Event) -> Result<State, IllegalTransition> {
    use State as S;
    match event {
        Event::Allowed if state == S::Planned => Ok(S::Intended),
        Event::ApprovalNeeded if state == S::Planned => Ok(S::AwaitingApproval),
        Event::Approved if state == S::AwaitingApproval => Ok(S::Intended),
        Event::Refused if matches!(state, S::Planned | S::AwaitingApproval) => Ok(S::Refused),
        Event::SendStarted if state == S::Intended => Ok(S::Sending),
        Event::NotSent if state == S::Sending => Ok(S::Intended),
        Event::Rejected if state == S::Sending => Ok(S::Rejected),
        // Whose it is, is not said: perhaps our own from a lost answer. A look-up tells.
        Event::KeyTaken if state == S::Sending => Ok(S::Unknown),
        // Also before it was ever sent: under a key that another has, it must not leave.
        Event::NotOurs if matches!(state, S::Intended | S::Sending | S::Unknown | S::Held) => {
            Ok(S::Held)
        }
        Event::Resend if state == S::Unknown => Ok(S::Intended),
        Event::GaveUp if matches!(state, S::Unknown | S::Held) => Ok(S::Held),
        Event::SaidSent if matches!(state, S::Unknown | S::Held) => Ok(S::Accepted),
        Event::SaidNotSent if matches!(state, S::Unknown | S::Held) => Ok(S::Intended),
        // A callback may be faster than the answer to our own request, and may be about an earlier
        // one while it is sent again; what it said stands.
        Event::Accepted | Event::AnswerLost | Event::NotSent | Event::KeyTaken
            if knows_better(state) =>
        {
            Ok(state)
        }
        Event::Accepted if matches!(state, S::Sending | S::Unknown) => Ok(S::Accepted),
        Event::AnswerLost if matches!(state, S::Sending | S::Unknown) => Ok(S::Unknown),
        Event::NotFound => not_found(state).ok_or(IllegalTransition { state, event }),
        Event::Reported(status) => {
            reported(state, status).ok_or(IllegalTransition { state, event })
        }
        Event::Allowed
        | Event::ApprovalNeeded
        | Event::Approved
        | Event::Refused
        | Event::SendStarted
        | Event::NotSent
        | Event::Rejected
        | Event::KeyTaken
        | Event::NotOurs
        | Event::Resend
        | Event::GaveUp
        | Event::SaidSent
        | Event::SaidNotSent
        | Event::Accepted
        | Event::AnswerLost => Err(IllegalTransition { state, event }),
    }
}

/// Whether the gateway itself has already told us about the payment.
const fn knows_better(state: State) -> bool {
    matches!(
        state,
        State::Accepted | State::Pending | State::Confirmed | State::Declined | State::Cancelled
    )
}

const fn not_found(state: State) -> Option<State> {
    match state {
        State::Sending | State::Unknown => Some(State::Unknown),
        State::Intended | State::Accepted | State::Pending | State::Held => Some(state),
        State::Confirmed | State::Declined | State::Cancelled => Some(state),
        State::Planned | State::AwaitingApproval | State::Rejected | State::Refused => None,
    }
}

const fn reported(state: State, status: Reported) -> Option<State> {
    match (state, status) {
        // What was never sent from here, or was refused there, cannot exist there.
        (State::Planned | State::AwaitingApproval | State::Rejected | State::Refused, _) => None,
        // Final is final: the same again and late non-final reports change nothing, another final
        // report is an alarm.
        (State::Confirmed, Reported::Confirmed | Reported::Open | Reported::Pending)
        | (State::Declined, Reported::Declined | Reported::Open | Reported::Pending)
        | (State::Cancelled, Reported::Cancelled | Reported::Open | Reported::Pending) => {
            Some(state)
        }
        (State::Confirmed | State::Declined | State::Cancelled, _) => None,
        (_, Reported::Confirmed) => Some(State::Confirmed),
        (_, Reported::Declined) => Some(State::Declined),
        (_, Reported::Cancelled) => Some(State::Cancelled),
        (_, Reported::Pending) => Some(State::Pending),
        // Look-ups call a payment that waits for a person `pending`, callbacks in between
        // `not_confirmed`; only a new word moves it on.
        (State::Pending, Reported::Open) => Some(State::Pending),
        (_, Reported::Open) => Some(State::Accepted),
    }
}

/// What to do about a payment in this state.
#[must_use]
pub const fn next_step(state: State) -> NextStep {
    match state {
        State::Planned => NextStep::Decide,
        State::AwaitingApproval => NextStep::WaitForApproval,
        State::Intended => NextStep::Send,
        // Nobody waits for its answer any more when it is found in this state.
        State::Sending | State::Unknown => NextStep::LookUp,
        State::Accepted | State::Pending => NextStep::WaitForCallback,
        State::Held => NextStep::WaitForPerson,
        State::Confirmed
        | State::Declined
        | State::Cancelled
        | State::Rejected
        | State::Refused => NextStep::Done,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 21] = [
        Event::Allowed,
        Event::ApprovalNeeded,
        Event::Approved,
        Event::Refused,
        Event::SendStarted,
        Event::NotSent,
        Event::Accepted,
        Event::Rejected,
        Event::KeyTaken,
        Event::AnswerLost,
        Event::Reported(Reported::Open),
        Event::Reported(Reported::Pending),
        Event::Reported(Reported::Confirmed),
        Event::Reported(Reported::Declined),
        Event::Reported(Reported::Cancelled),
        Event::NotFound,
        Event::NotOurs,
        Event::Resend,
        Event::GaveUp,
        Event::SaidSent,
        Event::SaidNotSent,
    ];

    #[test]
    fn the_whole_table_is_as_reviewed() {
        let mut table = String::new();
        for state in State::ALL {
            writeln!(table, "{state} → {:?}", next_step(state)).unwrap();
            for event in EVENTS {
                if let Ok(after) = next(state, event) {
                    writeln!(table, "  {event:?} → {after}").unwrap();
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn nothing_that_may_have_left_can_be_sent_again() {
        for state in [State::Sending, State::Unknown, State::Accepted, State::Held] {
            assert!(next(state, Event::SendStarted).is_err());
            assert_ne!(next_step(state), NextStep::Send);
        }
    }

    #[test]
    fn a_second_different_final_status_is_an_alarm() {
        assert!(next(State::Confirmed, Event::Reported(Reported::Cancelled)).is_err());
        assert_eq!(
            next(State::Confirmed, Event::Reported(Reported::Pending)),
            Ok(State::Confirmed)
        );
    }

    proptest! {
        #[test]
        fn final_states_absorb_whatever_comes(
            start in proptest::sample::select(&State::ALL[..]),
            events in proptest::collection::vec(proptest::sample::select(&EVENTS[..]), 0..40),
        ) {
            let mut state = start;
            let mut reached = None;
            for event in events {
                if let Ok(after) = next(state, event) {
                    state = after;
                }
                if let Some(end) = reached {
                    prop_assert_eq!(state, end);
                }
                if state.is_final() {
                    reached = Some(state);
                }
            }
        }

        /// Between two starts of sending there is always proof that the first never left, the
        /// operator's standing permission to send the same key again, or a person's word.
        #[test]
        fn a_payment_leaves_at_most_once(
            events in proptest::collection::vec(proptest::sample::select(&EVENTS[..]), 0..60),
        ) {
            let mut state = State::Planned;
            let mut may_have_left = false;
            for event in events {
                let Ok(after) = next(state, event) else { continue };
                if event == Event::SendStarted {
                    prop_assert!(!may_have_left);
                    may_have_left = true;
                }
                if matches!(event, Event::NotSent | Event::Resend | Event::SaidNotSent) {
                    may_have_left = false;
                }
                state = after;
            }
        }
    }
}
