//! The table of keys: what may stand in a configuration, and the kind of each value.
//!
//! Defaults are in `daemon.toml`, ranges in `sections`; tests hold the three together.

use std::fmt;

/// What a value must be in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string with a grammar of its own.
    Text,
    /// A string that says where a secret is found.
    Secret,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// An array of strings.
    List,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text | Self::Secret => "text",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
            Self::List => "a list of texts",
        })
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The dotted name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// A value as one would write it.
    pub example: &'static str,
}

const fn key(name: &'static str, kind: Kind, example: &'static str) -> Key {
    Key {
        name,
        kind,
        example,
    }
}

/// Every key with a fixed name. Under `[secrets]` the operator chooses the names.
pub const KEYS: [Key; 38] = [
    key(
        "gateway.base_url",
        Kind::Text,
        "\"https://app.sandbox.cryptoprocessing.com/api/v2\"",
    ),
    key("gateway.key", Kind::Secret, "\"env:BURSAR_GATEWAY_KEY\""),
    key(
        "gateway.secret",
        Kind::Secret,
        "\"env:BURSAR_GATEWAY_SECRET\"",
    ),
    key("gateway.timeout", Kind::Text, "\"30s\""),
    key("gateway.max_in_flight", Kind::Integer, "16"),
    key("gateway.resend_unknown", Kind::Boolean, "false"),
    key("gateway.unknown_after", Kind::Text, "\"15m\""),
    key("gateway.sweep_every", Kind::Text, "\"5m\""),
    key("gateway.balance_check_every", Kind::Text, "\"15m\""),
    key("callbacks.listen", Kind::Text, "\"127.0.0.1:8080\""),
    key("callbacks.path", Kind::Text, "\"/callbacks\""),
    key("callbacks.max_body", Kind::Text, "\"256KiB\""),
    key("scripts.dir", Kind::Text, "\"scripts\""),
    key("scripts.data_dir", Kind::Text, "\"data\""),
    key(
        "scripts.http.allow",
        Kind::List,
        "[\"https://shop.example\"]",
    ),
    key("scripts.http.timeout", Kind::Text, "\"30s\""),
    key("scripts.http.max_response", Kind::Text, "\"1MiB\""),
    key("scripts.limits.operations", Kind::Integer, "100000000"),
    key("scripts.limits.call_depth", Kind::Integer, "64"),
    key("scripts.limits.string_size", Kind::Text, "\"4MiB\""),
    key("scripts.limits.array_size", Kind::Integer, "100000"),
    key("scripts.limits.map_size", Kind::Integer, "100000"),
    key("scripts.limits.timeout", Kind::Text, "\"5m\""),
    key("scripts.limits.concurrent_runs", Kind::Integer, "64"),
    key(
        "scripts.limits.concurrent_runs_per_script",
        Kind::Integer,
        "32",
    ),
    key("scripts.limits.catch_up_per_second", Kind::Integer, "20"),
    key("store.path", Kind::Text, "\"state\""),
    key("store.cache", Kind::Text, "\"64MiB\""),
    key("admin.listen", Kind::Text, "\"127.0.0.1:8081\""),
    key("admin.token", Kind::Secret, "\"env:BURSAR_ADMIN_TOKEN\""),
    key("policy.otherwise", Kind::Text, "\"refuse\""),
    key("policy.max_batch", Kind::Integer, "1000"),
    key("policy.timezone", Kind::Text, "\"Europe/Berlin\""),
    key("policy.rates_max_age", Kind::Text, "\"10m\""),
    key("history.keep", Kind::Text, "\"90d\""),
    key("history.keep_most", Kind::Integer, "1000000"),
    key("log.format", Kind::Text, "\"json\""),
    key("log.level", Kind::Text, "\"info\""),
];

/// The tables that keys stand in.
pub const TABLES: [&str; 11] = [
    "gateway",
    "callbacks",
    "scripts",
    "scripts.http",
    "scripts.limits",
    "store",
    "admin",
    "policy",
    "history",
    "secrets",
    "log",
];

/// Lists of tables, which are read by files of their own.
pub const LISTS: [&str; 2] = ["policy.limit", "policy.rule"];

/// What the reference describes and this version cannot do yet. Ignoring it would be worse than
/// refusing it.
pub const NOT_YET: [&str; 1] = ["notify"];

/// Every key as `table.key`, in the order of `daemon.toml`; `[secrets]` has names of the
/// operator's choice and is left out.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// The key of this dotted name; names under `[secrets]` are made up by the operator.
pub fn find(name: &str) -> Option<Key> {
    if let Some(secret) = name.strip_prefix("secrets.") {
        return is_secret_name(secret).then_some(key("", Kind::Secret, "\"env:NAME\""));
    }
    KEYS.iter().find(|key| key.name == name).copied()
}

/// Whether scripts can ask for a secret by this name.
fn is_secret_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
