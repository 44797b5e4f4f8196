//! What the store holds: every table, its key and its record. Written and read by the runner.
//!
//! Index tables are written in the same commit as what they index. They exist because every
//! question the daemon asks while it works — which runs are open, which payments, what happened
//! last — must cost what its answer costs, not what the whole history costs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{BlobHash, Dictionary, Key, Table};
use crate::domain::clock::{self, Timestamp};
use crate::domain::id::{ForeignId, HandlerId, RunId, SetHash, TransactionKey};
use crate::domain::pause::Pause;
use crate::domain::payment::Payment;
use crate::domain::plan::Plan;
use crate::domain::policy::Spent;
use crate::domain::run::{JournalEntry, Run};
use crate::domain::schedule::Stretch;

/// Tables whose new records come after all others: the index keeps them in chunks.
pub(super) const IN_ORDER: [&str; 5] = [
    RUNS.prefix(),
    OPEN_RUNS.prefix(),
    STEPS.prefix(),
    EVENTS_BY_ORDER.prefix(),
    WAITS_BY_TIME.prefix(),
];

/// Every payment, by its key.
pub const PAYMENTS: Table<ForeignId, Payment> =
    Table::new("payment/", 1).packed(Dictionary::Payments);
/// Index: payments that are not final.
pub const OPEN_PAYMENTS: Table<ForeignId, Mark> = Table::new("payment_open/", 1);
/// Index: payments by the time of their decision.
pub const PAYMENTS_BY_TIME: Table<(Timestamp, ForeignId), Mark> = Table::new("payment_time/", 1);
/// Index: payments by the gateway's (family, id); see `Callback::family`.
pub const PAYMENTS_BY_ID: Table<(String, String), ForeignId> = Table::new("payment_id/", 1);

/// Index: payments by the address they go to and the time of their decision.
pub const PAYMENTS_BY_ADDRESS: Table<(String, Timestamp, ForeignId), Mark> =
    Table::new("payment_address/", 1);
/// Batches that people approve as a whole. Never removed.
pub const PLANS: Table<String, Plan> = Table::new("plan/", 1);
/// Index: batches by the time they were made.
pub const PLANS_BY_TIME: Table<(Timestamp, String), Mark> = Table::new("plan_time/", 1);
/// What waits for people's approval, by the deadline and what it is: `payment:` or `batch:` and its
/// key.
pub const AWAITED: Table<(Timestamp, String), Awaited> = Table::new("awaited/", 1);
/// Who edited a script last, by its name and the hash of what decides what it does.
pub const EDITORS: Table<(String, String), Editor> = Table::new("editor/", 1);
/// The pauses of money in force, by the script's name, empty for all money.
pub const PAUSES: Table<String, Pause> = Table::new("pause/", 1);
/// What counts against the limits of policy: every payment that policy did not refuse, from its
/// decision on, unless it ended without money having moved. By the time of the decision, cut to
/// milliseconds.
pub const SPENT: Table<(Timestamp, ForeignId), Spent> = Table::new("spent/", 1);
/// When the first payment to an address was confirmed, by the address in its canonical form.
pub const FIRST_PAID: Table<String, Timestamp> = Table::new("first_paid/", 1);

/// Every event, by its permanent key. What is here has been answered and is never taken again.
pub const EVENTS: Table<String, EventRecord> = Table::new("event/", 4).packed(Dictionary::Events);
/// Index: events in the order accepted, with their kind.
pub const EVENTS_BY_ORDER: Table<(u64, String), String> = Table::new("event_order/", 1);
/// Index: events that may be about a payment whose id at the gateway was not known yet, by (family,
/// id) of their transaction, in the order received.
pub const EVENTS_BY_TRANSACTION: Table<(String, String, u64), String> =
    Table::new("event_transaction/", 1);
/// Events that a look-up found before their callback came, by the payment, the id of its transaction
/// and the status. Their callbacks are duplicates.
pub const RECONCILED: Table<(ForeignId, String, String), String> =
    Table::new("event_reconciled/", 1);
/// Index: events about a payment, in the order received. Those that came before the gateway's id of
/// the payment was known are in [`EVENTS_BY_TRANSACTION`].
pub const EVENTS_BY_PAYMENT: Table<(ForeignId, u64), String> = Table::new("event_payment/", 1);
/// Custom events that happen later, by when.
pub const DELAYED_EVENTS: Table<(Timestamp, String), DelayedEvent> = Table::new("event_later/", 1);

/// Every run, in the order accepted, but for those that [`UNWRITTEN`] tells of.
pub const RUNS: Table<RunId, Run> = Table::new("run/", 2).packed(Dictionary::Runs);
/// Index: runs that will be executed, in the order accepted, and waiting ones that keep their lane.
pub const OPEN_RUNS: Table<RunId, Mark> = Table::new("run_open/", 1);
/// Which runs of callbacks are not in [`RUNS`] yet, under an empty key. Without it, none.
pub const UNWRITTEN: Table<String, UnwrittenRuns> = Table::new("run_unwritten/", 1);
/// The journals of runs: what one commit added, by run and the number of the first step in it. The
/// last steps of a run may be in its own record; see `Run::last_steps`.
pub const STEPS: Table<(RunId, u64), Vec<JournalEntry>> =
    Table::new("step/", 1).packed(Dictionary::Steps);

