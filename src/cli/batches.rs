//! `bursar batches list | show | approve | reject`

use serde_json::{Value, json};

use super::admin_client::{Daemon, below};
use super::exit_code::Outcome;
use super::listed::{Listed, Shown};
use super::output::{facts, field, items, list, short, table, text, time};
use super::settings::Settings;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List batches, newest first
    List {
        #[command(flatten)]
        listed: Listed,
        /// Only batches in this state: awaiting_approval, approved, rejected, expired, void
        #[arg(long)]
        state: Option<String>,
        /// Only batches of this script, without `.rhai`
        #[arg(long)]
        script: Option<String>,
    },
    /// Show what would be paid, and what to look at before it is approved
    Show {
        /// Its key
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Approve of a batch: exactly what the hash stands for is paid
    Approve {
        /// Its key
        id: String,
        /// The hash that `batches show` gave with what you have looked at
        #[arg(long, value_name = "H")]
        hash: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Refuse a batch, for good: none of it is paid
    Reject {
        /// Its key
        id: String,
        /// Why, for those who asked for it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
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
        } => {
            let filters = [("state", state.as_deref()), ("script", script.as_deref())];
            listed.list(settings, "batches", &filters, rows_table)
        }
        Command::Show { id, shown } => {
            let batch = Daemon::of(settings)?.get(&below("batches", &id))?;
            shown.show(&batch, plan);
            Ok(())
        }
        Command::Approve { id, hash, shown } => {
            let body = json!({"batch": id, "hash": hash});
            post(settings, "approve", &body, &shown)
        }
        Command::Reject { id, reason, shown } => {
            let body = json!({"batch": id, "reason": reason});
            post(settings, "reject", &body, &shown)
        }
    }
}

/// Has something decided, and says what came of it.
fn post(settings: &Settings, path: &str, body: &Value, shown: &Shown) -> Outcome {
    let answer = Daemon::of(settings)?.post(path, body)?;
    shown.show(&answer, |answer| field(answer, "note"));
    Ok(())
}

fn rows_table(rows: &[Value]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|batch| {
            vec![
                time(batch, "created_at"),
                field(batch, "id"),
                status(batch),
                field(batch, "rows"),
                joined(batch, "amounts"),
                handler(batch),
                short(&field(batch, "reason")),
            ]
        })
        .collect();
    let headings = [
        "CREATED (UTC)",
        "BATCH",
        "STATUS",
        "ROWS",
        "PAYS",
        "ASKED FOR BY",
        "REASON",
    ];
    table(&headings, &cells)
}

/// `awaiting approval`
fn status(batch: &Value) -> String {
    field(batch, "status").replace('_', " ")
}

fn handler(batch: &Value) -> String {
    format!("{}/{}", field(batch, "script"), field(batch, "handler"))
}

fn joined(batch: &Value, name: &str) -> String {
    let texts: Vec<String> = list(batch, name).iter().map(text).collect();
    texts.join(" + ")
}

/// `1 of 2: ana`
fn approvals(batch: &Value) -> String {
    let given = list(batch, "approvals");
    let people: Vec<String> = given.iter().map(|one| field(one, "by")).collect();
    let count = format!(
        "{} of {}",
        field(batch, "approved_by"),
        field(batch, "quorum")
    );
    if people.is_empty() {
        count
    } else {
        format!("{count}: {}", people.join(", "))
    }
}

fn plan(batch: &Value) -> String {
    let title = format!("batch {}: {}", field(batch, "id"), status(batch));
    let about = facts(&[
        ("pays", joined(batch, "amounts")),
        ("rows", field(batch, "rows")),
        ("asked for by", handler(batch)),
        ("at", field(batch, "place")),
        ("in run", field(batch, "run")),
        ("made (UTC)", time(batch, "created_at")),
        ("approvals", approvals(batch)),
        ("until (UTC)", time(batch, "approve_until")),
        ("decided (UTC)", time(batch, "decided_at")),
        ("reason", field(batch, "reason")),
        ("hash", field(batch, "hash")),
    ]);
    let mut parts = vec![format!("{title}\n{about}")];
    if batch.get("damaged").is_some() {
        parts.push("What is in it is damaged in the store: it cannot be approved.".to_owned());
        return parts.join("\n\n");
    }
    parts.push(totals(list(batch, "totals")));
    let warnings = list(batch, "warnings");
    if warnings.is_empty() {
        parts.push("Nothing in it looks odd.".to_owned());
    } else {
        parts.push(format!("Look at this first:\n{}", bullets(warnings)));
    }
    let new = list(batch, "new_addresses");
    if !new.is_empty() {
        parts.push(format!("Never paid from here before:\n{}", bullets(new)));
    }
    let limits = list(batch, "limits");
    if !limits.is_empty() {
        parts.push(format!("Limits:\n{}", bullets(limits)));
    }
    parts.push(payments(items(
        batch.get("payments").unwrap_or(&Value::Null),
    )));
    if field(batch, "status") == "awaiting_approval" {
        parts.push(format!(
            "To pay exactly this: bursar batches approve {} --hash {}",
            field(batch, "id"),
            field(batch, "hash")
        ));
    }
    parts.join("\n\n")
}

