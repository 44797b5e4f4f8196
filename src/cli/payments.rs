//! `bursar payments list | show`

use serde_json::Value;

use super::admin_client::{Daemon, below};
use super::exit_code::Outcome;
use super::listed::{Listed, Shown};
use super::output::{facts, field, list, short, table, text, time};
use super::pause;
use super::settings::Settings;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List payments, newest first
    List {
        #[command(flatten)]
        listed: Listed,
        /// Only payments in this state: intended, accepted, confirmed, unknown, held, …
        #[arg(long)]
        state: Option<String>,
        /// Only payments of this script, without `.rhai`
        #[arg(long)]
        script: Option<String>,
        /// Only payments of handlers of this name
        #[arg(long)]
        handler: Option<String>,
    },
    /// Tell the story of one payment
    Show {
        /// Its key
        foreign_id: String,
        #[command(flatten)]
        shown: Shown,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    match command {
        Command::List {
            listed,
            state,
            script,
            handler,
        } => {
            let filters = [
                ("state", state.as_deref()),
                ("script", script.as_deref()),
                ("handler", handler.as_deref()),
            ];
            listed.list(settings, "payments", &filters, rows_table)?;
            pause::mention(settings)
        }
        Command::Show { foreign_id, shown } => {
            let payment = Daemon::of(settings)?.get(&below("payments", &foreign_id))?;
            shown.show(&payment, story);
            Ok(())
        }
    }
}

fn rows_table(rows: &[Value]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|payment| {
            vec![
                time(payment, "created_at"),
                field(payment, "foreign_id"),
                field(payment, "kind"),
                amount(payment),
                status(payment),
                short(&field(payment, "error")),
            ]
        })
        .collect();
    let headings = [
        "CREATED (UTC)",
        "FOREIGN_ID",
        "KIND",
        "AMOUNT",
        "STATUS",
        "ERROR",
    ];
    table(&headings, &cells)
}

/// `intended (paused)`
fn status(payment: &Value) -> String {
    let stopped = payment.get("paused").and_then(Value::as_bool) == Some(true);
    let status = field(payment, "status");
    if stopped {
        format!("{status} (paused)")
    } else {
        status
    }
}

fn amount(payment: &Value) -> String {
    let amount = format!(
        "{} {}",
        field(payment, "amount"),
        field(payment, "currency")
    );
    amount.trim().to_owned()
}

fn story(payment: &Value) -> String {
    let title = format!(
        "payment {}: {}",
        field(payment, "foreign_id"),
        status(payment)
    );
    let handler = format!("{}/{}", field(payment, "script"), field(payment, "handler"));
    let about = facts(&[
        ("kind", field(payment, "kind")),
        ("amount", amount(payment)),
        ("gateway id", field(payment, "id")),
        ("url", field(payment, "url")),
        ("asked for by", handler),
        ("at", field(payment, "place")),
        ("in run", field(payment, "run")),
        ("times sent", field(payment, "attempts")),
        ("error", field(payment, "error")),
    ]);
    let lines: Vec<Vec<String>> = list(payment, "story")
        .iter()
        .map(|line| {
            vec![
                time(line, "at"),
                line.get("event").map(event).unwrap_or_default(),
                field(line, "state"),
                field(line, "note"),
            ]
        })
        .collect();
    let lines = table(&["AT (UTC)", "WHAT HAPPENED", "THEN", "NOTE"], &lines);
    format!("{title}\n{about}\n\n{lines}")
}

/// `not_found` and `{"reported": "confirmed"}` in words.
fn event(event: &Value) -> String {
    let words = match event.as_object().and_then(|object| object.iter().next()) {
        Some((name, of)) => format!("{name} {}", text(of)),
        None => text(event),
    };
    words.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_story_of_a_payment_is_told_line_by_line() {
        let amount: Value = serde_json::from_str("0.10").unwrap();
        let payment = json!({
            "foreign_id": "order/7", "kind": "withdraw", "status": "confirmed", "is_final": true,
            "id": "12", "amount": amount, "currency": "BTC", "error": null, "script": "pay",
            "handler": "daily", "attempts": 1, "created_at": "2026-11-22T09:00:00.000Z",
            "updated_at": "2026-11-22T09:05:00.000Z", "run": "r0", "place": "pay.rhai:4",
            "fingerprint": "f",
            "story": [
                {"at": "2026-11-22T09:00:00.000Z", "event": "allowed", "state": "intended", "note": null},
                {"at": "2026-11-22T09:00:01.000Z", "event": "answer_lost", "state": "unknown",
                 "note": "the gateway did not answer in time"},
                {"at": "2026-11-22T09:05:00.000Z", "event": {"reported": "confirmed"},
                 "state": "confirmed", "note": "callback: confirmed"},
            ],
        });
        insta::assert_snapshot!(story(&payment));
        insta::assert_snapshot!(rows_table(&[payment]));
    }
}
