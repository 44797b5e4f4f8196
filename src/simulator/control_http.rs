//! The controls over HTTP, below `/simulator`, for other processes. JSON in and out, no keys: the
//! simulator never guards real money.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::callbacks::{Forgery, SentCallback};
use super::control::{Control, ControlError};
use super::faults::{Faults, Operation};
use super::ledger::Execution;
use super::wire::json_response;
use super::{Settings, Shared};
use crate::domain::money::parse_decimal;

/// `GET` shows, `POST` does. Amounts are decimal strings, durations real milliseconds.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/simulator/executions", get(executions))
        .route("/simulator/requests", get(requests))
        .route("/simulator/balances", get(balances))
        .route("/simulator/callbacks", get(callbacks))
        .route("/simulator/deposit", post(deposit))
        .route("/simulator/choose_currency", post(choose_currency))
        .route("/simulator/pay_invoice", post(pay_invoice))
        .route("/simulator/expire_invoice", post(expire_invoice))
        .route("/simulator/pay_payment_request", post(pay_payment_request))
        .route(
            "/simulator/expire_payment_request",
            post(expire_payment_request),
        )
        .route("/simulator/settle", post(settle))
        .route("/simulator/faults", post(faults))
        .route("/simulator/settings", post(settings))
        .route("/simulator/resend_callback", post(resend_callback))
        .route("/simulator/forge_callback", post(forge_callback))
}

type Shown = State<Arc<Shared>>;

/// What an action gives back: the number of what it touched, an answer, or just `true`.
type Done = Result<Json<Value>, Failure>;

/// Why an action was not done.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        json_response(self.0, &json!({ "error": self.1 }))
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::NotFound(_) => StatusCode::NOT_FOUND,
            ControlError::NotPossible(_) => StatusCode::CONFLICT,
        };
        Self(status, error.to_string())
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure(StatusCode::BAD_REQUEST, e.to_string()))
}

fn amount(text: &str) -> Result<Decimal, Failure> {
    parse_decimal(text).map_err(|e| Failure(StatusCode::BAD_REQUEST, e.to_string()))
}

async fn executions(State(shared): Shown) -> Json<Vec<Execution>> {
    Json(Control(shared).executions())
}

async fn requests(State(shared): Shown) -> Json<BTreeMap<Operation, u64>> {
    Json(Control(shared).requests())
}

async fn balances(State(shared): Shown) -> Json<BTreeMap<String, String>> {
    let balances = Control(shared).balances().into_iter();
    Json(
        balances
            .map(|(code, sum)| (code, sum.to_string()))
            .collect(),
    )
}

async fn callbacks(State(shared): Shown) -> Json<Vec<SentCallback>> {
    Json(Control(shared).callbacks())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DepositBody {
    to: String,
    amount: String,
    currency: Option<String>,
}

async fn deposit(State(shared): Shown, body: Bytes) -> Done {
    let body: DepositBody = read(&body)?;
    let (amount, currency) = (amount(&body.amount)?, body.currency.as_deref());
    let id = Control(shared).deposit(&body.to, amount, currency)?;
    Ok(Json(json!(id)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PayBody {
    foreign_id: String,
    amount: Option<String>,
    currency: Option<String>,
}

async fn pay_invoice(State(shared): Shown, body: Bytes) -> Done {
    let body: PayBody = read(&body)?;
    let amount = body.amount.as_deref().map(amount).transpose()?;
    let id = Control(shared).pay_invoice(&body.foreign_id, amount, body.currency.as_deref())?;
    Ok(Json(json!(id)))
}

async fn pay_payment_request(State(shared): Shown, body: Bytes) -> Done {
    let body: PayBody = read(&body)?;
    let amount = body.amount.as_deref().map(amount).transpose()?;
    let id = Control(shared).pay_payment_request(&body.foreign_id, amount)?;
    Ok(Json(json!(id)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChooseBody {
    foreign_id: String,
    currency: String,
}

async fn choose_currency(State(shared): Shown, body: Bytes) -> Done {
    let body: ChooseBody = read(&body)?;
    Control(shared).choose_currency(&body.foreign_id, &body.currency)?;
    Ok(Json(json!(true)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpireBody {
    foreign_id: String,
}

async fn expire_invoice(State(shared): Shown, body: Bytes) -> Done {
    let body: ExpireBody = read(&body)?;
    Ok(Json(json!(
        Control(shared).expire_invoice(&body.foreign_id)?
    )))
}

async fn expire_payment_request(State(shared): Shown, body: Bytes) -> Done {
    let body: ExpireBody = read(&body)?;
    let id = Control(shared).expire_payment_request(&body.foreign_id)?;
    Ok(Json(json!(id)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettleBody {
    what: String,
    status: String,
}

async fn settle(State(shared): Shown, body: Bytes) -> Done {
    let body: SettleBody = read(&body)?;
    Control(shared).settle(&body.what, &body.status)?;
    Ok(Json(json!(true)))
}

async fn faults(State(shared): Shown, body: Bytes) -> Done {
    let faults: Faults = read(&body)?;
    Control(shared).set_faults(faults);
    Ok(Json(json!(true)))
}

/// Only what is named changes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsBody {
    callback_url: Option<String>,
    latency_ms: Option<u64>,
    settle_after_ms: Option<u64>,
    pending_above: Option<String>,
}

async fn settings(State(shared): Shown, body: Bytes) -> Done {
    let body: SettingsBody = read(&body)?;
    let limit = body.pending_above.as_deref().map(amount).transpose()?;
    let mut now = shared.settings();
    let before = now.clone();
    *now = Settings {
        callback_url: body.callback_url.or(before.callback_url),
        latency: body
            .latency_ms
            .map_or(before.latency, Duration::from_millis),
        settle_after: body
            .settle_after_ms
            .map(Duration::from_millis)
            .or(before.settle_after),
        pending_above: limit.or(before.pending_above),
    };
    Ok(Json(json!(true)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResendBody {
    id: u64,
}

async fn resend_callback(State(shared): Shown, body: Bytes) -> Done {
    let body: ResendBody = read(&body)?;
    let delivered = Control(shared).resend_callback(body.id).await?;
    Ok(Json(json!(delivered)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgeBody {
    id: u64,
    forgery: Forgery,
}

async fn forge_callback(State(shared): Shown, body: Bytes) -> Done {
    let body: ForgeBody = read(&body)?;
    let answer = Control(shared)
        .forge_callback(body.id, body.forgery)
        .await?;
    Ok(Json(json!(answer)))
}
