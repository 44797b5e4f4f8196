//! What becomes of policy while the daemon runs.

use super::Telemetry;
use crate::domain::diagnostic::{Diagnostic, render};

impl Telemetry {
    /// Another policy is in force.
    pub fn policy_replaced(&self, limits: usize, rules: usize) {
        self.policy_reload("swapped");
        tracing::info!(limits, rules, "policy reloaded");
    }

    /// The configuration has mistakes; the policy that was read last goes on.
    pub fn policy_refused(&self, mistakes: &[Diagnostic]) {
        self.policy_reload("failed");
        let text = render(mistakes);
        tracing::error!("the policy was not reloaded, the one before goes on\n{text}");
    }

    /// The files were read, and say what is in force.
    pub fn policy_unchanged(&self) {
        tracing::debug!("the configuration was read, and its policy is the one in force");
    }

    /// Something in the policy makes no sense.
    pub fn policy_doubted(&self, doubts: &[Diagnostic]) {
        if !doubts.is_empty() {
            let text = render(doubts);
            tracing::warn!("the policy says what nobody can have meant\n{text}");
        }
    }

    /// Keys of the configuration have changed that are read at the start only.
    pub fn restart_needed(&self, keys: &[String]) {
        let keys = keys.join(", ");
        tracing::warn!(
            keys,
            "the configuration has changed outside of [policy]; that takes effect at the next start"
        );
    }

    /// The gateway gave no rates. Limits that need them refuse once those known are too old.
    pub fn rates_not_learnt(&self, reason: &str) {
        tracing::warn!(
            reason,
            "no rates from the gateway; limits that convert amounts refuse payments without fresh ones"
        );
    }

    fn policy_reload(&self, outcome: &str) {
        let counter = &self.metrics().policy_reloads_total;
        counter.with_label_values(&[outcome]).inc();
    }
}
