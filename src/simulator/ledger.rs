//! What the simulated gateway remembers: balances, numbers, operations, and how often each was
//! asked for. The operations themselves are in files of their own; they change this under the one
//! lock of [`super::Shared::state`], which nobody holds while waiting.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use super::addresses::{Address, Deposit};
use super::callbacks::SentCallback;
use super::exchanges::{Exchange, Quotes};
use super::faults::Operation;
use super::invoices::Invoice;
use super::payment_requests::PaymentRequest;
use super::withdrawals::Withdrawal;

/// One thing the gateway did because it was asked to: the answer to "what really happened".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// The caller's name for it.
    pub foreign_id: String,
    /// `withdrawal`, `exchange`, `invoice`… as callbacks write it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Currency that is debited (or, for invoices and payment requests, asked for).
    pub currency: String,
    /// In `currency`.
    #[serde(serialize_with = "as_text")]
    pub amount: Decimal,
    /// Where the money goes; none for exchanges.
    pub address: Option<String>,
    /// The gateway's number for it, or the id of a payment request.
    pub id: String,
    /// The gateway's own word for where it stands. Only `confirmed` (`paid`) has moved money for
    /// good.
    pub status: String,
    /// Unix seconds on the simulator's clock.
    pub at: u64,
    /// How many requests, valid or not, carried this `foreign_id` to this kind of operation.
    pub times_requested: u64,
}

fn as_text<S: Serializer>(amount: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&amount.normalize())
}

/// Everything the gateway remembers.
#[derive(Debug)]
pub(super) struct State {
    balances: BTreeMap<String, Decimal>,
    last_id: u64,
    last_leg: u64,
    last_address: u64,
    /// By the gateway's number, which also tells the order.
    pub(super) withdrawals: BTreeMap<u64, Withdrawal>,
    pub(super) exchanges: BTreeMap<u64, Exchange>,
    pub(super) invoices: BTreeMap<u64, Invoice>,
    pub(super) payment_requests: BTreeMap<u64, PaymentRequest>,
    pub(super) addresses: BTreeMap<u64, Address>,
    pub(super) deposits: BTreeMap<u64, Deposit>,
    pub(super) quotes: Quotes,
    pub(super) callbacks: BTreeMap<u64, SentCallback>,
    pub(super) requests: BTreeMap<Operation, u64>,
    asked: BTreeMap<(Unique, String), u64>,
    taken: BTreeMap<(Unique, String), u64>,
}

/// The spaces in which a `foreign_id` is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unique {
    Withdrawal,
    Exchange,
    Invoice,
    PaymentRequest,
}

impl Unique {
    /// The space an operation's `foreign_id` is in.
    pub(super) fn of(operation: Operation) -> Option<Self> {
        match operation {
            Operation::Withdrawal
            | Operation::InstantWithdrawal
            | Operation::InstantWithdrawalExchange => Some(Self::Withdrawal),
            Operation::ExchangeFixed | Operation::ExchangeNow => Some(Self::Exchange),
            Operation::Invoice => Some(Self::Invoice),
            Operation::PaymentRequest => Some(Self::PaymentRequest),
            Operation::Ping
            | Operation::Accounts
            | Operation::Currencies
            | Operation::Pairs
            | Operation::Rates
            | Operation::TakeAddress
            | Operation::ExchangeCalculate
            | Operation::TransactionInfo
            | Operation::Deposit => None,
        }
    }
}

impl State {
    /// The numbers continue where the published samples end.
    pub(super) fn new(balances: BTreeMap<String, Decimal>) -> Self {
        Self {
            balances,
            last_id: 134_700_000,
            last_leg: 9_600_000,
            last_address: 240_000_000,
            withdrawals: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            invoices: BTreeMap::new(),
            payment_requests: BTreeMap::new(),
            addresses: BTreeMap::new(),
            deposits: BTreeMap::new(),
            quotes: Quotes::default(),
            callbacks: BTreeMap::new(),
            requests: BTreeMap::new(),
            asked: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// A new number for an operation; never given twice, whatever its kind.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A new number for one leg of an operation.
    pub(super) fn next_leg(&mut self) -> u64 {
        self.last_leg += 1;
        self.last_leg
    }

    /// A new number for an address.
    pub(super) fn next_address(&mut self) -> u64 {
        self.last_address += 1;
        self.last_address
    }

    /// What is on the account; zero for a currency never seen.
    pub(super) fn balance(&self, currency: &str) -> Decimal {
        self.balances.get(currency).copied().unwrap_or_default()
    }

    /// All balances that were ever set.
    pub(super) fn balances(&self) -> BTreeMap<String, Decimal> {
        self.balances.clone()
    }

    /// Puts money on the account.
    pub(super) fn credit(&mut self, currency: &str, amount: Decimal) {
        *self.balances.entry(currency.to_owned()).or_default() += amount;
    }

    /// Takes money off the account, or leaves it alone and says false when there is too little.
    pub(super) fn debit(&mut self, currency: &str, amount: Decimal) -> bool {
        let enough = self.balance(currency) >= amount;
        if enough {
            self.credit(currency, -amount);
        }
        enough
    }

    /// Counts a request, and its `foreign_id` when that is to be unique.
    pub(super) fn count(&mut self, operation: Operation, foreign_id: &str) {
        *self.requests.entry(operation).or_default() += 1;
        if let Some(space) = Unique::of(operation) {
            *self
                .asked
                .entry((space, foreign_id.to_owned()))
                .or_default() += 1;
        }
    }

    /// The operation that first used this `foreign_id`.
    pub(super) fn find(&self, space: Unique, foreign_id: &str) -> Option<u64> {
        self.taken.get(&(space, foreign_id.to_owned())).copied()
    }

    /// Gives a `foreign_id` to an operation, unless another has it.
    pub(super) fn take(&mut self, space: Unique, foreign_id: &str, id: u64) {
        self.taken
            .entry((space, foreign_id.to_owned()))
            .or_insert(id);
    }

    /// What the gateway did, oldest first.
    pub(super) fn executions(&self) -> Vec<Execution> {
        let mut all: BTreeMap<u64, (Unique, Execution)> = BTreeMap::new();
        for (id, withdrawal) in &self.withdrawals {
            all.insert(*id, (Unique::Withdrawal, withdrawal.execution()));
        }
        for (id, exchange) in &self.exchanges {
            all.insert(*id, (Unique::Exchange, exchange.execution()));
        }
        for (id, invoice) in &self.invoices {
            all.insert(*id, (Unique::Invoice, invoice.execution()));
        }
        for (id, request) in &self.payment_requests {
            all.insert(*id, (Unique::PaymentRequest, request.execution()));
        }
        all.into_values()
            .map(|(space, mut execution)| {
                let key = (space, execution.foreign_id.clone());
                execution.times_requested = self.asked.get(&key).copied().unwrap_or_default();
                execution
            })
            .collect()
    }
}
