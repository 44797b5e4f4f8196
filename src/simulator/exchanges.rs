//! Exchanges: quotes that hold for 60 seconds, exchanges at a quoted price, exchanges at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::Shared;
use super::callbacks::Subject;
use super::control::ControlError;
use super::currencies::{self, Currency, per_mille};
use super::faults::Operation;
use super::ledger::{Execution, State, Unique};
use super::wire::{Answer, Either, Fields, Refusal, padded, set};
use super::withdrawals::TOO_POOR;

/// How long a quote holds, and the window of the limit on quotes. On the simulator's clock.
const MINUTE: Duration = Duration::from_mins(1);

/// Quotes per minute.
const QUOTES_PER_MINUTE: usize = 30;

/// Share of an exchange that the gateway keeps on top, in thousandths of the sent amount.
const FEE: u32 = 20;

const FIELDS: [&str; 6] = [
    "sender_currency",
    "receiver_currency",
    "sender_amount",
    "receiver_amount",
    "foreign_id",
    "price",
];

/// The quotes given, and how many of late.
#[derive(Debug, Default)]
pub(super) struct Quotes {
    given: Vec<Quote>,
    asked_at: VecDeque<Duration>,
    blocked_until: Duration,
}

/// What is exchanged for what.
#[derive(Debug, Clone, Copy)]
struct Deal {
    sent: (Currency, Decimal),
    received: (Currency, Decimal),
    /// Which of the two amounts the caller gave.
    by_sender: bool,
}

#[derive(Debug)]
struct Quote {
    deal: Deal,
    fixed_at: Duration,
}

impl Deal {
    fn read(fields: &mut Fields<'_>) -> Self {
        let from = fields.currency("sender_currency");
        let to = fields.currency("receiver_currency");
        if from.code == to.code {
            fields.wrong(
                "sender_currency",
                "Exchange is unavailable for given currencies",
            );
        }
        let deal = match fields.either_amount("sender_amount", "receiver_amount") {
            Either::First(sent) => Self {
                sent: (from, sent),
                received: (to, currencies::convert(sent, from, to)),
                by_sender: true,
            },
            Either::Second(received) => Self {
                sent: (from, currencies::cost(received, from, to)),
                received: (to, received),
                by_sender: false,
            },
        };
        let (sent, minimum) = (deal.sent.1, from.exchange_minimum);
        if sent < minimum {
            // The space at the end is the gateway's own.
            let message = format!("The amount must be at least {} ", padded(minimum));
            fields.wrong("sender_amount", message);
        }
        deal
    }

    fn price(&self) -> Decimal {
        currencies::rate(self.sent.0, self.received.0)
    }

    fn fee(&self) -> Decimal {
        per_mille(self.sent.1, FEE)
    }

    fn json(&self) -> Value {
        let ((from, sent), (to, received)) = (self.sent, self.received);
        json!({
            "sender_currency": from.code,
            "sender_amount": padded(sent),
            "receiver_currency": to.code,
            "receiver_amount": padded(received),
            "fee_currency": from.code,
            "fee_amount": padded(self.fee()),
            "price": padded(self.price()),
        })
    }

    /// The same currencies and the same given amount.
    fn equals(&self, other: &Self) -> bool {
        let amounts = if self.by_sender {
            self.sent.1 == other.sent.1
        } else {
            self.received.1 == other.received.1
        };
        amounts
            && self.sent.0.code == other.sent.0.code
            && self.received.0.code == other.received.0.code
    }
}

/// Answers `POST /exchange/calculate`: a quote, at most 30 a minute; then none for a minute.
pub(super) fn calculate(shared: &Arc<Shared>, body: &Value) -> Result<Answer, Refusal> {
    let now = shared.clock.now();
    let mut state = shared.state();
    state.quotes.admit(now)?;
    let mut names = FIELDS.to_vec();
    names.truncate(4);
    names.push("price_precision");
    let mut fields = Fields::read(body, &names)?;
    let deal = Deal::read(&mut fields);
    fields.finish()?;
    state
        .quotes
        .given
        .retain(|quote| now < quote.fixed_at + MINUTE);
    state.quotes.given.push(Quote {
        deal,
        fixed_at: now,
    });
    let mut data = deal.json();
    set(&mut data, "ts_fixed", json!(now.as_secs()));
    set(
        &mut data,
        "ts_release",
        json!(now.as_secs() + MINUTE.as_secs()),
    );
    set(&mut data, "fix_period", json!(MINUTE.as_secs()));
    Ok(Answer::read(json!({ "data": data })))
}

impl Quotes {
    fn admit(&mut self, now: Duration) -> Result<(), Refusal> {
        if now < self.blocked_until {
            return Err(Refusal::TooMany);
        }
        self.asked_at.retain(|at| now < *at + MINUTE);
        if self.asked_at.len() >= QUOTES_PER_MINUTE {
            self.blocked_until = now + MINUTE;
            return Err(Refusal::TooMany);
        }
        self.asked_at.push_back(now);
        Ok(())
    }
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    id: u64,
    operation: Operation,
    foreign_id: String,
    deal: Deal,
    leg: u64,
    funded: bool,
    status: &'static str,
    error: &'static str,
    at: u64,
}

