//! Deposit addresses, and what customers pay to them.
//!
//! `addresses/take` gives a new address on every call, the harder reading of a contract that does
//! not say: a client that asks instead of remembering is caught.

use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::Shared;
use super::callbacks::{self, Subject};
use super::control::ControlError;
use super::currencies::{self, Currency, per_mille};
use super::faults::{Operation, digest};
use super::ledger::State;
use super::wire::{Answer, Fields, Refusal, padded, set};

/// Share of a deposit that the gateway keeps, in thousandths.
const DEPOSIT_FEE: u32 = 8;

/// Share of a converted deposit that the gateway keeps, in thousandths.
const EXCHANGE_FEE: u32 = 20;

/// An address that was given out.
#[derive(Debug, Clone)]
pub(super) struct Address {
    id: u64,
    currency: Currency,
    convert_to: Option<Currency>,
    text: String,
    tag: Value,
    foreign_id: String,
    end_user_reference: String,
}

/// Makes up an address that looks like one of the currency's network, and a tag where one belongs.
pub(super) fn invent(currency: Currency, seed: u64, number: u64) -> (String, Value) {
    let digest = digest(seed, &format!("address {number}"));
    let hex = hex::encode(digest);
    let letters: String = digest
        .iter()
        .chain(&digest)
        .map(|byte| char::from(b'a' + byte % 26))
        .collect();
    let part = |length: usize| letters.get(..length).unwrap_or_default();
    let address = match currency.network {
        "ethereum" | "binance" => format!("0x{}", hex.get(..40).unwrap_or_default()),
        "tron" => format!("T{}", part(33)),
        "ripple" => format!("r{}", part(33)),
        _ => format!("tb1q{}", part(38)),
    };
    let tag = if currency.needs_tag() {
        json!(100_000 + number % 900_000)
    } else {
        Value::Null
    };
    (address, tag)
}

/// Answers `POST /addresses/take`.
pub(super) fn take(shared: &Arc<Shared>, body: &Value) -> Result<Answer, Refusal> {
    const NAMES: [&str; 6] = [
        "currency",
        "foreign_id",
        "end_user_reference",
        "convert_to",
        "sender_type",
        "sender_data",
    ];
    let mut fields = Fields::read(body, &NAMES)?;
    let currency = fields.currency("currency");
    if !currency.crypto {
        fields.wrong("currency", "The selected currency is invalid.");
    }
    let convert_to = fields.optional_currency("convert_to");
    let foreign_id = fields.text("foreign_id", 255);
    let end_user_reference = fields.text("end_user_reference", 255);
    fields.person("sender", &["natural", "legal"]);
    fields.finish()?;
    let mut state = shared.state();
    let id = state.next_address();
    let (address, tag) = invent(currency, shared.seed, id);
    let mut data = json!({
        "id": id,
        "currency": currency.code,
        "address": address,
        "tag": tag,
        "foreign_id": foreign_id,
        "end_user_reference": end_user_reference,
    });
    if let Some(target) = convert_to {
        set(&mut data, "convert_to", json!(target.code));
    }
    let taken = Address {
        id,
        currency,
        convert_to: convert_to.filter(|target| target.code != currency.code),
        text: address,
        tag,
        foreign_id,
        end_user_reference,
    };
    state.addresses.insert(id, taken);
    Ok(Answer::created(&data, None))
}

/// One payment to an address.
#[derive(Debug)]
pub(super) struct Deposit {
    id: u64,
    to: Address,
    /// What was paid; another currency than the address's makes it cross-currency.
    sent: (Currency, Decimal),
    legs: (u64, u64),
    txid: String,
    status: &'static str,
    error: &'static str,
}

/// A customer pays. `to` is an address, or a customer's `foreign_id` (his newest address).
/// Returns the number of the deposit; `not_confirmed` goes out now, the final status after the
/// settling time.
pub(super) fn deposit(
    shared: &Arc<Shared>,
    to: &str,
    amount: Decimal,
    currency: Option<&str>,
) -> Result<u64, ControlError> {
    let (id, subject) = {
        let mut state = shared.state();
        let mut addresses = state.addresses.values().rev();
        let to = addresses
            .find(|taken| taken.text == to || taken.foreign_id == to)
            .cloned()
            .ok_or_else(|| ControlError::NotFound(to.to_owned()))?;
        let code = currency.unwrap_or(to.currency.code);
        let paid = currencies::find(code).ok_or_else(|| ControlError::NotFound(code.to_owned()))?;
        let id = state.next_id();
        let deposit = Deposit {
            id,
            to,
            sent: (paid, amount),
            legs: (state.next_leg(), state.next_leg()),
            txid: hex::encode(digest(shared.seed, &format!("txid {id}"))),
            status: "not_confirmed",
            error: "",
        };
        let subject = deposit.subject();
        state.deposits.insert(id, deposit);
        (id, subject)
    };
    callbacks::send(shared, &subject);
    shared.settle_later(id);
    Ok(id)
}

