//! People decide about payments: approve, reject, and say what became of one whose fate nobody
//! knows. Each decision is one commit with what it moves; a payment that may be sent then goes on
//! the money path by itself.
//!
//! Who somebody is and whether they have the role is found out before; here it is decided whether
//! the decision still makes sense. Called for the admin API, and once a second for what has
//! expired.

use serde_json::{Map, Value, json};

use super::Context;
use super::handle::Handle;
use super::plans;
use crate::domain::approval::{deadline, standing, terms};
use crate::domain::clock::shown;
use crate::domain::id::ForeignId;
use crate::domain::payment::{Payment, State};
use crate::store::schema::{AWAITED, Awaited};
use crate::store::{CommitError, Order, Range, ReadError};

/// The most deadlines looked at in one go; the rest follows a second later.
const AT_ONCE: usize = 1_000;

/// Why a decision of a person was not taken. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum NotDecided {
    /// There is no such thing.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// `payment`, `batch`, `script`.
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// It is not in a state in which this can be decided.
    #[error("{what} `{id}` is {state}: {why}")]
    TooLate {
        /// `the payment`, `the batch`.
        what: &'static str,
        /// Its key.
        id: String,
        /// Its state.
        state: String,
        /// Why there is nothing to decide, and who decided.
        why: String,
    },
    /// What was approved is not what there is.
    #[error(
        "{what} `{id}` has the hash {is}, not {given}: what you approve of is not what would be paid; look at it again"
    )]
    OtherHash {
        /// `the payment`, `the batch`.
        what: &'static str,
        /// Its key.
        id: String,
        /// The hash of what there is.
        is: String,
        /// The hash of what was approved.
        given: String,
    },
    /// The script's last editor may not approve.
    #[error(
        "{by} edited the script `{script}` last, and its last editor may not approve its payments; somebody else must"
    )]
    ByEditor {
        /// Who.
        by: String,
        /// The script.
        script: String,
    },
    /// Nobody knows who that is.
    #[error(
        "the last editor of the script `{script}` may not approve its payments, and nobody has noted who that is; whoever edited it must run `bursar scripts edited {script} --as THEIR_NAME`"
    )]
    NoEditor {
        /// The script.
        script: String,
    },
    /// The record cannot be sent as it is: it is damaged.
    #[error("payment `{0}` is damaged in the store: its content does not match its fingerprint")]
    Damaged(ForeignId),
    /// The store cannot write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What an approval came to.
#[derive(Debug)]
pub(super) struct Given {
    /// How many people approve now, of those who must.
    pub(super) people: usize,
    /// How many must.
    pub(super) quorum: u32,
    /// Whether it was given before.
    pub(super) again: bool,
    /// Whether these are enough.
    pub(super) enough: bool,
}

impl Given {
    /// For people.
    pub(super) fn note(&self, by: &str, what: &str) -> String {
        let count = format!("{} of {} approvals", self.people, self.quorum.max(1));
        match (self.again, self.enough) {
            (true, _) => {
                format!("nothing has changed: {by} has approved of {what} before; {count}")
            }
            (false, false) => format!("{what} has {count}; somebody else must approve too"),
            (false, true) => format!("{what} is approved; {count}"),
        }
    }
}

impl Handle {
    /// Approves of a payment's very content, by its hash. On disk when this returns; the last
    /// approval that is needed and the approved payment are one commit, and it is being sent then.
    /// The future must not be dropped early.
    ///
    /// # Errors
    /// See [`NotDecided`].
    pub async fn approve_payment(
        &self,
        id: &str,
        by: &str,
        hash: &str,
    ) -> Result<Value, NotDecided> {
        let foreign_id = payment_key(id)?;
        let payments = &self.context.payments;
        let (payment, given) = payments.approve(&foreign_id, by, hash).await?;
        if given.enough && !given.again {
            self.carry_on(foreign_id);
        }
        let mut note = given.note(by, &format!("the payment `{id}`"));
        if given.enough && self.context.pauses.stops(&payment) {
            note.push_str("; money is paused, and it is sent when the pause is lifted");
        }
        Ok(json!({"payment": id, "status": payment.state, "changed": !given.again, "note": note}))
    }

