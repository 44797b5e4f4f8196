//! Events of runs, payments, callbacks and reloads.

use serde_json::Value;

use super::Telemetry;
use crate::domain::clock::Timestamp;
use crate::domain::diagnostic::{Diagnostic, render};
use crate::domain::id::{ForeignId, HandlerId, SetHash};
use crate::domain::payment::{IllegalTransition, Payment, State};
use crate::domain::run::{Run, RunState};

impl Telemetry {
    /// A callback is on disk and will be answered 200.
    pub fn callback_accepted(&self, kind: &str, runs: usize) {
        self.callback("accepted");
        tracing::debug!(kind, runs, "callback accepted");
    }

    /// A callback was delivered again.
    pub fn callback_duplicate(&self, kind: &str) {
        self.callback("duplicate");
        tracing::debug!(kind, "callback delivered again");
    }

    /// A callback's body is above the limit.
    pub fn callback_too_large(&self) {
        self.callback("too_large");
        tracing::warn!("callback refused: its body is above `callbacks.max_body`");
    }

    /// A callback could not be made durable.
    pub fn callback_refused(&self, reason: &dyn std::fmt::Display) {
        self.callback("refused");
        tracing::error!(%reason, "callback put off with 503: it could not be made durable");
    }

    fn callback(&self, outcome: &str) {
        let counter = &self.metrics().callbacks_total;
        counter.with_label_values(&[outcome]).inc();
    }

    /// An execution is over and its end is on disk.
    pub fn run_ended(&self, run: &Run) {
        let counter = &self.metrics().executions_total;
        counter.with_label_values(&[run.state.as_str()]).inc();
        let error = run.error.as_deref().unwrap_or("");
        match run.state {
            RunState::Parked => {
                tracing::error!(run = %run.id, handler = %run.handler, "run parked\n{error}");
            }
            RunState::Retrying => {
                tracing::warn!(run = %run.id, handler = %run.handler, tries = run.tries, "run will be tried again\n{error}");
            }
            RunState::Queued
            | RunState::Running
            | RunState::Waiting
            | RunState::Succeeded
            | RunState::Cancelled => {
                tracing::debug!(run = %run.id, handler = %run.handler, state = %run.state, "execution ended");
            }
        }
    }

    /// Waiting runs go on; that is on disk.
    pub fn runs_woken(&self, number: usize) {
        tracing::debug!(number, "waiting runs go on");
    }

    /// What may end waits could not be looked into; it is tried again.
    pub fn waits_not_ended(&self, error: &str) {
        tracing::error!("waiting runs cannot be woken, trying again: {error}");
    }

    /// A script wrote a line.
    pub fn script_logged(&self, run: &Run, level: tracing::Level, text: &str, fields: &Value) {
        let fields = if fields.is_null() {
            String::new()
        } else {
            format!(" {fields}")
        };
        let (script, id) = (&run.handler.script, &run.id);
        match level {
            tracing::Level::ERROR => tracing::error!(script, run = %id, "{text}{fields}"),
            tracing::Level::WARN => tracing::warn!(script, run = %id, "{text}{fields}"),
            tracing::Level::INFO => tracing::info!(script, run = %id, "{text}{fields}"),
            _ => tracing::debug!(script, run = %id, "{text}{fields}"),
        }
    }

    /// A payment is in another state, and that is on disk.
    pub fn payment_moved(&self, payment: &Payment) {
        let (foreign_id, state) = (&payment.foreign_id, payment.state);
        match state {
            State::Planned | State::Intended | State::Sending => {
                return self.payment_passed(foreign_id, state);
            }
            State::Unknown | State::Held | State::Rejected | State::Refused => {
                let error = payment.error.as_deref().unwrap_or("");
                tracing::warn!(%foreign_id, %state, error, "payment moved");
            }
            State::AwaitingApproval
            | State::Accepted
            | State::Pending
            | State::Confirmed
            | State::Declined
            | State::Cancelled => tracing::info!(%foreign_id, %state, "payment moved"),
        }
        self.payment_counted(state);
    }

    /// A payment has come through a state that is on the way of every payment; what follows is news.
    pub fn payment_passed(&self, foreign_id: &ForeignId, state: State) {
        tracing::debug!(%foreign_id, %state, "payment moved");
        self.payment_counted(state);
    }

    fn payment_counted(&self, state: State) {
        let counter = &self.metrics().payments_total;
        counter.with_label_values(&[state.as_str()]).inc();
    }

    /// The gateway said something about a payment that cannot be. Nothing was changed.
    pub fn payment_alarm(&self, payment: &Payment, illegal: &IllegalTransition) {
        tracing::error!(foreign_id = %payment.foreign_id, %illegal, "the gateway contradicts what is known of a payment; a person must look");
    }

    /// A callback carries the key of a payment and is about something else. The payment was left
    /// alone; the event is kept.
    pub fn payment_is_not_meant(&self, foreign_id: &ForeignId, why: &str) {
        tracing::error!(%foreign_id, why, "a callback carries the key of a payment and is not about it; a person must look");
    }

    /// A person must decide about a payment.
    pub fn payment_held(&self, payment: &Payment) {
        let why = payment.story.last().and_then(|line| line.note.as_deref());
        tracing::error!(foreign_id = %payment.foreign_id, why, "payment held: a person must look at the gateway's dashboard");
    }

    /// A look-up has found the end of a payment before its callback came; that is on disk as an
    /// event, with the runs it starts.
    pub fn event_reconciled(&self, kind: &str, payment: &Payment) {
        tracing::info!(kind, foreign_id = %payment.foreign_id, "a look-up found what no callback has told yet");
    }

