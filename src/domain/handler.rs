//! What a script registers: a handler, and what starts it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::id::HandlerId;
use super::schedule::Schedule;

/// One registered handler, without its code.
#[derive(Debug, Clone)]
pub struct Handler {
    /// Its identity for ever.
    pub id: HandlerId,
    /// What starts it.
    pub trigger: Trigger,
    /// How it is retried.
    pub retry: Retry,
    /// The most wall-clock time one execution may take; `None` means the daemon's default.
    pub timeout: Option<Duration>,
    /// Line of the registration in the script, from 1.
    pub line: usize,
}

/// What can start a handler.
#[derive(Debug, Clone)]
pub enum Trigger {
    /// `schedule(…)`
    Schedule(ScheduleTrigger),
    /// `on(…)`
    Event(EventTrigger),
}

/// A schedule and how it treats slots it could not run in time.
#[derive(Debug, Clone)]
pub struct ScheduleTrigger {
    /// The cron expression in its zone.
    pub schedule: Schedule,
    /// What happens to slots that passed while nothing could fire them.
    pub missed: Missed,
    /// What happens to a slot that comes due while the run before it has not ended.
    pub overlap: Overlap,
    /// The most a firing is put off; the actual delay is derived from handler and slot.
    pub jitter: Duration,
}

/// What to do with slots that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missed {
    /// Record them as skipped (the default).
    #[default]
    Skip,
    /// Run the latest of them, record the others as skipped.
    Last,
    /// Run every one of them, oldest first.
    All,
}

/// What to do with a slot that comes due while the previous run has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// Record it as skipped (the default).
    #[default]
    Skip,
    /// Start it when the run before it has ended.
    Queue,
    /// Start it at once.
    Allow,
}

/// Which events start a handler, or end a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventTrigger {
    /// `type.status` with `*` for either part, `*` for everything, or a custom event's name.
    pub pattern: String,
    /// Exact matches on dotted paths of the event; all must hold.
    pub filter: BTreeMap<String, Value>,
}

/// How a handler's run is tried again after an error of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first included.
    pub attempts: u32,
    /// Delay before the second try; doubled for each further one.
    pub first: Duration,
    /// The longest delay.
    pub max: Duration,
}

impl Default for Retry {
    /// Eight tries over about an hour.
    fn default() -> Self {
        Self {
            attempts: 8,
            first: Duration::from_secs(15),
            max: Duration::from_mins(30),
        }
    }
}

impl EventTrigger {
    /// Whether events of this kind can start the handler at all.
    #[must_use]
    pub fn matches_kind(&self, kind: &str) -> bool {
        pattern_matches(&self.pattern, kind)
    }

    /// Whether an event of this kind with this content starts the handler.
    #[must_use]
    pub fn matches(&self, kind: &str, event: &Value) -> bool {
        self.matches_kind(kind) && self.accepts(|| event)
    }

    /// Whether the content is what the handler wants; asked for only if it wants anything.
    #[must_use]
    pub fn accepts<'a>(&self, event: impl FnOnce() -> &'a Value) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        let event = event();
        self.filter
            .iter()
            .all(|(path, expected)| at_path(event, path).is_some_and(|found| same(found, expected)))
    }
}

fn pattern_matches(pattern: &str, kind: &str) -> bool {
    if pattern == "*" || pattern == kind {
        return true;
    }
    match (pattern.split_once('.'), kind.split_once('.')) {
        (Some((left, right)), Some((type_, status))) => {
            (left == "*" || left == type_) && (right == "*" || right == status)
        }
        (None, _) | (_, None) => false,
    }
}

/// What an event holds at a dotted path.
pub(super) fn at_path<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(event, |value, key| match key.parse::<usize>() {
            Ok(index) if value.is_array() => value.get(index),
            Ok(_) | Err(_) => value.get(key),
        })
}

/// Equal, where numbers are equal when their values are: `0.10` is `0.1`.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => {
            let exact = |value| super::money::decimal_from_json(value).ok();
            exact(left).is_some() && exact(left) == exact(right)
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trigger(pattern: &str, filter: &[(&str, Value)]) -> EventTrigger {
        EventTrigger {
            pattern: pattern.to_owned(),
            filter: filter
                .iter()
                .map(|(path, value)| ((*path).to_owned(), value.clone()))
                .collect(),
        }
    }

    #[test]
    fn a_star_stands_for_either_part_or_for_everything() {
        for (pattern, kind, expected) in [
            ("withdrawal.confirmed", "withdrawal.confirmed", true),
            (
                "withdrawal.confirmed",
                "withdrawal_exchange.confirmed",
                false,
            ),
            ("withdrawal.*", "withdrawal.cancelled", true),
            ("*.confirmed", "deposit.confirmed", true),
            ("*.confirmed", "deposit.cancelled", false),
            ("*", "anything.at_all", true),
            ("*", "unreadable", true),
            ("stock_low", "stock_low", true),
            ("stock_low", "stock_low.x", false),
        ] {
            assert_eq!(
                trigger(pattern, &[]).matches(kind, &json!({})),
                expected,
                "{pattern} against {kind}"
            );
        }
    }

    #[test]
    fn every_filter_must_match_exactly() {
        let event = json!({"crypto_address": {"currency": "BTC", "tag": null}, "list": [{"n": 1}]});
        let matches = |filter: &[(&str, Value)]| trigger("*", filter).matches("a.b", &event);
        assert!(matches(&[("crypto_address.currency", json!("BTC"))]));
        assert!(matches(&[("crypto_address.tag", Value::Null)]));
        assert!(matches(&[("list.0.n", json!(1))]));
        assert!(!matches(&[("crypto_address.currency", json!("ETH"))]));
        assert!(!matches(&[("crypto_address.missing", Value::Null)]));
        let exact: Value = serde_json::from_str("1.0").unwrap();
        assert!(matches(&[("list.0.n", exact)]));
    }
}
