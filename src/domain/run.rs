//! Runs: the state machine, the record, and the journal of steps.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clock::{self, Timestamp};
use super::id::{Firing, HandlerId, RunId, SetHash, TransactionKey};
use super::wait::Wait;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Will be executed as soon as its turn comes.
    Queued,
    /// Is being executed; found after a crash, it is queued again.
    Running,
    /// Is suspended until something happens or a deadline comes.
    Waiting,
    /// Will be executed again after a delay, because the world failed it.
    Retrying,
    /// Waits for a person.
    Parked,
    /// Has returned. Final.
    Succeeded,
    /// A person ended it. Final.
    Cancelled,
}

/// What happened to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// A thread took it up.
    Started,
    /// The handler returned.
    Returned,
    /// The execution ended early through no fault of its own: shutdown, or a lost race for state.
    Interrupted,
    /// The world failed it, and it has tries left.
    WorldFailed,
    /// The script failed it, or its tries are used up.
    Failed,
    /// The delay is over.
    Due,
    /// It asked to wait.
    Suspended,
    /// What it waited for may have happened.
    Woken,
    /// A person lets it go on.
    Retried,
    /// A person ends it.
    Cancelled,
}

/// Something that cannot happen to a run in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a run that is {state:?}")]
pub struct IllegalRunTransition {
    /// The state, which stays.
    pub state: RunState,
    /// What was said to have happened.
    pub event: RunEvent,
}

impl RunState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Retrying,
        Self::Parked,
        Self::Succeeded,
        Self::Cancelled,
    ];

    /// The word for it, on the command line and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it will not be executed again by itself.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Parked | Self::Succeeded | Self::Cancelled)
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// When that cannot happen; the state stays.
    pub const fn next(self, event: RunEvent) -> Result<Self, IllegalRunTransition> {
        match (self, event) {
            (Self::Queued, RunEvent::Started) => Ok(Self::Running),
            (Self::Running, RunEvent::Returned) => Ok(Self::Succeeded),
            (Self::Running | Self::Queued, RunEvent::Interrupted)
            | (Self::Retrying, RunEvent::Due)
            | (Self::Waiting, RunEvent::Woken)
            | (Self::Parked, RunEvent::Retried) => Ok(Self::Queued),
            (Self::Running, RunEvent::Suspended) => Ok(Self::Waiting),
            (
                Self::Queued | Self::Running | Self::Waiting | Self::Retrying | Self::Parked,
                RunEvent::Cancelled,
            ) => Ok(Self::Cancelled),
            (Self::Running, RunEvent::WorldFailed) => Ok(Self::Retrying),
            (Self::Running, RunEvent::Failed) => Ok(Self::Parked),
            (state, event) => Err(IllegalRunTransition { state, event }),
        }
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the handler is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The tick of a slot, as the script sees it.
    Tick(Value),
    /// The event with that key, kept once for all handlers that get it.
    Event(String),
}

/// Runs that are executed one after the other, in the order accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// What one script does about the events of one transaction. A run that waits lets the next
    /// one go on meanwhile: what it waits for may be just that one's event.
    Transaction {
        /// The script: what one does about an event is no reason to keep others from theirs.
        script: String,
        /// The transaction.
        of: TransactionKey,
    },
    /// The slots of one schedule that must not overlap. A run that waits has not ended, so it
    /// keeps the lane.
    Schedule(HandlerId),
}

impl Lane {
    /// Whether a run keeps its place in the lane while it waits.
    #[must_use]
    pub const fn is_kept_while_waiting(&self) -> bool {
        match self {
            Self::Transaction { .. } => false,
            Self::Schedule(_) => true,
        }
    }
}

/// One execution of one handler for one firing, however often it is tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its place in the order in which firings were accepted.
    pub id: RunId,
    /// What is run.
    pub handler: HandlerId,
    /// What started it.
    pub firing: Firing,
    /// What the handler is given.
    pub input: Input,
    /// The script set it runs on, from its beginning to its end.
    pub set: SetHash,
    /// Runs of one lane are executed one after the other.
    pub lane: Option<Lane>,
    /// Where it stands.
    pub state: RunState,
    /// How often the world has failed it.
    pub tries: u32,
    /// When it will be tried again, while it is retrying.
    #[serde(serialize_with = "clock::serialize_some")]
    pub due_at: Option<Timestamp>,
    /// What it waits for, while it is waiting; afterwards, until the step is answered, what it
    /// waited for.
    pub wait: Option<Wait>,
    /// Why it was tried again or parked, rendered for people.
    pub error: Option<String>,
    /// When the firing was accepted.
    #[serde(serialize_with = "clock::serialize")]
    pub created_at: Timestamp,
    /// When it was last executed.
    #[serde(serialize_with = "clock::serialize_some")]
    pub started_at: Option<Timestamp>,
    /// When it was parked or ended.
    #[serde(serialize_with = "clock::serialize_some")]
    pub ended_at: Option<Timestamp>,
    /// The last of its steps, once it has succeeded, if they are not among the others: a run that is
    /// over at once is one record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_steps: Option<Steps>,
}

