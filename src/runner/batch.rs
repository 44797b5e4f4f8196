//! `withdraw_all`: many payments as one step.
//!
//! Every row is checked before the first one is sent, and the mistakes of all rows are reported at
//! once. Each row is a payment of its own with a key of its own, so a batch that is torn by a crash
//! goes on where it stopped.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::failures::pay_stop;
use super::payments::{PayError, PaymentRequest, content, name_payment};
use super::world::World;
use crate::domain::id::ForeignId;
use crate::domain::operation::Operation;
use crate::domain::payment::Origin;
use crate::gateway::prepare;
use crate::scripting::effects::{Code, Failure, Interrupt, Stop};

/// Pays every row that [`check_all`] has found right. Answers the payments in the rows' order.
pub(super) fn pay_all(
    world: &World,
    requests: Vec<PaymentRequest>,
    concurrency: Option<usize>,
) -> Result<Value, Stop> {
    // The client keeps `max_in_flight` by itself. Twice as many rows are worked on, so that intents
    // and outcomes of some are written while the requests of others are under way.
    let at_once = concurrency
        .unwrap_or(world.context.max_in_flight.saturating_mul(2))
        .max(1);
    let rows = requests.len();
    let keys: Vec<_> = requests
        .iter()
        .map(|request| request.foreign_id.clone())
        .collect();
    let payments = world.context.payments.clone();
    // A task of its own: the script's deadline ends the waiting, never the payments.
    let task = world.context.tokio.spawn(async move {
        let gate = Arc::new(Semaphore::new(at_once));
        let mut tasks = JoinSet::new();
        for (row, request) in requests.into_iter().enumerate() {
            let Ok(place) = Arc::clone(&gate).acquire_owned().await else {
                break;
            };
            let payments = payments.clone();
            tasks.spawn(async move {
                // What the script is shown is made here, while others wait for the gateway, and not of
                // all rows once the last one is done.
                let paid = payments.pay(request).await.map(|payment| payment.view());
                drop(place);
                (row, paid)
            });
        }
        tasks.join_all().await
    });
    let Ok(outcomes) = world.wait(task)? else {
        return Err(Stop::Interrupt(Interrupt::Poisoned));
    };
    let mut paid: Vec<Option<Value>> = vec![None; rows];
    let mut unsent = Vec::new();
    for (row, outcome) in outcomes {
        match outcome {
            Ok(payment) => {
                if let Some(place) = paid.get_mut(row) {
                    *place = Some(payment);
                }
            }
            // One among many: the others may have been sent, so the script gets all of them.
            Err(PayError::Refused { .. }) => {
                let refused = keys.get(row).map(|key| world.context.payments.find(key));
                if let (Some(found), Some(place)) = (refused, paid.get_mut(row)) {
                    let found = found.map_err(|error| world.unreadable(&error))?;
                    *place = found.map(|payment| payment.view());
                }
            }
            Err(error @ (PayError::Unavailable(_) | PayError::Unauthorised(_))) => {
                unsent.push(error);
            }
            Err(error) => return Err(pay_stop(world, error)),
        }
    }
    if let Some(first) = unsent.first() {
        let text = format!(
            "{} of {rows} payments could not be sent: {first}",
            unsent.len()
        );
        return Err(Failure::new(Code::GatewayUnavailable, text).into());
    }
    Ok(paid.into_iter().flatten().collect())
}

/// Checks every row by itself, against the others, and against the payments there are. `keys` are
/// the rows' derived keys.
pub(super) fn check_all(
    world: &World,
    rows: Vec<Value>,
    keys: Vec<ForeignId>,
    origin: &Origin,
) -> Result<Vec<PaymentRequest>, Stop> {
    let batch = rows.len();
    let mut requests: Vec<PaymentRequest> = Vec::with_capacity(batch);
    let mut errors = Vec::new();
    let mut conflicts = Vec::new();
    let mut seen: HashMap<ForeignId, usize> = HashMap::new();
    for (row, (mut arguments, key)) in rows.into_iter().zip(keys).enumerate() {
        let mut wrong = |message: String| errors.push(json!({ "row": row, "message": message }));
        let named = name_payment(&mut arguments, key);
        let foreign_id = match named {
            Ok(foreign_id) => foreign_id,
            Err(error) => {
                wrong(error.to_string());
                continue;
            }
        };
        let prepared = match prepare(Operation::Withdraw, &arguments) {
            Ok(prepared) => prepared,
            Err(mistakes) => {
                for mistake in mistakes {
                    wrong(mistake.to_string());
                }
                continue;
            }
        };
        if let Some(other) = seen.insert(foreign_id.clone(), row) {
            wrong(format!(
                "has the same foreign_id as row {other}: `{foreign_id}`"
            ));
            continue;
        }
        let request = PaymentRequest {
            foreign_id,
            content: content(Operation::Withdraw, &prepared),
            origin: origin.clone(),
            batch,
            plan: None,
            approvals: Vec::new(),
        };
        let known = world
            .context
            .payments
            .find(&request.foreign_id)
            .map_err(|error| world.unreadable(&error))?;
        if let Some(difference) =
            known.and_then(|payment| payment.content.difference(&request.content))
        {
            let error = PayError::Conflict {
                foreign_id: request.foreign_id.clone(),
                difference,
            };
            conflicts.push(json!({ "row": row, "message": error.to_string() }));
        }
        requests.push(request);
    }
    let code = match (errors.is_empty(), conflicts.is_empty()) {
        (true, true) => return Ok(requests),
        (false, _) => Code::InvalidArgument,
        (true, false) => Code::Conflict,
    };
    errors.extend(conflicts);
    Err(refused(code, &errors).into())
}

/// All rows' mistakes in one error. Rows count from 0, as in the script's list.
pub(super) fn refused(code: Code, errors: &[Value]) -> Failure {
    let text: Vec<String> = errors
        .iter()
        .map(|error| {
            let message = error.get("message").and_then(Value::as_str).unwrap_or("");
            format!(
                "row {}: {message}",
                error.get("row").unwrap_or(&Value::Null)
            )
        })
        .collect();
    Failure {
        code,
        message: format!("nothing was sent; {}", text.join("; ")),
        details: json!({ "errors": errors }),
    }
}