    /// Refuses a payment that waits for approval, for good. On disk when this returns. The future
    /// must not be dropped early.
    ///
    /// # Errors
    /// See [`NotDecided`].
    pub async fn reject_payment(
        &self,
        id: &str,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Value, NotDecided> {
        let foreign_id = payment_key(id)?;
        let payment = self
            .context
            .payments
            .reject(&foreign_id, by, reason)
            .await?;
        let note = format!("the payment `{id}` is refused, and its key is used up");
        Ok(json!({"payment": id, "status": payment.state, "changed": true, "note": note}))
    }

    /// Takes a person's word for whether the gateway has a payment whose fate is not known. When it
    /// does not, the payment is sent, once; a look-up that finds it after all keeps it from that.
    /// On disk when this returns. The future must not be dropped early.
    ///
    /// # Errors
    /// See [`NotDecided`].
    pub async fn resolve_payment(
        &self,
        id: &str,
        by: &str,
        sent: bool,
        reason: Option<&str>,
    ) -> Result<Value, NotDecided> {
        let foreign_id = payment_key(id)?;
        let payments = &self.context.payments;
        let payment = payments.resolve(&foreign_id, by, sent, reason).await?;
        let note = if sent {
            format!("the payment `{id}` counts as sent; its callback or a look-up settles it")
        } else {
            format!("the payment `{id}` is sent, unless the gateway knows it after all")
        };
        if !sent {
            self.carry_on(foreign_id);
        }
        Ok(json!({"payment": id, "status": payment.state, "changed": true, "note": note}))
    }

    /// Lets a payment go on that is decided, without anybody waiting for it.
    fn carry_on(&self, foreign_id: ForeignId) {
        let payments = self.context.payments.clone();
        let task = async move { payments.carry_on(&foreign_id).await };
        self.context.tokio.spawn(task);
    }
}

fn payment_key(id: &str) -> Result<ForeignId, NotDecided> {
    id.parse().map_err(|_| NotDecided::NotFound {
        what: "payment",
        id: id.to_owned(),
    })
}

/// Refuses what nobody has approved in time. What cannot be refused keeps nothing else waiting.
pub(super) async fn expire(context: &Context) -> Result<(), NotDecided> {
    let now = context.clock.now();
    let due = context
        .store
        .scan(&AWAITED, &Range::all(), AT_ONCE, Order::Ascending)?;
    let mut outcome = Ok(());
    for ((at, _), awaited) in due {
        if at > now {
            break;
        }
        let expired = match awaited {
            Awaited::Payment(id) => context.payments.expire(&id, at).await,
            Awaited::Plan(id) => plans::expire(context, &id, at).await,
        };
        outcome = outcome.and(expired);
    }
    outcome
}

/// Adds to what is shown of a payment what there is to know of its approval.
pub(super) fn describe(payment: &Payment, object: &mut Map<String, Value>) {
    let mut content = payment.content.fields().clone();
    if let Some(content) = content.as_object_mut() {
        // Who somebody is, is between the merchant and the gateway.
        content.retain(|name, _| !name.ends_with("_data"));
    }
    object.insert("content".into(), content);
    if let Some(plan) = &payment.plan {
        object.insert("plan".into(), json!(plan));
    }
    if let Some(decision) = &payment.decision {
        object.insert("decided_by".into(), json!(decision.by));
    }
    let approvals: Vec<Value> = payment
        .approvals
        .iter()
        .map(|approval| json!({"by": approval.by, "at": shown(approval.at)}))
        .collect();
    let Some(terms) = terms(payment) else {
        if !approvals.is_empty() {
            object.insert("approvals".into(), json!(approvals));
        }
        return;
    };
    let people = standing(&payment.approvals, &payment.fingerprint, None).len();
    object.insert("approvals".into(), json!(approvals));
    object.insert("approved_by".into(), json!(people));
    object.insert("quorum".into(), json!(terms.quorum.max(1)));
    if payment.state == State::AwaitingApproval {
        let until = deadline(payment.created_at, &terms);
        object.insert("approve_until".into(), json!(shown(until)));
    }
}
