//! Where people, instead of a script or a callback, move a payment on. The decisions are theirs;
//! this is what keeps them on the money path: one commit each, through the state machine.

use std::sync::Arc;

use super::record::put;
use super::{PayError, Payments};
use crate::domain::approval::{Approval, deadline, is_enough, standing, terms};
use crate::domain::clock::Timestamp;
use crate::domain::id::ForeignId;
use crate::domain::payment::{Event, Payment, State};
use crate::domain::policy::Terms;
use crate::runner::alerts::about_payment;
use crate::runner::approvals::{Given, NotDecided};
use crate::runner::editors::Editors;
use crate::runner::pause::Pauses;
use crate::runner::ticket::Started;
use crate::runner::waits::Happening;
use crate::store::schema::{AWAITED, PAYMENTS};
use crate::store::{Changes, CommitError, Versioned, awaited};

/// What the money path has to do with people: what they have stopped, and whose approval counts.
pub(in crate::runner) struct People {
    pub(in crate::runner) pauses: Arc<Pauses>,
    pub(in crate::runner) editors: Editors,
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("People")
            .field("pauses", &self.pauses)
            .finish_non_exhaustive()
    }
}

impl Payments {
    /// Sends a payment that is decided, if it still is and may be sent. What keeps it from being
    /// sent now is tried again by the sweep.
    pub(in crate::runner) async fn carry_on(&self, foreign_id: &ForeignId) {
        let _one_at_a_time = self.0.locks.lock(foreign_id).await;
        let payment = match self.find(foreign_id) {
            Ok(Some(payment)) if payment.state == State::Intended => payment,
            Ok(_) => return,
            Err(error) => {
                let telemetry = &self.0.telemetry;
                return telemetry.payment_stuck(foreign_id, &error.to_string());
            }
        };
        match self.resume_locked(payment.clone()).await {
            Ok(_) => {}
            Err(PayError::Unavailable(_) | PayError::Unauthorised(_)) => self.watch(&payment),
            Err(error) => {
                let telemetry = &self.0.telemetry;
                telemetry.payment_stuck(foreign_id, &error.to_string());
            }
        }
    }

    /// Adds somebody's approval, and with the last one that is needed moves the payment on, in one
    /// commit.
    pub(in crate::runner) async fn approve(
        &self,
        foreign_id: &ForeignId,
        by: &str,
        hash: &str,
    ) -> Result<(Payment, Given), NotDecided> {
        loop {
            let stored = self.asked_about(foreign_id)?;
            let mut payment = stored.value.clone();
            let terms = awaiting(&payment, "approve")?;
            let now = self.0.clock.now();
            let until = deadline(payment.created_at, &terms);
            if until <= now {
                self.expire(foreign_id, until).await?;
                continue;
            }
            if payment.content.fingerprint() != payment.fingerprint {
                return Err(NotDecided::Damaged(foreign_id.clone()));
            }
            if hash != payment.fingerprint {
                return Err(NotDecided::OtherHash {
                    what: "the payment",
                    id: foreign_id.to_string(),
                    is: payment.fingerprint,
                    given: hash.to_owned(),
                });
            }
            let barred = self.0.people.barred(&payment, &terms, by)?;
            let again = standing(&payment.approvals, hash, None).contains(by);
            if !again {
                payment.approvals.push(Approval {
                    by: by.to_owned(),
                    at: now,
                    fingerprint: hash.to_owned(),
                });
            }
            let standing = standing(&payment.approvals, hash, barred.as_deref());
            let given = Given {
                people: standing.len(),
                quorum: terms.quorum,
                again,
                enough: is_enough(&terms, standing.len()),
            };
            if again {
                return Ok((payment, given));
            }
            payment.updated_at = now;
            if given.enough {
                let people: Vec<&str> = standing.into_iter().collect();
                let note = format!("by {}", people.join(", "));
                payment = moved(payment, Event::Approved, note, now)?;
            }
            if self.replace(&stored, &payment, None).await? {
                self.0.telemetry.payment_approved(&payment, by);
                return Ok((payment, given));
            }
        }
    }

