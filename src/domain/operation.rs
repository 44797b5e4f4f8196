//! The gateway's API operations, by the names scripts, the command line and the logs use.

use serde::{Deserialize, Serialize};

/// One operation of the gateway's API (its futures, removed from its documentation, left out).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `GET /ping`
    Ping,
    /// `POST /accounts/list`
    ListAccounts,
    /// `POST /currencies/list`
    ListCurrencies,
    /// `POST /currencies/pairs`
    ListPairs,
    /// `POST /currencies/rates`
    ListRates,
    /// `POST /addresses/take`
    TakeAddress,
    /// `POST /withdrawal/crypto`
    Withdraw,
    /// `POST /crypto/withdrawal_instant`, or `…_instant_exchange` with `convert_to`
    WithdrawInstant,
    /// `POST /exchange/calculate`
    CalculateExchange,
    /// `POST /exchange/fixed`
    ExchangeFixed,
    /// `POST /exchange/now`
    ExchangeNow,
    /// `POST /invoices/create`
    CreateInvoice,
    /// `POST /api/payments/v1/requests`
    CreatePaymentRequest,
    /// `GET /transactions/info`
    TransactionInfo,
}

/// What an operation can do to the merchant's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing; may be repeated freely.
    Read,
    /// Makes something at the gateway that moves no money of the merchant's by itself.
    Create,
    /// Moves the merchant's money. Only the runner's money path may call these.
    Pay,
}

impl Operation {
    /// Every operation, in the order of the gateway's documentation.
    pub const ALL: [Self; 14] = [
        Self::Ping,
        Self::ListAccounts,
        Self::ListCurrencies,
        Self::ListPairs,
        Self::ListRates,
        Self::TakeAddress,
        Self::Withdraw,
        Self::WithdrawInstant,
        Self::CalculateExchange,
        Self::ExchangeFixed,
        Self::ExchangeNow,
        Self::CreateInvoice,
        Self::CreatePaymentRequest,
        Self::TransactionInfo,
    ];

    /// The name in scripts (`gateway::…`), on the command line, in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::ListAccounts => "list_accounts",
            Self::ListCurrencies => "list_currencies",
            Self::ListPairs => "list_pairs",
            Self::ListRates => "list_rates",
            Self::TakeAddress => "take_address",
            Self::Withdraw => "withdraw",
            Self::WithdrawInstant => "withdraw_instant",
            Self::CalculateExchange => "calculate_exchange",
            Self::ExchangeFixed => "exchange_fixed",
            Self::ExchangeNow => "exchange_now",
            Self::CreateInvoice => "create_invoice",
            Self::CreatePaymentRequest => "create_payment_request",
            Self::TransactionInfo => "transaction_info",
        }
    }

    /// The operation of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.name() == name)
    }

    /// The family of transactions that it makes: the first word of the gateway's types, so that
    /// `withdrawal` and `withdrawal_exchange`, which share their ids, are one.
    #[must_use]
    pub const fn family(self) -> &'static str {
        match self {
            Self::ExchangeFixed | Self::ExchangeNow | Self::CalculateExchange => "exchange",
            Self::CreateInvoice => "invoice",
            Self::CreatePaymentRequest => "payment_request",
            Self::TakeAddress => "deposit",
            Self::Withdraw
            | Self::WithdrawInstant
            | Self::Ping
            | Self::ListAccounts
            | Self::ListCurrencies
            | Self::ListPairs
            | Self::ListRates
            | Self::TransactionInfo => "withdrawal",
        }
    }

    /// What it can do.
    #[must_use]
    pub const fn effect(self) -> Effect {
        match self {
            Self::Ping
            | Self::ListAccounts
            | Self::ListCurrencies
            | Self::ListPairs
            | Self::ListRates
            | Self::CalculateExchange
            | Self::TransactionInfo => Effect::Read,
            Self::TakeAddress | Self::CreateInvoice | Self::CreatePaymentRequest => Effect::Create,
            Self::Withdraw | Self::WithdrawInstant | Self::ExchangeFixed | Self::ExchangeNow => {
                Effect::Pay
            }
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_name() {
        for operation in Operation::ALL {
            assert_eq!(Operation::by_name(operation.name()), Some(operation));
        }
        assert_eq!(Operation::by_name("futures"), None);
    }
}
