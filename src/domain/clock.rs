//! The only way to learn what time it is. Everyone who needs the time is handed a [`Clock`].

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// An instant, in UTC. Stored and shown with millisecond precision.
pub type Timestamp = DateTime<Utc>;

/// The instant as it is shown everywhere: `2026-11-22T09:00:00.000Z`.
#[must_use]
pub fn shown(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Writes an instant as serde writes it, as one text instead of character by character.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// The same, when there is one.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_some<S: Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// Tells the time. One of the crate's few seams: tests and the script test runner set it.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current instant. May jump in both directions when an operator or NTP sets the clock.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        Utc::now()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    struct Two {
        #[serde(serialize_with = "serialize")]
        one: Timestamp,
        #[serde(serialize_with = "serialize_some")]
        other: Option<Timestamp>,
    }

    proptest! {
        #[test]
        fn instants_are_written_as_serde_writes_them(
            second in -70_000_000_000_i64..300_000_000_000,
            nanos in 0..1_000_000_000_u32,
            unit in prop::sample::select(vec![1, 1_000, 1_000_000, 1_000_000_000]),
        ) {
            let at = Timestamp::from_timestamp(second, nanos / unit * unit).unwrap();
            for other in [None, Some(at)] {
                let text = serde_json::to_string(&Two { one: at, other }).unwrap();
                let chrono = serde_json::json!({ "one": at, "other": other });
                prop_assert_eq!(text, chrono.to_string());
            }
        }
    }
}
