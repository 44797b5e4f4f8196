//! Payment requests: a younger API of the gateway with its own path, currencies by ISO code and
//! network, and UUIDs for numbers.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::Shared;
use super::addresses::invent;
use super::callbacks::{self, Subject};
use super::control::ControlError;
use super::currencies::{self, Currency};
use super::faults::{Operation, digest};
use super::ledger::{Execution, State, Unique};
use super::wire::{Answer, Fields, Refusal, set};

/// How long a rate is locked once the payer chose a currency.
const RATE_LOCK: Duration = Duration::from_hours(1);

const FIELDS: [&str; 14] = [
    "amount",
    "currency",
    "life_time_duration",
    "life_time_datetime",
    "payment_currency",
    "end_user_email",
    "end_user_reference",
    "description",
    "foreign_id",
    "url_store",
    "url_success",
    "url_failed",
    "sender_type",
    "sender_data",
];

/// One payment request.
#[derive(Debug)]
pub(super) struct PaymentRequest {
    number: u64,
    /// A UUID of version 7.
    id: String,
    foreign_id: String,
    email: Value,
    asked: (Currency, Decimal),
    /// What it can be paid in.
    payable_in: Currency,
    paid: Decimal,
    /// Address, its id, and when the rate was fixed; none before the payer came.
    offer: Option<(String, String, u64)>,
    valid_until: Duration,
    status: &'static str,
    at: u64,
}

/// Answers `POST /api/payments/v1/requests`.
pub(super) fn create(shared: &Arc<Shared>, body: &Value) -> Result<Answer, Refusal> {
    let now = shared.clock.now();
    let (mut request, mut data) = read(body, now)?;
    let foreign_id = request.foreign_id.clone();
    let mut state = shared.state();
    let taken = !foreign_id.is_empty() && state.find(Unique::PaymentRequest, &foreign_id).is_some();
    if taken
        && !shared
            .faults()
            .repeat_is_executed(Operation::PaymentRequest, &foreign_id)
    {
        return Err(Refusal::taken());
    }
    request.number = state.next_id();
    request.id = uuid(shared.seed, now, &format!("request {}", request.number));
    set(&mut data, "id", json!(request.id));
    set(
        &mut data,
        "payment_link",
        json!(format!(
            "https://pay.sandbox.cryptoprocessing.com/{}",
            request.id
        )),
    );
    state.take(Unique::PaymentRequest, &foreign_id, request.number);
    state.take(Unique::PaymentRequest, &request.id, request.number);
    shared.spawn(run_timer(Arc::clone(shared), request.number));
    state.payment_requests.insert(request.number, request);
    Ok(Answer::created(&data, None))
}

fn read(body: &Value, now: Duration) -> Result<(PaymentRequest, Value), Refusal> {
    let mut fields = Fields::read(body, &FIELDS)?;
    let amount = fields.amount("amount");
    if fields
        .get("amount")
        .is_some_and(|amount| !amount.is_string())
    {
        fields.wrong("amount", "The amount must be a string.");
    }
    let currency = iso_currency(&mut fields, "currency", true).unwrap_or(currencies::STAND_IN);
    let chosen = iso_currency(&mut fields, "payment_currency", false);
    let own = Some(currency).filter(|currency| currency.crypto);
    let payable_in = chosen
        .or(own)
        .or_else(|| currencies::find("BTC"))
        .unwrap_or(currency);
    let valid_until = life_time(&mut fields, now);
    if let Some(url) = fields.optional_text("url_store", 2048)
        && !url.starts_with("https://")
    {
        fields.wrong("url_store", "The url store format is invalid.");
    }
    if fields.get("sender_type").is_some() {
        fields.person("sender", &["natural", "legal"]);
    }
    let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let data = json!({
        "amount": amount.to_string(),
        "currency": currency.iso_json(),
        "status": "created",
        "life_time": valid_until.as_secs(),
        "end_user_email": text("end_user_email"),
        "end_user_reference": text("end_user_reference"),
        "description": text("description"),
        "foreign_id": text("foreign_id"),
        "url_store": text("url_store"),
    });
    let email = text("end_user_email");
    let foreign_id = fields.optional_text("foreign_id", 255).unwrap_or_default();
    fields.finish()?;
    let request = PaymentRequest {
        number: 0,
        id: String::new(),
        foreign_id,
        email,
        asked: (currency, amount),
        payable_in,
        paid: Decimal::ZERO,
        offer: None,
        valid_until,
        status: "created",
        at: now.as_secs(),
    };
    Ok((request, data))
}

