//! Invoices: creation, the payer's doings (as controls), the timer, and the callbacks.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::Shared;
use super::addresses::invent;
use super::callbacks::{self, Subject};
use super::control::ControlError;
use super::currencies::{self, Currency, per_mille};
use super::faults::{Operation, digest};
use super::ledger::{Execution, State, Unique};
use super::wire::{Answer, Fields, Refusal, padded, set};

/// How long the payer has, once the rate is fixed.
const TIMER: Duration = Duration::from_mins(15);

/// How long a payment may stay unconfirmed.
const PROCESSING_LIMIT: Duration = Duration::from_hours(24);

/// Smallest and largest invoice, in EUR.
const LIMITS_EUR: (i64, i64) = (10, 10_000);

/// Share of a paid invoice that the gateway keeps, in thousandths.
const FEE: u32 = 8;

const NOT_PAID: &str = "Timer expired. User not paid.";
const PAID_LESS: &str = "Timer expired. User paid less than requested.";
const TOO_LONG: &str = "Timer expired. Transactions were in status processing too long.";

const FIELDS: [&str; 14] = [
    "timer",
    "title",
    "description",
    "currency",
    "sender_currency",
    "amount",
    "foreign_id",
    "end_user_reference",
    "url_success",
    "url_failed",
    "email_user",
    "type",
    "sender_type",
    "sender_data",
];

/// One invoice.
#[derive(Debug)]
pub(super) struct Invoice {
    id: u64,
    foreign_id: String,
    end_user_reference: String,
    title: String,
    /// What the merchant is to receive.
    asked: (Currency, Decimal),
    timer: bool,
    parts_allowed: bool,
    /// What the payer pays with, once chosen.
    offer: Option<Offer>,
    payments: Vec<Payment>,
    /// When the timer runs out; none before a currency was chosen.
    expires_at: Option<Duration>,
    status: &'static str,
    error: &'static str,
    at: u64,
}

/// The fixed rate and the address to pay to.
#[derive(Debug)]
struct Offer {
    currency: Currency,
    amount: Decimal,
    address_id: u64,
    address: String,
    tag: Value,
    fixed_at: u64,
}

#[derive(Debug)]
struct Payment {
    leg: u64,
    amount: Decimal,
    txid: String,
    confirmed: bool,
}

/// Answers `POST /invoices/create`.
pub(super) fn create(shared: &Arc<Shared>, body: &Value) -> Result<Answer, Refusal> {
    let now = shared.clock.now();
    let mut invoice = read(body, now)?;
    let sender = Fields::read(body, &FIELDS)?.optional_currency("sender_currency");
    let data = {
        let mut state = shared.state();
        let foreign_id = invoice.foreign_id.clone();
        if state.find(Unique::Invoice, &foreign_id).is_some()
            && !shared
                .faults()
                .repeat_is_executed(Operation::Invoice, &foreign_id)
        {
            return Err(Refusal::taken());
        }
        invoice.id = state.next_id();
        if let Some(currency) = sender.filter(|_| invoice.timer) {
            let address_id = state.next_address();
            invoice.choose(currency, address_id, shared.seed, now);
        }
        if invoice.timer {
            invoice.status = "pending";
            invoice.expires_at = Some(now + TIMER);
        }
        let data = invoice.reply(shared.seed, now);
        state.take(Unique::Invoice, &foreign_id, invoice.id);
        if invoice.timer {
            shared.spawn(run_timer(Arc::clone(shared), invoice.id));
        }
        state.invoices.insert(invoice.id, invoice);
        data
    };
    Ok(Answer::created(&data, None))
}

fn read(body: &Value, now: Duration) -> Result<Invoice, Refusal> {
    let mut fields = Fields::read(body, &FIELDS)?;
    let timer = fields.bool("timer");
    fields.optional_text("description", 1000);
    fields.https("url_success");
    fields.https("url_failed");
    if !fields.text("email_user", 255).contains('@') {
        fields.wrong(
            "email_user",
            "The email user must be a valid email address.",
        );
    }
    let kind = fields.one_of("type", &["fill_or_kill", "good_until_expired"]);
    let sender = fields.optional_currency("sender_currency");
    if sender.is_some_and(|currency| !currency.crypto) {
        fields.wrong(
            "sender_currency",
            "The selected sender currency is invalid.",
        );
    }
    if (timer && sender.is_some()) || fields.get("sender_type").is_some() {
        fields.person("sender", &["natural", "legal"]);
    }
    let asked = (fields.currency("currency"), fields.amount("amount"));
    let euros = asked.1 * asked.0.eur;
    let (least, most) = LIMITS_EUR;
    if euros < Decimal::from(least) {
        let message = format!("The amount is too small. The minimum amount is {least}.00 EUR.");
        fields.wrong("amount", message);
    } else if euros > Decimal::from(most) {
        let message = format!("The amount is too big. The maximum amount is {most}.00 EUR.");
        fields.wrong("amount", message);
    }
    let invoice = Invoice {
        id: 0,
        foreign_id: fields.text("foreign_id", 255),
        end_user_reference: fields.text("end_user_reference", 255),
        title: fields.text("title", 50),
        asked,
        timer,
        parts_allowed: kind.as_deref() == Some("good_until_expired"),
        offer: None,
        payments: Vec::new(),
        expires_at: None,
        status: "created",
        error: "",
        at: now.as_secs(),
    };
    fields.finish()?;
    Ok(invoice)
}

