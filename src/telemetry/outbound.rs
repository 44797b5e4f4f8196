//! What scripts reach outside.

use super::Telemetry;

impl Telemetry {
    /// A script's HTTP request has an outcome: `answered`, or the kind of its error. Says nothing
    /// of where it went, since scripts put customers into URLs.
    pub fn script_request(&self, outcome: &'static str, status: Option<u16>) {
        tracing::debug!(outcome, status, "script request");
        self.metrics()
            .script_requests_total
            .with_label_values(&[outcome])
            .inc();
    }
}
