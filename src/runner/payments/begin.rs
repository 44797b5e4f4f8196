//! How a payment begins: policy decides about it, and the decision is on disk before anything else
//! happens.
//!
//! # Design
//! A payment that may leave as soon as it is decided about is marked in the commit of its decision,
//! which saves it a commit of its own. Nothing is known less for that: the intent with its exact
//! bytes is on disk before the first byte leaves, and what is marked is held as a departure until
//! then, as it is in any other attempt (`attempt`).

use super::approval::approved_in;
use super::attempt::{Attempt, Mark};
use super::record::{put, store_stop};
use super::{PayError, PaymentRequest, Payments};
use crate::crash_point::CrashPoint;
use crate::domain::id::ForeignId;
use crate::domain::operation::Effect;
use crate::domain::payment::{Event, Payment, State};
use crate::domain::policy::{Proposal, Verdict};
use crate::store::schema::PAYMENTS;
use crate::store::{Changes, CommitError, Versioned};

impl Payments {
    /// Decides about a payment that is not known yet, and sends it if it has its turn already. One
    /// that is alone is decided about at once. One of many waits for its turn first, as it would
    /// afterwards.
    pub(super) async fn begin(
        self,
        request: PaymentRequest,
    ) -> Result<(Attempt, Versioned<Payment>), PayError> {
        let turn = if request.batch > 1 {
            self.0.gateway.turn().await.ok()
        } else {
            self.0.gateway.turn_at_once()
        };
        let (decided, mark) = self.decide(request, turn.is_some()).await?;
        match (turn, mark) {
            (Some(turn), Some(mark)) => self.send_marked(decided, mark, turn).await,
            (_, _) => Ok((Attempt::MovedOn, decided)),
        }
    }

    /// Asks policy, and records what it says with the reservation and the intent in one commit; and
    /// with the mark that it is being sent, if it has its turn and nothing is in its way. On disk
    /// when this returns.
    async fn decide(
        &self,
        request: PaymentRequest,
        has_turn: bool,
    ) -> Result<(Versioned<Payment>, Option<Mark>), PayError> {
        let mut changes = Changes::new();
        let mut payment = self.judged(request, &mut changes)?;
        let leave = if has_turn && payment.state == State::Intended {
            self.0.people.pauses.may_mark(&payment).await
        } else {
            None
        };
        let mut mark = leave.as_ref().and_then(|_| self.mark(&mut payment));
        changes.require_absent(&PAYMENTS, &payment.foreign_id);
        let happening = self.0.waits.happening().await;
        let (before, policy) = (State::Planned, &self.0.policy);
        put(&mut changes, before, &mut payment, policy, &happening);
        let alerted = self.await_people(&payment, &happening, &mut changes);
        let id = payment.foreign_id.clone();
        let payment = changes.versioned(&PAYMENTS, &id, payment);
        // The lock makes a refusal impossible within one process, and there is only one.
        let committed = self.0.store.commit(changes).await;
        drop(happening);
        drop(leave);
        self.settle(&id, &mut mark, &committed)?;
        self.0.dispatcher.enqueue(alerted);
        if mark.is_some() {
            self.0.telemetry.payment_passed(&id, State::Intended);
        }
        self.0.telemetry.payment_moved(&payment.value);
        CrashPoint::IntentRecorded.pass();
        if mark.is_some() {
            CrashPoint::SendRecorded.pass();
        }
        Ok((payment, mark))
    }

    /// The payment that is asked for, as policy says. Its reservation is in `changes`.
    fn judged(&self, request: PaymentRequest, changes: &mut Changes) -> Result<Payment, PayError> {
        let mut planned = Payment::planned(
            request.foreign_id,
            request.content,
            request.origin,
            self.0.clock.now(),
        );
        planned.plan = request.plan;
        planned.approvals = request.approvals;
        let effect = planned.content.operation.effect();
        let event = if effect == Effect::Pay {
            let proposal = Proposal::of(&planned, request.batch);
            let decision = self.0.policy.decide(&proposal, changes)?;
            let event = match &decision.verdict {
                Verdict::Allow => Event::Allowed,
                Verdict::Refuse => Event::Refused,
                Verdict::Approve(terms) if self.is_approved_with(&planned, terms) => Event::Allowed,
                Verdict::Approve(_) => Event::ApprovalNeeded,
            };
            planned.error = (event == Event::Refused).then(|| decision.because());
            planned.decision = Some(decision);
            event
        } else {
            Event::Allowed
        };
        let note = approved_in(&planned);
        let decided = planned.apply(event, note, self.0.clock.now());
        debug_assert!(decided.is_ok(), "a planned payment can be decided");
        Ok(planned)
    }

    /// Settles with policy, and with the departure, what came of the commit of the decision.
    fn settle(
        &self,
        foreign_id: &ForeignId,
        mark: &mut Option<Mark>,
        committed: &Result<(), CommitError>,
    ) -> Result<(), PayError> {
        match committed {
            Ok(()) => self.0.policy.committed(foreign_id),
            Err(CommitError::Refused | CommitError::Unstorable { .. }) => {
                self.0.policy.not_committed(foreign_id);
                if let Some(mark) = mark.take() {
                    mark.departure.end();
                }
            }
            // It may be on disk all the same; the next start sees what is.
            Err(CommitError::Poisoned) => {}
        }
        committed.as_ref().map_err(store_stop).copied()
    }
}
