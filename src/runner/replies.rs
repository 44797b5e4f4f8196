//! What came back on an attempt, as far as it is kept in the payment's story: for people who ask
//! later why a payment is as it is. Used by the money path; nothing decides by it.

use serde_json::{Value, json};

use crate::domain::payment::{Payment, masked};
use crate::gateway::Disposition;

/// A reply on its way into the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    status: Option<u16>,
    body: Option<String>,
    /// Whether anything came back at all.
    came: bool,
}

impl Reply {
    /// Adds it to the event that was recorded last. Nothing if nothing came back.
    pub(super) fn note(&self, payment: &mut Payment) {
        if self.came {
            payment.note_reply(self.status, self.body.as_deref());
        }
    }
}

/// What is kept of what came back: no personal data, and nothing of what was not understood.
pub(super) fn reply(disposition: &Disposition) -> Reply {
    let (status, body) = match disposition {
        Disposition::NotSent { .. } => (None, None),
        Disposition::Accepted(data) => (None, Some(masked(data))),
        Disposition::Rejected(rejection) => {
            let said = if rejection.errors.is_empty() {
                json!({"error": rejection.message, "code": rejection.code})
            } else {
                json!({"errors": rejection.errors})
            };
            (Some(rejection.status), Some(said))
        }
        Disposition::Unknown { status, .. } => (*status, None),
    };
    Reply {
        came: status.is_some() || body.is_some(),
        status,
        body: body.as_ref().map(Value::to_string),
    }
}
