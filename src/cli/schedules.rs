//! `bursar schedules list`

use serde_json::Value;

use super::admin_client::Daemon;
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
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    let Command::List { shown } = command;
    let rows = Daemon::of(settings)?.get("schedules")?;
    shown.show(&rows, |rows| rows_table(items(rows)));
    Ok(())
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
