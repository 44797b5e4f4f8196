//! When the daemon last ran, and what an outage has cost.
//!
//! The gateway sends a callback again for a day and then gives it up. After an outage that was
//! longer, callbacks are lost: the ends of our payments are found by look-ups, and everything else
//! that came in meanwhile cannot be asked for. The report says both. Called by the sweep after its
//! first round, and once a second by the wake-up.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::Context;
use super::alerts::{Alert, raise};
use crate::domain::clock::{Timestamp, shown};
use crate::domain::id::ForeignId;
use crate::domain::payment::Payment;
use crate::store::schema::HEARTBEAT;
use crate::store::{Changes, ReadError};

/// How long the gateway goes on sending a callback: twelve further times, 1, 5, 15, 30, 60, 90, 120,
/// 180 and four times 240 minutes apart (its page about callbacks, 2026).
const RETRY_HORIZON: TimeDelta = TimeDelta::minutes(24 * 60 + 21);

/// How coarse the memory of the last run is.
const BEAT: TimeDelta = TimeDelta::minutes(1);

/// The most payments that the report names.
const NAMED: usize = 100;

/// What nobody can find out.
const NOT_KNOWN: &str = "deposits, invoices, payment requests and exchanges without an id that came in or ended meanwhile: the gateway's API cannot list them; compare its dashboard";

/// What is found out about the payments that were open at a start.
#[derive(Debug)]
pub(super) struct FirstRound {
    /// Since when the daemon was down, when that was longer than callbacks are sent again.
    since: Option<Timestamp>,
    until: Timestamp,
    open: usize,
    waiting: BTreeSet<ForeignId>,
    ended: Vec<(ForeignId, &'static str)>,
    unanswered: usize,
}

impl FirstRound {
    /// The round after this start; `None` when the store cannot say when the daemon last ran.
    pub(super) fn of(context: &Context, open: Vec<ForeignId>) -> Option<Self> {
        let last = last(context)
            .inspect_err(|error| context.telemetry.store_unreadable(error))
            .ok()?;
        let until = context.clock.now();
        Some(Self {
            since: last.filter(|last| until - *last > RETRY_HORIZON),
            until,
            open: open.len(),
            waiting: open.into_iter().collect(),
            ended: Vec::new(),
            unanswered: 0,
        })
    }

    /// Takes note of what became of the first question about a payment.
    pub(super) fn answered(&mut self, id: &ForeignId, payment: Option<&Payment>, is_answer: bool) {
        if !self.waiting.remove(id) {
            return;
        }
        self.unanswered += usize::from(!is_answer);
        if let Some(payment) = payment
            && payment.state.is_final()
        {
            self.ended.push((id.clone(), payment.state.as_str()));
        }
    }

    /// Whether every payment has been asked about.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Reports a gap, if there was one, and begins to remember that the daemon runs: in one commit,
    /// so that a report is not lost with a crash before it.
    pub(super) async fn report(self, context: &Context) {
        let happening = context.waits.happening().await;
        let mut changes = Changes::new();
        changes.put(&HEARTBEAT, &String::new(), &context.clock.now());
        let started = self.since.map(|since| {
            let alert = Alert {
                what: "gap",
                about: format!(
                    "{}:{}",
                    since.timestamp_millis(),
                    context.firings.next_order()
                ),
                at: self.until,
                cause: None,
                fields: self.fields(since),
            };
            raise(&context.firings, alert, &happening, &mut changes)
        });
        match context.store.commit(changes).await {
            Ok(()) => {
                if let Some(since) = self.since {
                    let (ended, open) = (self.ended.len(), self.open);
                    context.telemetry.gap(
                        (since, self.until),
                        (ended, open, self.unanswered),
                        NOT_KNOWN,
                    );
                }
                context.dispatcher.enqueue(started.unwrap_or_default());
                context
                    .reported
                    .store(true, std::sync::atomic::Ordering::SeqCst);
            }
            Err(error) => context.telemetry.not_remembered(&error),
        }
    }

    fn fields(&self, since: Timestamp) -> Map<String, Value> {
        let named: Vec<Value> = self
            .ended
            .iter()
            .take(NAMED)
            .map(|(id, status)| json!({"foreign_id": id, "status": status}))
            .collect();
        Map::from_iter([
            ("from".to_owned(), json!(shown(since))),
            ("to".to_owned(), json!(shown(self.until))),
            ("open".to_owned(), json!(self.open)),
            ("ended".to_owned(), json!(self.ended.len())),
            ("payments".to_owned(), Value::Array(named)),
            ("unanswered".to_owned(), json!(self.unanswered)),
            ("not_known".to_owned(), json!(NOT_KNOWN)),
        ])
    }
}

/// When the daemon last noted that it ran.
fn last(context: &Context) -> Result<Option<Timestamp>, ReadError> {
    context.store.get(&HEARTBEAT, &String::new())
}

/// Notes that the daemon runs, at most once a minute, and not before the outage before this start
/// has been reported. On disk when this returns.
pub(super) async fn beat(context: &Context) {
    if !context.reported.load(std::sync::atomic::Ordering::SeqCst) {
        return;
    }
    let now = context.clock.now();
    let is_due = match last(context) {
        Ok(last) => last.is_none_or(|last| (now - last).abs() >= BEAT),
        Err(error) => {
            context.telemetry.store_unreadable(&error);
            return;
        }
    };
    if is_due {
        let mut changes = Changes::new();
        changes.put(&HEARTBEAT, &String::new(), &now);
        if let Err(error) = context.store.commit(changes).await {
            context.telemetry.not_remembered(&error);
        }
    }
}
