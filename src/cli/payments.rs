//! `bursar payments list | show | approve | reject | resolve`

use serde_json::{Value, json};

use super::admin_client::{Daemon, below};
use super::exit_code::{Failure, Outcome};
use super::listed::{Listed, Shown};
use super::output::{facts, field, list, print, short, table, text, time};
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
    /// Approve of a payment that waits for it
    ///
    /// Shows what would be paid, and approves of exactly that. With the last approval that is
    /// needed the payment is sent.
    Approve {
        /// Its key
        foreign_id: String,
        /// The hash of what you approve of, as `payments show` gave it [default: what is there
        /// now, which is shown]
        #[arg(long, value_name = "H")]
        hash: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Refuse a payment that waits for approval, for good
    Reject {
        /// Its key
        foreign_id: String,
        /// Why, for those who asked for it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Say what became of a payment that is unknown or held
    ///
    /// Look it up in the gateway's dashboard first: what you say decides whether money moves.
    #[command(group = clap::ArgGroup::new("fate").required(true))]
    Resolve {
        /// Its key
        foreign_id: String,
        /// The gateway has it: wait for its callback
        #[arg(long, group = "fate")]
        sent: bool,
        /// The gateway does not have it and never will: send it, once
        #[arg(long, group = "fate")]
        not_sent: bool,
        /// How you know
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Send it although a mistake pays twice (with --not-sent)
        #[arg(long)]
        yes: bool,
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
            pause::mention(settings);
            Ok(())
        }
        Command::Show { foreign_id, shown } => {
            let payment = Daemon::of(settings)?.get(&below("payments", &foreign_id))?;
            shown.show(&payment, story);
            Ok(())
        }
        Command::Approve {
            foreign_id,
            hash,
            shown,
        } => approve(settings, &foreign_id, hash, &shown),
        Command::Reject {
            foreign_id,
            reason,
            shown,
        } => {
            let body = json!({"payment": foreign_id, "reason": reason});
            post(settings, "reject", &body, &shown)
        }
        Command::Resolve {
            foreign_id,
            not_sent: true,
            yes: false,
            ..
        } => Err(Failure::failed(format!(
            "`{foreign_id}` would be sent now. If the gateway has it already and does not refuse its key, it is paid twice. Look in the gateway's dashboard for `{foreign_id}`; if it certainly is not there, say --yes"
        ))),
        Command::Resolve {
            foreign_id,
            sent,
            reason,
            shown,
            ..
        } => {
            let body = json!({"payment": foreign_id, "sent": sent, "reason": reason});
            post(settings, "resolve", &body, &shown)
        }
    }
}

/// Shows what is there and approves of exactly that.
fn approve(settings: &Settings, foreign_id: &str, hash: Option<String>, shown: &Shown) -> Outcome {
    let daemon = Daemon::of(settings)?;
    let payment = daemon.get(&below("payments", foreign_id))?;
    let hash = hash.unwrap_or_else(|| field(&payment, "fingerprint"));
    if !shown.json {
        print(&approved(&payment, &hash));
    }
    let body = json!({"payment": foreign_id, "hash": hash});
    let answer = daemon.post("approve", &body)?;
    shown.show(&answer, |answer| field(answer, "note"));
    Ok(())
}

fn approved(payment: &Value, hash: &str) -> String {
    let content = payment.get("content").unwrap_or(&Value::Null);
    facts(&[
        ("payment", field(payment, "foreign_id")),
        ("amount", amount(payment)),
        ("address", field(content, "address")),
        ("tag", field(content, "tag")),
        ("for", field(content, "end_user_reference")),
        ("asked for by", handler(payment)),
        ("because of", field(payment, "decided_by")),
        ("hash", hash.to_owned()),
    ])
}

/// Has something decided, and says what came of it.
fn post(settings: &Settings, path: &str, body: &Value, shown: &Shown) -> Outcome {
    let answer = Daemon::of(settings)?.post(path, body)?;
    shown.show(&answer, |answer| field(answer, "note"));
    Ok(())
}

fn handler(payment: &Value) -> String {
    format!("{}/{}", field(payment, "script"), field(payment, "handler"))
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

/// `1 of 2: ana`
fn approvals(payment: &Value) -> String {
    let people: Vec<String> = list(payment, "approvals")
        .iter()
        .map(|approval| field(approval, "by"))
        .collect();
    let people = people.join(", ");
    let quorum = field(payment, "quorum");
    if quorum.is_empty() {
        return people;
    }
    let count = format!("{} of {quorum}", field(payment, "approved_by"));
    if people.is_empty() {
        count
    } else {
        format!("{count}: {people}")
    }
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
    let content = payment.get("content").unwrap_or(&Value::Null);
    let about = facts(&[
        ("kind", field(payment, "kind")),
        ("amount", amount(payment)),
        ("gateway id", field(payment, "id")),
        ("url", field(payment, "url")),
        ("address", field(content, "address")),
        ("asked for by", handler(payment)),
        ("at", field(payment, "place")),
        ("in run", field(payment, "run")),
        ("decided by", field(payment, "decided_by")),
        ("approvals", approvals(payment)),
        ("until", time(payment, "approve_until")),
        ("in batch", field(payment, "plan")),
        ("hash", field(payment, "fingerprint")),
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