/// The payer chooses a currency (without `currency`: what the invoice is in, or BTC for fiat) when
/// none is chosen yet, and pays `amount`; without an amount exactly what remains. The callbacks
/// follow: `processing` now, `confirmed` after the settling time once everything is paid.
pub(super) fn pay(
    shared: &Arc<Shared>,
    foreign_id: &str,
    amount: Option<Decimal>,
    currency: Option<&str>,
) -> Result<u64, ControlError> {
    choose(shared, foreign_id, currency)?;
    let now = shared.clock.now();
    let (id, subject) = {
        let mut state = shared.state();
        let leg = state.next_leg();
        let invoice = state.invoice(foreign_id)?;
        let closed = !invoice.payments.is_empty()
            && (!invoice.parts_allowed || invoice.remaining().is_zero());
        if invoice.is_final() || closed {
            let text = format!("invoice {foreign_id} is {}", invoice.status);
            return Err(ControlError::NotPossible(text));
        }
        let amount = amount.unwrap_or_else(|| invoice.remaining());
        invoice.payments.push(Payment {
            leg,
            amount,
            txid: hex::encode(digest(shared.seed, &format!("txid {leg}"))),
            confirmed: false,
        });
        invoice.status = "processing";
        invoice.expires_at = Some(now + PROCESSING_LIMIT);
        (invoice.id, invoice.subject())
    };
    callbacks::send(shared, &subject);
    shared.settle_later(id);
    Ok(id)
}

/// The payer chooses what to pay with: the rate is fixed and the timer starts. Nothing happens
/// when that is chosen already.
pub(super) fn choose(
    shared: &Arc<Shared>,
    foreign_id: &str,
    currency: Option<&str>,
) -> Result<(), ControlError> {
    let now = shared.clock.now();
    let subject = {
        let mut state = shared.state();
        let address_id = state.next_address();
        let invoice = state.invoice(foreign_id)?;
        if invoice.offer.is_some() {
            return Ok(());
        }
        if invoice.is_final() {
            let text = format!("invoice {foreign_id} is {}", invoice.status);
            return Err(ControlError::NotPossible(text));
        }
        let own = Some(invoice.asked.0.code).filter(|_| invoice.asked.0.crypto);
        let code = currency.or(own).unwrap_or("BTC");
        let currency =
            currencies::find(code).ok_or_else(|| ControlError::NotFound(code.to_owned()))?;
        invoice.choose(currency, address_id, shared.seed, now);
        if invoice.expires_at.is_none() {
            invoice.status = "pending";
            invoice.expires_at = Some(now + TIMER);
            shared.spawn(run_timer(Arc::clone(shared), invoice.id));
        }
        invoice.subject()
    };
    callbacks::send(shared, &subject);
    Ok(())
}

/// The timer runs out now, whatever the clock says.
pub(super) fn expire(shared: &Arc<Shared>, foreign_id: &str) -> Result<u64, ControlError> {
    let subject = shared.state().invoice(foreign_id)?.expire()?;
    callbacks::send(shared, &subject);
    Ok(subject.id)
}

/// Waits for the end of the timer, which payments move, and expires the invoice.
async fn run_timer(shared: Arc<Shared>, id: u64) {
    loop {
        let expires_at = {
            let state = shared.state();
            let open = state.invoices.get(&id).filter(|i| !i.is_final());
            open.and_then(|invoice| invoice.expires_at)
        };
        let Some(expires_at) = expires_at else {
            return;
        };
        if shared.clock.now() < expires_at {
            shared.clock.sleep_until(expires_at).await;
            continue;
        }
        let expired = shared.state().invoices.get_mut(&id).map(Invoice::expire);
        if let Some(Ok(subject)) = expired {
            callbacks::send(&shared, &subject);
        }
        return;
    }
}

/// Confirms what was paid. The invoice is confirmed when all of it is.
pub(super) fn settle_by_itself(shared: &Shared, id: u64) -> Option<Subject> {
    let mut state = shared.state();
    let invoice = state.invoices.get_mut(&id)?;
    if invoice.is_final() {
        return None;
    }
    for payment in &mut invoice.payments {
        payment.confirmed = true;
    }
    if !invoice.remaining().is_zero() {
        return None;
    }
    invoice.status = "confirmed";
    let subject = invoice.subject();
    let (currency, amount) = invoice.asked;
    state.credit(currency.code, amount - per_mille(amount, FEE));
    Some(subject)
}

impl State {
    fn invoice(&mut self, foreign_id: &str) -> Result<&mut Invoice, ControlError> {
        self.find(Unique::Invoice, foreign_id)
            .and_then(|id| self.invoices.get_mut(&id))
            .ok_or_else(|| ControlError::NotFound(foreign_id.to_owned()))
    }
}

