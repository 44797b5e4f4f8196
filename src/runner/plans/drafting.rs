//! Makes a plan of what a script asks for: one look at the gateway's currencies and balances, one
//! at the past, and one commit. Nothing is sent.

use serde_json::{Map, Value, json};

use super::row_of;
use crate::domain::clock::Timestamp;
use crate::domain::operation::Operation;
use crate::domain::payment::{Payment, State};
use crate::domain::plan::{Asked, Contents, Market, Plan, PlanState, draft};
use crate::runner::alerts::{Alert, raise};
use crate::runner::batch::refused;
use crate::runner::payments::PaymentRequest;
use crate::runner::world::World;
use crate::scripting::effects::{Code, Failure, Stop};
use crate::store::schema::{
    AWAITED, Awaited, Mark, PAYMENTS, PAYMENTS_BY_ADDRESS, PLANS, PLANS_BY_TIME,
};
use crate::store::{Changes, Order, Range, ReadError};

/// How far back a payment of the same amount to the same address is worth a warning.
const LATELY: chrono::TimeDelta = chrono::TimeDelta::days(7);

/// The most earlier payments to one address that are looked at, the newest first.
const MOST_EARLIER: usize = 100;

impl World {
    /// Drafts the plan of that key. On disk, with its alert, when this returns.
    pub(super) fn draft_plan(
        &self,
        id: &str,
        requests: &[PaymentRequest],
        asked_by_script: bool,
    ) -> Result<(), Stop> {
        let currencies = self.ask_for_list(Operation::ListCurrencies)?;
        let accounts = self.ask_for_list(Operation::ListAccounts)?;
        let market = Market::new(&currencies, &accounts);
        let now = self.context.clock.now();
        let asked: Result<Vec<Asked>, ReadError> = requests
            .iter()
            .map(|request| self.remembered(request, now))
            .collect();
        let asked = asked.map_err(|error| self.unreadable(&error))?;
        let mut contents = draft(id.to_owned(), &asked, &market).map_err(|mistakes| {
            let mistakes: Vec<Value> = mistakes
                .iter()
                .map(|mistake| json!({"row": mistake.row, "message": mistake.message}))
                .collect();
            refused(Code::InvalidArgument, &mistakes)
        })?;
        let foreseen = self.foreseen(requests)?;
        contents.limits.clone_from(&foreseen.limits);
        let unwritable =
            |error: serde_json::Error| Failure::new(Code::InvalidArgument, error.to_string());
        let hash = contents.hash().map_err(unwritable)?;
        let json = serde_json::to_value(&contents).map_err(unwritable)?;
        // Of any length: a plan is too large for a record.
        let Some(kept) = self.keep_long(&json, 0)? else {
            return Err(Failure::new(Code::InvalidArgument, "an empty batch").into());
        };
        let Some(origin) = requests.first().map(|request| request.origin.clone()) else {
            return Err(Failure::new(Code::InvalidArgument, "an empty batch").into());
        };
        let plan = Plan {
            id: id.to_owned(),
            hash,
            contents: kept,
            rows: contents.rows.len(),
            amounts: amounts(&contents),
            terms: foreseen.terms(asked_by_script),
            state: PlanState::AwaitingApproval,
            approvals: Vec::new(),
            origin,
            created_at: now,
            decided_at: None,
            reason: None,
        };
        self.put_plan(&plan, contents.warnings.len())
    }

    fn put_plan(&self, plan: &Plan, warnings: usize) -> Result<(), Stop> {
        let context = &self.context;
        let mut changes = Changes::new();
        changes.require_absent(&PLANS, &plan.id);
        changes.put(&PLANS, &plan.id, plan);
        let place = (plan.created_at, plan.id.clone());
        changes.put(&PLANS_BY_TIME, &place, &Mark);
        changes.put(&AWAITED, &row_of(plan), &Awaited::Plan(plan.id.clone()));
        let happening = context.waits.happening_here();
        let mut fields = about(plan);
        fields.insert("warnings".into(), json!(warnings));
        let alert = Alert {
            what: "approval_needed",
            about: plan.id.clone(),
            at: plan.created_at,
            cause: None,
            fields,
        };
        let alerted = raise(&context.firings, alert, &happening, &mut changes);
        self.commit(changes)?;
        drop(happening);
        context.dispatcher.enqueue(alerted);
        context.telemetry.plan_made(plan);
        Ok(())
    }