/// Index: waiting runs by the payment whose end they wait for.
pub const WAITS_BY_PAYMENT: Table<(ForeignId, RunId), Mark> = Table::new("wait_payment/", 1);
/// Index: waiting runs by the event they wait for: pattern and paths of its shape, and the digest
/// of the values at these paths; see [`Shape`](crate::domain::wait::Shape).
pub const WAITS_BY_EVENT: Table<(String, String, String, RunId), Mark> =
    Table::new("wait_event/", 1);
/// Index: waiting runs by their deadline.
pub const WAITS_BY_TIME: Table<(Timestamp, RunId), Mark> = Table::new("wait_time/", 1);
/// Index: waiting runs by the batch whose decision they wait for.
pub const WAITS_BY_PLAN: Table<(String, RunId), Mark> = Table::new("wait_plan/", 1);
/// What has happened and may end waits, until that is looked into.
pub const NEWS: Table<News, Mark> = Table::new("news/", 1);

/// Scripts' key/value state, by space (a script's name, or empty for the shared one) and key.
pub const STATE: Table<(String, String), Value> = Table::new("state/", 1);
/// What `once` recorded, by script and key. Never removed.
pub const ONCE: Table<(String, String), Value> = Table::new("once/", 1);
/// Which run is in the midst of a `once` that is not recorded yet, by script and key. Means nothing
/// once that run has ended.
pub const ONCE_CLAIMS: Table<(String, String), RunId> = Table::new("once_claim/", 1);
/// Deposit addresses taken, by (`foreign_id`, `currency`, `convert_to` or empty). Never removed.
pub const ADDRESSES: Table<(String, String, String), Value> = Table::new("address/", 1);

/// Where each schedule stands.
pub const SCHEDULES: Table<HandlerId, ScheduleRecord> = Table::new("schedule/", 1);
/// What became of every slot. A slot that is here never fires again.
pub const SLOTS: Table<(HandlerId, Timestamp), SlotRecord> = Table::new("slot/", 1);

/// Script sets that runs may be pinned to.
pub const SETS: Table<SetHash, SetRecord> = Table::new("set/", 1);

/// The script set in use, under an empty key.
pub const CURRENT_SET: Table<String, SetHash> = Table::new("set_current/", 1);

/// When the daemon last noted that it runs, under an empty key.
pub const HEARTBEAT: Table<String, Timestamp> = Table::new("heartbeat/", 1);

/// The last reading of the balances, under an empty key.
pub const BALANCE_READING: Table<String, BalanceReading> = Table::new("balance_reading/", 1);

/// Something that may end waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// A payment has become final.
    Payment(ForeignId),
    /// An event was accepted, by its key.
    Event(String),
    /// A batch was decided, by its key.
    Plan(String),
}

impl Key for News {
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Payment(id) => (0_u64, id.as_str().to_owned()).encode(bytes),
            Self::Event(key) => (1_u64, key.clone()).encode(bytes),
            Self::Plan(key) => (2_u64, key.clone()).encode(bytes),
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        match <(u64, String)>::decode(bytes)? {
            (0, id) => Some(Self::Payment(id.parse().ok()?)),
            (1, key) => Some(Self::Event(key)),
            (2, key) => Some(Self::Plan(key)),
            _ => None,
        }
    }
}

/// What waits for people's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaited {
    /// A payment.
    Payment(ForeignId),
    /// A batch.
    Plan(String),
}

/// Somebody who edited a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Editor {
    /// Who.
    pub by: String,
    /// When it was noted.
    pub at: Timestamp,
}

/// The value of a row in an index whose key says everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark;

/// An event as it was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// `type.status`, a custom event's name, or `unreadable`.
    pub kind: String,
    /// What came.
    pub content: EventContent,
    /// When it was accepted.
    #[serde(serialize_with = "clock::serialize")]
    pub received_at: Timestamp,
    /// Its place in the order in which things are accepted; unique.
    pub order: u64,
    /// The payment it is about, when it is known.
    pub payment: Option<ForeignId>,
    /// The runs it started.
    pub runs: Vec<RunId>,
    /// How they began, unless they were written with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
}

impl EventRecord {
    /// What has just come, without its place and its runs.
    #[must_use]
    pub fn of(kind: &str, content: EventContent, received_at: Timestamp) -> Self {
        Self {
            kind: kind.to_owned(),
            content,
            received_at,
            order: 0,
            payment: None,
            runs: Vec::new(),
            begun: None,
        }
    }
}

/// What the runs of an event are made of, besides the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The handler of each run.
    pub handlers: Vec<HandlerId>,
    /// The script set they run on.
    pub set: SetHash,
    /// The transaction in whose lanes they are.
    pub of: TransactionKey,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventContent {
    /// The exact body of a callback.
    Callback(Text),
    /// The gateway's answer to a look-up, in the shape of the callback that has not come.
    Reconciled(Text),
    /// A signed body that is no callback anybody could read, in hex when it is not text.
    Unreadable(Text),
    /// The JSON of a custom event's value.
    Custom(Text),
}

