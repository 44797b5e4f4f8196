//! Events of people deciding about money.

use super::Telemetry;
use crate::domain::payment::Payment;
use crate::domain::plan::Plan;

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

    /// A person approved of a payment, and that is on disk.
    pub fn payment_approved(&self, payment: &Payment, by: &str) {
        tracing::info!(foreign_id = %payment.foreign_id, state = %payment.state, by, "payment approved");
    }

    /// A batch waits for approval, and that is on disk.
    pub fn plan_made(&self, plan: &Plan) {
        tracing::warn!(
            batch = plan.id,
            rows = plan.rows,
            "a batch waits for approval"
        );
    }

    /// A batch was decided about, and that is on disk; `by` is who did last.
    pub fn plan_decided(&self, plan: &Plan, by: &str) {
        let state = plan.state.as_str();
        tracing::warn!(
            batch = plan.id,
            state,
            by,
            reason = plan.reason,
            "batch decided about"
        );
    }

    /// A person said what became of a payment, and that is on disk.
    pub fn payment_resolved(&self, payment: &Payment, by: &str, sent: bool) {
        tracing::warn!(foreign_id = %payment.foreign_id, state = %payment.state, by, sent, "payment resolved by a person");
    }

    /// What was not approved in time could not be refused; it is tried again.
    pub fn approvals_not_expired(&self, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "what nobody has approved in time could not be refused, trying again");
    }

    /// A person noted that they edited a script, and that is on disk.
    pub fn editor_noted(&self, script: &str, by: &str) {
        tracing::info!(script, by, "last editor of a script noted");
    }

    /// A person let money go on, and that is on disk.
    pub fn money_resumed(&self, script: Option<&str>, by: &str) {
        tracing::warn!(script, by, "money goes on");
    }
}
