//! Identities: of handlers, firings, runs, payments, gateway transactions and script sets.

use std::fmt;
use std::str::FromStr;

use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::clock::Timestamp;

/// The business key of a payment, unique at the gateway for ever. 1 to 255 characters without
/// control characters (the gateway documents 255 for invoices, exchanges and addresses; for
/// withdrawals it is assumed).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ForeignId(String);

/// Why a text cannot be a [`ForeignId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a foreign_id (1 to 255 characters, no control characters)")]
pub struct ForeignIdError(String);

impl ForeignId {
    /// The key as the gateway sees it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ForeignId {
    type Err = ForeignIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = text.chars().count();
        if (1..=255).contains(&length) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ForeignIdError(text.chars().take(60).collect()))
        }
    }
}

impl fmt::Display for ForeignId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ForeignId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A handler for ever: the script it stands in and its name there. Schedules, deduplication and
/// history hang on it, so neither part may change without becoming another handler.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HandlerId {
    /// Path below the scripts folder without `.rhai`, with `/` between folders: `payouts/weekly`.
    pub script: String,
    /// The registered name, unique in the script.
    pub name: String,
}

impl fmt::Display for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.script, self.name)
    }
}

/// One occurrence of something that starts a handler. Part of the run's identity, so that the same
/// occurrence can never start the same handler twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firing {
    /// A slot of a schedule: the instant it was due, not the instant it was noticed.
    Slot(Timestamp),
    /// An event, by its permanent key: a callback's, or a custom event's.
    Event(String),
    /// Fired by a person with `bursar trigger`, numbered by the store.
    Manual {
        /// The slot the handler is told it runs for.
        slot: Timestamp,
        /// Distinguishes several manual firings of one slot.
        number: u64,
    },
}

impl fmt::Display for Firing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(at) => write!(f, "slot:{}", at.timestamp_millis()),
            Self::Event(key) => write!(f, "event:{key}"),
            Self::Manual { slot, number } => {
                write!(f, "manual:{}:{number}", slot.timestamp_millis())
            }
        }
    }
}

/// A run: its place in the order in which firings were accepted, which no other has. That a firing
/// starts a handler once is kept by the record of the firing, not by the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct RunId(u64);

/// Hex digits of a run's id.
const RUN_ID_LENGTH: usize = 16;

impl RunId {
    /// The run at that place.
    #[must_use]
    pub const fn new(order: u64) -> Self {
        Self(order)
    }

    /// The place.
    #[must_use]
    pub const fn order(self) -> u64 {
        self.0
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('r')
            .filter(|hex| hex.len() == RUN_ID_LENGTH)
            .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a run id (r and {RUN_ID_LENGTH} hex digits, as `bursar runs list` shows it)"
                )
            })
    }
}

/// As people type it: `r` and 16 hex digits.
impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{:016x}", self.0)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [b'r'; 1 + RUN_ID_LENGTH];
        let (_, digits) = text.split_at_mut(1);
        hex::encode_to_slice(self.0.to_be_bytes(), digits).map_err(S::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(&text).map_err(S::Error::custom)?)
    }
}

impl TryFrom<String> for RunId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// One transaction at the gateway: events of one transaction are handled in order. Ids of
/// different types are different sequences, so the type belongs to the key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionKey {
    /// `withdrawal`, `deposit`, `invoice`, … as in the callback.
    pub kind: String,
    /// The root `id` as text, or `payment_request_id`.
    pub id: String,
}

impl TransactionKey {
    /// The family its type belongs to: types that differ only in how a transaction was made
    /// (`withdrawal`, `withdrawal_exchange`, `withdrawal_instant`) share their ids.
    #[must_use]
    pub fn family(&self) -> &str {
        ["withdrawal", "deposit"]
            .into_iter()
            .find(|family| {
                self.kind
                    .strip_prefix(family)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            })
            .unwrap_or(&self.kind)
    }
}

impl fmt::Display for TransactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

/// The content hash of a whole set of scripts: 64 hex digits. Runs are pinned to one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetHash(String);

impl SetHash {
    /// The hash of `(path, source)` pairs, which must come sorted by path.
    pub fn of<'a>(sources: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hasher = Sha256::new();
        for (path, source) in sources {
            for part in [path, source] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        Self(hex::encode(hasher.finalize()))
    }

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, enough for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

const DIGEST_LENGTH: usize = 20;

/// The first 80 bits of SHA-256 over the length-prefixed parts, in hex. Used for every derived
/// key: parts cannot run into each other, and the result never depends on time or chance.
#[must_use]
pub fn digest(parts: &[&str]) -> String {
    Digits::of(parts.iter().copied()).as_str().to_owned()
}

/// What [`digest`] answers, without memory of its own. Sorts as the text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digits([u8; DIGEST_LENGTH]);

impl Digits {
    /// The digest of the parts.
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let mut digits = [0; DIGEST_LENGTH];
        let (pairs, _) = digits.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(hash) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 0x0f)];
        }
        Self(digits)
    }

    /// The digits as text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

const fn hex_digit(value: u8) -> u8 {
    if value < 10 {
        b'0' + value
    } else {
        b'a' - 10 + value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_comes_back_from_its_text_and_sorts_as_it_was_accepted() {
        let run = RunId::new(0x019a_b3c4_d5e6_0001);
        assert_eq!(run.to_string(), "r019ab3c4d5e60001");
        assert_eq!("r019ab3c4d5e60001".parse(), Ok(run));
        assert!(RunId::new(9) < RunId::new(10));
        for text in [
            "",
            "r",
            "019ab3c4d5e60001",
            "r019ab3c4d5e6000g",
            "r+19ab3c4d5e60001",
            "r1",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_a_digest_cannot_run_into_each_other() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(digest(&["a"]), digest(&["a", ""]));
    }

    proptest::proptest! {
        #[test]
        fn a_digest_is_the_start_of_the_hash_in_hex_and_sorts_as_its_text(
            parts: Vec<String>,
            others: Vec<String>,
        ) {
            let plain = |parts: &[String]| {
                let mut hasher = Sha256::new();
                for part in parts {
                    hasher.update((part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
                hex::encode(hasher.finalize())[..20].to_owned()
            };
            let digits = |parts: &[String]| Digits::of(parts.iter().map(String::as_str));
            let slices: Vec<&str> = parts.iter().map(String::as_str).collect();
            proptest::prop_assert_eq!(digest(&slices), plain(&parts));
            proptest::prop_assert_eq!(
                digits(&parts).cmp(&digits(&others)),
                plain(&parts).cmp(&plain(&others))
            );
        }
    }

    #[test]
    fn a_foreign_id_is_short_and_printable() {
        assert!("payroll-2026-11-22-7".parse::<ForeignId>().is_ok());
        assert!("".parse::<ForeignId>().is_err());
        assert!("a\nb".parse::<ForeignId>().is_err());
        assert!("x".repeat(256).parse::<ForeignId>().is_err());
    }
}
