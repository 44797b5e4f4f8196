//! What a suspended run waits for, and how an event is matched with those who wait for it.
//!
//! Decides nothing about when to look: `runner` asks.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clock::Timestamp;
use super::handler::{EventTrigger, at_path};
use super::id::{ForeignId, digest};
use super::money::decimal_from_json;
use super::payment::State;

/// What a suspended run waits for. Kept in its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// The step that is answered when the wait is over.
    pub step: u64,
    /// What ends it.
    pub on: WaitFor,
    /// When it ends at the latest. Fixed when the step is asked for the first time.
    pub deadline: Option<Timestamp>,
}

/// What ends a wait before its deadline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// Nothing: `sleep`.
    Time,
    /// Every one of some payments is final.
    Payments {
        /// The first one that was open when this was written. Those before it are final.
        watched: ForeignId,
        /// All of them, in the script's order.
        all: Payments,
    },
    /// An event has happened.
    Event {
        /// Which.
        trigger: EventTrigger,
        /// None has that was accepted at or before this place in the order of acceptance.
        searched: u64,
    },
    /// A batch is decided by people.
    Plan {
        /// Its key.
        plan: String,
    },
}

/// Payments that are waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payments {
    /// The keys.
    Here(Vec<ForeignId>),
    /// The content hash of the keys' JSON, when they are many.
    Beside(String),
}

/// What all waits of one place in a script have in common: which events they are about and which
/// paths of those they look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape {
    /// Pattern of the events' kinds.
    pub pattern: String,
    /// The paths as JSON, in order.
    pub paths: String,
}

impl Shape {
    /// The shape of a wait for such an event.
    #[must_use]
    pub fn of(event: &EventTrigger) -> Self {
        let paths: Vec<&String> = event.filter.keys().collect();
        Self {
            pattern: event.pattern.clone(),
            paths: serde_json::json!(paths).to_string(),
        }
    }

    /// Every pattern that matches events of that kind.
    #[must_use]
    pub fn patterns_for(kind: &str) -> BTreeSet<String> {
        let mut patterns = BTreeSet::from(["*".to_owned(), kind.to_owned()]);
        if let Some((type_, status)) = kind.split_once('.') {
            let starred = [
                format!("{type_}.*"),
                format!("*.{status}"),
                "*.*".to_owned(),
            ];
            patterns.extend(starred);
        }
        patterns
    }

    /// Digest of what an event holds at the paths; `None` if it lacks one of them. A wait of this
    /// shape matches the event if and only if its [`wanted`] is the same.
    #[must_use]
    pub fn found(&self, event: &Value) -> Option<String> {
        let paths: Vec<String> = serde_json::from_str(&self.paths).ok()?;
        let values: Option<Vec<String>> = paths
            .iter()
            .map(|path| at_path(event, path).map(canonical))
            .collect();
        Some(digest_of(&values?))
    }
}

/// Digest of the values that a wait for such an event wants at its paths.
#[must_use]
pub fn wanted(event: &EventTrigger) -> String {
    let values: Vec<String> = event.filter.values().map(canonical).collect();
    digest_of(&values)
}

fn digest_of(values: &[String]) -> String {
    let parts: Vec<&str> = values.iter().map(String::as_str).collect();
    digest(&parts)
}

/// Equal texts for equal values: `0.10` is `0.1`.
fn canonical(value: &Value) -> String {
    match decimal_from_json(value) {
        Ok(number) if value.is_number() => number.normalize().to_string(),
        Ok(_) | Err(_) => value.to_string(),
    }
}

/// Where a payment goes in the answer to a wait for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The money has arrived.
    Confirmed,
    /// It never will.
    Failed,
    /// Nobody knows yet.
    Open,
}

impl Settled {
    /// Where a payment in that state goes.
    #[must_use]
    pub const fn of(state: State) -> Self {
        if !state.is_final() {
            Self::Open
        } else if matches!(state, State::Confirmed) {
            Self::Confirmed
        } else {
            Self::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(pattern: &str, filter: Value) -> EventTrigger {
        EventTrigger {
            pattern: pattern.to_owned(),
            filter: serde_json::from_value(filter).unwrap(),
        }
    }

    #[test]
    fn a_wait_is_found_by_what_the_event_holds_at_its_paths() {
        let wait = event(
            "invoice.confirmed",
            json!({"foreign_id": "order-1", "currency.amount": 1}),
        );
        let shape = Shape::of(&wait);
        let exact: Value =
            serde_json::from_str(r#"{"foreign_id":"order-1","currency":{"amount":1.00}}"#).unwrap();
        assert_eq!(shape.found(&exact), Some(wanted(&wait)));
        let other = json!({"foreign_id": "order-2", "currency": {"amount": 1}});
        assert_ne!(shape.found(&other), Some(wanted(&wait)));
        assert_eq!(shape.found(&json!({"foreign_id": "order-1"})), None);
    }

    #[test]
    fn a_wait_without_conditions_takes_every_event_of_its_kind() {
        let wait = event("deposit.*", json!({}));
        assert_eq!(
            Shape::of(&wait).found(&json!({"a": 1})),
            Some(wanted(&wait))
        );
    }

    proptest! {
        #[test]
        fn the_patterns_for_a_kind_are_exactly_those_that_match_it(
            pattern in "[ab*]{0,1}([.][ab*]{0,1}){0,2}", kind in "[ab*]{0,1}([.][ab*]{0,1}){0,2}",
        ) {
            let matches = event(&pattern, json!({})).matches_kind(&kind);
            prop_assert_eq!(Shape::patterns_for(&kind).contains(&pattern), matches);
        }

        #[test]
        fn the_digest_matches_exactly_when_the_trigger_does(
            wanted_value in "[ab1]{0,2}", found_value in "[ab1]{0,2}", numeric: bool,
        ) {
            let as_value = |text: &str| match text.parse::<u8>() {
                Ok(number) if numeric => json!(number),
                _ => json!(text),
            };
            let wait = event("*", json!({"x.y": as_value(&wanted_value)}));
            let happened = json!({"x": {"y": as_value(&found_value)}});
            prop_assert_eq!(
                Shape::of(&wait).found(&happened) == Some(wanted(&wait)),
                wait.matches("any", &happened)
            );
        }
    }
}
