//! Payouts: `withdrawal/crypto` and the two instant ones, from the request to the final status.

use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Shared;
use super::callbacks::Subject;
use super::control::ControlError;
use super::currencies::{self, Currency};
use super::faults::{Operation, digest};
use super::ledger::{Execution, Unique};
use super::wire::{Answer, Either, Fields, Refusal, padded, set};

/// What a withdrawal says when the account could not pay for it.
pub(super) const TOO_POOR: &str = "Not enough money on balance";

const FIELDS: [&str; 12] = [
    "currency",
    "amount",
    "amount_to",
    "convert_to",
    "address",
    "tag",
    "foreign_id",
    "end_user_reference",
    "sender_type",
    "sender_data",
    "receiver_type",
    "receiver_data",
];

/// The coins that can be paid out instantly.
const INSTANT: [&str; 4] = ["BTC", "BCH", "LTC", "DOGE"];

/// What a valid request asks for.
#[derive(Debug)]
struct Order {
    operation: Operation,
    foreign_id: String,
    end_user_reference: String,
    /// Debited, and how much.
    sent: (Currency, Decimal),
    /// Paid out, and how much.
    received: (Currency, Decimal),
    address: String,
    tag: Value,
}

impl Order {
    fn read(operation: Operation, body: &Value) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body, &FIELDS)?;
        let source = fields.currency("currency");
        let target = if operation == Operation::InstantWithdrawalExchange {
            fields.currency("convert_to")
        } else {
            fields.optional_currency("convert_to").unwrap_or(source)
        };
        let order = Self {
            operation,
            foreign_id: fields.text("foreign_id", 255),
            end_user_reference: fields.text("end_user_reference", 255),
            sent: (source, Decimal::ZERO),
            received: (target, Decimal::ZERO),
            address: fields.text("address", 255),
            tag: fields.get("tag").cloned().unwrap_or_default(),
        };
        let (sent, received) = order.amounts(&mut fields);
        order.check(&mut fields, sent);
        fields.person("sender", &["natural", "legal"]);
        fields.person("receiver", &["natural", "legal", "self"]);
        fields.finish()?;
        Ok(Self {
            sent: (source, sent),
            received: (target, received),
            ..order
        })
    }

    fn amounts(&self, fields: &mut Fields<'_>) -> (Decimal, Decimal) {
        let ((source, _), (target, _)) = (self.sent, self.received);
        match fields.either_amount("amount", "amount_to") {
            Either::First(sent) if source.code == target.code => (sent, sent),
            Either::First(sent) => (sent, currencies::convert(sent, source, target)),
            Either::Second(received) => {
                if source.code == target.code {
                    fields.wrong("amount_to", "The amount to field needs convert to.");
                } else if self.operation != Operation::Withdrawal {
                    fields.wrong("amount_to", "The amount to field is unknown.");
                }
                (currencies::cost(received, source, target), received)
            }
        }
    }

    fn check(&self, fields: &mut Fields<'_>, sent: Decimal) {
        let ((source, _), (target, _)) = (self.sent, self.received);
        let minimum = if source.code == target.code {
            source.minimum
        } else {
            source.exchange_minimum
        };
        if sent < minimum {
            let minimum = minimum.normalize();
            fields.wrong("amount", format!("The amount must be at least {minimum}."));
        }
        if !target.crypto {
            fields.wrong("currency", "The selected currency is invalid.");
        }
        if target.needs_tag() && self.tag.is_null() {
            fields.wrong("tag", "The tag field is required.");
        }
        if !self.tag.is_null() && !self.tag.is_string() && !self.tag.is_u64() {
            fields.wrong("tag", "The tag format is invalid.");
        }
        let instant = self.operation != Operation::Withdrawal;
        if instant && !INSTANT.contains(&target.code) {
            fields.wrong("currency", "The selected currency is invalid.");
        }
    }
}

