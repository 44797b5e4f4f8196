//! What the gateway documents about each operation: method, path and fields.
//!
//! Only what the documentation says is checked, so that the gateway's own answer is never
//! anticipated wrongly; which currencies, minimums and addresses are good is its business.
//! Sources: the pages below <https://docs.cryptoprocessing.com/api-reference/endpoints/>; where
//! they disagree the newest one counts.

mod addresses;
mod balances;
mod exchanges;
mod invoices;
mod parties;
mod payment_requests;
mod shapes;
mod transactions;
mod withdrawals;

use super::fields::Fields;
use crate::domain::operation::Operation;

/// Where a request goes, relative to which base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Below the configured base of the v2 API.
    V2(&'static str),
    /// Below the root that the v2 API hangs under: the payment-request API has its own version.
    Root(&'static str),
}

/// Reads the arguments of `operation`.
pub(super) fn read(operation: Operation, fields: &mut Fields<'_>) {
    match operation {
        Operation::Ping | Operation::ListAccounts => {}
        Operation::ListCurrencies => balances::currencies(fields),
        Operation::ListPairs | Operation::ListRates => balances::pairs(fields),
        Operation::TakeAddress => addresses::take(fields),
        Operation::Withdraw => withdrawals::crypto(fields),
        Operation::WithdrawInstant => withdrawals::instant(fields),
        Operation::CalculateExchange => exchanges::calculate(fields),
        Operation::ExchangeFixed => exchanges::fixed(fields),
        Operation::ExchangeNow => exchanges::now(fields),
        Operation::CreateInvoice => invoices::create(fields),
        Operation::CreatePaymentRequest => payment_requests::create(fields),
        Operation::TransactionInfo => transactions::info(fields),
    }
}

/// Where a request of `operation` goes. `converts` says whether the body has a `convert_to`.
pub(super) const fn path(operation: Operation, converts: bool) -> Path {
    Path::V2(match operation {
        Operation::Ping => "/ping",
        Operation::ListAccounts => "/accounts/list",
        Operation::ListCurrencies => "/currencies/list",
        Operation::ListPairs => "/currencies/pairs",
        Operation::ListRates => "/currencies/rates",
        Operation::TakeAddress => "/addresses/take",
        Operation::Withdraw => "/withdrawal/crypto",
        Operation::WithdrawInstant if converts => "/crypto/withdrawal_instant_exchange",
        Operation::WithdrawInstant => "/crypto/withdrawal_instant",
        Operation::CalculateExchange => "/exchange/calculate",
        Operation::ExchangeFixed => "/exchange/fixed",
        Operation::ExchangeNow => "/exchange/now",
        Operation::CreateInvoice => "/invoices/create",
        Operation::CreatePaymentRequest => return Path::Root("/api/payments/v1/requests"),
        Operation::TransactionInfo => "/transactions/info",
    })
}

/// Whether requests of `operation` are `GET`s; all others are `POST`s.
pub(super) const fn is_get(operation: Operation) -> bool {
    matches!(operation, Operation::Ping | Operation::TransactionInfo)
}

/// Whether requests of `operation` are signed and carry a JSON body.
pub(super) const fn is_signed(operation: Operation) -> bool {
    !matches!(operation, Operation::Ping)
}