/// Steps of a run that follow each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// The number of the first one.
    pub first: u64,
    /// All of them.
    pub entries: Vec<JournalEntry>,
}

impl Run {
    /// Whether the run keeps its lane, and so its place among the open ones, while it waits.
    #[must_use]
    pub fn keeps_lane_while_waiting(&self) -> bool {
        self.lane.as_ref().is_some_and(Lane::is_kept_while_waiting)
    }

    /// A run that waits for its turn.
    #[must_use]
    pub fn queued(
        handler: HandlerId,
        firing: Firing,
        input: Input,
        set: SetHash,
        order: u64,
        at: Timestamp,
    ) -> Self {
        Self {
            id: RunId::new(order),
            handler,
            firing,
            input,
            set,
            lane: None,
            state: RunState::Queued,
            tries: 0,
            due_at: None,
            wait: None,
            error: None,
            created_at: at,
            started_at: None,
            ended_at: None,
            last_steps: None,
        }
    }
}

/// One recorded step of a run: what was asked for, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// What was asked for.
    pub request: Asked,
    /// What came of it.
    pub outcome: Outcome,
    /// The script's file and line, as `file:line`.
    pub site: String,
    /// When it was recorded.
    #[serde(serialize_with = "clock::serialize")]
    pub at: Timestamp,
}

/// A request as the journal keeps it: enough to know it again, and to show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The kind of step: `pay`, `http`, `state`, …
    pub kind: String,
    /// Digest of the whole request.
    pub digest: String,
    /// The request as JSON, cut when it is long.
    pub summary: String,
}

/// The longest [`Asked::summary`], in characters.
const SUMMARY_LIMIT: usize = 400;

/// The same for a logged line, which is read from its summary. Four bytes for each character, the
/// most that one takes in a record, are less than what a record holds.
const LOG_LIMIT: usize = 6_000;

impl Asked {
    /// Keeps a request of `kind` whose JSON is `json`.
    #[must_use]
    pub fn new(kind: &str, json: &str) -> Self {
        let limit = if kind == "log" {
            LOG_LIMIT
        } else {
            SUMMARY_LIMIT
        };
        Self {
            kind: kind.to_owned(),
            digest: super::id::digest(&[kind, json]),
            summary: json.chars().take(limit).collect(),
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A value.
    Value(Value),
    /// A long value: the content hash of its JSON.
    Long(String),
    /// An error that the script could catch, as JSON.
    Failure(Value),
    /// A long error: the content hash of its JSON.
    LongFailure(String),
}

/// What the journal says when a step is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Replay<'a> {
    /// It is recorded; this is what came of it.
    Recorded(&'a Outcome),
    /// It is new: perform it.
    New,
    /// Another one is recorded at this place. The run must not go on.
    Diverged {
        /// What the journal holds.
        recorded: &'a Asked,
    },
}

/// Compares the step asked for with the entry at its place.
#[must_use]
pub fn replay<'a>(entry: Option<&'a JournalEntry>, asked: &Asked) -> Replay<'a> {
    match entry {
        None => Replay::New,
        Some(entry) if entry.request.digest == asked.digest => Replay::Recorded(&entry.outcome),
        Some(entry) => Replay::Diverged {
            recorded: &entry.request,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_recorded_step_answers_and_another_one_diverges() {
        let asked = Asked::new("http", r#"{"url":"a"}"#);
        let entry = JournalEntry {
            request: asked.clone(),
            outcome: Outcome::Value(json!(1)),
            site: "x.rhai:1".into(),
            at: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(replay(None, &asked), Replay::New);
        assert_eq!(
            replay(Some(&entry), &asked),
            Replay::Recorded(&entry.outcome)
        );
        let other = Asked::new("http", r#"{"url":"b"}"#);
        assert_eq!(
            replay(Some(&entry), &other),
            Replay::Diverged { recorded: &asked }
        );
    }

    #[test]
    fn every_state_meets_every_event() {
        let events = [
            RunEvent::Started,
            RunEvent::Returned,
            RunEvent::Interrupted,
            RunEvent::WorldFailed,
            RunEvent::Failed,
            RunEvent::Due,
            RunEvent::Suspended,
            RunEvent::Woken,
            RunEvent::Retried,
            RunEvent::Cancelled,
        ];
        let mut table = Vec::new();
        for state in RunState::ALL {
            for event in events {
                if let Ok(next) = state.next(event) {
                    table.push(format!("{state} + {event:?} = {next}"));
                }
            }
        }
        insta::assert_snapshot!(table.join("\n"), @"
        queued + Started = running
        queued + Interrupted = queued
        queued + Cancelled = cancelled
        running + Returned = succeeded
        running + Interrupted = queued
        running + WorldFailed = retrying
        running + Failed = parked
        running + Suspended = waiting
        running + Cancelled = cancelled
        waiting + Woken = queued
        waiting + Cancelled = cancelled
        retrying + Due = queued
        retrying + Cancelled = cancelled
        parked + Retried = queued
        parked + Cancelled = cancelled
        ");
    }
}