impl Invoice {
    fn is_final(&self) -> bool {
        self.status == "confirmed" || self.status == "failed"
    }

    fn choose(&mut self, currency: Currency, address_id: u64, seed: u64, now: Duration) {
        let (asked, amount) = self.asked;
        let amount = if asked.code == currency.code {
            amount
        } else {
            currencies::cost(amount, currency, asked)
        };
        let (address, tag) = invent(currency, seed, address_id);
        self.offer = Some(Offer {
            currency,
            amount,
            address_id,
            address,
            tag,
            fixed_at: now.as_secs(),
        });
    }

    /// What is left to pay, in the payer's currency.
    fn remaining(&self) -> Decimal {
        let asked = self.offer.as_ref().map_or(self.asked.1, |o| o.amount);
        let paid: Decimal = self.payments.iter().map(|p| p.amount).sum();
        (asked - paid).max(Decimal::ZERO)
    }

    fn expire(&mut self) -> Result<Subject, ControlError> {
        if self.is_final() {
            let text = format!("invoice {} is already {}", self.foreign_id, self.status);
            return Err(ControlError::NotPossible(text));
        }
        self.status = "failed";
        self.error = if self.payments.is_empty() {
            NOT_PAID
        } else if self.remaining().is_zero() {
            TOO_LONG
        } else {
            PAID_LESS
        };
        Ok(self.subject())
    }

    /// As the ledger tells it.
    pub(super) fn execution(&self) -> Execution {
        let (currency, amount) = self.asked;
        Execution {
            foreign_id: self.foreign_id.clone(),
            kind: "invoice".to_owned(),
            currency: currency.code.to_owned(),
            amount,
            address: self.offer.as_ref().map(|offer| offer.address.clone()),
            id: self.id.to_string(),
            status: self.status.to_owned(),
            at: self.at,
            times_requested: 0,
        }
    }

    fn reply(&self, seed: u64, now: Duration) -> Value {
        let (currency, amount) = self.asked;
        let page = hex::encode(digest(seed, &format!("invoice {}", self.id)));
        let page = page.get(..6).unwrap_or_default();
        let release = self.expires_at.map(|at| at.as_secs());
        let offer = self.offer.as_ref();
        json!({
            "id": self.id,
            "url": format!("https://invoices.sandbox.cryptoprocessing.com/invoice/{page}"),
            "foreign_id": self.foreign_id,
            "end_user_reference": self.end_user_reference,
            "address": offer.map(|offer| offer.address.as_str()),
            "title": self.title,
            "status": self.status,
            "currency": currency.code,
            "amount": padded(amount),
            "sender_currency": offer.map(|offer| offer.currency.code),
            "sender_amount": offer.map(|offer| padded(offer.amount)),
            "fixed_at": offer.map(|offer| offer.fixed_at),
            "release_at": release,
            "seconds_left": release.map(|at| at.saturating_sub(now.as_secs()).min(899)),
        })
    }

    fn subject(&self) -> Subject {
        Subject {
            operation: Operation::Invoice,
            foreign_id: self.foreign_id.clone(),
            id: self.id,
            body: self.document(),
        }
    }

    fn document(&self) -> Value {
        let (asked, amount) = self.asked;
        let fees = if self.status == "confirmed" {
            let fee = padded(per_mille(amount, FEE));
            json!([{"type": "fee_crypto_deposit", "currency": asked.code, "amount": fee}])
        } else {
            json!([])
        };
        let mut body = json!({
            "id": self.id,
            "foreign_id": self.foreign_id,
            "end_user_reference": self.end_user_reference,
            "type": "invoice",
            "currency_received": {"currency": asked.code, "amount": padded(amount)},
            "transactions": [],
            "fees": fees,
            "error": self.error,
            "status": self.status,
            "expires_at": self.expires_at.map(|at| at.as_secs()),
        });
        if let Some(offer) = &self.offer {
            let mut address = json!({
                "id": offer.address_id,
                "currency": offer.currency.code,
                "address": offer.address,
                "tag": offer.tag,
            });
            if offer.currency.code != asked.code {
                set(&mut address, "convert_to", json!(asked.code));
            }
            set(&mut body, "crypto_address", address);
            set(
                &mut body,
                "currency_sent",
                json!({
                    "currency": offer.currency.code,
                    "amount": padded(offer.amount),
                    "remaining_amount": padded(self.remaining()),
                }),
            );
            set(&mut body, "fixed_at", json!(offer.fixed_at));
            let legs = self.payments.iter().map(|payment| payment.leg(offer));
            set(&mut body, "transactions", legs.collect());
        }
        body
    }
}

impl Payment {
    fn leg(&self, offer: &Offer) -> Value {
        json!({
            "id": self.leg,
            "currency": offer.currency.code,
            "transaction_type": "blockchain",
            "type": "deposit",
            "address": offer.address,
            "tag": offer.tag,
            "amount": padded(self.amount),
            "txid": self.txid,
            "confirmations": if self.confirmed { "1" } else { "0" },
        })
    }
}
