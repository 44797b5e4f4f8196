//! A pause of money: what it stops, and who ordered it.

use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::operation::Effect;
use super::payment::Payment;

/// Money is stopped. Kept under the script's name, or an empty text for all money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who ordered it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// Whether a pause under that key (a script's name, or empty for all money) stops the payment.
/// Invoices and payment requests take no money out of the account and go on.
#[must_use]
pub fn stops(scope: &str, payment: &Payment) -> bool {
    payment.content.operation.effect() == Effect::Pay
        && (scope.is_empty() || scope == payment.origin.handler.script)
}