fn bullets(texts: &[Value]) -> String {
    let lines: Vec<String> = texts
        .iter()
        .map(|line| format!("  - {}", text(line)))
        .collect();
    lines.join("\n")
}

fn totals(totals: &[Value]) -> String {
    let cells: Vec<_> = totals
        .iter()
        .map(|total| {
            let or_unknown = |name: &str| match field(total, name) {
                known if known.is_empty() => "not known".to_owned(),
                known => known,
            };
            vec![
                field(total, "currency"),
                field(total, "rows"),
                field(total, "amount"),
                or_unknown("fee"),
                or_unknown("before"),
                or_unknown("after"),
            ]
        })
        .collect();
    let headings = [
        "CURRENCY",
        "PAYMENTS",
        "TO PAY",
        "FEE (ABOUT)",
        "BALANCE THEN",
        "LEFT AFTER",
    ];
    table(&headings, &cells)
}

fn payments(rows: &[Value]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            vec![
                field(row, "row"),
                field(row, "foreign_id"),
                amount(row),
                destination(row),
                field(row, "end_user_reference"),
                field(row, "status"),
            ]
        })
        .collect();
    let headings = ["ROW", "FOREIGN_ID", "AMOUNT", "TO", "FOR", "STATUS"];
    table(&headings, &cells)
}

/// `0.1 BTC`, or `EUR worth 0.1 BTC` for what is converted.
fn amount(row: &Value) -> String {
    let currency = field(row, "currency");
    let target = field(row, "convert_to");
    match (field(row, "amount"), field(row, "amount_to")) {
        (amount, _) if !amount.is_empty() && target.is_empty() => format!("{amount} {currency}"),
        (amount, _) if !amount.is_empty() => format!("{amount} {currency} as {target}"),
        (_, arrives) => format!("{currency} worth {arrives} {target}"),
    }
}

fn destination(row: &Value) -> String {
    let mut to = field(row, "address");
    let tag = field(row, "tag");
    if !tag.is_empty() {
        to = format!("{to} tag {tag}");
    }
    if row.get("new_address").and_then(Value::as_bool) == Some(true) {
        to.push_str(" (new)");
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Value {
        json!({
            "id": "batch-0123456789abcdef0123", "status": "awaiting_approval", "hash": "ab12",
            "rows": 3, "amounts": ["0.3 BTC", "5 XRP"], "script": "payroll", "handler": "daily",
            "run": "r1", "place": "payroll.rhai:5", "created_at": "2026-11-22T09:00:00.000Z",
            "approve_until": "2026-11-25T09:00:00.000Z", "approvals": [{"by": "ana", "at": "x"}],
            "approved_by": 1, "quorum": 2, "decided_at": null, "reason": null,
            "totals": [
                {"currency": "BTC", "rows": 2, "amount": "0.3", "fee": "0.0024", "before": "1", "after": "0.6976"},
                {"currency": "XRP", "rows": 1, "amount": "5", "fee": null, "before": null, "after": null},
            ],
            "warnings": ["rows 0 and 1 pay the same amount to the same address"],
            "new_addresses": ["tb1qnew"], "limits": [],
            "payments": [
                {"row": 0, "foreign_id": "p-1", "currency": "BTC", "amount": "0.15", "address": "tb1qnew", "tag": null, "end_user_reference": "c-1", "new_address": true, "known": false, "status": null},
                {"row": 1, "foreign_id": "p-2", "currency": "BTC", "amount": "0.15", "address": "tb1qnew", "tag": null, "end_user_reference": "c-2", "new_address": true, "known": false, "status": null},
                {"row": 2, "foreign_id": "p-3", "currency": "XRP", "amount": "5", "address": "rXY", "tag": "77", "end_user_reference": "c-3", "new_address": false, "known": false, "status": "confirmed"},
            ],
        })
    }

    #[test]
    fn a_plan_says_what_is_paid_and_what_to_look_at() {
        insta::assert_snapshot!(plan(&batch()));
        insta::assert_snapshot!(rows_table(&[batch()]));
    }

    #[test]
    fn what_is_converted_says_what_leaves_or_what_arrives() {
        let row = json!({"currency": "EUR", "amount": "10", "convert_to": "BTC"});
        assert_eq!(amount(&row), "10 EUR as BTC");
        let row = json!({"currency": "EUR", "convert_to": "BTC", "amount_to": "0.1"});
        assert_eq!(amount(&row), "EUR worth 0.1 BTC");
    }
}
