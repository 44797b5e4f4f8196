//! The configuration: one struct per section, resolved and checked, so that no component reads a
//! file, an environment variable or a default of its own, and none sees more than its section.
//!
//! [`load()`] lays three layers over each other: `daemon.toml` as it is built into the program, the
//! operator's file, the environment. `source` finds out where values are written, `reader` turns
//! them into values with the grammars of one file each (`duration`, `size`, `origin`, …),
//! `sections` says which key has which grammar and range. Mistakes are
//! [`Diagnostic`]s, all of them at once, and never show a
//! secret. Called by `cli` at the start of a command; nothing here is read again later.

mod base_url;
mod callback_path;
mod choice;
mod duration;
mod keys;
mod listen;
mod load;
mod mask;
mod origin;
mod people;
mod policy;
mod reader;
mod refusal;
mod reread;
mod secret_ref;
mod sections;
mod size;
mod source;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::domain::diagnostic::Diagnostic;
use crate::domain::person::Role;
use crate::domain::secret::Secret;

pub use keys::known_keys;
pub use load::{File, Need, load, resolve};
pub use origin::AllowedOrigin;
pub use policy::Policy;
pub use reread::{Reading, Reread};

/// `daemon.toml` as it is built in: every key with its default, explained.
pub const DEFAULTS: &str = include_str!("../../daemon.toml");

/// The whole configuration. Only `daemon` and `cli` see it; everybody else is handed a section.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[callbacks]`
    pub callbacks: Callbacks,
    /// `[scripts]`
    pub scripts: Scripts,
    /// `[store]`
    pub store: Store,
    /// `[admin]`
    pub admin: Admin,
    /// `[policy]`
    pub policy: Policy,
    /// `[history]`
    pub history: History,
    /// `[secrets]`: what `secret("NAME")` gives to scripts.
    pub secrets: BTreeMap<String, Secret>,
    /// `[log]`
    pub log: Log,
    /// Secrets that are named but not there, when [`Need`] did not ask for them; their values are
    /// empty. `bursar check` shows them as warnings.
    pub absent_secrets: Vec<Diagnostic>,
    /// The way to read policy again, when there is a file.
    pub reread: Option<Reread>,
}

/// `[gateway]`: the merchant's account.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// Base of the v2 API, https except on loopback. No user, query or fragment, and no slash at
    /// the end of its path, except that `Url` writes an empty path as `/`.
    pub base_url: Url,
    /// The public API key. Empty unless it was [`Need`]ed or is there anyway.
    pub key: Secret,
    /// The secret that signs. Empty unless it was [`Need`]ed or is there anyway.
    pub secret: Secret,
    /// The longest one exchange may take.
    pub timeout: Duration,
    /// The most requests in flight at once; 1 to 256.
    pub max_in_flight: usize,
    /// Whether a payment of unknown fate may be sent again with its own key.
    pub resend_unknown: bool,
    /// How long a payment's fate is looked for before it is resent or held.
    pub unknown_after: Duration,
    /// How often all open payments are looked up.
    pub sweep_every: Duration,
    /// How often balances are compared with the ledger; zero for never.
    pub balance_check_every: Duration,
}

/// `[callbacks]`: the listener that the gateway posts to.
#[derive(Debug, Clone)]
pub struct Callbacks {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The path, with a leading slash.
    pub path: String,
    /// The largest body taken, in bytes.
    pub max_body: u64,
}

/// `[scripts]`: the rules and what they may use.
#[derive(Debug, Clone)]
pub struct Scripts {
    /// The folder with the scripts.
    pub dir: PathBuf,
    /// The folder that `csv::` and `file::` are confined to.
    pub data_dir: PathBuf,
    /// `[scripts.http]`
    pub http: ScriptsHttp,
    /// `[scripts.limits]`
    pub limits: Limits,
}

/// `[scripts.http]`: what scripts may reach.
#[derive(Debug, Clone)]
pub struct ScriptsHttp {
    /// The origins, in the order given.
    pub allow: Vec<AllowedOrigin>,
    /// The longest one request may take.
    pub timeout: Duration,
    /// The largest answer taken, in bytes.
    pub max_response: u64,
}

/// `[scripts.limits]`: per run, except where said.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Operations of the script's interpreter.
    pub operations: u64,
    /// Nested calls.
    pub call_depth: usize,
    /// Bytes of one string.
    pub string_size: usize,
    /// Elements of one array.
    pub array_size: usize,
    /// Entries of one map.
    pub map_size: usize,
    /// Wall-clock time of one execution.
    pub timeout: Duration,
    /// Runs executing at once, in the whole daemon.
    pub concurrent_runs: usize,
    /// Runs executing at once, of one script.
    pub concurrent_runs_per_script: usize,
    /// Runs of missed slots and runs found open at a start that begin in one second.
    pub catch_up_per_second: u64,
}

/// `[store]`: where state is kept.
#[derive(Debug, Clone)]
pub struct Store {
    /// The folder.
    pub path: PathBuf,
    /// Memory for the index's cache, in bytes.
    pub cache: u64,
}

/// `[admin]`: the listener for people and monitoring.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The token to present; `None` is possible on loopback, or when there are `users`.
    pub token: Option<Secret>,
    /// Further people, each with a token of their own.
    pub users: Vec<User>,
}

/// `[[admin.user]]`: somebody besides `admin`.
#[derive(Debug, Clone)]
pub struct User {
    /// The name, as records keep it; unique.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Their token; unique. Empty unless it was [`Need`]ed or is there anyway.
    pub token: Secret,
}

/// `[history]`: what is kept of the past.
#[derive(Debug, Clone, Copy)]
pub struct History {
    /// How long runs that have ended are kept, and records of slots.
    pub keep: Duration,
    /// The most closed runs that are kept.
    pub keep_most: u64,
}

/// `[log]`
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// The least important level written.
    pub level: tracing::Level,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
