//! What the daemon says about itself: one function per operational event, which writes the log
//! line and counts in one place, and the table of metrics.
//!
//! Rules: a failure is logged once, where it is handled. Labels come from closed sets — never an
//! error text, a `foreign_id`, an address or anything else from outside. Secrets and personal data
//! are never logged. Each area has its own file with the functions of its events.

mod daemon;
mod gateway;
mod http;
pub mod logging;
mod metrics;
mod outbound;
mod people;
mod policy;
mod runner;
mod store;
mod triggers;

use std::sync::Arc;

pub use metrics::Metrics;

/// The handle that every component is given. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
}

impl Telemetry {
    /// The counters, for whoever shows them.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
