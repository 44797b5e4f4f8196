//! What tests, `dev` and the command line may see and do behind the gateway's back: the ledger,
//! the customers' side, forced statuses, faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;

use super::callbacks::{self, Forgery, SentCallback};
use super::faults::{Faults, Operation};
use super::ledger::{Execution, Unique};
use super::{Shared, addresses, invoices, payment_requests};

/// A handle on a running simulator; clones are the same simulator. Outlives it harmlessly.
#[derive(Debug, Clone)]
pub struct Control(pub(super) Arc<Shared>);

/// Why a control did nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such operation, address, currency or callback.
    #[error("there is no {0}")]
    NotFound(String),
    /// It exists and cannot do that, for instance because its status is final.
    #[error("{0}")]
    NotPossible(String),
}

impl Control {
    /// What the gateway did, oldest first: one entry per execution, also when the answer never
    /// reached the caller. Requests that were refused are not here.
    #[must_use]
    pub fn executions(&self) -> Vec<Execution> {
        self.0.state().executions()
    }

    /// How many requests came in per operation, refused ones included.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<Operation, u64> {
        self.0.state().requests.clone()
    }

    /// What is on the account, per currency.
    #[must_use]
    pub fn balances(&self) -> BTreeMap<String, Decimal> {
        self.0.state().balances()
    }

    /// A customer pays `amount` to an address that was taken. `to` is the address or the
    /// customer's `foreign_id` (his newest address); `currency` makes it a cross-currency deposit.
    /// Returns the gateway's number of the deposit.
    ///
    /// # Errors
    /// When there is no such address or currency.
    pub fn deposit(
        &self,
        to: &str,
        amount: Decimal,
        currency: Option<&str>,
    ) -> Result<u64, ControlError> {
        addresses::deposit(&self.0, to, amount, currency)
    }

    /// The payer chooses the currency of an invoice, which fixes the rate and starts the timer.
    ///
    /// # Errors
    /// When there is no such invoice or currency, or the invoice is closed.
    pub fn choose_currency(&self, foreign_id: &str, currency: &str) -> Result<(), ControlError> {
        invoices::choose(&self.0, foreign_id, Some(currency))
    }

    /// The payer pays an invoice, in its sender currency: exactly what remains, or `amount` (less,
    /// more). Chooses the currency first where none is chosen.
    ///
    /// # Errors
    /// When there is no such invoice, or it takes no (further) payment.
    pub fn pay_invoice(
        &self,
        foreign_id: &str,
        amount: Option<Decimal>,
        currency: Option<&str>,
    ) -> Result<u64, ControlError> {
        invoices::pay(&self.0, foreign_id, amount, currency)
    }

    /// The timer of an invoice runs out now.
    ///
    /// # Errors
    /// When there is no such invoice, or it is closed.
    pub fn expire_invoice(&self, foreign_id: &str) -> Result<u64, ControlError> {
        invoices::expire(&self.0, foreign_id)
    }

    /// The payer pays a payment request (by `foreign_id` or id), like [`Self::pay_invoice`].
    ///
    /// # Errors
    /// When there is no such request, or it is closed.
    pub fn pay_payment_request(
        &self,
        foreign_id: &str,
        amount: Option<Decimal>,
    ) -> Result<u64, ControlError> {
        payment_requests::pay(&self.0, foreign_id, amount)
    }

    /// The time of a payment request runs out now.
    ///
    /// # Errors
    /// When there is no such request, or it is closed.
    pub fn expire_payment_request(&self, foreign_id: &str) -> Result<u64, ControlError> {
        payment_requests::expire(&self.0, foreign_id)
    }

    /// Forces the status of a withdrawal or exchange (by `foreign_id` or number) or of a deposit
    /// (by number), and sends its callback.
    ///
    /// # Errors
    /// When there is no such operation, or it cannot get that status: a final one never changes,
    /// and nothing is confirmed without the money for it.
    pub fn settle(&self, what: &str, status: &str) -> Result<(), ControlError> {
        let subject = {
            let mut state = self.0.state();
            let id = state
                .find(Unique::Withdrawal, what)
                .or_else(|| state.find(Unique::Exchange, what))
                .or_else(|| what.parse().ok())
                .unwrap_or_default();
            if state.withdrawals.contains_key(&id) {
                state.settle_withdrawal(self.0.seed, id, status)
            } else if state.exchanges.contains_key(&id) {
                state.settle_exchange(id, status)
            } else if state.deposits.contains_key(&id) {
                state.settle_deposit(id, status)
            } else {
                Err(ControlError::NotFound(what.to_owned()))
            }
        }?;
        callbacks::send(&self.0, &subject);
        Ok(())
    }

    /// Replaces the faults; counts of the old ones are forgotten.
    pub fn set_faults(&self, faults: Faults) {
        self.0.faults().replace(faults);
    }

    /// Sends callbacks there from now on, retries of earlier ones too; to nobody with `None`.
    pub fn set_callback_url(&self, url: Option<String>) {
        self.0.settings().callback_url = url;
    }

    /// Changes how long every request takes at least.
    pub fn set_latency(&self, latency: Duration) {
        self.0.settings().latency = latency;
    }

    /// Changes how long operations take to their final status; `None` leaves that to
    /// [`Self::settle`].
    pub fn set_settle_after(&self, wait: Option<Duration>) {
        self.0.settings().settle_after = wait;
    }

    /// Changes the amount above which withdrawals wait for a person.
    pub fn set_pending_above(&self, limit: Option<Decimal>) {
        self.0.settings().pending_above = limit;
    }

    /// Every callback so far with its answers, oldest first.
    #[must_use]
    pub fn callbacks(&self) -> Vec<SentCallback> {
        self.0.state().callbacks.values().cloned().collect()
    }

    /// Sends a callback once more, as the dashboard's button does. True when answered with 200.
    ///
    /// # Errors
    /// When there is no callback with this number.
    pub async fn resend_callback(&self, id: u64) -> Result<bool, ControlError> {
        self.attempt(id, None).await
    }

    /// Sends a callback with a wrong key or signature. Returns the answer of the receiver.
    ///
    /// # Errors
    /// When there is no callback with this number.
    pub async fn forge_callback(
        &self,
        id: u64,
        forgery: Forgery,
    ) -> Result<Option<u16>, ControlError> {
        self.attempt(id, Some(forgery)).await?;
        let state = self.0.state();
        let attempts = state.callbacks.get(&id).map(|c| c.attempts.iter());
        let last = attempts.and_then(|mut attempts| attempts.rfind(|attempt| attempt.forged));
        Ok(last.and_then(|attempt| attempt.answer))
    }

    async fn attempt(&self, id: u64, forgery: Option<Forgery>) -> Result<bool, ControlError> {
        if !self.0.state().callbacks.contains_key(&id) {
            return Err(ControlError::NotFound(format!("callback {id}")));
        }
        Ok(callbacks::attempt(&self.0, id, forgery).await)
    }
}
