//! Whether the gateway answers. When it has not for some minutes, people are told, once; and once
//! more when it does again. Called once a second by the wake-up.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::TimeDelta;
use serde_json::{Map, json};

use super::Context;
use super::alerts::{Alert, raise};
use crate::domain::clock::{Timestamp, shown};
use crate::domain::operation::Operation;
use crate::gateway::prepare;
use crate::store::Changes;

/// How long no request must have been answered before people are told.
const TOLD_AFTER: TimeDelta = TimeDelta::minutes(3);

/// How often it is asked whether it answers again.
const PING_EVERY: TimeDelta = TimeDelta::minutes(1);

/// What is known of the gateway. Kept in memory: a restart finds out anew.
#[derive(Debug, Default)]
pub(super) struct Reachability(Mutex<Option<Failing>>);

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Timestamp,
    pinged_at: Timestamp,
    told: bool,
}

/// What there is to do.
enum ToDo {
    Nothing,
    Ping,
    Tell(&'static str, Timestamp),
}

/// Looks at how the last requests went.
pub(super) async fn look(context: &Arc<Context>) {
    match context
        .reachability
        .step(context.gateway.is_failing(), context.clock.now())
    {
        ToDo::Nothing => {}
        ToDo::Ping => {
            if let Ok(prepared) = prepare(Operation::Ping, &json!({})) {
                let context = Arc::clone(context);
                // The client takes note of how it went.
                tokio::spawn(async move { drop(context.gateway.send(&prepared).await) });
            }
        }
        ToDo::Tell(what, since) => tell(context, what, since).await,
    }
}

impl Reachability {
    fn step(&self, is_failing: bool, now: Timestamp) -> ToDo {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_failing {
            return match state.take() {
                Some(failing) if failing.told => ToDo::Tell("gateway_reachable", failing.since),
                Some(_) | None => ToDo::Nothing,
            };
        }
        let failing = state.get_or_insert(Failing {
            since: now,
            pinged_at: now,
            told: false,
        });
        if !failing.told && now - failing.since >= TOLD_AFTER {
            failing.told = true;
            return ToDo::Tell("gateway_unreachable", failing.since);
        }
        if (now - failing.pinged_at).abs() >= PING_EVERY {
            failing.pinged_at = now;
            return ToDo::Ping;
        }
        ToDo::Nothing
    }
}

async fn tell(context: &Context, what: &'static str, since: Timestamp) {
    let now = context.clock.now();
    let happening = context.waits.happening().await;
    let mut changes = Changes::new();
    let alert = Alert {
        what,
        about: format!(
            "{}:{}",
            since.timestamp_millis(),
            context.firings.next_order()
        ),
        at: now,
        cause: None,
        fields: Map::from_iter([("since".to_owned(), json!(shown(since)))]),
    };
    let started = raise(&context.firings, alert, &happening, &mut changes);
    match context.store.commit(changes).await {
        Ok(()) => {
            context.telemetry.gateway_reached(what, since);
            context.dispatcher.enqueue(started);
        }
        Err(error) => context.telemetry.not_remembered(&error),
    }
}