/// A text, kept in the record or, when it is long, beside the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// The text.
    Here(String),
    /// The text, which is JSON and stands in the record as such, byte by byte.
    Json(Json),
    /// Its content hash.
    Blob(BlobHash),
}

/// A JSON text as it came, with its spaces, its order and its repetitions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The text, if it is JSON and nothing else.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let json: &RawValue = serde_json::from_str(text).ok()?;
        (json.get().len() == text.len()).then(|| Self(json.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

/// Where runs are that may not be written yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnwrittenRuns {
    /// A place in the order in which things are accepted: those of every event behind it.
    pub until: u64,
    /// And these, each with the place of its event.
    pub before: Vec<(u64, RunId)>,
}

impl UnwrittenRuns {
    /// Whether the run may be one of them.
    #[must_use]
    pub fn may_lack(&self, run: RunId) -> bool {
        run.order() > self.until || self.before.iter().any(|(_, one)| *one == run)
    }
}

/// A custom event that has not happened yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelayedEvent {
    /// Its name.
    pub kind: String,
    /// What handlers will be given.
    pub value: Value,
}

/// Where a schedule stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// The schedule as it was when it was last seen: expression and zone.
    pub schedule: String,
    /// The instant up to which every slot has its record.
    pub settled_until: Timestamp,
    /// Slots skipped since the last one that ran.
    #[serde(default)]
    pub skipped: u64,
    /// Whether later slots were due when the last one was recorded, and wait for its run.
    #[serde(default)]
    pub catching_up: bool,
    /// When its script left the set in use; `None` while the schedule is in it.
    #[serde(default)]
    pub left_at: Option<Timestamp>,
}

/// What became of a slot, or of a whole stretch of skipped ones; that is kept under its last slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// `ran`, `late` or `skipped`.
    pub verdict: String,
    /// Why it was skipped.
    pub reason: Option<String>,
    /// The run it started.
    pub run: Option<RunId>,
    /// When this was decided.
    pub at: Timestamp,
    /// The slots, when there are several.
    #[serde(default)]
    pub stretch: Option<Stretch>,
}

/// What was on the account, and what the next reading is compared with. Amounts are texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceReading {
    /// When the reading began.
    pub at: Timestamp,
    /// The last event that was accepted before it.
    pub order: u64,
    /// What was on the account, by currency.
    pub balances: BTreeMap<String, String>,
    /// What the payments that were open then may still take, by currency.
    pub open: BTreeMap<String, String>,
    /// Currencies in which nobody can say how much they may take.
    pub unclear: BTreeSet<String>,
}

/// A script set: where its sources are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetRecord {
    /// The content of each file, by its path below the scripts folder.
    pub files: BTreeMap<String, BlobHash>,
    /// When it was first loaded.
    pub loaded_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_note_vouches_for_what_is_before_it_and_not_named() {
        let before = vec![(3, RunId::new(4))];
        let note = UnwrittenRuns { until: 9, before };
        let may_lack = [2, 4, 9, 10].map(|run| note.may_lack(RunId::new(run)));
        assert_eq!(may_lack, [false, true, false, true]);
    }

    #[test]
    fn an_event_from_before_its_runs_could_be_unwritten_is_read() {
        let event = json!({
            "kind": "deposit.confirmed", "content": {"callback": {"here": "{}"}},
            "received_at": "2026-11-29T12:00:00.123456789Z", "order": 7, "payment": null,
            "runs": [RunId::new(8)],
        });
        let before: Table<String, Value> =
            Table::new(EVENTS.prefix(), 3).packed(Dictionary::Events);
        let key = before.stored_key(&"e".to_owned());
        let stored = before.encode(&key, &event).unwrap().stored;
        let read = EVENTS.decode(&key, &stored).unwrap();
        assert_eq!((read.order, &read.begun), (7, &None));
        // Written again it says the same.
        assert_eq!(serde_json::to_value(&read).unwrap(), event);
    }

    #[test]
    fn a_run_from_before_its_last_steps_were_in_its_record_is_read() {
        let id = RunId::new(418);
        let run = json!({
            "id": id, "handler": {"script": "s", "name": "h"},
            "firing": {"event": "e"}, "input": {"event": "e"}, "set": "0", "lane": null,
            "state": "succeeded", "tries": 0, "due_at": null, "wait": null, "error": null,
            "created_at": "2026-11-29T12:00:00.123456789Z", "started_at": null,
            "ended_at": "2026-11-29T12:00:01Z",
        });
        let before: Table<RunId, Value> = Table::new(RUNS.prefix(), 1).packed(Dictionary::Runs);
        let key = before.stored_key(&id);
        let stored = before.encode(&key, &run).unwrap().stored;
        let read = RUNS.decode(&key, &stored).unwrap();
        assert_eq!((read.id, read.last_steps.as_ref()), (id, None));
        // Written again it says the same.
        assert_eq!(serde_json::to_value(&read).unwrap(), run);
    }
}
