//! People decide about a batch: approve it by its hash, reject it, or let its time run out. Each
//! decision is one commit with the news for the run that waits.

use serde_json::{Value, json};

use super::drafting::about;
use super::{contents, is_made, put, row_of};
use crate::domain::approval::{Approval, deadline, is_enough, standing};
use crate::domain::clock::{Timestamp, shown};
use crate::domain::plan::{Plan, PlanState};
use crate::domain::run::RunState;
use crate::runner::Context;
use crate::runner::alerts::{Alert, raise};
use crate::runner::approvals::{Given, NotDecided};
use crate::runner::handle::Handle;
use crate::runner::ticket::Started;
use crate::runner::unwritten;
use crate::store::schema::{AWAITED, PLANS};
use crate::store::{Changes, Versioned};

impl Handle {
    /// Approves of a batch's very contents, by their hash. On disk when this returns; with the last
    /// approval that is needed the run that asks goes on and pays. The future must not be dropped
    /// early.
    ///
    /// # Errors
    /// See [`NotDecided`].
    pub async fn approve_batch(&self, id: &str, by: &str, hash: &str) -> Result<Value, NotDecided> {
        let context = &self.context;
        loop {
            let stored = find(context, id)?;
            let mut plan = stored.value.clone();
            is_awaited(&plan, "approve")?;
            still_asks(context, &plan)?;
            let now = context.clock.now();
            let until = deadline(plan.created_at, &plan.terms);
            if until <= now {
                expire(context, id, until).await?;
                continue;
            }
            if hash != plan.hash {
                return Err(NotDecided::OtherHash {
                    what: "the batch",
                    id: id.to_owned(),
                    is: plan.hash,
                    given: hash.to_owned(),
                });
            }
            if contents(context, &plan)?.is_none() {
                return Err(too_late(
                    &plan,
                    "it is damaged in the store and cannot be approved",
                ));
            }
            let again = standing(&plan.approvals, hash, None).contains(by);
            if !again {
                plan.approvals.push(Approval {
                    by: by.to_owned(),
                    at: now,
                    fingerprint: hash.to_owned(),
                });
            }
            let people = standing(&plan.approvals, hash, None).len();
            let given = Given {
                people,
                quorum: plan.terms.quorum,
                again,
                enough: is_enough(&plan.terms, people),
            };
            if given.enough && !again {
                plan.state = PlanState::Approved;
                plan.decided_at = Some(now);
            }
            if again || replace(context, &stored, &plan, None).await? {
                let note = given.note(by, &format!("the batch `{id}`"));
                let state = plan.state.as_str();
                return Ok(json!({"batch": id, "status": state, "changed": !again, "note": note}));
            }
        }
    }

    /// Refuses a batch for good: none of it is paid. On disk when this returns; the run that asks
    /// goes on with an error. The future must not be dropped early.
    ///
    /// # Errors
    /// See [`NotDecided`].
    pub async fn reject_batch(
        &self,
        id: &str,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Value, NotDecided> {
        let context = &self.context;
        loop {
            let stored = find(context, id)?;
            let mut plan = stored.value.clone();
            is_awaited(&plan, "reject")?;
            plan.state = PlanState::Rejected;
            plan.decided_at = Some(context.clock.now());
            let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            plan.reason = Some(format!("rejected by {by}{why}"));
            if replace(context, &stored, &plan, None).await? {
                let note = format!("the batch `{id}` is rejected, and none of it is paid");
                let state = plan.state.as_str();
                return Ok(json!({"batch": id, "status": state, "changed": true, "note": note}));
            }
        }
    }
}

/// Refuses a batch that nobody has approved in time, with an alert. `row` is the deadline under
/// which it was found.
pub(in crate::runner) async fn expire(
    context: &Context,
    id: &str,
    row: Timestamp,
) -> Result<(), NotDecided> {
    loop {
        let stored = find(context, id)?;
        let mut plan = stored.value.clone();
        if plan.state != PlanState::AwaitingApproval {
            let mut changes = Changes::new();
            changes.remove(&AWAITED, &(row, row_of(&plan).1));
            return Ok(context.store.commit(changes).await?);
        }
        let people = standing(&plan.approvals, &plan.hash, None).len();
        plan.state = PlanState::Expired;
        plan.decided_at = Some(context.clock.now());
        plan.reason = Some(format!(
            "nobody decided in time: {people} of {} approvals until {}",
            plan.terms.quorum.max(1),
            shown(row)
        ));
        if replace(context, &stored, &plan, Some("approval_expired")).await? {
            return Ok(());
        }
    }
}

fn find(context: &Context, id: &str) -> Result<Versioned<Plan>, NotDecided> {
    let stored = context.store.get_versioned(&PLANS, &id.to_owned())?;
    stored.ok_or_else(|| NotDecided::NotFound {
        what: "batch",
        id: id.to_owned(),
    })
}

fn is_awaited(plan: &Plan, to: &str) -> Result<(), NotDecided> {
    match plan.state {
        PlanState::AwaitingApproval => Ok(()),
        PlanState::Approved | PlanState::Rejected | PlanState::Expired | PlanState::Void => {
            Err(too_late(plan, &format!("there is nothing to {to}")))
        }
    }
}

/// Whether somebody would still pay it.
fn still_asks(context: &Context, plan: &Plan) -> Result<(), NotDecided> {
    let found = unwritten::find(context, plan.origin.run)?;
    let state = found.map(|found| found.run.state);
    match state {
        Some(RunState::Succeeded | RunState::Cancelled) | None => Err(too_late(
            plan,
            "the run that asked for it has ended, and nobody would pay it",
        )),
        Some(
            RunState::Queued
            | RunState::Running
            | RunState::Waiting
            | RunState::Retrying
            | RunState::Parked,
        ) => Ok(()),
    }
}

fn too_late(plan: &Plan, why: &str) -> NotDecided {
    let people: Vec<&str> = standing(&plan.approvals, &plan.hash, None)
        .into_iter()
        .collect();
    let decided = match (&plan.reason, people.as_slice()) {
        (Some(reason), _) => format!(" ({reason})"),
        (None, []) => String::new(),
        (None, people) => format!(" (approved by {})", people.join(", ")),
    };
    NotDecided::TooLate {
        what: "the batch",
        id: plan.id.clone(),
        state: plan.state.as_str().to_owned(),
        why: format!("{why}{decided}"),
    }
}

/// Writes a decision, with an alert if there is one; false when somebody else has changed the plan
/// meanwhile.
async fn replace(
    context: &Context,
    stored: &Versioned<Plan>,
    plan: &Plan,
    alert: Option<&'static str>,
) -> Result<bool, NotDecided> {
    let mut changes = Changes::new();
    let happening = context.waits.happening().await;
    put(&mut changes, stored, plan, &happening);
    let alerted = alert.map_or_else(Started::default, |what| {
        let alert = Alert {
            what,
            about: plan.id.clone(),
            at: context.clock.now(),
            cause: None,
            fields: about(plan),
        };
        raise(&context.firings, alert, &happening, &mut changes)
    });
    if !is_made(context.store.commit(changes).await)? {
        return Ok(false);
    }
    drop(happening);
    context.dispatcher.enqueue(alerted);
    let last = plan.approvals.last();
    let by = last.map_or("", |approval| approval.by.as_str());
    context.telemetry.plan_decided(plan, by);
    Ok(true)
}
