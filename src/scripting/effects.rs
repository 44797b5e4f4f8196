//! The seam between scripts and the world.
//!
//! A handler asks for [`Request`]s; whoever runs it answers through [`Effects`]. Scripting
//! performs none of them itself: it knows neither the gateway nor the store, the network, files
//! or the clock. The runner answers from the run's journal or performs the step and records it;
//! the script test runner answers from a simulated world.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::operation::Operation;

/// Answers what a running handler asks for. Called on the script's own thread; may block it.
pub trait Effects: Send + Sync {
    /// Performs one step, or answers it from the journal.
    ///
    /// Steps of one run are asked for one after the other, and a handler that is run again asks
    /// for the same steps in the same order. When this returns `Ok` or [`Stop::Failure`] the
    /// outcome is as durable as the step demands.
    ///
    /// # Errors
    /// [`Stop`]: either an error that the script may catch, or the end of this execution.
    fn perform(&self, request: Request, site: &Site) -> Result<Value, Stop>;

    /// The closure of the innermost `once` that has begun has failed: steps that follow do not
    /// belong to it. No step: a handler that is run again fails there again.
    fn once_failed(&self) {}
}

/// Where in a script a step was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Path below the scripts folder, with `.rhai`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

/// One thing asked of the world. Values are JSON whose numbers are exact decimals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// An operation that moves no money. Answers the gateway's `data` (for `transaction_info`
    /// the bare object, for `ping` the text) with amounts as numbers that have a point.
    Gateway {
        /// Which one; its effect is never `Pay`.
        operation: Operation,
        /// The fields, named as the gateway names them.
        arguments: Value,
    },
    /// One payment. Answers a payment: `#{foreign_id, kind, status, id, amount, currency, error,
    /// is_final}`.
    Pay {
        /// An operation whose effect is `Pay`.
        operation: Operation,
        /// The fields, named as the gateway names them; `foreign_id` may be left out.
        arguments: Value,
    },
    /// Several withdrawals with a bounded number in flight. Validated as a whole before the first
    /// one is sent. Answers the list of payments in the order given.
    PayAll {
        /// The fields of each, as in `Pay`.
        payments: Vec<Value>,
        /// The most requests in flight; `None` means `gateway.max_in_flight`.
        concurrency: Option<usize>,
        /// Whether people must approve of all of them first. The execution may end here with
        /// [`Interrupt::Suspended`] until they have decided.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        approve: bool,
    },
    /// The payment with that key, of any run. Answers a payment or null.
    Payment {
        /// Its key.
        foreign_id: String,
    },
    /// Reads or changes durable key/value state. Answers as each variant says.
    State {
        /// Whose.
        space: Space,
        /// What.
        access: StateAccess,
    },
    /// Whether `once(key, …)` has a recorded value. Answers `[value]` or null.
    OnceBegin {
        /// The key, unique in the script.
        key: String,
    },
    /// Records the value of `once(key, …)` for ever. Answers null.
    OnceEnd {
        /// The key, unique in the script.
        key: String,
        /// What the closure returned.
        value: Value,
    },
    /// A custom event, now or later. Answers null.
    Emit {
        /// Its name.
        event: String,
        /// What handlers get.
        value: Value,
        /// Milliseconds until it happens.
        after_ms: u64,
    },
    /// An HTTP request to an allowed origin. Answers `#{status, headers, body}`; `body` is parsed
    /// when it is JSON, a text otherwise.
    Http(HttpRequest),
    /// Reads or changes a file below the data folder. Answers as each variant says.
    File(FileAccess),
    /// Waits. The execution may end here with [`Interrupt::Suspended`]; the handler that is run
    /// again later gets the answer. When the time is over and [`Awaited`] says nothing else, that
    /// is [`Code::Timeout`].
    Wait {
        /// For what.
        on: Awaited,
        /// The most milliseconds, from when it is asked for the first time; `None` is for ever.
        timeout_ms: Option<u64>,
    },
    /// What time it is. Answers milliseconds since 1970 in UTC.
    Now,
    /// A line in the run's log. Answers null.
    Log {
        /// How important.
        level: LogLevel,
        /// The line.
        text: String,
        /// Further fields, an object or null.
        fields: Value,
    },
}