fn iso_currency(fields: &mut Fields<'_>, name: &str, required: bool) -> Option<Currency> {
    let Some(value) = fields.get(name) else {
        if required {
            fields.wrong(
                name,
                format!("The {} field is required.", name.replace('_', " ")),
            );
        }
        return None;
    };
    let iso = value.get("iso").and_then(Value::as_str).unwrap_or_default();
    let network = value.get("network_name").and_then(Value::as_str);
    let found = currencies::find_iso(iso, network);
    if found.is_none() {
        fields.wrong(
            name,
            format!("The selected {} is invalid.", name.replace('_', " ")),
        );
    }
    found
}

/// Exactly one of a duration in seconds and a moment in Unix seconds, in the future.
fn life_time(fields: &mut Fields<'_>, now: Duration) -> Duration {
    let duration = fields.get("life_time_duration");
    let moment = fields.get("life_time_datetime");
    let until = match (duration, moment) {
        (Some(duration), None) => duration
            .as_u64()
            .and_then(|seconds| now.checked_add(Duration::from_secs(seconds))),
        (None, Some(moment)) => moment.as_u64().map(Duration::from_secs),
        (None, None) | (Some(_), Some(_)) => None,
    };
    let until = until.filter(|until| *until > now);
    if until.is_none() {
        fields.wrong(
            "life_time_duration",
            "Exactly one of life time duration and life time datetime must be a time to come.",
        );
    }
    until.unwrap_or_default()
}

/// The payer pays `amount` in the payment currency; without an amount exactly what remains. Sends
/// `processing`; `paid` follows after the settling time once everything is paid.
pub(super) fn pay(
    shared: &Arc<Shared>,
    foreign_id: &str,
    amount: Option<Decimal>,
) -> Result<u64, ControlError> {
    let now = shared.clock.now();
    let subject = {
        let mut state = shared.state();
        let number = state.next_address();
        let request = state.payment_request(foreign_id)?;
        if request.is_final() {
            let text = format!("payment request {foreign_id} is {}", request.status);
            return Err(ControlError::NotPossible(text));
        }
        if request.offer.is_none() {
            let (address, _) = invent(request.payable_in, shared.seed, number);
            let id = uuid(shared.seed, now, &format!("address {number}"));
            request.offer = Some((address, id, now.as_secs()));
        }
        request.paid += amount.unwrap_or_else(|| request.remaining());
        request.status = "processing";
        request.subject()
    };
    callbacks::send(shared, &subject);
    shared.settle_later(subject.id);
    Ok(subject.id)
}

/// Time runs out now, whatever the clock says: `expired` without a payment, else `failed`.
pub(super) fn expire(shared: &Arc<Shared>, foreign_id: &str) -> Result<u64, ControlError> {
    let subject = shared.state().payment_request(foreign_id)?.expire()?;
    callbacks::send(shared, &subject);
    Ok(subject.id)
}

async fn run_timer(shared: Arc<Shared>, number: u64) {
    let until = {
        let state = shared.state();
        let request = state.payment_requests.get(&number);
        request.map(|request| request.valid_until)
    };
    shared.clock.sleep_until(until.unwrap_or_default()).await;
    let expired = shared
        .state()
        .payment_requests
        .get_mut(&number)
        .map(PaymentRequest::expire);
    if let Some(Ok(subject)) = expired {
        callbacks::send(&shared, &subject);
    }
}

