//! The listener that the gateway posts callbacks to.
//!
//! Hands the exact bytes to the runner and turns its answer into a status. Stores and verifies
//! nothing itself; logs only what the runner never sees.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

use super::body::{self, BodyError};
use super::finish::Finish;
use crate::config;
use crate::runner::{Answer, Handle};
use crate::telemetry::Telemetry;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the listener needs.
#[derive(Debug)]
struct Intake {
    handle: Handle,
    max_body: u64,
    patience: Duration,
    telemetry: Telemetry,
}

/// The routes of the callback listener: `POST` to the configured path.
///
/// 200 with an empty body means on disk, whether or not it was before. 403: forged. 413: above
/// `callbacks.max_body`. 408: too slow. 503: send it again. (The gateway takes exactly 200 as
/// received and sends everything else again.)
pub fn callbacks(handle: Handle, config: &config::Callbacks, telemetry: &Telemetry) -> Router {
    patient_callbacks(handle, config, telemetry, PATIENCE)
}

/// Like [`callbacks`], with another patience.
pub(super) fn patient_callbacks(
    handle: Handle,
    config: &config::Callbacks,
    telemetry: &Telemetry,
    patience: Duration,
) -> Router {
    let intake = Intake {
        handle,
        max_body: config.max_body,
        patience,
        telemetry: telemetry.clone(),
    };
    Router::new()
        .route(&config.path, post(receive))
        .with_state(Arc::new(intake))
}

async fn receive(State(intake): State<Arc<Intake>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    let body = match body::read(body, intake.max_body, intake.patience).await {
        Ok(body) => body,
        Err(error) => {
            if error == BodyError::TooLarge {
                intake.telemetry.callback_too_large();
            }
            return error.status();
        }
    };
    // When the client goes away, what has begun must still come to its end, or the runs that the
    // callback started would wait for the next start of the daemon.
    let taken = Finish::new(async move {
        let key = text(&head.headers, "x-processing-key");
        let signature = text(&head.headers, "x-processing-signature");
        intake.handle.accept(key, signature, &body).await
    });
    status(taken.await)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

const fn status(answer: Answer) -> StatusCode {
    match answer {
        Answer::Accepted | Answer::Duplicate | Answer::Unreadable => StatusCode::OK,
        Answer::Forged => StatusCode::FORBIDDEN,
        Answer::TryLater => StatusCode::SERVICE_UNAVAILABLE,
    }
}