impl Request {
    /// The kind of step, for journals and logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Gateway { .. } => "gateway",
            Self::Pay { .. } => "pay",
            Self::PayAll { .. } => "pay_all",
            Self::Payment { .. } => "payment",
            Self::State { .. } => "state",
            Self::OnceBegin { .. } => "once_begin",
            Self::OnceEnd { .. } => "once_end",
            Self::Emit { .. } => "emit",
            Self::Http(_) => "http",
            Self::File(_) => "file",
            Self::Wait { on, .. } => on.kind(),
            Self::Now => "now",
            Self::Log { .. } => "log",
        }
    }

    /// Whether it leaves the process. Its outcome is durable before the script sees it.
    #[must_use]
    pub const fn is_outside(&self) -> bool {
        matches!(self, Self::Gateway { .. } | Self::Http(_)) || self.writes_outside()
    }

    /// Whether it may change something outside. Everything the script did before it is durable
    /// before it is performed.
    #[must_use]
    pub const fn writes_outside(&self) -> bool {
        match self {
            Self::Pay { .. }
            | Self::PayAll { .. }
            | Self::Http(_)
            | Self::File(FileAccess::Write { .. } | FileAccess::Move { .. }) => true,
            Self::Gateway { operation, .. } => {
                !matches!(operation.effect(), crate::domain::operation::Effect::Read)
            }
            Self::Payment { .. }
            | Self::State { .. }
            | Self::OnceBegin { .. }
            | Self::OnceEnd { .. }
            | Self::Emit { .. }
            | Self::File(FileAccess::Read { .. } | FileAccess::List { .. })
            | Self::Wait { .. }
            | Self::Now
            | Self::Log { .. } => false,
        }
    }
}

/// What a handler waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaited {
    /// Only the end of the time. Answers null.
    Time,
    /// That the payment is final. Answers it.
    Payment {
        /// Its key.
        foreign_id: String,
    },
    /// That all of the payments are final, or the end of the time. Answers
    /// `#{confirmed, failed, open}`, each a list of payments in the order given.
    Payments {
        /// Their keys.
        foreign_ids: Vec<String>,
    },
    /// The first event since the run's firing that matches and that no such wait of this run has
    /// answered before. Answers `#{key, event}`.
    Event {
        /// Pattern of its kind, as in `on`.
        event: String,
        /// Exact matches on dotted paths, as in `on`.
        filter: BTreeMap<String, Value>,
    },
}

impl Awaited {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Time => "sleep",
            Self::Payment { .. } => "wait",
            Self::Payments { .. } => "wait_all",
            Self::Event { .. } => "wait_for",
        }
    }
}

/// Whose state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// The script's own.
    Script,
    /// The one that all scripts share.
    Shared,
}

/// What is done to state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateAccess {
    /// Answers `[value]`, or null when there is none.
    Get {
        /// The key.
        key: String,
    },
    /// Answers null.
    Set {
        /// The key.
        key: String,
        /// The new value.
        value: Value,
    },
    /// Answers whether there was one.
    Remove {
        /// The key.
        key: String,
    },
    /// Adds to a number that starts at 0. Answers the sum.
    Add {
        /// The key.
        key: String,
        /// What is added: an exact decimal or an integer.
        number: Value,
    },
    /// Answers an object of all keys with that prefix and their values.
    List {
        /// The prefix.
        prefix: String,
    },
}

/// What is done with a file. Paths are relative to the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAccess {
    /// Its text. Answers a string.
    Read {
        /// The file.
        path: String,
    },
    /// Replaces it, atomically. Answers null.
    Write {
        /// The file.
        path: String,
        /// The new content.
        text: String,
    },
    /// The names in a folder, sorted. Answers a list of `#{name, size, is_dir}`.
    List {
        /// The folder; empty for the data folder itself.
        path: String,
    },
    /// Moves it; the target must not exist. Answers null.
    Move {
        /// The file.
        from: String,
        /// Its new path.
        to: String,
    },
}

/// A script's HTTP request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: String,
    /// The absolute URL. May contain secrets by reference, see [`SECRET_MARK`].
    pub url: String,
    /// Header names and values. Values may contain secrets by reference.
    pub headers: Vec<(String, String)>,
    /// Sent as JSON when given, unless it is a string and a `content-type` header is given.
    pub body: Option<Value>,
    /// Milliseconds the whole exchange may take; `None` means the default.
    pub timeout_ms: Option<u64>,
}

