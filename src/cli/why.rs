//! `bursar why FOREIGN_ID`

use serde_json::Value;

use super::admin_client::{Daemon, below};
use super::exit_code::Outcome;
use super::listed::Shown;
use super::output::{facts, field, list, text, time};
use super::settings::Settings;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The payment's key
    foreign_id: String,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(settings: &Settings, options: &Options) -> Outcome {
    let why = Daemon::of(settings)?.get(&below("why", &options.foreign_id))?;
    options.shown.show(&why, story);
    Ok(())
}

const NOT_KEPT: &str = "no longer kept";

/// The story, from what fired to what became of it.
pub(super) fn story(why: &Value) -> String {
    let part = |name: &str| why.get(name).unwrap_or(&Value::Null);
    let payment = part("payment");
    let title = format!(
        "payment {} is {}",
        field(payment, "foreign_id"),
        field(payment, "status")
    );
    let amount = format!(
        "{} {}",
        field(payment, "amount"),
        field(payment, "currency")
    );
    let about = facts(&[
        ("kind", field(payment, "kind")),
        ("amount", amount.trim().to_owned()),
        ("gateway id", field(payment, "id")),
        ("error", field(payment, "error")),
        ("fired by", trigger(part("trigger"))),
        ("in run", run_of(part("run"))),
        ("asked for at", place(part("script"))),
        ("arguments", arguments(part("arguments"))),
        ("policy", policy(part("policy"))),
        (
            "approved by",
            list(why, "approvals")
                .iter()
                .map(|given| format!("{}, {} UTC", field(given, "by"), time(given, "at")))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    ]);
    let parts = [
        (
            "attempts",
            list(why, "attempts")
                .iter()
                .map(attempt)
                .collect::<Vec<_>>(),
        ),
        (
            "look-ups",
            list(why, "look_ups").iter().map(happened).collect(),
        ),
        (
            "callbacks",
            list(why, "callbacks").iter().map(callback).collect(),
        ),
        (
            "everything, in order",
            list(why, "story").iter().map(happened).collect(),
        ),
    ];
    let parts = parts.into_iter().filter(|(_, lines)| !lines.is_empty());
    let parts = parts.map(|(name, lines)| format!("\n\n{name}\n{}", lines.join("\n")));
    format!("{title}\n{about}{}", parts.collect::<String>())
}

fn trigger(trigger: &Value) -> String {
    let kind = field(trigger, "kind");
    match (trigger.get("event"), kind.as_str()) {
        (_, "") => NOT_KEPT.to_owned(),
        (Some(event), _) => format!(
            "the event {} {} of {} UTC",
            field(event, "kind"),
            field(event, "id"),
            time(event, "received_at")
        ),
        (None, "schedule") => format!("the slot {} UTC of its schedule", time(trigger, "slot")),
        (None, _) => format!("a person, for the slot {} UTC", time(trigger, "slot")),
    }
}

fn run_of(run: &Value) -> String {
    let state = match field(run, "state") {
        state if state.is_empty() => NOT_KEPT.to_owned(),
        state => state,
    };
    format!(
        "{} of {}, step {} ({state})",
        field(run, "id"),
        field(run, "handler"),
        field(run, "step")
    )
}

fn place(script: &Value) -> String {
    let source = match field(script, "source") {
        source if source.is_empty() => NOT_KEPT.to_owned(),
        source => source,
    };
    format!(
        "{}:{} in version {}\n{source}",
        field(script, "file"),
        field(script, "line"),
        field(script, "set"),
    )
}

fn arguments(arguments: &Value) -> String {
    let fields = arguments.as_object().into_iter().flatten();
    let lines: Vec<String> = fields
        .map(|(name, value)| format!("{name}: {}", text(value)))
        .collect();
    lines.join("\n")
}

fn policy(policy: &Value) -> String {
    if policy.is_null() {
        return "was not asked".to_owned();
    }
    let verdict = policy.get("verdict").unwrap_or(&Value::Null);
    let verdict = match verdict.as_object().and_then(|object| object.iter().next()) {
        Some((word, terms)) => format!("{word} ({})", wanted(terms)),
        None => text(verdict),
    };
    let reasons = list(policy, "reasons").iter().map(|reason| {
        let applies = match reason.get("matches").and_then(Value::as_bool) {
            Some(true) => "applies",
            Some(false) | None => "does not apply",
        };
        format!(
            "\n`{}` {applies}: {}",
            field(reason, "name"),
            field(reason, "text")
        )
    });
    format!(
        "{verdict}, by `{}`{}",
        field(policy, "by"),
        reasons.collect::<String>()
    )
}

/// What an approval takes.
fn wanted(terms: &Value) -> String {
    let hours = terms.get("expires_after").and_then(Value::as_u64);
    let hours = hours.map_or_else(String::new, |seconds| {
        format!(" within {} hours", seconds / 3600)
    });
    let editor = match terms.get("editor_may_approve").and_then(Value::as_bool) {
        Some(false) => ", not the script's last editor",
        Some(true) | None => "",
    };
    format!("people needed: {}{hours}{editor}", field(terms, "quorum"))
}

fn attempt(attempt: &Value) -> String {
    let request = attempt.get("request").unwrap_or(&Value::Null);
    let outcome = attempt.get("outcome").unwrap_or(&Value::Null);
    let came = if outcome.is_null() {
        "    nothing is known of what came back".to_owned()
    } else {
        format!("  {}{}", happened(outcome), reply(outcome))
    };
    format!(
        "  {}  sent {} {}\n{came}",
        time(attempt, "at"),
        field(request, "operation"),
        field(request, "body")
    )
}

fn reply(line: &Value) -> String {
    let Some(reply) = line.get("reply").filter(|reply| !reply.is_null()) else {
        return "\n    no reply".to_owned();
    };
    let status = match field(reply, "status") {
        status if status.is_empty() => "reply".to_owned(),
        status => format!("reply {status}"),
    };
    match field(reply, "body") {
        body if body.is_empty() => format!("\n    {status} that proves nothing"),
        body => format!("\n    {status} {body}"),
    }
}

fn happened(line: &Value) -> String {
    let event = line.get("event").unwrap_or(&Value::Null);
    let event = match event.as_object().and_then(|object| object.iter().next()) {
        Some((name, of)) => format!("{name} {}", text(of)),
        None => text(event),
    };
    let note = match field(line, "note") {
        note if note.is_empty() => note,
        note => format!(" ({note})"),
    };
    format!(
        "  {}  {}{note}, then {}",
        time(line, "at"),
        event.replace('_', " "),
        field(line, "state")
    )
}

fn callback(callback: &Value) -> String {
    format!(
        "  {}  {} {}",
        time(callback, "received_at"),
        field(callback, "kind"),
        field(callback, "id")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_whole_story_is_told_from_the_trigger_to_the_end() {
        let amount: Value = serde_json::from_str("0.10").unwrap();
        let why = json!({
            "payment": {"foreign_id": "order/7", "kind": "withdraw", "status": "confirmed",
                "id": "12", "amount": amount, "currency": "BTC", "error": null},
            "trigger": {"kind": "schedule", "slot": "2026-11-22T09:00:00.000Z"},
            "run": {"id": "r01", "handler": "pay/daily", "step": 3, "state": "succeeded"},
            "script": {"set": "abc123", "file": "pay.rhai", "line": 4,
                "source": "gateway::withdraw(#{"},
            "arguments": {"amount": "0.10", "receiver_data": {"first_name": "***"}},
            "policy": {"verdict": {"approve": {"quorum": 2, "expires_after": 86_400,
                "editor_may_approve": false}}, "by": "small", "reasons": [
                {"name": "per day", "matches": true, "text": "0.3 of 1 BTC spent today"},
                {"name": "large", "matches": false, "text": "0.1 is not above 1"},
            ]},
            "approvals": [{"by": "ana", "at": "2026-11-22T08:59:00.000Z", "fingerprint": "0f"},
                {"by": "ben", "at": "2026-11-22T08:59:30.000Z", "fingerprint": "0f"}],
            "attempts": [{"at": "2026-11-22T09:00:01.000Z",
                "request": {"operation": "withdraw", "body": "{\"amount\":\"0.10\"}"},
                "outcome": {"at": "2026-11-22T09:00:31.000Z", "event": "answer_lost",
                    "state": "unknown", "note": "no answer in time", "reply": null}}],
            "look_ups": [{"at": "2026-11-22T09:01:00.000Z", "event": "not_found",
                "state": "unknown", "note": null}],
            "callbacks": [{"id": "withdrawal/12/confirmed", "kind": "withdrawal.confirmed",
                "received_at": "2026-11-22T09:05:00.000Z"}],
            "story": [{"at": "2026-11-22T09:05:00.000Z", "event": {"reported": "confirmed"},
                "state": "confirmed", "note": "callback: confirmed"}],
        });
        insta::assert_snapshot!(story(&why));
        let pruned = json!({"payment": {"foreign_id": "x", "status": "held"}});
        insta::assert_snapshot!(story(&pruned));
    }
}
