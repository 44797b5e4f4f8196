//! A batch of payments that people approve as a whole before the first one is sent: what is in it,
//! what is wrong with it, what a person should look at, and its states.
//!
//! Amounts are kept as decimal texts, as the gateway gets them.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::approval::Approval;
use super::clock::Timestamp;
use super::id::ForeignId;
use super::money::decimal_from_json;
use super::payment::{Content, Origin};
use super::policy::Terms;

mod check;

pub use check::{Asked, Market, RowError, draft};

/// What a plan takes when the script itself asks for approval: one person within three days.
pub const ASKED_BY_SCRIPT: Terms = Terms {
    quorum: 1,
    expires_after: 3 * 24 * 60 * 60,
    editor_may_approve: true,
};

/// One payment of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub foreign_id: ForeignId,
    /// The operation and the exact body.
    pub content: Content,
    /// [`Content::fingerprint`].
    pub fingerprint: String,
    /// Whether the payment existed before: it is not paid again.
    pub known: bool,
}

/// What leaves the account in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// The currency.
    pub currency: String,
    /// How many payments.
    pub rows: usize,
    /// How much they pay.
    pub amount: String,
    /// What the gateway takes for it, when it says so; its list may mean a percentage or a part of
    /// one, and this reads a percentage.
    pub fee: Option<String>,
    /// The balance when the plan was made.
    pub before: Option<String>,
    /// What is left of it, the fee taken off; `None` when that cannot be known.
    pub after: Option<String>,
}

/// Everything that people approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The plan's key.
    pub plan: String,
    /// The payments, in the script's order.
    pub rows: Vec<Row>,
    /// By currency.
    pub totals: Vec<Total>,
    /// What a person should look at.
    pub warnings: Vec<String>,
    /// Addresses that were never paid from here.
    pub new_addresses: Vec<String>,
    /// What the limits of policy say of it, one sentence each.
    #[serde(default)]
    pub limits: Vec<String>,
}

impl Contents {
    /// SHA-256 of everything in it, in hex: what people approve.
    ///
    /// # Errors
    /// Never with what this module makes.
    pub fn hash(&self) -> Result<String, serde_json::Error> {
        let bytes = serde_json::to_vec(self)?;
        Ok(hex::encode(Sha256::digest(&bytes)))
    }

    /// Where what is asked for now differs from what is in the plan; `None` when it is the same,
    /// row by row.
    #[must_use]
    pub fn drift<'a>(
        &self,
        now: impl ExactSizeIterator<Item = (&'a ForeignId, &'a Content)>,
    ) -> Option<String> {
        if now.len() != self.rows.len() {
            let (planned, now) = (self.rows.len(), now.len());
            return Some(format!("it has {planned} rows, and {now} are asked for"));
        }
        let pairs = self.rows.iter().zip(now).enumerate();
        for (number, (row, (foreign_id, content))) in pairs {
            if row.content.fingerprint() != row.fingerprint {
                return Some(format!("row {number} is damaged in the store"));
            }
            if row.foreign_id != *foreign_id {
                let planned = &row.foreign_id;
                return Some(format!(
                    "row {number} is `{planned}`, and `{foreign_id}` is asked for"
                ));
            }
            if let Some(difference) = row.content.difference(content) {
                return Some(format!(
                    "the `{}` of row {number}, `{foreign_id}`, is {}, and {} is asked for",
                    difference.field, difference.recorded, difference.now
                ));
            }
        }
        None
    }
}

/// Where a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Nobody has decided.
    AwaitingApproval,
    /// Enough people approve of it: its rows are paid.
    Approved,
    /// Somebody said no.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// What is asked for is not what is in it any more.
    Void,
}

impl PlanState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::AwaitingApproval,
        Self::Approved,
        Self::Rejected,
        Self::Expired,
        Self::Void,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Void => "void",
        }
    }

    /// The state after a decision; `None` when that cannot be decided any more. Only drift undoes
    /// an approval.
    #[must_use]
    pub const fn decided(self, decision: Self) -> Option<Self> {
        match (self, decision) {
            (_, Self::AwaitingApproval) => None,
            (Self::AwaitingApproval, _) | (Self::Approved, Self::Void) => Some(decision),
            (Self::Approved | Self::Rejected | Self::Expired | Self::Void, _) => None,
        }
    }
}

/// A plan as it is kept; its contents are kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its key, derived from the step that asks.
    pub id: String,
    /// [`Contents::hash`].
    pub hash: String,
    /// Content hash of the contents' JSON, under which it is found.
    pub contents: String,
    /// How many payments it has.
    pub rows: usize,
    /// What is paid, by currency: `0.3 BTC`.
    pub amounts: Vec<String>,
    /// What its approval takes.
    pub terms: Terms,
    /// Where it stands.
    pub state: PlanState,
    /// Who approved of it, by its hash.
    pub approvals: Vec<Approval>,
    /// Who asks.
    pub origin: Origin,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Who decided and why, when it was not approved.
    pub reason: Option<String>,
}

/// A field of a row's body.
fn text<'a>(fields: &'a Value, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

/// A number of a row's body or of what the gateway says.
fn number(fields: &Value, name: &str) -> Option<Decimal> {
    decimal_from_json(fields.get(name)?).ok()
}

/// Objects of a list by the text in one of their fields.
fn by_code(list: &Value, code: &str) -> BTreeMap<String, Value> {
    let items = list.as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .filter_map(|item| Some((text(item, code)?.to_owned(), item.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_decided_once_and_only_drift_undoes_an_approval() {
        use PlanState as S;
        for state in S::ALL {
            for decision in S::ALL {
                let expected = (state == S::AwaitingApproval && decision != S::AwaitingApproval)
                    || (state == S::Approved && decision == S::Void);
                let after = state.decided(decision);
                assert_eq!(
                    after,
                    expected.then_some(decision),
                    "{state:?} {decision:?}"
                );
            }
        }
    }
}
