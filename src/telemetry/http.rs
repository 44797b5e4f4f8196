//! What happens at the listeners besides callbacks.

use std::fmt::Display;

use super::Telemetry;

impl Telemetry {
    /// The system had no connection to give. Counts nothing, since it is no component's own.
    pub fn connection_not_accepted(error: &std::io::Error) {
        tracing::warn!(%error, "a connection could not be accepted");
    }

    /// Somebody presented a wrong token to the admin listener.
    pub fn admin_token_refused(&self) {
        tracing::warn!("admin request refused: wrong token");
    }

    /// An admin request failed inside; the caller was told nothing.
    pub fn admin_request_failed(&self, error: &dyn Display) {
        tracing::error!(%error, "admin request failed");
    }
}
