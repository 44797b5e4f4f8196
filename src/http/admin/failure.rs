//! Answers that are not what was asked for: a status, a code for programs, a sentence for people.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::domain::person::NotAllowed;

/// Becomes `{"error": {"code", "message"}}`. The message is shown to the caller as it is, so it
/// never says what went wrong inside.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// The caller must change the request.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The body did not arrive as it should.
    pub(super) fn bad_body(status: StatusCode) -> Self {
        Self::new(
            status,
            "bad_body",
            "the body is too large, too slow or broken",
        )
    }

    /// Only JSON can change anything: browsers ask before they send that to another site.
    pub(super) fn not_json() -> Self {
        let message = "send the header `Content-Type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message)
    }

    /// The caller must present the token.
    pub(super) fn unauthorized() -> Self {
        let message = "present the token of `admin.token`, or that of an `[[admin.user]]`, as `Authorization: Bearer …`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// The request was meant for another host.
    pub(super) fn wrong_host() -> Self {
        let message =
            "without `admin.token`, only requests to localhost or a loopback address are answered";
        Self::new(StatusCode::FORBIDDEN, "wrong_host", message)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path is there, but not for this method.
    pub(super) fn wrong_method(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
    }

    /// The daemon cannot do its work now.
    pub(super) fn not_ready(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The thing is not in a state in which this can be done.
    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// The store could not be copied. The message says why, to an operator.
    pub(super) fn no_backup(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "no_backup", message)
    }

    /// Something failed inside, and the log says what.
    pub(super) fn internal() -> Self {
        let message = "that failed; the daemon's log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<NotAllowed> for Failure {
    fn from(refused: NotAllowed) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not_allowed", refused.to_string())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let headers = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
