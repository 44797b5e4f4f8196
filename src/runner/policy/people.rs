//! What the rest of the daemon does with policy: another one put in force, and what would be decided
//! about payments that nobody has asked for yet.

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::policy::{Policy, Proposal, explained};
use crate::runner::{Handle, ViewError};
use crate::store::ReadError;

use super::learn;

/// How long is waited for the first rates. The gateway may be down, and callbacks come in all the
/// same.
const PATIENCE: Duration = Duration::from_secs(10);

impl Handle {
    /// Learns the rates that the policy in force needs, if it needs any, so that the first payments
    /// are not refused for want of them. Gives up after a while.
    pub async fn learn_rates(&self) {
        let policy = self.context.policy.policy();
        self.learn_rates_for(&policy).await;
    }

    /// Decides by another policy from here on. What was spent counts for its limits too.
    ///
    /// # Errors
    /// When the store cannot be read; the old policy goes on.
    pub async fn replace_policy(&self, policy: Policy) -> Result<(), ReadError> {
        self.learn_rates_for(&policy).await;
        let context = std::sync::Arc::clone(&self.context);
        let replace = move || context.policy.replace(policy, context.clock.now());
        // It reads everything that counts.
        match tokio::task::spawn_blocking(replace).await {
            Ok(replaced) => replaced,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// What would be decided about these payments if they were asked for together, in this order,
    /// and why. Nothing is reserved.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn test_policy(&self, proposals: &[Proposal]) -> Result<Value, ViewError> {
        let (policy, decisions) = self.context.policy.foresee(proposals)?;
        let payments = proposals.iter().zip(&decisions);
        let payments: Vec<Value> = payments
            .map(|(proposal, decision)| explained(&policy, proposal, decision))
            .collect();
        Ok(json!({
            "source": "daemon",
            "note": "by the policy of the running daemon, and what it has counted as spent",
            "payments": payments,
        }))
    }

    async fn learn_rates_for(&self, policy: &Policy) {
        if policy.converts_to().is_empty() {
            return;
        }
        let context = &self.context;
        let learnt = learn(
            &context.policy,
            &context.gateway,
            context.clock.as_ref(),
            policy,
        );
        match tokio::time::timeout(PATIENCE, learnt).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => context.telemetry.rates_not_learnt(&reason),
            Err(_) => context.telemetry.rates_not_learnt("it does not answer"),
        }
    }
}