/// Confirms a deposit, or cancels it when it is below the minimum.
pub(super) fn settle_by_itself(shared: &Shared, id: u64) -> Option<Subject> {
    let mut state = shared.state();
    let (currency, amount) = state.deposits.get(&id)?.sent;
    let status = if amount < currency.minimum {
        "cancelled"
    } else {
        "confirmed"
    };
    state.settle_deposit(id, status).ok()
}

impl State {
    /// Moves a deposit to its final status and credits it.
    pub(super) fn settle_deposit(
        &mut self,
        id: u64,
        status: &str,
    ) -> Result<Subject, ControlError> {
        let deposit = self
            .deposits
            .get_mut(&id)
            .ok_or_else(|| ControlError::NotFound(id.to_string()))?;
        if deposit.status != "not_confirmed" {
            let text = format!("deposit {id} is already {}", deposit.status);
            return Err(ControlError::NotPossible(text));
        }
        let (status, error) = match status {
            "confirmed" => ("confirmed", ""),
            "cancelled" => ("cancelled", "Transaction amount less than minimum deposit"),
            other => {
                let text = format!("a deposit is never settled as {other}");
                return Err(ControlError::NotPossible(text));
            }
        };
        deposit.status = status;
        deposit.error = error;
        let subject = deposit.subject();
        let (currency, amount) = (deposit.received().0, deposit.credited());
        if status == "confirmed" {
            self.credit(currency.code, amount);
        }
        Ok(subject)
    }
}

impl Deposit {
    /// The hash of its transaction in the chain.
    pub(super) fn txid(&self) -> &str {
        &self.txid
    }

    /// After conversion, before fees.
    fn received(&self) -> (Currency, Decimal) {
        let (paid, amount) = self.sent;
        match self.to.convert_to {
            Some(target) => (target, currencies::convert(amount, paid, target)),
            None => self.sent,
        }
    }

    fn fee(&self) -> Decimal {
        let share = if self.to.convert_to.is_some() {
            EXCHANGE_FEE
        } else {
            DEPOSIT_FEE
        };
        per_mille(self.received().1, share)
    }

    fn credited(&self) -> Decimal {
        self.received().1 - self.fee()
    }

    fn subject(&self) -> Subject {
        Subject {
            operation: Operation::Deposit,
            foreign_id: self.to.foreign_id.clone(),
            id: self.id,
            body: self.document(),
        }
    }

    fn crypto_address(&self) -> Value {
        let mut block = json!({
            "id": self.to.id,
            "currency": self.to.currency.code,
            "address": self.to.text,
            "tag": self.to.tag,
            "foreign_id": self.to.foreign_id,
        });
        if let Some(target) = self.to.convert_to {
            set(&mut block, "convert_to", json!(target.code));
        }
        if self.sent.0.code != self.to.currency.code {
            set(&mut block, "cross_currency", json!(true));
            set(
                &mut block,
                "expected_currency",
                json!(self.to.currency.code),
            );
        }
        block
    }

    fn legs(&self) -> Vec<Value> {
        let (paid, amount) = self.sent;
        let mut chain = json!({
            "id": self.legs.0,
            "currency": paid.code,
            "transaction_type": "blockchain",
            "type": "deposit",
            "address": self.to.text,
            "tag": self.to.tag,
            "amount": padded(amount),
            "txid": self.txid,
            "confirmations": if self.status == "not_confirmed" { "0" } else { "1" },
        });
        if self.status == "confirmed" && ["BTC", "BCH", "ETH"].contains(&paid.code) {
            set(&mut chain, "riskscore", json!("0.5"));
        }
        let mut legs = vec![chain];
        if self.to.convert_to.is_some() && self.status == "confirmed" {
            let (target, received) = self.received();
            legs.push(json!({
                "id": self.legs.1,
                "currency": paid.code,
                "currency_to": target.code,
                "transaction_type": "exchange",
                "type": "exchange",
                "amount": padded(amount),
                "amount_to": padded(received),
            }));
        }
        legs
    }

    /// The body of its callbacks and look-ups.
    pub(super) fn document(&self) -> Value {
        let ((paid, amount), (target, received)) = (self.sent, self.received());
        let converted = self.to.convert_to.is_some();
        let kind = if converted {
            "deposit_exchange"
        } else {
            "deposit"
        };
        let mut body = json!({
            "id": self.id,
            "end_user_reference": self.to.end_user_reference,
            "type": kind,
            "crypto_address": self.crypto_address(),
            "transactions": self.legs(),
            "fees": [],
            "error": self.error,
            "status": self.status,
        });
        if self.status == "cancelled" {
            return body;
        }
        let final_amount = if self.status == "confirmed" {
            let fee_kind = if converted { "exchange" } else { "deposit" };
            let fee = padded(self.fee());
            set(
                &mut body,
                "fees",
                json!([{"type": fee_kind, "currency": target.code, "amount": fee}]),
            );
            self.credited()
        } else {
            received
        };
        set(
            &mut body,
            "currency_sent",
            json!({"currency": paid.code, "amount": padded(amount)}),
        );
        set(
            &mut body,
            "currency_received",
            json!({
                "currency": target.code,
                "amount": padded(received),
                "amount_minus_fee": padded(final_amount),
            }),
        );
        body
    }
}
