//! What is done about a payment whose fate nobody has known for too long: it is sent once more
//! under the same key, where that is allowed and can be safe, or handed to a person. Pure.

use std::time::Duration;

use super::record::Payment;
use super::state::Event;
use crate::domain::clock::Timestamp;
use crate::domain::operation::Operation;

/// How often a payment is sent again at most. The wait before each is twice the one before.
const MOST_RESENDS: u32 = 3;

/// Look-ups that must have answered "not found" since the payment was last sent. One proves
/// nothing: how soon the gateway shows a new payment is not documented.
const NOT_FOUND_BEFORE_RESEND: u32 = 3;

/// What the operator has decided about payments of unknown fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long their fate is looked for: `gateway.unknown_after`.
    pub after: Duration,
    /// Whether they may then be sent again: `gateway.resend_unknown`.
    pub resend: bool,
}

/// What to do about a payment when patience is at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtTheEnd {
    /// Send the very same bytes again.
    Resend,
    /// Hand it to a person, and say why it is not sent again.
    Hold(&'static str),
}

impl Patience {
    /// What to do about the payment now; `None` to go on looking for its fate.
    ///
    /// # Design
    /// A resend is safe only if the gateway refuses a key that it knows. That is documented for
    /// invoices and assumed for withdrawals; where it does not hold, a payment that was executed
    /// and not yet visible would be executed again. So it needs the operator's word, the whole
    /// wait, several certain answers that the payment is not there, and the last of them after the
    /// wait. Exchanges, invoices and payment requests are never sent again: no look-up by their
    /// key is known to find them, so "not found" says nothing about them.
    #[must_use]
    pub fn at_the_end(&self, payment: &Payment, now: Timestamp) -> Option<AtTheEnd> {
        let since = payment.unknown_since()?;
        let wait = self.after.saturating_mul(2_u32.pow(payment.resends.min(8)));
        let passed = |until: Timestamp| (until - since).to_std().unwrap_or_default();
        if passed(now) < wait {
            return None;
        }
        let refusal = if payment.key_taken {
            "the gateway says that its key is taken, and does not show by what"
        } else if !is_found_by_key(payment.content.operation) {
            "it cannot be looked up by its key, so that it was not made can never be known"
        } else if !self.resend {
            "it is not sent again, because `gateway.resend_unknown` is off"
        } else if payment.resends >= MOST_RESENDS {
            "it has been sent again as often as it may be"
        } else if let Some(last) = payment.story.last()
            && last.event == Event::NotFound
            && passed(last.at) >= wait
        {
            let enough = payment.look_ups >= NOT_FOUND_BEFORE_RESEND;
            return enough.then_some(AtTheEnd::Resend);
        } else if passed(now) < wait.saturating_mul(2) {
            // The look-up that decides is still to come.
            return None;
        } else {
            "the gateway has not said lately that it does not have it"
        };
        Some(AtTheEnd::Hold(refusal))
    }
}

