//! Asks policy about payments on the money path. What policy says is `domain::policy`'s; this is
//! where it learns what has been spent and where its reservations are kept.

use crate::domain::payment::{Origin, Payment};
use crate::domain::policy::{Decision, Proposal, Verdict};
use crate::store::Changes;

/// The policy in force. Shared by everything on the money path.
#[derive(Debug, Default)]
pub(super) struct Guard;

impl Guard {
    /// Decides about a payment. What an allowed payment, or one that people may allow, takes of the
    /// limits is reserved from here on, and for ever when `changes` are committed.
    #[expect(
        clippy::unused_self,
        reason = "every payment is allowed as long as there are no rules"
    )]
    pub(super) fn decide(&self, _proposal: &Proposal, _changes: &mut Changes) -> Decision {
        Decision {
            verdict: Verdict::Allow,
            by: "otherwise".into(),
            reasons: Vec::new(),
        }
    }

    /// Gives back what a payment took of the limits, because no money moved. To be called in the
    /// commit that makes it final.
    #[expect(
        clippy::unused_self,
        reason = "nothing is reserved as long as there are no limits"
    )]
    pub(super) fn release(&self, _payment: &Payment, _changes: &mut Changes) {}
}

/// What policy is asked about a payment that is `planned`.
pub(super) fn proposal(planned: &Payment, origin: &Origin, batch: usize) -> Proposal {
    let fields = planned.content.fields();
    let text = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
    let amount = |name: &str| crate::domain::money::decimal_from_json(fields.get(name)?).ok();
    Proposal {
        foreign_id: planned.foreign_id.clone(),
        operation: planned.content.operation,
        currency: text("currency")
            .or_else(|| text("sender_currency"))
            .unwrap_or_default(),
        amount: amount("amount").or_else(|| amount("sender_amount")),
        address: text("address"),
        handler: origin.handler.clone(),
        batch,
        at: planned.created_at,
    }
}