    /// A payment cannot be carried on.
    pub fn payment_stuck(&self, foreign_id: &ForeignId, reason: &str) {
        tracing::error!(%foreign_id, reason, "payment cannot be carried on");
    }

    /// A payment's record is damaged.
    pub fn payment_damaged(&self, reason: &str) {
        tracing::error!(reason, "nothing was sent");
    }

    /// Open payments were found at the start.
    pub fn payments_resumed(&self, count: usize) {
        tracing::info!(count, "open payments are looked up at the gateway");
    }

    /// The daemon was down for longer than callbacks are sent again. `found`: payments that have ended
    /// meanwhile, those that were open, those the gateway said nothing about.
    pub fn gap(
        &self,
        (from, to): (Timestamp, Timestamp),
        (ended, open, unanswered): (usize, usize, usize),
        not_known: &str,
    ) {
        tracing::warn!(%from, %to, open, ended, unanswered, "the daemon was down for longer than the gateway sends callbacks again; what ended meanwhile was looked up and delivered; not known: {not_known}");
    }

    /// That the daemon runs could not be noted.
    pub fn not_remembered(&self, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "that the daemon runs could not be noted");
    }

    /// The balances could not be read or compared; the next reading makes up for it.
    pub fn balances_not_compared(&self, reason: &dyn std::fmt::Display) {
        tracing::warn!(%reason, "the balances could not be compared with the ledger");
    }

    /// Money has left the account, and no payment explains it.
    pub fn balance_drop(&self, currency: &str, unexplained: &dyn std::fmt::Display) {
        tracing::error!(currency, %unexplained, "money has left the account that no payment explains");
    }

    /// The gateway has not answered for some minutes, or answers again.
    pub fn gateway_reached(&self, what: &str, since: Timestamp) {
        if what == "gateway_reachable" {
            tracing::info!(%since, "the gateway answers again");
        } else {
            tracing::error!(%since, "the gateway does not answer");
        }
    }

    /// Open runs were found at the start.
    pub fn runs_resumed(&self, count: usize) {
        tracing::info!(count, "open runs go on");
    }

    /// A new script set is in use.
    pub fn scripts_swapped(&self, set: &SetHash, handlers: usize) {
        let counter = &self.metrics().reloads_total;
        counter.with_label_values(&["swapped"]).inc();
        tracing::info!(%set, handlers, "scripts loaded");
    }

    /// The scripts in the folder are not used because of mistakes in them.
    pub fn reload_refused(&self, errors: &[Diagnostic]) {
        let counter = &self.metrics().reloads_total;
        counter.with_label_values(&["failed"]).inc();
        let text = render(errors);
        tracing::error!("the scripts were not loaded, the ones before go on\n{text}");
    }

    /// `count` slots have their record; `slot` is the last of them.
    pub fn slots_settled(&self, handler: &HandlerId, slot: Timestamp, count: u64, record: &str) {
        let counter = &self.metrics().slots_total;
        counter.with_label_values(&[record]).inc_by(count);
        match record {
            "skipped" if count == 1 => tracing::warn!(%handler, %slot, "slot skipped"),
            "skipped" => tracing::warn!(%handler, last = %slot, count, "slots skipped"),
            record => tracing::info!(%handler, %slot, record, "slot fired"),
        }
    }

    /// Due slots could not be made durable; they stay due.
    pub fn slots_not_settled(&self, reason: &str) {
        tracing::error!(reason, "due slots could not be recorded; they stay due");
    }

    /// Delayed events could not be released; they stay due.
    pub fn events_not_released(&self, reason: &str) {
        tracing::error!(
            reason,
            "delayed events could not be released; they stay due"
        );
    }

    /// It could not be noted which runs are not written yet; the next start looks for more of them.
    pub fn runs_not_noted(&self, reason: &str) {
        tracing::error!(
            reason,
            "it could not be noted which runs are not written yet; the next start looks for more of them"
        );
    }

    /// Somebody fired a schedule by hand.
    pub fn fired_by_hand(&self, handler: &HandlerId) {
        tracing::info!(%handler, "schedule fired by hand");
    }

    /// The store holds something that cannot be read.
    pub fn store_unreadable(&self, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "the store cannot be read");
    }

    /// A thread for scripts could not be started; the others go on.
    pub fn thread_not_started(&self, error: &std::io::Error) {
        tracing::error!(%error, "no further thread for scripts can be started");
    }

    /// A person let a parked run go on, and that is on disk.
    pub fn run_retried(&self, run: &Run) {
        tracing::info!(run = %run.id, handler = %run.handler, set = run.set.short(), "run retried by a person");
    }

    /// A person ended a run that was not being executed, and that is on disk.
    pub fn run_cancelled(&self, run: &Run) {
        tracing::warn!(run = %run.id, handler = %run.handler, "run cancelled by a person; payments it has made go on");
    }

    /// What is older than is kept was deleted, as far as the pass went.
    pub fn tidied_up(&self, deleted: &[(&str, u64)], unreadable: u64) {
        let counter = &self.metrics().history_deleted_total;
        for (what, count) in deleted {
            counter.with_label_values(&[*what]).inc_by(*count);
        }
        let counts: Vec<String> = deleted
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        let counts = counts.join(", ");
        if unreadable == 0 {
            tracing::info!("history tidied up; deleted: {counts}");
        } else {
            tracing::warn!(
                unreadable,
                "history tidied up; deleted: {counts}; what cannot be read was left, and so was everything it may need"
            );
        }
    }

    /// What is older than is kept could not be deleted; the next pass goes on with it.
    pub fn not_tidied_up(&self, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "history was not tidied up to its end");
    }
}
