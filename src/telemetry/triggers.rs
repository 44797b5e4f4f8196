//! What the triggers and the watch of the scripts folder report.

use chrono::TimeDelta;

use super::Telemetry;
use crate::domain::callback::Unreadable;
use crate::domain::clock::Timestamp;
use crate::domain::id::HandlerId;

impl Telemetry {
    /// The machine's clock was set by `jump`, backwards when it is negative.
    pub fn clock_jumped(&self, jump: TimeDelta) {
        self.metrics().clock_jumps_total.inc();
        tracing::warn!(
            seconds = jump.num_seconds(),
            "the clock jumped; slots that have a record do not fire again"
        );
    }

    /// More slots were missed than are recorded one by one.
    pub fn slots_omitted(&self, handler: &HandlerId, after: Timestamp, until: Timestamp) {
        self.metrics().slots_omitted_total.inc();
        tracing::warn!(
            %handler, %after, %until,
            "too many missed slots; the oldest are skipped as one stretch"
        );
    }

    /// A callback was refused. `reason` names no content of it.
    pub fn callback_forged(&self, reason: &dyn std::fmt::Display) {
        self.metrics()
            .callbacks_total
            .with_label_values(&["forged"])
            .inc();
        tracing::warn!(%reason, "refused a forged callback");
    }

    /// A signed body was no callback.
    pub fn callback_unreadable(&self, reason: &Unreadable) {
        self.metrics()
            .callbacks_total
            .with_label_values(&["unreadable"])
            .inc();
        tracing::error!(%reason, "the gateway posted something that is no callback");
    }

    /// The scripts folder cannot be watched; only the regular look at it finds changes.
    pub fn scripts_unwatched(&self, dir: &std::path::Path, error: &dyn std::fmt::Display) {
        tracing::warn!(dir = %dir.display(), %error, "cannot watch the scripts folder; changes are seen more slowly");
    }
}
