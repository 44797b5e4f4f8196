//! `schedule(…)` and `on(…)`: from the arguments a script gives to a checked handler.
//!
//! Checks one registration at a time; that no two handlers share an identity is checked over the
//! whole set.

use std::collections::BTreeMap;
use std::time::Duration;

use rhai::{FnPtr, GlobalRuntimeState, Map, NativeCallContext, Position};

use super::current::{self, Called};
use super::json;
use super::options::{Options, Refused};
use crate::domain::handler::{
    EventTrigger, Handler, Missed, Overlap, Retry, ScheduleTrigger, Trigger,
};
use crate::domain::id::HandlerId;
use crate::domain::schedule::Schedule;

/// A handler with its code and what its code sees: imported modules, constants, functions.
pub(super) struct Registered {
    /// What it is and what starts it.
    pub(super) handler: Handler,
    /// Its code.
    pub(super) function: FnPtr,
    /// What its code sees.
    pub(super) surroundings: GlobalRuntimeState,
    /// Where it was registered.
    pub(super) position: Position,
}

/// `schedule(name, cron, [options], |tick| …)`
pub(super) fn schedule(
    context: &NativeCallContext,
    name: &str,
    cron: &str,
    options: Map,
    function: FnPtr,
) -> Called<()> {
    let read = || -> Result<(Trigger, Tries), Refused> {
        let known = [
            "timezone", "missed", "overlap", "jitter", "retry", "timeout",
        ];
        let mut options = Options::new("schedule", options, &known)?;
        let timezone = options
            .text("timezone")?
            .unwrap_or_else(|| "UTC".to_owned());
        let trigger = ScheduleTrigger {
            schedule: Schedule::parse(cron, &timezone).map_err(|error| error.to_string())?,
            missed: options
                .word(
                    "missed",
                    &[
                        ("skip", Missed::Skip),
                        ("last", Missed::Last),
                        ("all", Missed::All),
                    ],
                )?
                .unwrap_or_default(),
            overlap: options
                .word(
                    "overlap",
                    &[
                        ("skip", Overlap::Skip),
                        ("queue", Overlap::Queue),
                        ("allow", Overlap::Allow),
                    ],
                )?
                .unwrap_or_default(),
            jitter: options.duration("jitter")?.unwrap_or(Duration::ZERO),
        };
        Ok((Trigger::Schedule(trigger), tries(&mut options)?))
    };
    let (trigger, tries) = read()?;
    keep(context, "schedule", name, trigger, &tries, function)
}

/// `on(event, [options], |event| …)`
pub(super) fn on(
    context: &NativeCallContext,
    pattern: &str,
    options: Map,
    function: FnPtr,
) -> Called<()> {
    let read = || -> Result<(String, Trigger, Tries), Refused> {
        let mut options = Options::new("on", options, &["name", "where", "retry", "timeout"])?;
        let name = options.text("name")?.unwrap_or_else(|| pattern.to_owned());
        let mut filter = BTreeMap::new();
        for (path, value) in options.map("where")?.unwrap_or_default() {
            if path.split('.').any(str::is_empty) {
                return Err(format!(
                    "on option `where`: `{path}` is not a dotted path such as \
                     crypto_address.currency"
                ));
            }
            let value = json::from_dynamic(&value)
                .map_err(|error| format!("on option `where`, `{path}`: {error}"))?;
            filter.insert(path.to_string(), value);
        }
        check_pattern(pattern)?;
        let trigger = EventTrigger {
            pattern: pattern.to_owned(),
            filter,
        };
        Ok((name, Trigger::Event(trigger), tries(&mut options)?))
    };
    let (name, trigger, tries) = read()?;
    keep(context, "on", &name, trigger, &tries, function)
}

/// How often and how long a handler is tried: options that both kinds have.
struct Tries {
    retry: Retry,
    timeout: Option<Duration>,
}

