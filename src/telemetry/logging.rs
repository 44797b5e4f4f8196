//! Log lines on standard error or in a file: for people, or one JSON object each. Which events there
//! are is for the files beside this one to say; the command line calls this, once.

use std::fs::File;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};

use chrono::SecondsFormat;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;

use crate::domain::clock::Clock;

/// Sends the log of this process to standard error, as JSON or as text, from `level` upwards.
/// Answers whether it did: the first call in a process wins, a later one changes nothing, so that
/// several daemons can live in one process.
///
/// `level` holds for Bursar's own events. Of the crates it stands on only warnings and errors are
/// written, whatever the level: their finer ones may show headers and bodies.
pub fn init(json: bool, level: Level, clock: Arc<dyn Clock>) -> bool {
    let colours = std::io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(
        json,
        level,
        Times(clock),
        colours,
        std::io::stderr,
    ))
    .is_ok()
}

/// As [`init`], into a file as text, whole lines at a time.
pub fn init_file(file: File, level: Level, clock: Arc<dyn Clock>) -> bool {
    let file = Mutex::new(file);
    tracing::subscriber::set_global_default(subscriber(false, level, Times(clock), false, file))
        .is_ok()
}

fn subscriber<W>(
    json: bool,
    level: Level,
    times: Times,
    colours: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = Targets::new()
        .with_default(level.min(Level::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let layer = tracing_subscriber::fmt::layer()
        .with_timer(times)
        .with_writer(writer)
        // A closed standard error must not be reported on standard error.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        Box::new(registry.with(layer.json().with_span_list(false)))
    } else {
        Box::new(registry.with(layer.with_target(false).with_ansi(colours)))
    }
}

/// UTC with milliseconds, as `2026-11-22T09:00:00.000Z`.
struct Times(Arc<dyn Clock>);

impl FormatTime for Times {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let now = self.0.now().to_rfc3339_opts(SecondsFormat::Millis, true);
        w.write_str(&now)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::domain::clock::{SystemClock, Timestamp};

    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_timestamp_millis(1_700_000_000_123).unwrap()
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written of the same four events.
    fn lines(json: bool, level: Level) -> String {
        let written = Written::default();
        let target = written.clone();
        let subscriber = subscriber(json, level, Times(Arc::new(Stopped)), false, move || {
            target.clone()
        });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(run = "r1", "run parked");
            tracing::debug!("a detail");
            tracing::debug!(target: "hyper", "headers and bodies");
            tracing::warn!(target: "hyper", "connection lost");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_one_line_with_its_time_in_utc() {
        assert_eq!(
            lines(false, Level::INFO),
            "2023-11-14T22:13:20.123Z  INFO run parked run=\"r1\"\n\
             2023-11-14T22:13:20.123Z  WARN connection lost\n"
        );
    }

    #[test]
    fn json_has_one_object_a_line() {
        let text = lines(true, Level::INFO);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            first,
            serde_json::json!({
                "timestamp": "2023-11-14T22:13:20.123Z",
                "level": "INFO",
                "target": "bursar::telemetry::logging::tests",
                "fields": { "message": "run parked", "run": "r1" },
            })
        );
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_finer_level_does_not_show_what_other_crates_see() {
        let text = lines(false, Level::TRACE);
        assert!(text.contains("a detail"), "{text}");
        assert!(!text.contains("headers and bodies"), "{text}");
        assert!(!lines(false, Level::ERROR).contains("connection lost"));
    }

    #[test]
    fn installing_twice_changes_nothing() {
        init(false, Level::ERROR, Arc::new(SystemClock));
        assert!(!init(true, Level::ERROR, Arc::new(SystemClock)));
    }
}
