//! `bursar runs list | show`

use serde_json::Value;

use super::admin_client::{Daemon, below};
use super::exit_code::Outcome;
use super::listed::{Listed, Shown};
use super::output::{facts, field, items, list, short, table, time};
use super::settings::Settings;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List runs, newest first
    List {
        #[command(flatten)]
        listed: Listed,
        /// Only runs in this state: queued, running, retrying, parked, succeeded, cancelled
        #[arg(long)]
        state: Option<String>,
        /// Only runs of this script, without `.rhai`
        #[arg(long)]
        script: Option<String>,
    },
    /// Show one run with every step in its journal
    Show {
        /// As `runs list` shows it
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    let daemon = Daemon::of(settings)?;
    match command {
        Command::List {
            listed,
            state,
            script,
        } => {
            let filters = [("state", state.as_deref()), ("script", script.as_deref())];
            let rows = daemon.get(&listed.path("runs", &filters))?;
            listed.shown.show(&rows, |rows| rows_table(items(rows)));
        }
        Command::Show { id, shown } => {
            let run = daemon.get(&below("runs", &id))?;
            shown.show(&run, story);
        }
    }
    Ok(())
}

fn rows_table(rows: &[Value]) -> String {
    let cells: Vec<_> = rows
        .iter()
        .map(|run| {
            vec![
                time(run, "created_at"),
                field(run, "id"),
                handler(run),
                field(run, "state"),
                field(run, "tries"),
                short(&field(run, "error")),
            ]
        })
        .collect();
    let headings = ["CREATED (UTC)", "RUN", "HANDLER", "STATE", "TRIES", "ERROR"];
    table(&headings, &cells)
}

fn handler(run: &Value) -> String {
    format!("{}/{}", field(run, "script"), field(run, "handler"))
}

fn story(run: &Value) -> String {
    let title = format!(
        "run {} of {}: {}",
        field(run, "id"),
        handler(run),
        field(run, "state")
    );
    let about = facts(&[
        ("fired by", field(run, "firing")),
        ("input", field(run, "input")),
        ("scripts", field(run, "set")),
        ("created", time(run, "created_at")),
        ("ended", time(run, "ended_at")),
        ("next try", time(run, "due_at")),
        ("failed tries", field(run, "tries")),
        ("error", field(run, "error")),
    ]);
    let steps = list(run, "journal");
    let journal: Vec<String> = steps.iter().map(step).collect();
    match journal.as_slice() {
        [] => format!("{title}\n{about}\n\nno steps in its journal"),
        journal => format!("{title}\n{about}\n\n{}", journal.join("\n")),
    }
}

fn step(step: &Value) -> String {
    let outcomes = [
        ("value", "gave"),
        ("long", "gave blob"),
        ("failure", "failed"),
    ];
    let outcome = outcomes.into_iter().find_map(|(name, word)| {
        let value = step.get(name)?;
        Some(format!("{word} {value}"))
    });
    format!(
        "{:>4}  {}  {}  {}\n        {}\n        {}",
        field(step, "step"),
        time(step, "at"),
        field(step, "site"),
        field(step, "kind"),
        field(step, "request"),
        outcome.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_story_of_a_run_is_told_step_by_step() {
        let run = json!({
            "id": "r0", "script": "pay", "handler": "daily", "state": "parked",
            "firing": "slot:1", "set": "abc", "tries": 2,
            "created_at": "2026-11-22T09:00:00.000Z", "ended_at": null, "due_at": null,
            "error": "error: no such field\n --> pay.rhai:3:1", "input": {"tick": {"late": false}},
            "journal": [
                {"step": 0, "kind": "state", "request": "{\"get\":\"k\"}", "value": null,
                 "site": "pay.rhai:2", "at": "2026-11-22T09:00:01.000Z"},
                {"step": 1, "kind": "http", "request": "{\"url\":\"u\"}",
                 "failure": {"code": "timeout"}, "site": "pay.rhai:3",
                 "at": "2026-11-22T09:00:02.000Z"},
            ],
        });
        insta::assert_snapshot!(story(&run));
        insta::assert_snapshot!(rows_table(&[run]));
    }
}