fn tries(options: &mut Options) -> Result<Tries, Refused> {
    let mut retry = Retry::default();
    if let Some(map) = options.map("retry")? {
        let mut given = Options::new("retry", map, &["attempts", "first", "max"])?;
        retry.attempts = given.count("attempts")?.unwrap_or(retry.attempts);
        retry.first = given.duration("first")?.unwrap_or(retry.first);
        retry.max = given.duration("max")?.unwrap_or(retry.max.max(retry.first));
        if retry.max < retry.first {
            return Err("retry option `max` must not be less than `first`".to_owned());
        }
    }
    let timeout = options.duration("timeout")?;
    if timeout == Some(Duration::ZERO) {
        return Err("option `timeout` must be above 0".to_owned());
    }
    Ok(Tries { retry, timeout })
}

/// Which types and statuses there are is the gateway's to say; how a pattern is written is ours.
fn check_pattern(pattern: &str) -> Result<(), Refused> {
    let is_word = |part: &str| {
        part == "*"
            || (!part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':')))
    };
    let parts: Vec<&str> = pattern.split('.').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_word(part)) {
        return Ok(());
    }
    Err(format!(
        "`{pattern}` is not an event (write type.status such as withdrawal.confirmed, with * for \
         either part, * for everything, or the name of a custom event)"
    ))
}

fn check_name(name: &str) -> Result<(), Refused> {
    let length = name.chars().count();
    if (1..=100).contains(&length) && !name.chars().any(char::is_control) && name.trim() == name {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not a name for a handler (1 to 100 characters, no space around them)"
    ))
}

