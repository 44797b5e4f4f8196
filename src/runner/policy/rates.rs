//! Asks the gateway for rates, while some limit needs them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Guard;
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::operation::Operation;
use crate::domain::policy::Policy;
use crate::gateway::{Client, Disposition, prepare};
use crate::runner::Context;

/// How often it is looked whether rates are needed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long after an answer that was no use rates are asked for again.
const PAUSE: Duration = Duration::from_secs(5);

/// Asks for rates whenever those known have used up a third of their time. Runs until it is
/// dropped.
pub(in crate::runner) async fn refresh(context: Arc<Context>) {
    let guard = Arc::clone(&context.policy);
    let mut last: Option<(Timestamp, BTreeSet<String>)> = None;
    loop {
        let policy = guard.policy();
        let wanted: BTreeSet<String> = policy.converts_to().into_iter().map(Into::into).collect();
        let now = context.clock.now();
        let fresh = last.as_ref().is_some_and(|(at, known)| {
            (now - *at).abs() < policy.rates_max_age / 3 && wanted.is_subset(known)
        });
        let mut pause = LOOK_EVERY;
        if !wanted.is_empty() && !fresh {
            match learn(&guard, &context.gateway, context.clock.as_ref(), &policy).await {
                Ok(()) => last = Some((now, wanted)),
                Err(reason) => {
                    context.telemetry.rates_not_learnt(&reason);
                    pause = PAUSE;
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks for the rates that a policy needs. Their age counts from before the question.
///
/// # Errors
/// What the gateway said instead, for the log.
pub(in crate::runner) async fn learn(
    guard: &Guard,
    gateway: &Client,
    clock: &dyn Clock,
    policy: &Policy,
) -> Result<(), String> {
    for currency in policy.converts_to() {
        let asked_at = clock.now();
        let arguments = json!({ "currency_to": currency });
        let mut failure = String::new();
        // The page about rates speaks of one pair at a time, the one about pairs, which answers
        // the same, does not.
        for operation in [Operation::ListRates, Operation::ListPairs] {
            let prepared = prepare(operation, &arguments).map_err(|mistakes| {
                let mistakes: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                mistakes.join("; ")
            })?;
            failure = match gateway.send(&prepared).await {
                Disposition::Accepted(answer) => {
                    if guard.counted().rates.learn(&answer, asked_at) > 0 {
                        failure.clear();
                        break;
                    }
                    format!("{operation} names no rate to {currency}")
                }
                Disposition::Rejected(rejection) => rejection.message,
                Disposition::NotSent { reason } | Disposition::Unknown { reason, .. } => {
                    return Err(reason);
                }
            };
        }
        if !failure.is_empty() {
            return Err(failure);
        }
    }
    Ok(())
}
