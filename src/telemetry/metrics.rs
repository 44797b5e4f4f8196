//! The table of metrics. A field's doc comment is the help text that `/metrics` shows.
//!
//! Counters are for what happens, gauges for what is; a histogram only where a distribution is
//! acted upon. Every daemon has its own registry, so that several in one process do not mix.

use prometheus::{Encoder, Registry, TextEncoder};

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident $([$($label:literal),+])?;)+) => {
        /// Every metric the daemon exports.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: prometheus::$kind,)+
        }

        impl Default for Metrics {
            fn default() -> Self {
                let registry = Registry::new();
                $(
                    let options = prometheus::Opts::new(
                        concat!("bursar_", stringify!($field)),
                        concat!($($help),+).trim(),
                    );
                    let $field = metrics!(@new $kind options $([$($label),+])?);
                    registry
                        .register(Box::new($field.clone()))
                        .expect("metric names are unique");
                )+
                Self { registry, $($field,)+ }
            }
        }
    };
    (@new $kind:ident $options:ident) => {
        prometheus::$kind::with_opts($options).expect("metric names are valid")
    };
    (@new $kind:ident $options:ident [$($label:literal),+]) => {
        prometheus::$kind::new($options, &[$($label),+]).expect("metric names are valid")
    };
}

metrics! {
    /// Callbacks received, by outcome: accepted, duplicate, forged, unreadable, too_large, refused.
    callbacks_total: IntCounterVec["outcome"];
    /// Gateway requests, by operation and disposition: accepted, rejected, not_sent, unknown.
    gateway_requests_total: IntCounterVec["operation", "disposition"];
    /// Answers 429 of the gateway, by operation.
    gateway_rate_limited_total: IntCounterVec["operation"];
    /// Commits to the store, by outcome: ok, refused, failed.
    store_commits_total: IntCounterVec["outcome"];
    /// Whether the store refuses writes until the next start (1) or not (0).
    store_poisoned: IntGauge;
    /// Executions of handlers, by outcome: succeeded, retrying, parked, suspended.
    executions_total: IntCounterVec["outcome"];
    /// Payments that reached a state, by state.
    payments_total: IntCounterVec["state"];
    /// Slots of schedules, by record: ran, late, skipped.
    slots_total: IntCounterVec["record"];
    /// Times that more slots of a schedule were missed than are recorded one by one.
    slots_omitted_total: IntCounter;
    /// Times that the machine's clock jumped by more than a minute.
    clock_jumps_total: IntCounter;
    /// Reloads of the scripts folder, by outcome: swapped, failed.
    reloads_total: IntCounterVec["outcome"];
    /// Reloads of the policy, by outcome: swapped, failed.
    policy_reloads_total: IntCounterVec["outcome"];
    /// HTTP requests of scripts, by outcome: answered, invalid, unknown_secret, not_allowed, unavailable, timeout, too_large.
    script_requests_total: IntCounterVec["outcome"];
    /// What was deleted because it is older than is kept, by kind: runs, slots, sets, blobs.
    history_deleted_total: IntCounterVec["kind"];
    /// Pauses of money in force: of all money, or of single scripts.
    pauses_in_force: IntGauge;
    /// Runs that wait for a thread.
    runs_queued: IntGauge;
}

impl Metrics {
    /// All metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail");
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_with_its_help() {
        let metrics = Metrics::default();
        metrics
            .callbacks_total
            .with_label_values(&["accepted"])
            .inc();
        let text = metrics.render();
        assert!(text.contains("# HELP bursar_callbacks_total Callbacks received, by outcome"));
        assert!(text.contains(r#"bursar_callbacks_total{outcome="accepted"} 1"#));
    }
}
