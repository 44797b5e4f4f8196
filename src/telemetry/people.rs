//! Events of people deciding about money.

use super::Telemetry;

impl Telemetry {
    /// So many pauses are in force now.
    pub fn pauses_in_force(&self, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics().pauses_in_force.set(count);
    }

    /// A person stopped money, and that is on disk.
    pub fn money_paused(&self, script: Option<&str>, by: &str, reason: Option<&str>) {
        tracing::warn!(script, by, reason, "money is paused");
    }

    /// A person let money go on, and that is on disk.
    pub fn money_resumed(&self, script: Option<&str>, by: &str) {
        tracing::warn!(script, by, "money goes on");
    }
}
