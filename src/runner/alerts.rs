//! Alerts: what people ought to know becomes a durable event of the daemon's own, in the commit
//! that records what it is about.
//!
//! An alert is a custom event of the kind `alert.<what>`: scripts handle it with
//! `on("alert.slot_skipped", …)` or `on("alert.*", …)`, and `on("*")` gets it like every other
//! event. Its value is a map with `kind` and `received_at` besides what belongs to the alert.
//! Nothing is sent from here: that is the handlers' part.

use serde_json::{Map, Value, json};

use super::firings::Firings;
use super::ticket::Started;
use super::waits::Happening;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::payment::Payment;
use crate::store::Changes;

/// What the kind of every alert begins with.
const FAMILY: &str = "alert.";

/// Something that people ought to know.
#[derive(Debug)]
pub(super) struct Alert<'a> {
    /// The second part of its kind.
    pub(super) what: &'static str,
    /// What it is about; the same alert about the same is one event for ever.
    pub(super) about: String,
    /// When it was noticed.
    pub(super) at: Timestamp,
    /// The kind of the event in whose handling it arose.
    pub(super) cause: Option<&'a str>,
    /// What belongs to it.
    pub(super) fields: Map<String, Value>,
}

/// Adds the alert with the runs it starts. An alert that arises in the handling of an alert is
/// left out, or one broken handler of alerts would alert itself for ever.
pub(super) fn raise(
    firings: &Firings,
    alert: Alert<'_>,
    happening: &Happening<'_>,
    changes: &mut Changes,
) -> Started {
    if alert.cause.is_some_and(is_alert) {
        return Started::default();
    }
    let kind = format!("{FAMILY}{}", alert.what);
    let key = format!("alert:{}:{}", alert.what, alert.about);
    let mut value = alert.fields;
    value.insert("kind".into(), json!(kind));
    value.insert("received_at".into(), json!(shown(alert.at)));
    Started(firings.custom(&key, &kind, &Value::Object(value), happening, changes))
}

/// Adds an alert about a payment: `payment_held`, `approval_needed`, `approval_expired`. Called in
/// the commit that it is about; a payment can be held again after a person has let it go on.
pub(super) fn about_payment(
    firings: &Firings,
    what: &'static str,
    payment: &Payment,
    happening: &Happening<'_>,
    changes: &mut Changes,
) -> Started {
    let (amount, currency) = payment
        .amount()
        .map_or((Value::Null, Value::Null), |(amount, currency)| {
            (amount, json!(currency))
        });
    let content = payment.content.fields();
    let why = payment.story.last().and_then(|line| line.note.clone());
    let fields = [
        ("foreign_id", json!(payment.foreign_id)),
        ("operation", json!(payment.content.operation.name())),
        ("status", json!(payment.state)),
        ("amount", amount),
        ("currency", currency),
        ("address", json!(content.get("address"))),
        ("why", json!(why)),
        ("reason", json!(payment.error)),
        ("fingerprint", json!(payment.fingerprint)),
        ("script", json!(payment.origin.handler.script)),
        ("handler", json!(payment.origin.handler.name)),
        ("run", json!(payment.origin.run)),
    ];
    let alert = Alert {
        what,
        about: format!("{}:{}", payment.foreign_id, firings.next_order()),
        at: payment.updated_at,
        cause: None,
        fields: fields
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
    };
    raise(firings, alert, happening, changes)
}

/// Whether events of that kind are alerts.
pub(super) fn is_alert(kind: &str) -> bool {
    kind.starts_with(FAMILY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_known_by_their_kind() {
        for (kind, expected) in [
            ("alert.slot_skipped", true),
            ("alert.run_parked", true),
            ("alert", false),
            ("alerted.by_shop", false),
            ("deposit.confirmed", false),
        ] {
            assert_eq!(is_alert(kind), expected, "{kind}");
        }
    }
}