/// In the URL and the header values of an [`HttpRequest`] (never in its body), this mark, a
/// secret's name and the mark again stand for the secret's value. The script holds an opaque value; the value itself is put in by whoever sends
/// the request, so that it is in no journal.
pub const SECRET_MARK: char = '\u{1}';

/// How important a line of a run's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// `debug(…)`
    Debug,
    /// `log::info`, `print`
    Info,
    /// `log::warn`
    Warn,
    /// `log::error`
    Error,
}

/// Why a step has no value.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// The step failed; the script may catch this.
    Failure(Failure),
    /// This execution is over; `try`/`catch` cannot hold it.
    Interrupt(Interrupt),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// An error that a script can catch: a map with `code`, `message` and what belongs to the code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The code, from a closed set.
    pub code: Code,
    /// One sentence, lower-case, naming the thing.
    pub message: String,
    /// What belongs to the code: an object (`errors` by field for `gateway_rejected`), or null.
    pub details: Value,
}

impl Failure {
    /// A failure without details.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Value::Null,
        }
    }
}

/// The closed set of error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The gateway said no; nothing happened. `details.errors` by field.
    GatewayRejected,
    /// The gateway did not answer usefully, and nothing can have happened.
    GatewayUnavailable,
    /// The merchant's policy said no.
    PolicyRefused,
    /// Same key, other content. `details.field` names the first difference.
    Conflict,
    /// Something took longer than it may.
    Timeout,
    /// An argument is missing, of the wrong type or out of range.
    InvalidArgument,
    /// The script's HTTP request was answered with a status of 400 or above.
    HttpStatus,
    /// The script's HTTP request got no answer.
    HttpUnavailable,
    /// The origin, path or operation is not open to scripts.
    NotAllowed,
    /// No such file.
    NotFound,
    /// The file could not be read or written.
    FileError,
    /// A text could not be parsed; `details.errors` lists all mistakes with their lines.
    InvalidData,
}

impl Code {
    /// Every code, for the reference.
    pub const ALL: [Self; 12] = [
        Self::GatewayRejected,
        Self::GatewayUnavailable,
        Self::PolicyRefused,
        Self::Conflict,
        Self::Timeout,
        Self::InvalidArgument,
        Self::HttpStatus,
        Self::HttpUnavailable,
        Self::NotAllowed,
        Self::NotFound,
        Self::FileError,
        Self::InvalidData,
    ];

    /// The code as scripts see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GatewayRejected => "gateway_rejected",
            Self::GatewayUnavailable => "gateway_unavailable",
            Self::PolicyRefused => "policy_refused",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::InvalidArgument => "invalid_argument",
            Self::HttpStatus => "http_status",
            Self::HttpUnavailable => "http_unavailable",
            Self::NotAllowed => "not_allowed",
            Self::NotFound => "not_found",
            Self::FileError => "file_error",
            Self::InvalidData => "invalid_data",
        }
    }

    /// Whether running the handler again later may help without anybody changing anything. These
    /// are the errors of the world; all others park the run.
    #[must_use]
    pub const fn is_of_the_world(self) -> bool {
        matches!(
            self,
            Self::GatewayUnavailable | Self::Timeout | Self::HttpStatus | Self::HttpUnavailable
        )
    }
}

/// Why an execution ended without the script having a say.
#[derive(Debug, Clone, PartialEq)]
pub enum Interrupt {
    /// Its wall-clock time is used up.
    Deadline,
    /// The daemon is stopping; the run goes on after the next start.
    Shutdown,
    /// The journal holds something else at this point. Both sides, for people.
    Diverged {
        /// What the journal holds.
        recorded: String,
        /// What the script asked for.
        requested: String,
    },
    /// The handler waits for something. It is run again when that may have happened.
    Suspended,
    /// Another run changed state that this one read and then wrote; it starts again at once.
    Contended,
    /// A person ended the run.
    Cancelled,
    /// The run is inside of a `once` that is not its own any more. Why, for people.
    OnceLost(String),
    /// The store takes no more writes; nothing may go on.
    Poisoned,
}
