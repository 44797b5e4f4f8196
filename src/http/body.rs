//! Reads the body of a request: the exact bytes, up to a size, within a time.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is, or says it will be, above the limit; the rest was not read.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// The connection broke, or it is no HTTP.
    Broken,
}

impl BodyError {
    /// How to answer.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// The whole body, of at most `most` bytes, if it comes within `patience`.
pub(super) async fn read(body: Body, most: u64, patience: Duration) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > most {
        return Err(BodyError::TooLarge);
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    match tokio::time::timeout(patience, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::Broken),
        Err(_) => Err(BodyError::TooSlow),
    }
}
