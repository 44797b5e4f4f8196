//! Batches that people approve as a whole before the first payment is sent.
//!
//! The step that asks for a batch drafts a plan, puts it into the store and lets its run wait for
//! the decision; when the run comes back, what it asks for is held against the plan row by row,
//! and only the same is paid, on the money path like everything else. People decide through the
//! [`Handle`](super::Handle).

mod deciding;
mod drafting;
mod foresight;
mod views;

use super::payments::PaymentRequest;
use super::suspension::Suspension;
use super::waits::Happening;
use super::world::{Progress, World};
use crate::domain::approval::{Approval, deadline};
use crate::domain::clock::Timestamp;
use crate::domain::idempotency;
use crate::domain::plan::{Contents, Plan, PlanState};
use crate::domain::wait::{Wait, WaitFor};
use crate::scripting::effects::{Code, Failure, Interrupt, Stop};
use crate::store::schema::{AWAITED, PLANS};
use crate::store::{Changes, CommitError, ReadError, Versioned};

pub(super) use deciding::expire;

/// The place among a step's rows from which its plan's key is derived: no row's own.
const PLACE: usize = usize::MAX;

impl World {
    /// The payments of a batch that may be made now. When its script or policy wants people to
    /// approve it, those they have approved, each with their approvals: drafts the plan when there
    /// is none yet, and suspends the run until it is decided.
    pub(super) fn approved(
        &self,
        progress: &mut Progress,
        step: u64,
        requests: Vec<PaymentRequest>,
        asked_by_script: bool,
    ) -> Result<Vec<PaymentRequest>, Stop> {
        let derived = idempotency::derive(self.position(progress, step, PLACE));
        let id = derived.as_str().replacen("bursar-", "batch-", 1);
        if requests.is_empty() {
            return Ok(requests);
        }
        if self.plan(&id)?.is_none() {
            if !asked_by_script && !self.policy_asks_people(&requests)? {
                return Ok(requests);
            }
            self.draft_plan(&id, &requests, asked_by_script)?;
        }
        // Nobody but this run makes a plan of that key, and none is ever removed.
        let Some(stored) = self.plan(&id)? else {
            return Err(Stop::Interrupt(Interrupt::Contended));
        };
        let drift = self.drift(&stored.value, &requests)?;
        let stored = match drift {
            Some(drift) => self.void(stored, &drift)?,
            None => stored,
        };
        match stored.value.state {
            PlanState::AwaitingApproval => {
                let on = WaitFor::Plan { plan: id };
                progress.suspension = Some(Suspension {
                    wait: Wait {
                        step,
                        on,
                        deadline: None,
                    },
                    watched: None,
                    plan: Some(Box::new(stored)),
                });
                Err(Stop::Interrupt(Interrupt::Suspended))
            }
            PlanState::Approved => Ok(with_approvals(&stored.value, requests)),
            PlanState::Rejected | PlanState::Expired | PlanState::Void => {
                Err(refused(&stored.value).into())
            }
        }
    }

    fn plan(&self, id: &String) -> Result<Option<Versioned<Plan>>, Stop> {
        let found = self.context.store.get_versioned(&PLANS, id);
        found.map_err(|error| self.unreadable(&error))
    }

    /// Where what is asked for differs from what is in the plan.
    fn drift(&self, plan: &Plan, requests: &[PaymentRequest]) -> Result<Option<String>, Stop> {
        let contents = match contents(&self.context, plan) {
            Ok(Some(contents)) => contents,
            Ok(None) => return Ok(Some("it is damaged in the store".to_owned())),
            Err(error) => return Err(self.unreadable(&error)),
        };
        let now = requests.iter();
        Ok(contents.drift(now.map(|request| (&request.foreign_id, &request.content))))
    }

    /// What is asked for is not what people were shown: nothing more of it is paid.
    fn void(&self, stored: Versioned<Plan>, drift: &str) -> Result<Versioned<Plan>, Stop> {
        let Some(state) = stored.value.state.decided(PlanState::Void) else {
            return Ok(stored);
        };
        let mut plan = stored.value.clone();
        plan.state = state;
        plan.reason = Some(format!("what is asked for is not what is in it: {drift}"));
        plan.decided_at = Some(self.context.clock.now());
        let mut changes = Changes::new();
        changes.require_unchanged(&PLANS, &plan.id, &stored);
        changes.put(&PLANS, &plan.id, &plan);
        changes.remove(&AWAITED, &row_of(&plan));
        self.commit(changes)?;
        self.context
            .telemetry
            .plan_decided(&plan, &plan.origin.handler.script);
        let voided = self.plan(&plan.id)?;
        voided.ok_or(Stop::Interrupt(Interrupt::Contended))
    }
}

/// The payments, each with the approvals of its plan, which bind its very content.
fn with_approvals(plan: &Plan, mut requests: Vec<PaymentRequest>) -> Vec<PaymentRequest> {
    for request in &mut requests {
        let fingerprint = request.content.fingerprint();
        let of_this = |approval: &Approval| Approval {
            fingerprint: fingerprint.clone(),
            ..approval.clone()
        };
        let given = plan.approvals.iter();
        let given = given.filter(|approval| approval.fingerprint == plan.hash);
        request.approvals = given.map(of_this).collect();
        request.plan = Some(plan.id.clone());
    }
    requests
}

/// Why a batch is not paid, as its script gets it.
fn refused(plan: &Plan) -> Failure {
    let reason = plan.reason.clone().unwrap_or_default();
    Failure {
        code: Code::PolicyRefused,
        message: format!(
            "the batch `{}` is {}: {reason}",
            plan.id,
            plan.state.as_str()
        ),
        details: serde_json::json!({ "batch": plan.id, "by": reason }),
    }
}

/// What is in a plan; `None` when that is not what its hash says.
fn contents(context: &super::Context, plan: &Plan) -> Result<Option<Contents>, ReadError> {
    let json = context.read_json(&plan.contents)?;
    let contents: Option<Contents> = serde_json::from_value(json).ok();
    let hash = |contents: &Contents| contents.hash().ok();
    Ok(contents.filter(|contents| hash(contents).as_ref() == Some(&plan.hash)))
}

/// The row of the plan's deadline.
fn row_of(plan: &Plan) -> (Timestamp, String) {
    let until = deadline(plan.created_at, &plan.terms);
    (until, format!("batch:{}", plan.id))
}

/// Adds a plan with a decision, and what that may be news of.
fn put(changes: &mut Changes, stored: &Versioned<Plan>, plan: &Plan, happening: &Happening<'_>) {
    changes.require_unchanged(&PLANS, &plan.id, stored);
    changes.put(&PLANS, &plan.id, plan);
    if plan.state != PlanState::AwaitingApproval {
        changes.remove(&AWAITED, &row_of(plan));
        happening.plan(&plan.id, changes);
    }
}

/// Whether a commit was made, or must be tried again with what there is now.
fn is_made(committed: Result<(), CommitError>) -> Result<bool, CommitError> {
    match committed {
        Ok(()) => Ok(true),
        Err(CommitError::Refused) => Ok(false),
        Err(error @ (CommitError::Unstorable { .. } | CommitError::Poisoned)) => Err(error),
    }
}
