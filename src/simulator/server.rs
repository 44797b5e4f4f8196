//! The gateway's face: connections, paths, keys and signatures, and the faults that strike
//! requests. What the operations do is in files of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::faults::{Fault, Operation};
use super::wire::{Answer, Refusal};
use super::{
    Shared, addresses, callbacks, control_http, currencies, exchanges, invoices, lookup,
    payment_requests, signing, withdrawals,
};

/// The largest body that is read.
const MAX_BODY: usize = 1024 * 1024;

/// How long the callback that comes before the reply may hold the reply up.
const EARLY_CALLBACK_LIMIT: Duration = Duration::from_secs(2);

/// The runtime's timer counts whole milliseconds and is one late on average: without taking that
/// off, 20 ms of latency would be 21.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Marks a response that must not be sent: the connection closes instead.
#[derive(Debug, Clone, Copy)]
struct Unsent;

/// The connection is cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the answer is dropped on purpose")]
struct Cut;

/// Accepts connections until the task is aborted.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let router = control_http::routes()
        .fallback(gateway)
        .method_not_allowed_fallback(gateway)
        .with_state(Arc::clone(&shared));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => shared.spawn(connection(router.clone(), stream)),
            // Out of file descriptors, most likely: some will be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(router: Router, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let answer = router.call(request);
        async move {
            // Infallible: the router has an answer to everything.
            let response: Result<Response, Infallible> = answer.await;
            match response {
                Ok(response) if response.extensions().get::<Unsent>().is_some() => Err(Cut),
                Ok(response) => Ok(response),
                Err(never) => match never {},
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // It ends with an error when the client goes away or an answer is dropped: both are usual.
    connection.await.ok();
}

impl Operation {
    /// The operation at a path, if the contract has one there.
    fn at(method: &Method, path: &str) -> Option<Self> {
        let operation = match path {
            "/api/v2/ping" => Self::Ping,
            "/api/v2/transactions/info" => Self::TransactionInfo,
            "/api/v2/accounts/list" => Self::Accounts,
            "/api/v2/currencies/list" => Self::Currencies,
            "/api/v2/currencies/pairs" => Self::Pairs,
            "/api/v2/currencies/rates" => Self::Rates,
            "/api/v2/addresses/take" => Self::TakeAddress,
            "/api/v2/withdrawal/crypto" => Self::Withdrawal,
            "/api/v2/crypto/withdrawal_instant" => Self::InstantWithdrawal,
            "/api/v2/crypto/withdrawal_instant_exchange" => Self::InstantWithdrawalExchange,
            "/api/v2/exchange/calculate" => Self::ExchangeCalculate,
            "/api/v2/exchange/fixed" => Self::ExchangeFixed,
            "/api/v2/exchange/now" => Self::ExchangeNow,
            "/api/v2/invoices/create" => Self::Invoice,
            "/api/payments/v1/requests" => Self::PaymentRequest,
            _ => return None,
        };
        let expected = if matches!(operation, Self::Ping | Self::TransactionInfo) {
            Method::GET
        } else {
            Method::POST
        };
        (*method == expected).then_some(operation)
    }
}

/// Answers everything that is not below `/simulator`. The work goes on when the client goes away.
async fn gateway(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let Some(operation) = Operation::at(&parts.method, parts.uri.path()) else {
        return Refusal::NoKey.into_response();
    };
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return Refusal::BadFormat.into_response();
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let task = {
        let shared = Arc::clone(&shared);
        async move {
            let response = handle(&shared, operation, arrived, &parts, &body).await;
            // Nobody listens when the client has gone.
            sender.send(response).ok();
        }
    };
    shared.spawn(task);
    receiver.await.unwrap_or_else(|_| unsent())
}

async fn handle(
    shared: &Arc<Shared>,
    operation: Operation,
    arrived: Instant,
    parts: &Parts,
    body: &[u8],
) -> Response {
    let document = if operation == Operation::Ping {
        Ok(Value::Null)
    } else {
        authenticate(shared, &parts.headers, body)
    };
    let foreign_id = document.as_ref().map(subject_of).unwrap_or_default();
    shared.state().count(operation, &foreign_id);
    let latency = shared.settings().latency;
    // Counted from the arrival: what is done meanwhile is part of it.
    tokio::time::sleep_until(arrived + latency.saturating_sub(TIMER_TICK)).await;
    let document = match document {
        Ok(document) => document,
        Err(refusal) => return refusal.into_response(),
    };
    let fault = shared.faults().request(operation, &foreign_id);
    let fault = match fault {
        Some(Fault::Refuse) => {
            let refusal = Refusal::field("currency", "The selected currency is invalid.");
            return refusal.into_response();
        }
        Some(Fault::ErrorBeforeActing) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, "Internal server error").into_response();
        }
        Some(Fault::DropRequest) => return unsent(),
        Some(Fault::TooManyRequests) => return Refusal::TooMany.into_response(),
        Some(Fault::TooManyRequestsFor(seconds)) => {
            let wait = [(header::RETRY_AFTER, seconds.to_string())];
            return (wait, Refusal::TooMany).into_response();
        }
        Some(Fault::Delay(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            None
        }
        other => other,
    };
    let response = act_and_settle(shared, operation, &foreign_id, &document).await;
    match fault {
        Some(Fault::DropAnswer) => unsent(),
        Some(Fault::ActThenBadGateway) => {
            let page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
            let html = [(header::CONTENT_TYPE, "text/html")];
            (StatusCode::BAD_GATEWAY, html, page).into_response()
        }
        Some(Fault::ActThenRubbish) => (StatusCode::OK, "<!-- no JSON -->").into_response(),
        Some(Fault::SlowAnswer(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            response
        }
        _ => response,
    }
}

async fn act_and_settle(
    shared: &Arc<Shared>,
    operation: Operation,
    foreign_id: &str,
    document: &Value,
) -> Response {
    if operation == Operation::Ping {
        return ([(header::CONTENT_TYPE, "text/html")], "OK").into_response();
    }
    let answer = match act(shared, operation, document) {
        Ok(answer) => answer,
        Err(refusal) => return refusal.into_response(),
    };
    if let Some(id) = answer.settles {
        if shared.faults().settles_before_reply(operation, foreign_id) {
            if let Some(subject) = shared.settle_by_itself(id) {
                // A receiver that waits for the reply first would wait for ever.
                callbacks::send_and_wait(shared, &subject, EARLY_CALLBACK_LIMIT).await;
            }
        } else {
            shared.settle_later(id);
        }
    }
    answer.into_response()
}

fn act(shared: &Arc<Shared>, operation: Operation, body: &Value) -> Result<Answer, Refusal> {
    match operation {
        Operation::Accounts => currencies::accounts(shared, body),
        Operation::Currencies => currencies::list(shared, body),
        Operation::Pairs | Operation::Rates => currencies::pairs(shared, body),
        Operation::TakeAddress => addresses::take(shared, body),
        Operation::Withdrawal
        | Operation::InstantWithdrawal
        | Operation::InstantWithdrawalExchange => withdrawals::create(shared, operation, body),
        Operation::ExchangeCalculate => exchanges::calculate(shared, body),
        Operation::ExchangeFixed | Operation::ExchangeNow => {
            exchanges::create(shared, operation, body)
        }
        Operation::Invoice => invoices::create(shared, body),
        Operation::PaymentRequest => payment_requests::create(shared, body),
        Operation::TransactionInfo => lookup::info(shared, body),
        // Neither comes here: the one has no body, the other is no request.
        Operation::Ping | Operation::Deposit => Err(Refusal::NoKey),
    }
}

/// Key, signature, form of the body, in this order.
fn authenticate(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let key = text("X-Processing-Key").ok_or(Refusal::NoKey)?;
    if key != shared.key {
        return Err(Refusal::BadKey);
    }
    let signature = text("X-Processing-Signature").ok_or(Refusal::NoSignature)?;
    if !signing::verify(&shared.secret, body, signature) {
        return Err(Refusal::BadSignature);
    }
    let media_type = text("Content-Type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type != "application/json" {
        return Err(Refusal::BadFormat);
    }
    serde_json::from_slice(body).map_err(|_| Refusal::BadFormat)
}

/// What a request is about, for faults and counts: its `foreign_id`, else its `id`.
fn subject_of(document: &Value) -> String {
    match (document.get("foreign_id"), document.get("id")) {
        (Some(Value::String(foreign_id)), _) => foreign_id.clone(),
        (None, Some(id)) => id.to_string(),
        _ => String::new(),
    }
}

fn unsent() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Unsent);
    response
}
