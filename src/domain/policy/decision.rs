//! What policy is asked, and what it answers.

use chrono::SubsecRound;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::domain::clock::Timestamp;
use crate::domain::id::{ForeignId, HandlerId};
use crate::domain::money::decimal_from_json;
use crate::domain::operation::Operation;
use crate::domain::payment::Payment;

/// A payment that somebody wants to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its key.
    pub foreign_id: ForeignId,
    /// Which operation would make it.
    pub operation: Operation,
    /// The currency that leaves the account.
    pub currency: String,
    /// How much of it, above zero; `None` when only what arrives was named (`amount_to`), and how
    /// much leaves depends on the gateway's rate.
    pub amount: Option<Decimal>,
    /// Where it goes; `None` when it stays in the account (an exchange).
    pub address: Option<String>,
    /// Who asks.
    pub handler: HandlerId,
    /// How many payments are asked for together, from 1.
    pub batch: usize,
    /// When.
    pub at: Timestamp,
}

impl Proposal {
    /// What policy is asked about a payment that is planned as one of so many.
    #[must_use]
    pub fn of(planned: &Payment, batch: usize) -> Self {
        let fields = planned.content.fields();
        let text = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
        let amount = |name: &str| decimal_from_json(fields.get(name)?).ok();
        Self {
            foreign_id: planned.foreign_id.clone(),
            operation: planned.content.operation,
            currency: text("currency")
                .or_else(|| text("sender_currency"))
                .unwrap_or_default(),
            amount: amount("amount").or_else(|| amount("sender_amount")),
            address: text("address"),
            handler: planned.origin.handler.clone(),
            batch,
            // As instants are kept, so that its row is found again.
            at: planned.created_at.trunc_subsecs(3),
        }
    }
}

/// What policy says about a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// The name of the rule or limit that decided, or `otherwise`.
    pub by: String,
    /// Every limit and rule that was looked at, in their order, and what came of it.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// Why, in one sentence, with the name of the rule or limit that decided.
    #[must_use]
    pub fn because(&self) -> String {
        let reason = self.reasons.iter().find(|reason| reason.name == self.by);
        match reason {
            Some(reason) => format!("`{}`: {}", self.by, reason.text),
            None => "no rule of the policy allows it".into(),
        }
    }
}

/// What is to be done about a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It is not made.
    Refuse,
    /// It is made when people approve it.
    Approve(Terms),
}

/// What an approval takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How many different people must approve, from 1.
    pub quorum: u32,
    /// After how many seconds without them it is refused.
    pub expires_after: u64,
    /// Whether the last editor of the script that asks may be one of them.
    pub editor_may_approve: bool,
}

impl Terms {
    /// What satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            quorum: self.quorum.max(other.quorum),
            expires_after: self.expires_after.min(other.expires_after),
            editor_may_approve: self.editor_may_approve && other.editor_may_approve,
        }
    }
}

/// One limit or rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its name.
    pub name: String,
    /// Whether it speaks of this payment.
    pub matches: bool,
    /// Why, with the numbers: `0.7 of 1 ETH spent today, 0.4 more would be 1.1`.
    pub text: String,
}
