//! `bursar store verify`, `bursar store rebuild`

use std::path::Path;

use serde_json::{Value, json};

use super::exit_code::{Failure, Outcome, with_causes};
use super::listed::Shown;
use super::output::{facts, print, print_json};
use super::settings::Settings;
use crate::config::Need;
use crate::store::{
    Damage, OpenError, RebuildError, Rebuilt, RebuiltPayments, Report, rebuild, rebuild_payments,
    verify,
};
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read everything in `store.path` and report what is damaged
    Verify {
        #[command(flatten)]
        shown: Shown,
    },
    /// Repair a damaged store, if what is left is provably everything
    ///
    /// Nothing is lost by trying: the repair is tried out on a copy of the index, which needs
    /// room for another one, and what is replaced is kept beside it under a name that ends in
    /// `damaged-N`. What cannot be proven complete is not touched.
    Rebuild {
        /// If the store cannot be made whole, make the payments anew from the payment journal
        ///
        /// For when there is no backup. Every payment is then known, so none is made twice, and
        /// those that are open are looked up at the gateway. Lost are runs, callbacks and events,
        /// slots of schedules, the state of scripts and what `once` has recorded: a callback that
        /// the gateway sends again is handled again.
        #[arg(long)]
        payments_only: bool,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    let path = settings.load(Need::Nothing)?.store.path;
    match command {
        Command::Verify { shown } => check(&path, &shown),
        Command::Rebuild {
            payments_only: false,
        } => repair(&path),
        Command::Rebuild {
            payments_only: true,
        } => repair_payments(&path),
    }
}

fn repair(path: &Path) -> Outcome {
    let rebuilt = rebuild(path, &Telemetry::default()).map_err(|error| not_rebuilt(&error))?;
    told(path, &rebuilt);
    Ok(())
}

fn repair_payments(path: &Path) -> Outcome {
    let RebuiltPayments { rebuilt, made } =
        rebuild_payments(path, &Telemetry::default()).map_err(|error| not_rebuilt(&error))?;
    told(path, &rebuilt);
    let Some(made) = made else {
        print("nothing is lost: it did not take the payment journal");
        return Ok(());
    };
    print(&format!(
        "made of {} lines of the payment journal: {} payments, of which {} are open; the next start looks these up\n\
         kept:  every payment with its whole story, scripts' sources and large contents\n\
         lost:  runs and their journals, callbacks and events, slots of schedules, the state of scripts, what `once` recorded\n\
         so:    no payment is made twice, but a callback that the gateway sends again is handled again, \
         waiting runs do not go on, and schedules fire from their next slot on",
        made.lines, made.payments, made.open
    ));
    Ok(())
}

fn not_rebuilt(error: &RebuildError) -> Failure {
    match error {
        RebuildError::Incomplete { .. } => Failure::bad_data(error),
        RebuildError::Failed(error) => refused(error),
    }
}

fn told(path: &Path, rebuilt: &Rebuilt) {
    for repair in &rebuilt.repairs {
        print(&format!("  {repair}"));
    }
    let done = if rebuilt.repairs.is_empty() {
        "needed no repair"
    } else {
        "is whole again"
    };
    print(&format!(
        "the store `{}` {done}: {} records, up to commit {}",
        path.display(),
        rebuilt.records,
        rebuilt.sequence
    ));
}

fn check(path: &Path, shown: &Shown) -> Outcome {
    let report = verify(path).map_err(|error| refused(&error))?;
    if shown.json {
        print_json(&as_json(&report));
    } else {
        print(&format!("store `{}`\n{}", path.display(), as_text(&report)));
    }
    if report.damage.is_empty() {
        return Ok(());
    }
    let damage: Vec<String> = report.damage.iter().map(found).collect();
    Err(Failure::bad_data(format!(
        "the store is damaged; nothing was changed\n{}",
        damage.join("\n")
    )))
}

/// A store that does not open: whether its data are bad, or only the circumstances.
pub(super) fn refused(error: &OpenError) -> Failure {
    match error {
        OpenError::Newer { .. } | OpenError::Damaged(_) => Failure::bad_data(with_causes(error)),
        OpenError::Locked(_) | OpenError::Io { .. } => Failure::failed(with_causes(error)),
    }
}

fn found(damage: &Damage) -> String {
    let Damage {
        file,
        finding,
        remedy,
    } = damage;
    format!("  `{}`: {finding}; {remedy}", file.display())
}

fn as_text(report: &Report) -> String {
    let (first, last) = report.journal;
    let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |n| n.to_string());
    facts(&[
        ("guard journal", format!("commits {first} to {last}")),
        ("interrupted append", format!("{} bytes", report.torn_bytes)),
        ("checkpoint", number(report.checkpoint)),
        ("index", number(report.index)),
        ("records", report.records.to_string()),
        ("blobs", report.blobs.to_string()),
        ("payment journal", format!("{} lines", report.payment_lines)),
        ("damage", report.damage.len().to_string()),
    ])
}

fn as_json(report: &Report) -> Value {
    let (first, last) = report.journal;
    let damage: Vec<Value> = report
        .damage
        .iter()
        .map(|damage| {
            json!({
                "file": damage.file.display().to_string(),
                "finding": damage.finding,
                "remedy": damage.remedy.to_string(),
            })
        })
        .collect();
    let slots = report.damaged_slots.iter();
    json!({
        "journal": {"first": first, "last": last},
        "torn_bytes": report.torn_bytes,
        "checkpoint": report.checkpoint,
        "index": report.index,
        "records": report.records,
        "blobs": report.blobs,
        "payment_lines": report.payment_lines,
        "damaged_slots": slots.map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "damage": damage,
    })
}