/// Answers `POST /exchange/fixed` and `POST /exchange/now`. The account is debited at once and
/// credited when the exchange is confirmed.
pub(super) fn create(
    shared: &Arc<Shared>,
    operation: Operation,
    body: &Value,
) -> Result<Answer, Refusal> {
    let fixed = operation == Operation::ExchangeFixed;
    let mut names = FIELDS.to_vec();
    names.truncate(if fixed { 6 } else { 5 });
    let mut fields = Fields::read(body, &names)?;
    let deal = Deal::read(&mut fields);
    let foreign_id = fields.text("foreign_id", 255);
    let price = if fixed {
        fields.amount("price")
    } else {
        deal.price()
    };
    fields.finish()?;
    let now = shared.clock.now();
    let mut state = shared.state();
    if state.find(Unique::Exchange, &foreign_id).is_some()
        && !shared.faults().repeat_is_executed(operation, &foreign_id)
    {
        return Err(Refusal::taken());
    }
    let quoted = state.quotes.given.iter().any(|quote| {
        deal.equals(&quote.deal) && price == quote.deal.price() && now < quote.fixed_at + MINUTE
    });
    if fixed && !quoted {
        return Err(Refusal::field("price", "The selected price is invalid."));
    }
    let id = state.next_id();
    let exchange = Exchange {
        id,
        operation,
        foreign_id: foreign_id.clone(),
        deal,
        leg: state.next_leg(),
        funded: state.debit(deal.sent.0.code, deal.sent.1 + deal.fee()),
        status: "processing",
        error: "",
        at: now.as_secs(),
    };
    let mut data = deal.json();
    set(&mut data, "id", json!(id));
    set(&mut data, "foreign_id", json!(foreign_id));
    set(&mut data, "type", json!("exchange"));
    set(&mut data, "status", json!("processing"));
    state.take(Unique::Exchange, &foreign_id, id);
    state.exchanges.insert(id, exchange);
    Ok(Answer::created(&data, Some(id)))
}

/// Confirms an exchange, or cancels it when the account could not pay.
pub(super) fn settle_by_itself(shared: &Shared, id: u64) -> Option<Subject> {
    let mut state = shared.state();
    let status = if state.exchanges.get(&id)?.funded {
        "confirmed"
    } else {
        "cancelled"
    };
    state.settle_exchange(id, status).ok()
}

impl State {
    /// Moves an exchange to its final status.
    pub(super) fn settle_exchange(
        &mut self,
        id: u64,
        status: &str,
    ) -> Result<Subject, ControlError> {
        let exchange = self
            .exchanges
            .get_mut(&id)
            .ok_or_else(|| ControlError::NotFound(id.to_string()))?;
        let (deal, funded) = (exchange.deal, exchange.funded);
        let status = match status {
            _ if exchange.status != "processing" => {
                let text = format!("exchange {id} is already {}", exchange.status);
                return Err(ControlError::NotPossible(text));
            }
            "confirmed" if funded => "confirmed",
            "cancelled" => "cancelled",
            other => {
                let text = format!("exchange {id} cannot become {other}");
                return Err(ControlError::NotPossible(text));
            }
        };
        exchange.status = status;
        exchange.error = if funded { "" } else { TOO_POOR };
        let subject = exchange.subject();
        if status == "confirmed" {
            self.credit(deal.received.0.code, deal.received.1);
        } else if funded {
            self.credit(deal.sent.0.code, deal.sent.1 + deal.fee());
        }
        Ok(subject)
    }
}

impl Exchange {
    /// As the ledger tells it.
    pub(super) fn execution(&self) -> Execution {
        let (from, sent) = self.deal.sent;
        Execution {
            foreign_id: self.foreign_id.clone(),
            kind: "exchange".to_owned(),
            currency: from.code.to_owned(),
            amount: sent,
            address: None,
            id: self.id.to_string(),
            status: self.status.to_owned(),
            at: self.at,
            times_requested: 0,
        }
    }

    fn subject(&self) -> Subject {
        Subject {
            operation: self.operation,
            foreign_id: self.foreign_id.clone(),
            id: self.id,
            body: self.document(),
        }
    }

    /// The body of its callbacks and look-ups; without a `foreign_id`, as published.
    pub(super) fn document(&self) -> Value {
        let ((from, sent), (to, received)) = (self.deal.sent, self.deal.received);
        let fees = if self.status == "confirmed" {
            json!([{
                "type": "fee_crypto_exchange_to_crypto",
                "currency": from.code,
                "amount": padded(self.deal.fee()),
            }])
        } else {
            json!([])
        };
        json!({
            "id": self.id,
            "type": "exchange",
            "currency_sent": {"currency": from.code, "amount": padded(sent)},
            "currency_received": {"currency": to.code, "amount": padded(received)},
            "transactions": [{
                "id": self.leg,
                "currency": from.code,
                "currency_to": to.code,
                "transaction_type": "exchange",
                "type": "exchange",
                "amount": padded(sent),
                "amount_to": padded(received),
            }],
            "fees": fees,
            "error": self.error,
            "status": self.status,
        })
    }
}
