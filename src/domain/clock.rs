//! The only way to learn what time it is. Everyone who needs the time is handed a [`Clock`].

use chrono::{DateTime, Utc};

/// An instant, in UTC. Stored and shown with millisecond precision.
pub type Timestamp = DateTime<Utc>;

/// The instant as it is shown everywhere: `2026-11-22T09:00:00.000Z`.
#[must_use]
pub fn shown(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
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