    /// Refuses a payment that waits for approval.
    pub(in crate::runner) async fn reject(
        &self,
        foreign_id: &ForeignId,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Payment, NotDecided> {
        let because = with_reason(&format!("rejected by {by}"), reason);
        loop {
            let stored = self.asked_about(foreign_id)?;
            let mut payment = stored.value.clone();
            awaiting(&payment, "reject")?;
            payment.error = Some(because.clone());
            let now = self.0.clock.now();
            let payment = moved(payment, Event::Refused, because.clone(), now)?;
            if self.replace(&stored, &payment, None).await? {
                return Ok(payment);
            }
        }
    }

    /// Refuses a payment that nobody has approved in time, with an alert. `row` is the deadline
    /// under which it was found.
    pub(in crate::runner) async fn expire(
        &self,
        foreign_id: &ForeignId,
        row: Timestamp,
    ) -> Result<(), NotDecided> {
        loop {
            let stored = self.asked_about(foreign_id)?;
            let mut payment = stored.value.clone();
            let Ok(terms) = awaiting(&payment, "expire") else {
                // It was decided under another deadline; the row means nothing any more.
                let mut changes = Changes::new();
                changes.remove(&AWAITED, &awaited(foreign_id, row));
                return Ok(self.0.store.commit(changes).await?);
            };
            let people = standing(&payment.approvals, &payment.fingerprint, None).len();
            let because = format!(
                "nobody decided in time: {people} of {} approvals until {}",
                terms.quorum.max(1),
                crate::domain::clock::shown(row)
            );
            payment.error = Some(because.clone());
            let payment = moved(payment, Event::Refused, because, self.0.clock.now())?;
            if self
                .replace(&stored, &payment, Some("approval_expired"))
                .await?
            {
                return Ok(());
            }
        }
    }

    /// Takes a person's word for whether the gateway has the payment.
    pub(in crate::runner) async fn resolve(
        &self,
        foreign_id: &ForeignId,
        by: &str,
        sent: bool,
        reason: Option<&str>,
    ) -> Result<Payment, NotDecided> {
        let (event, says) = if sent {
            (Event::SaidSent, "says that the gateway has it")
        } else {
            (Event::SaidNotSent, "says that the gateway does not have it")
        };
        let note = with_reason(&format!("{by} {says}"), reason);
        loop {
            let stored = self.asked_about(foreign_id)?;
            let payment = moved(
                stored.value.clone(),
                event,
                note.clone(),
                self.0.clock.now(),
            )?;
            if self.replace(&stored, &payment, None).await? {
                self.0.telemetry.payment_resolved(&payment, by, sent);
                if sent {
                    self.watch(&payment);
                }
                return Ok(payment);
            }
        }
    }

    fn asked_about(&self, foreign_id: &ForeignId) -> Result<Versioned<Payment>, NotDecided> {
        let stored = self.0.store.get_versioned(&PAYMENTS, foreign_id)?;
        stored.ok_or_else(|| NotDecided::NotFound {
            what: "payment",
            id: foreign_id.to_string(),
        })
    }

    /// Writes what a person made of a payment, with an alert if there is one; false when somebody
    /// else has changed it meanwhile.
    async fn replace(
        &self,
        stored: &Versioned<Payment>,
        payment: &Payment,
        alert: Option<&'static str>,
    ) -> Result<bool, NotDecided> {
        let mut changes = Changes::new();
        let happening = self.0.waits.happening().await;
        changes.require_unchanged(&PAYMENTS, &payment.foreign_id, stored);
        let before = stored.value.state;
        let mut kept = payment.clone();
        put(&mut changes, before, &mut kept, &self.0.policy, &happening);
        let has_moved = payment.state != stored.value.state;
        if has_moved && let Some(terms) = terms(payment) {
            let until = deadline(payment.created_at, &terms);
            changes.remove(&AWAITED, &awaited(&payment.foreign_id, until));
        }
        let alerted = alert.map_or_else(Started::default, |what| {
            about_payment(&self.0.firings, what, payment, &happening, &mut changes)
        });
        match self.0.store.commit(changes).await {
            Ok(()) => {}
            Err(CommitError::Refused) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        drop(happening);
        self.0.dispatcher.enqueue(alerted);
        if has_moved {
            self.0.telemetry.payment_moved(payment);
        }
        Ok(true)
    }

    /// Adds the alert that belongs to a payment that waits for approval.
    pub(super) fn await_people(
        &self,
        payment: &Payment,
        happening: &Happening<'_>,
        changes: &mut Changes,
    ) -> Started {
        if payment.state != State::AwaitingApproval {
            return Started::default();
        }
        let firings = &self.0.firings;
        about_payment(firings, "approval_needed", payment, happening, changes)
    }

    /// Whether the approvals that a payment brings along, from the batch it belongs to, are what
    /// policy asks for.
    pub(super) fn is_approved_with(&self, payment: &Payment, terms: &Terms) -> bool {
        let barred = if terms.editor_may_approve {
            None
        } else {
            match self.0.people.editors.of(&payment.origin) {
                Ok(Some(editor)) => Some(editor.by),
                // Whose approval counts is not known, so none does.
                Ok(None) | Err(_) => return false,
            }
        };
        let people = standing(&payment.approvals, &payment.fingerprint, barred.as_deref());
        is_enough(terms, people.len())
    }
}

impl People {
    /// Whose approvals do not count. Refuses `by` if that is them.
    fn barred(
        &self,
        payment: &Payment,
        terms: &Terms,
        by: &str,
    ) -> Result<Option<String>, NotDecided> {
        if terms.editor_may_approve {
            return Ok(None);
        }
        let script = payment.origin.handler.script.clone();
        match self.editors.of(&payment.origin)? {
            Some(editor) if editor.by == by => Err(NotDecided::ByEditor {
                by: by.to_owned(),
                script,
            }),
            Some(editor) => Ok(Some(editor.by)),
            None => Err(NotDecided::NoEditor { script }),
        }
    }
}

/// For the story of a payment: the batch that it was approved with, and by whom.
pub(super) fn approved_in(planned: &Payment) -> Option<String> {
    let plan = planned.plan.as_ref()?;
    let people = standing(&planned.approvals, &planned.fingerprint, None);
    let people: Vec<&str> = people.into_iter().collect();
    Some(format!("in `{plan}`, approved by {}", people.join(", ")))
}

/// What the approval of a payment takes that waits for one.
fn awaiting(payment: &Payment, to: &str) -> Result<Terms, NotDecided> {
    match terms(payment) {
        Some(terms) if payment.state == State::AwaitingApproval => Ok(terms),
        Some(_) | None => Err(too_late(payment, &format!("there is nothing to {to}"))),
    }
}

fn too_late(payment: &Payment, why: &str) -> NotDecided {
    let mut people: Vec<&str> = standing(&payment.approvals, &payment.fingerprint, None)
        .into_iter()
        .collect();
    people.sort_unstable();
    let decided = match (&payment.error, people.as_slice()) {
        (Some(error), _) => format!(" ({error})"),
        (None, []) => String::new(),
        (None, people) => format!(" (approved by {})", people.join(", ")),
    };
    NotDecided::TooLate {
        what: "the payment",
        id: payment.foreign_id.to_string(),
        state: payment.state.to_string(),
        why: format!("{why}{decided}"),
    }
}

fn moved(
    mut payment: Payment,
    event: Event,
    note: String,
    at: Timestamp,
) -> Result<Payment, NotDecided> {
    match payment.apply(event, Some(note), at) {
        Ok(()) => Ok(payment),
        Err(_) => Err(too_late(
            &payment,
            "only a payment that is unknown or held can be resolved",
        )),
    }
}

fn with_reason(text: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{text}: {reason}"),
        None => text.to_owned(),
    }
}
