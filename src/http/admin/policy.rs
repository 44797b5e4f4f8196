//! What policy would say about payments that nobody has asked for.

use std::time::Duration;

use axum::extract::{Request, State};
use serde_json::Value;

use super::Admin;
use super::api::{Shown, is_json, view};
use super::failure::Failure;
use crate::domain::policy::proposed;
use crate::http::body;

/// The largest body of a request: a few thousand payments.
const LARGEST_BODY: u64 = 4 * 1024 * 1024;

/// How long it may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Explains what would be decided about the payments in the body, one or a list. Nothing changes.
pub(super) async fn test(State(admin): State<Admin>, request: Request) -> Shown {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return Err(Failure::not_json());
    }
    let body = body::read(body, LARGEST_BODY, PATIENCE)
        .await
        .map_err(|error| Failure::bad_body(error.status()))?;
    let value: Value = serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request(format!("the body must be JSON: {error}")))?;
    let proposals = proposed(&value, admin.handle.now())
        .map_err(|mistakes| Failure::bad_request(mistakes.join("; ")))?;
    view(admin, move |handle| handle.test_policy(&proposals)).await
}