/// One payout.
#[derive(Debug)]
pub(super) struct Withdrawal {
    id: u64,
    order: Order,
    address_id: u64,
    legs: (u64, u64),
    /// Whether the account was debited.
    funded: bool,
    status: &'static str,
    error: &'static str,
    txid: Option<String>,
    /// On the simulator's clock.
    at: u64,
    /// Real time, for look-ups that are blind to the young.
    accepted: Instant,
}

/// Answers the three withdrawal endpoints. The account is debited at once; when it cannot pay,
/// that shows later, as a cancelled withdrawal.
pub(super) fn create(
    shared: &Arc<Shared>,
    operation: Operation,
    body: &Value,
) -> Result<Answer, Refusal> {
    let order = Order::read(operation, body)?;
    let mut state = shared.state();
    let foreign_id = order.foreign_id.clone();
    if state.find(Unique::Withdrawal, &foreign_id).is_some()
        && !shared.faults().repeat_is_executed(operation, &foreign_id)
    {
        return Err(Refusal::taken());
    }
    let id = state.next_id();
    let (source, amount) = order.sent;
    let withdrawal = Withdrawal {
        id,
        address_id: state.next_address(),
        legs: (state.next_leg(), state.next_leg()),
        funded: state.debit(source.code, amount),
        order,
        status: "processing",
        error: "",
        txid: None,
        at: shared.clock.unix(),
        accepted: Instant::now(),
    };
    let data = withdrawal.reply();
    state.take(Unique::Withdrawal, &foreign_id, id);
    state.withdrawals.insert(id, withdrawal);
    Ok(Answer::created(&data, Some(id)))
}

/// Takes a withdrawal to where it goes by itself: pending above the limit, cancelled without
/// money, confirmed otherwise. The callback to send, unless somebody settled it before.
pub(super) fn settle_by_itself(shared: &Shared, id: u64) -> Option<Subject> {
    let limit = shared.settings().pending_above;
    let mut state = shared.state();
    let withdrawal = state.withdrawals.get(&id)?;
    if withdrawal.status != "processing" {
        return None;
    }
    let (_, amount) = withdrawal.order.sent;
    let status = if limit.is_some_and(|limit| amount > limit) {
        "pending"
    } else if withdrawal.funded {
        "confirmed"
    } else {
        "cancelled"
    };
    state.settle_withdrawal(shared.seed, id, status).ok()
}

impl super::ledger::State {
    /// Moves a withdrawal to a status of the contract. A final status never changes.
    pub(super) fn settle_withdrawal(
        &mut self,
        seed: u64,
        id: u64,
        status: &str,
    ) -> Result<Subject, ControlError> {
        let withdrawal = self
            .withdrawals
            .get_mut(&id)
            .ok_or_else(|| ControlError::NotFound(id.to_string()))?;
        if ["confirmed", "cancelled", "declined"].contains(&withdrawal.status) {
            let text = format!("withdrawal {id} is already {}", withdrawal.status);
            return Err(ControlError::NotPossible(text));
        }
        let (status, error) = match status {
            "pending" => ("pending", ""),
            "not_confirmed" => ("not_confirmed", ""),
            "confirmed" if withdrawal.funded => ("confirmed", ""),
            "confirmed" => {
                let text = format!("withdrawal {id}: {TOO_POOR}");
                return Err(ControlError::NotPossible(text));
            }
            "cancelled" if withdrawal.funded => (
                "cancelled",
                "Invalid params: expected a hex-encoded hash with 0x prefix.",
            ),
            "cancelled" => ("cancelled", TOO_POOR),
            "declined" => ("declined", "Declined by the account owner"),
            other => {
                let text = format!("a withdrawal is never {other}");
                return Err(ControlError::NotPossible(text));
            }
        };
        withdrawal.status = status;
        withdrawal.error = error;
        if status == "confirmed" {
            let txid = digest(seed, &format!("txid {id}"));
            withdrawal.txid = Some(hex::encode(txid));
        }
        let subject = withdrawal.subject();
        let refund = (status == "cancelled" || status == "declined") && withdrawal.funded;
        if refund {
            let (source, amount) = withdrawal.order.sent;
            self.credit(source.code, amount);
        }
        Ok(subject)
    }
}

