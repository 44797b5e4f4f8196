//! `withdraw_all`: many payments as one step.
//!
//! Every row is checked before the first one is sent, and the mistakes of all rows are reported at
//! once. Each row is a payment of its own with a key of its own, so a batch that is torn by a crash
//! goes on where it stopped.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::failures::pay_stop;
use super::payments::{PayError, PaymentRequest, content, name_payment};
use super::world::World;
use crate::domain::id::ForeignId;
use crate::domain::operation::Operation;
use crate::domain::payment::Origin;
use crate::gateway::{ArgumentError, prepare};
use crate::scripting::effects::{Code, Failure, Interrupt, Stop};
use crate::store::ReadError;

/// Rows that are not worth a thread of their own.
const FEW_ROWS: usize = 64;

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

/// Checks every row by itself, against the others, and against the payments there are. `key` derives
/// the key of a row that brings none.
pub(super) fn check_all(
    world: &World,
    rows: Vec<Value>,
    key: impl Fn(usize) -> ForeignId + Sync,
    origin: &Origin,
) -> Result<Vec<PaymentRequest>, Stop> {
    let batch = rows.len();
    let payments = &world.context.payments;
    let checked = in_parallel(rows, |row, arguments| {
        let request = match request(arguments, || key(row), origin, batch) {
            Ok(request) => request,
            Err(mistakes) => return Ok(Err(mistakes)),
        };
        let known = payments.find(&request.foreign_id)?;
        let differs = known.and_then(|payment| payment.content.difference(&request.content));
        Ok(Ok((request, differs)))
    });
    let mut requests: Vec<PaymentRequest> = Vec::with_capacity(batch);
    let mut errors = Vec::new();
    let mut conflicts = Vec::new();
    let mut seen: HashMap<ForeignId, usize> = HashMap::new();
    for (row, checked) in checked.into_iter().enumerate() {
        let mut wrong = |message: String| errors.push(json!({ "row": row, "message": message }));
        let (request, differs) = match checked.map_err(|error| world.unreadable(&error))? {
            Ok(right) => right,
            Err(mistakes) => {
                for mistake in mistakes {
                    wrong(mistake.to_string());
                }
                continue;
            }
        };
        let foreign_id = request.foreign_id.clone();
        if let Some(other) = seen.insert(foreign_id.clone(), row) {
            wrong(format!(
                "has the same foreign_id as row {other}: `{foreign_id}`"
            ));
            continue;
        }
        if let Some(difference) = differs {
            let error = PayError::Conflict {
                foreign_id,
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

/// What one row of `batch` asks for.
fn request(
    mut arguments: Value,
    derive: impl FnOnce() -> ForeignId,
    origin: &Origin,
    batch: usize,
) -> Result<PaymentRequest, Vec<ArgumentError>> {
    let foreign_id = name_payment(&mut arguments, derive).map_err(|error| vec![error])?;
    let prepared = prepare(Operation::Withdraw, &arguments)?;
    Ok(PaymentRequest {
        foreign_id,
        content: content(Operation::Withdraw, &prepared),
        origin: origin.clone(),
        batch,
        plan: None,
        approvals: Vec::new(),
    })
}

/// What `check` makes of every row, in the rows' order. Nothing leaves before all of them are done, so
/// all processors work on many.
fn in_parallel<T: Send>(
    mut rows: Vec<Value>,
    check: impl Fn(usize, Value) -> Result<T, ReadError> + Sync,
) -> Vec<Result<T, ReadError>> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    let part = rows.len().div_ceil(processors).max(FEW_ROWS);
    let mut parts = Vec::new();
    while !rows.is_empty() {
        let rest = rows.split_off(part.min(rows.len()));
        parts.push(std::mem::replace(&mut rows, rest));
    }
    let check = &check;
    let checked = |(number, rows): (usize, Vec<Value>)| -> Vec<_> {
        let numbers = number * part..;
        let numbered = numbers.zip(rows);
        numbered.map(|(row, values)| check(row, values)).collect()
    };
    let mut parts = parts.into_iter().enumerate();
    let first = parts.next();
    std::thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|part| scope.spawn(move || checked(part)))
            .collect();
        let mut all = first.map(checked).unwrap_or_default();
        for other in others {
            let other = other.join();
            all.extend(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    })
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