    /// A list of the gateway's. Whatever keeps it from being had: nothing is sent.
    fn ask_for_list(&self, operation: Operation) -> Result<Value, Stop> {
        self.ask_gateway(operation, &json!({}))
            .map_err(|stop| match stop {
                Stop::Failure(failure) => {
                    let text = format!(
                        "nothing was sent: the batch cannot be checked without `{operation}`: {}",
                        failure.message
                    );
                    Failure::new(Code::GatewayUnavailable, text).into()
                }
                Stop::Interrupt(interrupt) => Stop::Interrupt(interrupt),
            })
    }

    /// A payment that is asked for, with what the store remembers of its key and its address.
    fn remembered(&self, request: &PaymentRequest, now: Timestamp) -> Result<Asked, ReadError> {
        let store = &self.context.store;
        let known = store.get(&PAYMENTS, &request.foreign_id)?;
        let fields = request.content.fields();
        let mut asked = Asked {
            foreign_id: request.foreign_id.clone(),
            content: request.content.clone(),
            known: known.map(|payment| payment.state.to_string()),
            paid_before: false,
            same_lately: None,
        };
        let Some(address) = fields.get("address").and_then(Value::as_str) else {
            return Ok(asked);
        };
        let range = Range::within(&address.to_owned());
        let rows = store.keys(
            &PAYMENTS_BY_ADDRESS,
            &range,
            MOST_EARLIER,
            Order::Descending,
        )?;
        for (_, at, id) in rows {
            let Some(earlier) = store.get(&PAYMENTS, &id)? else {
                continue;
            };
            if !may_have_been_paid(earlier.state) || id == request.foreign_id {
                continue;
            }
            asked.paid_before = true;
            if now - at <= LATELY && has_same_goal(&earlier, fields) {
                asked.same_lately = Some(format!("`{id}` of {}", at.format("%Y-%m-%d")));
                break;
            }
        }
        Ok(asked)
    }
}

/// Whether money may have gone there.
const fn may_have_been_paid(state: State) -> bool {
    match state {
        State::Planned | State::Declined | State::Cancelled | State::Rejected | State::Refused => {
            false
        }
        State::AwaitingApproval
        | State::Intended
        | State::Sending
        | State::Accepted
        | State::Pending
        | State::Confirmed
        | State::Unknown
        | State::Held => true,
    }
}

fn has_same_goal(earlier: &Payment, fields: &Value) -> bool {
    let before = earlier.content.fields();
    ["currency", "amount", "convert_to", "amount_to", "tag"]
        .iter()
        .all(|name| before.get(name) == fields.get(name))
}

/// `0.3 BTC`, for each currency.
fn amounts(contents: &Contents) -> Vec<String> {
    let totals = contents.totals.iter();
    totals
        .map(|total| format!("{} {}", total.amount, total.currency))
        .collect()
}

/// What belongs to an alert about a plan.
pub(super) fn about(plan: &Plan) -> Map<String, Value> {
    Map::from_iter([
        ("batch".to_owned(), json!(plan.id)),
        ("hash".to_owned(), json!(plan.hash)),
        ("status".to_owned(), json!(plan.state.as_str())),
        ("rows".to_owned(), json!(plan.rows)),
        ("amounts".to_owned(), json!(plan.amounts)),
        ("script".to_owned(), json!(plan.origin.handler.script)),
        ("handler".to_owned(), json!(plan.origin.handler.name)),
        ("run".to_owned(), json!(plan.origin.run)),
        ("reason".to_owned(), json!(plan.reason)),
    ])
}