/// Whether a look-up by our key is documented to find what the operation makes.
const fn is_found_by_key(operation: Operation) -> bool {
    matches!(operation, Operation::Withdraw | Operation::WithdrawInstant)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::domain::id::{HandlerId, RunId};
    use crate::domain::payment::{Content, Origin};

    fn at(minute: i64) -> Timestamp {
        let start: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        start + TimeDelta::minutes(minute)
    }

    /// A payment after these events, one a minute.
    fn after(operation: Operation, events: &[Event]) -> Payment {
        let handler = HandlerId {
            script: "a".into(),
            name: "go".into(),
        };
        let origin = Origin {
            run: RunId::new(1),
            handler,
            step: 0,
            file: "a.rhai".into(),
            line: 1,
            set: String::new(),
        };
        let content = Content::new(operation, "{}".into());
        let mut payment = Payment::planned("one".parse().unwrap(), content, origin, at(0));
        for (minute, event) in (0..).zip(events) {
            payment.apply(*event, None, at(minute)).unwrap();
        }
        payment
    }

    const LOST: [Event; 3] = [Event::Allowed, Event::SendStarted, Event::AnswerLost];

    fn lost_and(operation: Operation, further: &[Event]) -> Payment {
        after(operation, &[&LOST[..], further].concat())
    }

    fn patience(resend: bool) -> Patience {
        Patience {
            after: Duration::from_mins(4),
            resend,
        }
    }

    #[test]
    fn nothing_is_done_before_the_time_is_over() {
        let payment = lost_and(Operation::Withdraw, &[Event::NotFound; 3]);
        assert_eq!(patience(true).at_the_end(&payment, at(5)), None);
        assert_eq!(patience(false).at_the_end(&payment, at(5)), None);
        assert!(patience(false).at_the_end(&payment, at(6)).is_some());
    }

    #[test]
    fn a_resend_needs_permission_and_several_recent_answers_that_it_is_not_there() {
        let verdict = |resend, further: &[Event], minute| {
            let payment = lost_and(Operation::Withdraw, further);
            patience(resend).at_the_end(&payment, at(minute))
        };
        // The last look-up is at minute 6, when the time is over.
        assert_eq!(
            verdict(true, &[Event::NotFound; 4], 6),
            Some(AtTheEnd::Resend)
        );
        // Without a late answer it takes as long again until a person is asked.
        assert_eq!(verdict(true, &[Event::NotFound; 3], 9), None);
        for (resend, further, minute) in [
            (false, &[Event::NotFound; 4][..], 6),
            (true, &[Event::NotFound; 3][..], 10),
            (true, &[][..], 10),
        ] {
            let verdict = verdict(resend, further, minute);
            assert!(
                matches!(verdict, Some(AtTheEnd::Hold(_))),
                "{further:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn what_the_gateway_says_is_taken_is_never_sent_again() {
        let taken = [Event::Allowed, Event::SendStarted, Event::KeyTaken];
        let events = [&taken[..], &[Event::NotFound; 4]].concat();
        let payment = after(Operation::Withdraw, &events);
        let verdict = patience(true).at_the_end(&payment, at(7));
        assert!(matches!(verdict, Some(AtTheEnd::Hold(_))), "{verdict:?}");
    }

    #[test]
    fn one_late_answer_that_it_is_not_there_is_not_enough_and_not_the_end() {
        let mut payment = lost_and(Operation::Withdraw, &[]);
        payment.apply(Event::NotFound, None, at(60)).unwrap();
        assert_eq!(patience(true).at_the_end(&payment, at(60)), None);
    }

    #[test]
    fn what_cannot_be_looked_up_by_its_key_is_never_sent_again() {
        for operation in [
            Operation::ExchangeNow,
            Operation::ExchangeFixed,
            Operation::CreateInvoice,
            Operation::CreatePaymentRequest,
        ] {
            let payment = lost_and(operation, &[Event::NotFound; 4]);
            let verdict = patience(true).at_the_end(&payment, at(9));
            assert!(matches!(verdict, Some(AtTheEnd::Hold(_))), "{operation}");
        }
    }

    #[test]
    fn every_further_resend_waits_twice_as_long_and_there_are_not_many() {
        let mut payment = lost_and(Operation::Withdraw, &[]);
        let mut minute = 2;
        for resend in 0..MOST_RESENDS {
            let wait = 4_i64 << resend;
            let end = minute + wait;
            for _ in 0..3 {
                payment.apply(Event::NotFound, None, at(end)).unwrap();
            }
            assert_eq!(patience(true).at_the_end(&payment, at(end - 1)), None);
            assert_eq!(
                patience(true).at_the_end(&payment, at(end)),
                Some(AtTheEnd::Resend)
            );
            for event in [Event::Resend, Event::SendStarted, Event::AnswerLost] {
                payment.apply(event, None, at(end)).unwrap();
            }
            minute = end;
        }
        for _ in 0..3 {
            payment.apply(Event::NotFound, None, at(10_000)).unwrap();
        }
        let verdict = patience(true).at_the_end(&payment, at(10_000));
        assert!(matches!(verdict, Some(AtTheEnd::Hold(_))), "{verdict:?}");
    }
}
