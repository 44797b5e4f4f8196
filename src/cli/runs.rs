//! `bursar runs list | show | logs | retry | cancel`

use serde_json::{Value, json};

use super::admin_client::{Daemon, below};
use super::exit_code::Outcome;
use super::listed::{Listed, Shown};
use super::output::{facts, field, list, print, short, table, text, time};
use super::settings::Settings;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List runs, newest first
    ///
    /// Runs are read from the newest on until enough of them match or there are no more: fewer
    /// rows than `--limit` are all there are.
    List {
        #[command(flatten)]
        listed: Listed,
        /// Only runs in this state: queued, running, waiting, retrying, parked, succeeded, cancelled
        #[arg(long)]
        state: Option<String>,
        /// Only runs of this script, without `.rhai`
        #[arg(long)]
        script: Option<String>,
        /// Only runs of handlers of this name
        #[arg(long)]
        handler: Option<String>,
        /// Only runs that made the payment with this key, that wait for it, or that an event about
        /// it started
        #[arg(long)]
        foreign_id: Option<String>,
    },
    /// Show one run with every step in its journal
    Show {
        /// As `runs list` shows it
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show what the script of a run logged: `log::…`, `print`, `debug`
    Logs {
        /// As `runs list` shows it
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Let a parked run go on
    ///
    /// It starts from the top of its handler. Steps that its journal holds are not performed
    /// again, and it has as many tries as a new run.
    Retry {
        /// As `runs list` shows it
        id: String,
        /// Go on with the scripts in use instead of those it began with; a script that asks for
        /// other steps than its journal holds parks it again
        #[arg(long)]
        latest: bool,
    },
    /// End a run that has not ended: at once, or at its next step while it is being executed
    ///
    /// Nothing is undone. Payments that it has made are not called off; `runs show` lists them.
    Cancel {
        /// As `runs list` shows it
        id: String,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    match command {
        Command::List {
            listed,
            state,
            script,
            handler,
            foreign_id,
        } => {
            let filters = [
                ("state", state.as_deref()),
                ("script", script.as_deref()),
                ("handler", handler.as_deref()),
                ("foreign_id", foreign_id.as_deref()),
            ];
            return listed.list(settings, "runs", &filters, rows_table);
        }
        Command::Show { id, shown } => {
            let run = Daemon::of(settings)?.get(&below("runs", &id))?;
            shown.show(&run, story);
        }
        Command::Logs { id, shown } => {
            let path = format!("{}/logs", below("runs", &id));
            let logs = Daemon::of(settings)?.get(&path)?;
            shown.show(&logs, log_lines);
        }
        Command::Retry { id, latest } => {
            let path = format!("{}/retry", below("runs", &id));
            let run = Daemon::of(settings)?.post(&path, &json!({ "latest": latest }))?;
            let (run, set) = (field(&run, "run"), field(&run, "set"));
            print(&format!(
                "queued on the scripts {set}; `bursar runs show {run}` says how it goes"
            ));
        }
        Command::Cancel { id } => {
            let path = format!("{}/cancel", below("runs", &id));
            let run = Daemon::of(settings)?.post(&path, &json!({}))?;
            print(&cancelled(&run));
        }
    }
    Ok(())
}

fn cancelled(run: &Value) -> String {
    let (id, note) = (field(run, "run"), field(run, "note"));
    if field(run, "state") == "cancelled" {
        format!("cancelled; {note}")
    } else {
        format!("it ends at its next step, `bursar runs show {id}` says when; {note}")
    }
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
    let set = field(run, "set");
    let set = match run.get("set_is_current").and_then(Value::as_bool) {
        Some(true) => format!("{set} (in use)"),
        Some(false) => format!("{set} (not the ones in use)"),
        None => set,
    };
    let about = facts(&[
        ("fired by", field(run, "firing")),
        ("input", field(run, "input")),
        ("scripts", set),
        ("created", time(run, "created_at")),
        ("executed", time(run, "started_at")),
        ("ended", time(run, "ended_at")),
        (
            "waits for",
            run.get("wait").map(waits_for).unwrap_or_default(),
        ),
        ("next try", time(run, "due_at")),
        ("failed tries", field(run, "tries")),
        ("error", field(run, "error")),
        ("payments", payments(run)),
    ]);
    let steps = list(run, "journal");
    let journal: Vec<String> = steps.iter().map(step).collect();
    match journal.as_slice() {
        [] => format!("{title}\n{about}\n\nno steps in its journal"),
        journal => format!("{title}\n{about}\n\n{}", journal.join("\n")),
    }
}

/// What a waiting run waits for, and until when.
fn waits_for(wait: &Value) -> String {
    let what = match field(wait, "for").as_str() {
        "payments" => {
            let first = field(wait, "first_open");
            match list(wait, "payments").len() {
                0 => format!("many payments, the first open one is {first}"),
                1 => format!("the payment {first}"),
                count => format!("{count} payments, the first open one is {first}"),
            }
        }
        "event" => {
            let filter = field(wait, "where");
            let event = field(wait, "event");
            if filter == "{}" {
                format!("the event {event}")
            } else {
                format!("the event {event} where {filter}")
            }
        }
        "time" => "the time".to_owned(),
        _ => return String::new(),
    };
    match time(wait, "until") {
        until if until.is_empty() => what,
        until => format!("{what}, until {until}"),
    }
}

/// The payments a run made, one a line.
fn payments(run: &Value) -> String {
    let shown = list(run, "payments");
    let mut lines: Vec<String> = shown
        .iter()
        .map(|payment| {
            let words = ["foreign_id", "status", "amount", "currency"];
            words.map(|name| field(payment, name)).join(" ")
        })
        .collect();
    let made = run.get("payments_made").and_then(Value::as_u64);
    let made = made.and_then(|made| usize::try_from(made).ok());
    let more = made.unwrap_or(0).saturating_sub(shown.len());
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn step(step: &Value) -> String {
    if step.get("unreadable").is_some() {
        return unreadable(step);
    }
    let outcomes = [
        ("value", "gave"),
        ("long", "gave blob"),
        ("failure", "failed"),
        ("long_failure", "failed, blob"),
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

/// A record of steps that the daemon could not read.
fn unreadable(step: &Value) -> String {
    format!(
        "{:>4}  from here on, a record cannot be read: {}\n        its {} bytes begin with {}",
        field(step, "step"),
        field(step, "unreadable"),
        field(step, "stored_bytes"),
        field(step, "stored"),
    )
}

fn log_lines(logs: &Value) -> String {
    let lines: Vec<String> = list(logs, "lines").iter().map(log_line).collect();
    match lines.as_slice() {
        [] => "its script has logged nothing".to_owned(),
        lines => lines.join("\n"),
    }
}

fn log_line(line: &Value) -> String {
    if line.get("unreadable").is_some() {
        return unreadable(line);
    }
    let fields = line.get("fields").map(text).unwrap_or_default();
    let cut = match line.get("cut").and_then(Value::as_bool) {
        Some(true) => "… (the rest is too long to be kept)",
        Some(false) | None => "",
    };
    let said = format!(
        "{}  {:<5}  {}  {}{cut}  {fields}",
        time(line, "at"),
        field(line, "level"),
        field(line, "site"),
        field(line, "text"),
    );
    said.trim_end().to_owned()
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

    #[test]
    fn a_waiting_run_says_for_what_and_until_when() {
        let until = "2026-11-23T09:00:00.000Z";
        let payments = |all: Value| json!({"for": "payments", "first_open": "p-2", "payments": all, "until": until});
        let told = [
            json!({"for": "time", "until": until}),
            payments(json!(["p-2"])),
            payments(json!(["p-1", "p-2"])),
            payments(json!({"blob": "ab"})),
            json!({"for": "event", "event": "shop.paid", "where": {"order": 7}, "until": null}),
            json!({"for": "event", "event": "shop.paid", "where": {}, "until": until}),
            Value::Null,
        ]
        .map(|wait| waits_for(&wait));
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_it_is_stored() {
        let record = json!({
            "step": 3, "kind": "unreadable", "unreadable": "record `r0` in `step/` is unreadable",
            "stored": "0001ff", "stored_bytes": 3,
        });
        let line = json!({
            "step": 4, "at": "2026-11-22T09:00:00.000Z", "level": "warn", "site": "pay.rhai:3",
            "text": "low", "fields": {"balance": 1}, "cut": false,
        });
        let cut = json!({
            "step": 5, "at": "2026-11-22T09:00:01.000Z", "level": "info", "site": "pay.rhai:4",
            "text": "abc", "fields": null, "cut": true,
        });
        insta::assert_snapshot!(step(&record));
        insta::assert_snapshot!(log_lines(&json!({"lines": [record, line, cut]})));
        insta::assert_snapshot!(log_lines(&json!({"lines": []})));
    }
}