/// Confirms what was paid. The request is paid when all of it is.
pub(super) fn settle_by_itself(shared: &Shared, number: u64) -> Option<Subject> {
    let mut state = shared.state();
    let request = state.payment_requests.get_mut(&number)?;
    if request.is_final() || !request.remaining().is_zero() {
        return None;
    }
    request.status = "paid";
    let (subject, (currency, amount)) = (request.subject(), request.asked);
    state.credit(currency.code, amount);
    Some(subject)
}

impl State {
    fn payment_request(&mut self, foreign_id: &str) -> Result<&mut PaymentRequest, ControlError> {
        self.find(Unique::PaymentRequest, foreign_id)
            .and_then(|number| self.payment_requests.get_mut(&number))
            .ok_or_else(|| ControlError::NotFound(foreign_id.to_owned()))
    }
}

impl PaymentRequest {
    fn is_final(&self) -> bool {
        ["paid", "failed", "expired"].contains(&self.status)
    }

    /// In the payment currency.
    fn expected(&self) -> Decimal {
        let (asked, amount) = self.asked;
        if asked.code == self.payable_in.code {
            amount
        } else {
            currencies::cost(amount, self.payable_in, asked)
        }
    }

    fn remaining(&self) -> Decimal {
        (self.expected() - self.paid).max(Decimal::ZERO)
    }

    fn expire(&mut self) -> Result<Subject, ControlError> {
        if self.is_final() {
            let text = format!("payment request {} is {}", self.foreign_id, self.status);
            return Err(ControlError::NotPossible(text));
        }
        self.status = if self.paid.is_zero() {
            "expired"
        } else {
            "failed"
        };
        Ok(self.subject())
    }

    /// As the ledger tells it.
    pub(super) fn execution(&self) -> Execution {
        let (currency, amount) = self.asked;
        Execution {
            foreign_id: self.foreign_id.clone(),
            kind: "payment_request".to_owned(),
            currency: currency.code.to_owned(),
            amount,
            address: self.offer.as_ref().map(|(address, ..)| address.clone()),
            id: self.id.clone(),
            status: self.status.to_owned(),
            at: self.at,
            times_requested: 0,
        }
    }

    fn subject(&self) -> Subject {
        Subject {
            operation: Operation::PaymentRequest,
            foreign_id: self.foreign_id.clone(),
            id: self.number,
            body: self.document(),
        }
    }

    fn document(&self) -> Value {
        let (asked, amount) = self.asked;
        let plain = |amount: Decimal| amount.normalize().to_string();
        let mut body = json!({
            "payment_request_id": self.id,
            "foreign_id": self.foreign_id,
            "type": "payment_request",
            "status": self.status,
            "end_user_email": self.email,
            "payment_request_amount": {"currency": asked.iso_json(), "amount": plain(amount)},
            "currency_sent": {
                "currency": self.payable_in.iso_json(),
                "expected_amount": plain(self.expected()),
                "received_amount": plain(self.paid),
                "remaining_amount": plain(self.remaining()),
            },
            "valid_until": self.valid_until.as_secs(),
        });
        if let Some((address, id, fixed_at)) = &self.offer {
            set(
                &mut body,
                "payment_request_address",
                json!({
                    "id": id,
                    "currency": self.payable_in.iso_json(),
                    "convert_to": asked.iso_json(),
                    "address": address,
                }),
            );
            let locked_until = fixed_at + RATE_LOCK.as_secs();
            set(&mut body, "fixed_at", json!(fixed_at));
            set(
                &mut body,
                "expires_at",
                json!(locked_until.min(self.valid_until.as_secs())),
            );
        }
        body
    }
}

/// A UUID of version 7: milliseconds of the clock, then digits of the seed's.
fn uuid(seed: u64, now: Duration, text: &str) -> String {
    let millis = format!("{:012x}", now.as_millis());
    let random = hex::encode(digest(seed, text));
    let part =
        |text: &str, from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    format!(
        "{}-{}-7{}-8{}-{}",
        part(&millis, 0, 8),
        part(&millis, 8, 12),
        part(&random, 0, 3),
        part(&random, 3, 6),
        part(&random, 6, 18),
    )
}