impl Withdrawal {
    /// How long ago the request was accepted, in real time.
    pub(super) fn age(&self) -> std::time::Duration {
        self.accepted.elapsed()
    }

    /// The endpoint that made it.
    pub(super) fn operation(&self) -> Operation {
        self.order.operation
    }

    /// The caller's name for it.
    pub(super) fn foreign_id(&self) -> &str {
        &self.order.foreign_id
    }

    /// The hash of its transaction in the chain, once sent.
    pub(super) fn txid(&self) -> Option<&str> {
        self.txid.as_deref()
    }

    /// As the ledger tells it.
    pub(super) fn execution(&self) -> Execution {
        let (source, amount) = self.order.sent;
        Execution {
            foreign_id: self.order.foreign_id.clone(),
            kind: self.kind().to_owned(),
            currency: source.code.to_owned(),
            amount,
            address: Some(self.order.address.clone()),
            id: self.id.to_string(),
            status: self.status.to_owned(),
            at: self.at,
            times_requested: 0,
        }
    }

    fn converted(&self) -> bool {
        self.order.sent.0.code != self.order.received.0.code
    }

    fn kind(&self) -> &'static str {
        match (
            self.order.operation == Operation::Withdrawal,
            self.converted(),
        ) {
            (true, false) => "withdrawal",
            (true, true) => "withdrawal_exchange",
            (false, false) => "withdrawal_instant",
            (false, true) => "withdrawal_instant_exchange",
        }
    }

    fn reply(&self) -> Value {
        let ((source, sent), (target, received)) = (self.order.sent, self.order.received);
        json!({
            "id": self.id,
            "foreign_id": self.order.foreign_id,
            "end_user_reference": self.order.end_user_reference,
            "type": self.kind(),
            "status": self.status,
            "amount": padded(sent),
            "sender_amount": padded(sent),
            "sender_currency": source.code,
            "receiver_amount": padded(received),
            "receiver_currency": target.code,
        })
    }

    /// The callback for where it stands.
    fn subject(&self) -> Subject {
        Subject {
            operation: self.order.operation,
            foreign_id: self.order.foreign_id.clone(),
            id: self.id,
            body: self.document(),
        }
    }

    /// The body of its callbacks and look-ups.
    pub(super) fn document(&self) -> Value {
        let ((source, sent), (target, received)) = (self.order.sent, self.order.received);
        let mut legs = vec![json!({
            "id": self.legs.0,
            "currency": target.code,
            "transaction_type": "blockchain",
            "type": "withdrawal",
            "address": self.order.address,
            "tag": self.order.tag,
            "amount": padded(received),
            "txid": self.txid,
            "confirmations": "0",
        })];
        if self.converted() {
            legs.push(json!({
                "id": self.legs.1,
                "currency": source.code,
                "currency_to": target.code,
                "transaction_type": "exchange",
                "type": "exchange",
                "amount": padded(sent),
                "amount_to": padded(received),
            }));
        }
        let mut body = json!({
            "id": self.id,
            "foreign_id": self.order.foreign_id,
            "end_user_reference": self.order.end_user_reference,
            "type": self.kind(),
            "crypto_address": {
                "id": self.address_id,
                "currency": target.code,
                "address": self.order.address,
                "tag": self.order.tag,
            },
            "transactions": legs,
            "fees": [],
            "error": self.error,
            "status": self.status,
        });
        if self.converted() {
            set(
                &mut body,
                "currency_sent",
                json!({"currency": source.code, "amount": padded(sent)}),
            );
            set(
                &mut body,
                "currency_received",
                json!({"currency": target.code, "amount": padded(received)}),
            );
        }
        body
    }
}
