//! `time::`: instants as RFC 3339 texts in UTC with milliseconds, so that they compare, print and
//! are stored as what they are.

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use rhai::{Dynamic, Module, NativeCallContext};

use crate::domain::duration;
use crate::scripting::current::{self, Called};
use crate::scripting::effects::Request;
use crate::scripting::options::type_in_words;
use crate::scripting::reference::FunctionDoc;

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// An instant: an RFC 3339 text, a date (its midnight in UTC), or seconds since 1970, which is
/// what the gateway writes.
fn instant(value: &Dynamic) -> Called<DateTime<Utc>> {
    let parsed = if let Ok(seconds) = value.as_int() {
        DateTime::from_timestamp(seconds, 0)
    } else if let Ok(text) = value.as_immutable_string_ref() {
        DateTime::parse_from_rfc3339(&text)
            .map(|at| at.to_utc())
            .ok()
            .or_else(|| {
                let midnight = text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?;
                Some(midnight.and_utc())
            })
    } else {
        None
    };
    parsed.ok_or_else(|| {
        let found = type_in_words(value);
        current::invalid(format!(
            "a time is a text such as 2026-11-22T09:00:00Z or 2026-11-22, or seconds since 1970, \
             not {found}"
        ))
    })
}

fn milliseconds(text: &str) -> Called<i64> {
    let length = duration::parse(text).map_err(|error| current::invalid(error.to_string()))?;
    i64::try_from(length.as_millis()).map_err(|_| current::invalid("the duration is too long"))
}

fn shifted(at: &Dynamic, by: i64) -> Called<String> {
    TimeDelta::try_milliseconds(by)
        .zip(Some(instant(at)?))
        .and_then(|(by, at)| at.checked_add_signed(by))
        .map(text)
        .ok_or_else(|| current::invalid("the time is out of range"))
}

fn format(at: &Dynamic, format: &str, timezone: &str) -> Called<String> {
    let at = instant(at)?;
    let zone: Tz = timezone.parse().map_err(|_| {
        current::invalid(format!(
            "`{timezone}` is not a time zone (such as Europe/Berlin)"
        ))
    })?;
    let items: Vec<Item> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(current::invalid(format!(
            "`{format}` is not a format (such as %Y-%m-%d %H:%M)"
        )));
    }
    Ok(at
        .with_timezone(&zone)
        .format_with_items(items.iter())
        .to_string())
}

fn diff(later: &Dynamic, earlier: &Dynamic) -> Called<i64> {
    Ok((instant(later)? - instant(earlier)?).num_seconds())
}

fn now(context: &NativeCallContext) -> Called<String> {
    let answer = current::step(context, "time::now", Request::Now)?;
    answer
        .as_i64()
        .and_then(DateTime::from_timestamp_millis)
        .map(text)
        .ok_or_else(|| current::invalid(format!("time::now: {answer} is not a time")))
}

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    function!(module, "now", |context| now(&context));
    function!(module, "parse", |context, at: Dynamic| instant(&at)
        .map(text));
    function!(module, "format", |context, at: Dynamic, pattern: &str| {
        format(&at, pattern, "UTC")
    });
    function!(
        module,
        "format",
        |context, at: Dynamic, pattern: &str, timezone: &str| { format(&at, pattern, timezone) }
    );
    function!(module, "add", |context, at: Dynamic, by: &str| {
        milliseconds(by).and_then(|by| shifted(&at, by))
    });
    function!(module, "subtract", |context, at: Dynamic, by: &str| {
        milliseconds(by).and_then(|by| shifted(&at, -by))
    });
    function!(
        module,
        "diff",
        |context, later: Dynamic, earlier: Dynamic| { diff(&later, &earlier) }
    );
    function!(module, "seconds", |context, length: &str| {
        milliseconds(length).map(|milliseconds| milliseconds / 1000)
    });
    module
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    let doc = |name, signature, text, example: &str| FunctionDoc {
        namespace: "time",
        name,
        signature,
        text,
        example: example.to_owned(),
    };
    vec![
        doc(
            "now",
            "now()",
            "The current time as a text such as 2026-11-22T09:00:00.000Z, in UTC. Recorded: the \
             same on every replay. Times of this form compare with < and >.",
            r"let started = time::now();",
        ),
        doc(
            "parse",
            "parse(time)",
            "The same form as `time::now` of an RFC 3339 text, a date, or seconds since 1970.",
            r"let expires = time::parse(1592395375);",
        ),
        doc(
            "format",
            "format(time, format, [timezone])",
            "A time in a zone (default UTC), written with %Y %m %d %H %M %S and the like.",
            r#"let day = time::format("2026-11-22T23:30:00Z", "%d.%m.%Y", "Europe/Berlin");"#,
        ),
        doc(
            "add",
            "add(time, duration)",
            "The time that much later. Durations are written like \"90m\", \"12h\", \"1d\".",
            r#"let deadline = time::add(time::now(), "90m");"#,
        ),
        doc(
            "subtract",
            "subtract(time, duration)",
            "The time that much earlier.",
            r#"let yesterday = time::subtract(time::now(), "1d");"#,
        ),
        doc(
            "diff",
            "diff(later, earlier)",
            "Whole seconds between two times; negative when the first is the earlier one.",
            r#"if time::diff(time::now(), "2026-11-22") > time::seconds("12h") { print("late"); }"#,
        ),
        doc(
            "seconds",
            "seconds(duration)",
            "Whole seconds of a duration.",
            r#"let length = time::seconds("1h30m");"#,
        ),
    ]
}