fn keep(
    context: &NativeCallContext,
    called: &str,
    name: &str,
    trigger: Trigger,
    tries: &Tries,
    function: FnPtr,
) -> Called<()> {
    check_name(name)?;
    let site = current::site(context);
    let script = site.file.strip_suffix(".rhai").unwrap_or(&site.file);
    let handler = Handler {
        id: HandlerId {
            script: script.to_owned(),
            name: name.to_owned(),
        },
        trigger,
        retry: tries.retry,
        timeout: tries.timeout,
        line: site.line,
    };
    let registered = Registered {
        handler,
        function,
        surroundings: context.global_runtime_state().clone(),
        position: context.call_position(),
    };
    current::register(registered, called)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scripting::Ended;
    use crate::scripting::fake_world::{FakeWorld, compile, execute_with, mistakes};

    #[test]
    fn options_arrive_in_the_handler() {
        let set = compile(&[(
            "t.rhai",
            r#"schedule("a", "0 9 * * MON-FRI", #{
                timezone: "Europe/Berlin", missed: "last", overlap: "queue", jitter: "30s",
                retry: #{ attempts: 3, first: "1s", max: "1m" }, timeout: "1h30m",
            }, |tick| { });
            on("invoice.*", #{ name: "b", where: #{ "crypto_address.currency": "BTC", n: 1.50 } }, |event| { });
            on("*", |event| { });"#,
        )]);
        let [scheduled, named, unnamed] = set.handlers() else {
            panic!("{:?}", set.handlers());
        };
        let Trigger::Schedule(schedule) = &scheduled.trigger else {
            panic!("{scheduled:?}");
        };
        assert_eq!(schedule.missed, Missed::Last);
        assert_eq!(schedule.overlap, Overlap::Queue);
        assert_eq!(schedule.jitter, Duration::from_secs(30));
        assert_eq!(scheduled.timeout, Some(Duration::from_mins(90)));
        let retry = Retry {
            attempts: 3,
            first: Duration::from_secs(1),
            max: Duration::from_mins(1),
        };
        assert_eq!(scheduled.retry, retry);
        let Trigger::Event(event) = &named.trigger else {
            panic!("{named:?}");
        };
        assert_eq!(named.id.name, "b");
        assert!(event.matches(
            "invoice.paid",
            &json!({"crypto_address": {"currency": "BTC"}, "n": serde_json::from_str::<serde_json::Value>("1.5").unwrap()})
        ));
        assert_eq!(
            (unnamed.id.name.as_str(), unnamed.retry),
            ("*", Retry::default())
        );
    }

    /// Calls, and what must be said about them.
    const REFUSED: [(&str, &str); 23] = [
        (
            r#"schedule("a", "0 9 * * *", #{ timezon: "UTC" }, |t| { })"#,
            "did you mean `timezone`?",
        ),
        (
            r#"schedule("a", "0 9 * * *", #{ timezone: "Berlin" }, |t| { })"#,
            "Berlin",
        ),
        (r#"schedule("a", "nonsense", |t| { })"#, "nonsense"),
        (
            r#"schedule("a", "0 9 * * *", #{ missed: "never" }, |t| { })"#,
            r#"one of "skip", "last", "all""#,
        ),
        (
            r#"schedule("a", "0 9 * * *", #{ jitter: 5 }, |t| { })"#,
            r#"a duration such as "90m", not the number 5"#,
        ),
        (
            r#"schedule("a", "0 9 * * *", #{ jitter: "5 minutes" }, |t| { })"#,
            "`5 minutes` is not a duration",
        ),
        (
            r#"schedule("a", "0 9 * * *", #{ retry: #{ atempts: 3 } }, |t| { })"#,
            "did you mean `attempts`?",
        ),
        (
            r#"schedule("a", "0 9 * * *", #{ retry: #{ attempts: 0 } }, |t| { })"#,
            "a whole number above 0",
        ),
        (
            r#"schedule("a", "0 9 * * *", #{ retry: #{ first: "1h", max: "1m" } }, |t| { })"#,
            "must not be less",
        ),
        (
            r#"schedule("a", "0 9 * * *", #{ timeout: "0s" }, |t| { })"#,
            "must be above 0",
        ),
        (r#"schedule("", "0 9 * * *", |t| { })"#, "is not a name"),
        (
            r#"schedule("a", 9, |t| { })"#,
            "it is schedule(name, cron, [options], |tick| …)",
        ),
        (
            r#"schedule("a", "0 9 * * *", || { })"#,
            "exactly one parameter",
        ),
        (
            r#"schedule("a", "0 9 * * *", |a, b| { })"#,
            "exactly one parameter",
        ),
        (r#"on("a..b", |e| { })"#, "is not an event"),
        (r#"on("a.b.c", |e| { })"#, "is not an event"),
        (r#"on("", |e| { })"#, "is not"),
        (
            r#"on("a.b", #{ frequency: 1 }, |e| { })"#,
            "there are name, where, retry, timeout",
        ),
        (
            r#"on("a.b", #{ where: #{ "a..b": 1 } }, |e| { })"#,
            "is not a dotted path",
        ),
        (r#"on("a.b", #{ where: "x" }, |e| { })"#, "must be a map"),
        (
            "gateway::ping()",
            "`gateway::ping` cannot be called at the top level",
        ),
        (
            r#"state::set("a", 1)"#,
            "`state::set` cannot be called at the top level",
        ),
        (
            r#"once("a", || 1)"#,
            "`once` cannot be called at the top level",
        ),
    ];

    #[test]
    fn what_cannot_be_meant_is_refused_with_advice_and_its_line() {
        for (call, expected) in REFUSED {
            let text = mistakes(&[("t.rhai", &format!("\n  {call};"))]);
            assert!(text.contains(expected), "{call}\n{text}");
            assert!(text.contains("t.rhai:2:"), "{call}\n{text}");
        }
    }

    #[test]
    fn two_handlers_with_one_identity_show_both_places() {
        let text = mistakes(&[(
            "t.rhai",
            "on(\"a.b\", |event| { });\n\nschedule(\"a.b\", \"0 9 * * *\", |tick| { });",
        )]);
        assert!(
            text.contains("t.rhai:3:1") && text.contains("t.rhai:1"),
            "{text}"
        );
        compile(&[
            ("a.rhai", "on(\"a.b\", |event| { });"),
            ("b.rhai", "on(\"a.b\", |event| { });"),
        ]);
    }

    #[test]
    fn a_handler_cannot_register_handlers() {
        let body = "on(\"x\", |event| { })";
        let Ended::Failed(error) = execute_with(&FakeWorld::new(), body, &json!({})) else {
            panic!("it registered");
        };
        assert!(
            error
                .diagnostic
                .message
                .contains("only be called at the top level")
        );
    }
}
