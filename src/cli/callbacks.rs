//! `bursar callbacks list | show`

use serde_json::Value;

use super::admin_client::{Daemon, below};
use super::exit_code::Outcome;
use super::listed::{Listed, Shown};
use super::output::{facts, field, list, table, text, time};
use super::settings::Settings;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List callbacks and custom events, newest first
    List {
        #[command(flatten)]
        listed: Listed,
        /// Only events of this kind, such as `withdrawal.confirmed`
        #[arg(long)]
        kind: Option<String>,
    },
    /// Show one as handlers got it
    Show {
        /// As `callbacks list` shows it
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    match command {
        Command::List { listed, kind } => {
            let filters = [("kind", kind.as_deref())];
            listed.list(settings, "callbacks", &filters, rows_table)
        }
        Command::Show { id, shown } => {
            let callback = Daemon::of(settings)?.get(&below("callbacks", &id))?;
            shown.show(&callback, story);
            Ok(())
        }
    }
}

fn rows_table(rows: &[Value]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|event| {
            vec![
                time(event, "received_at"),
                field(event, "id"),
                field(event, "kind"),
                field(event, "payment"),
                list(event, "runs").len().to_string(),
            ]
        })
        .collect();
    table(&["RECEIVED (UTC)", "ID", "KIND", "PAYMENT", "RUNS"], &cells)
}

fn story(callback: &Value) -> String {
    let runs: Vec<String> = list(callback, "runs").iter().map(text).collect();
    let event = callback.get("event").unwrap_or(&Value::Null);
    let title = format!("{}: {}", field(callback, "id"), field(callback, "kind"));
    let about = facts(&[
        ("received", time(callback, "received_at")),
        ("payment", field(callback, "payment")),
        ("runs", runs.join("\n")),
    ]);
    format!("{title}\n{about}\n\n{event:#}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_callback_is_shown_with_what_it_started() {
        let callback = json!({
            "id": "withdrawal:12:confirmed", "kind": "withdrawal.confirmed",
            "received_at": "2026-11-22T09:00:00.000Z", "payment": "order/7", "runs": ["r0", "r1"],
            "event": {"kind": "withdrawal.confirmed", "note": "\u{1b}["},
        });
        insta::assert_snapshot!(story(&callback));
        insta::assert_snapshot!(rows_table(&[callback]));
    }
}
