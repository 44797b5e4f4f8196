//! What happens between the daemon and the gateway.

use std::time::Duration;

use super::Telemetry;
use crate::domain::operation::Operation;

impl Telemetry {
    /// A request has a disposition: `accepted`, `rejected`, `not_sent` or `unknown`. Whoever sent
    /// it handles the outcome and says so, so this line is for those who follow the traffic.
    pub fn gateway_request(
        &self,
        operation: Operation,
        disposition: &'static str,
        status: Option<u16>,
        reason: &str,
    ) {
        tracing::debug!(%operation, disposition, status, reason, "gateway request");
        self.metrics()
            .gateway_requests_total
            .with_label_values(&[operation.name(), disposition])
            .inc();
    }

    /// The gateway answered 429; requests are held back for a while.
    pub fn gateway_rate_limited(&self, operation: Operation, held: Duration) {
        tracing::warn!(%operation, held_seconds = held.as_secs(), "gateway rate limit reached");
        self.metrics()
            .gateway_rate_limited_total
            .with_label_values(&[operation.name()])
            .inc();
    }
}
