//! One HTTP request and its answer, without TLS: the listeners of a daemon have none themselves.

use std::error::Error;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::exit_code::with_causes;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// Nobody listens there.
    #[error("nobody answers there")]
    NotThere,
    /// No whole answer came.
    #[error("there was no answer: {0}")]
    Lost(String),
}

/// How long an answer may take that is not about long work.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Sends a request and waits for its whole answer, at most so long.
pub(super) fn exchange(
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Answer, ExchangeError> {
    let lost = |error: &dyn Error| ExchangeError::Lost(with_causes(error));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| lost(&error))?;
    let exchange = async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.map_err(|error| {
            if error.is_connect() {
                ExchangeError::NotThere
            } else {
                lost(&error)
            }
        })?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| lost(&error))?.to_bytes();
        Ok(Answer { status, body })
    };
    runtime.block_on(async {
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or_else(|late| Err(lost(&late)))
    })
}
