//! `bursar schedules list | history`

use serde_json::Value;

use super::admin_client::{Daemon, below, filtered};
use super::exit_code::Outcome;
use super::listed::Shown;
use super::output::{field, items, list, table, time};
use super::settings::Settings;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List schedules
    List {
        #[command(flatten)]
        shown: Shown,
    },
    /// Show what became of every slot of a schedule, newest first
    History {
        /// `script/name`, or the name alone when no other schedule has it; also of schedules whose
        /// script is not in use any more
        name: String,
        #[command(flatten)]
        shown: Shown,
        /// The most rows
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    let daemon = Daemon::of(settings)?;
    match command {
        Command::List { shown } => {
            let rows = daemon.get("schedules")?;
            shown.show(&rows, |rows| rows_table(items(rows)));
        }
        Command::History { name, shown, limit } => {
            let path = below("schedules/history", &name);
            let limit = limit.to_string();
            let history = daemon.get(&filtered(&path, &[("limit", Some(limit.as_str()))]))?;
            shown.show(&history, history_table);
        }
    }
    Ok(())
}

fn history_table(history: &Value) -> String {
    let cells: Vec<_> = list(history, "slots")
        .iter()
        .map(|row| {
            vec![
                slots(row),
                field(row, "record"),
                field(row, "reason"),
                field(row, "run"),
                time(row, "at"),
            ]
        })
        .collect();
    let headings = ["SLOT (UTC)", "RECORD", "REASON", "RUN", "DECIDED (UTC)"];
    let rows = table(&headings, &cells);
    let left_at = time(history, "left_at");
    if left_at.is_empty() {
        return rows;
    }
    let name = format!("{}/{}", field(history, "script"), field(history, "name"));
    format!("{name} is in no script in use since {left_at}\n{rows}")
}

/// One slot, or a stretch of them.
fn slots(row: &Value) -> String {
    let last = time(row, "slot");
    match row.get("count").and_then(Value::as_u64) {
        Some(count) if count > 1 => {
            format!("{} to {last} ({count} slots)", time(row, "first"))
        }
        Some(_) | None => last,
    }
}

fn rows_table(rows: &[Value]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|schedule| {
            let next = list(schedule, "next").first();
            let next = next.map(|at| serde_json::json!({ "at": at }));
            let last = list(schedule, "last").first();
            vec![
                field(schedule, "script"),
                field(schedule, "name"),
                field(schedule, "cron"),
                field(schedule, "timezone"),
                next.map(|at| time(&at, "at")).unwrap_or_default(),
                last.map(slot).unwrap_or_default(),
            ]
        })
        .collect();
    let headings = ["SCRIPT", "NAME", "CRON", "ZONE", "NEXT (UTC)", "LAST (UTC)"];
    table(&headings, &cells)
}

fn slot(slot: &Value) -> String {
    let record = format!(
        "{} {} {}",
        time(slot, "slot"),
        field(slot, "record"),
        field(slot, "reason")
    );
    record.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_history_has_one_line_for_each_slot_and_for_each_stretch() {
        let slot = |slot: &str, first: &str, count: u64, record: &str| {
            json!({
                "slot": slot, "first": first, "count": count, "record": record,
                "reason": null, "run": null, "at": "2026-11-22T12:00:00.100Z",
            })
        };
        let mut ran = slot(
            "2026-11-22T12:00:00.000Z",
            "2026-11-22T12:00:00.000Z",
            1,
            "ran",
        );
        ran["run"] = json!("r0123456789abcdef0123");
        let mut stretch = slot(
            "2026-11-22T11:00:00.000Z",
            "2026-11-01T00:00:00.000Z",
            31_200,
            "skipped",
        );
        stretch["reason"] = json!("never loaded");
        let history = json!({
            "script": "pay", "name": "daily", "left_at": null, "slots": [ran, stretch],
        });
        insta::assert_snapshot!(history_table(&history));
        let gone = json!({
            "script": "pay", "name": "daily", "left_at": "2026-11-22T12:00:00.000Z", "slots": [],
        });
        insta::assert_snapshot!(history_table(&gone));
    }

    #[test]
    fn a_schedule_is_shown_with_its_neighbouring_slots() {
        let schedule = json!({
            "script": "pay", "name": "daily", "cron": "0 9 * * *", "timezone": "Europe/Berlin",
            "next": ["2026-11-23T08:00:00.000Z", "2026-11-24T08:00:00.000Z"],
            "last": [{"slot": "2026-11-22T08:00:00.000Z", "record": "skipped", "reason": "overlap", "run": null}],
        });
        let never = json!({"script": "pay", "name": "new", "cron": "@daily", "timezone": "UTC", "next": [], "last": []});
        insta::assert_snapshot!(rows_table(&[schedule, never]));
    }
}
