//! `bursar audit verify`, `bursar audit export`
//!
//! Both read the payment journal's files themselves, whether a daemon runs or not.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use serde_json::{Value, json};

use super::exit_code::{Failure, Outcome, with_causes};
use super::listed::Shown;
use super::output::{complain, facts, print, print_json, text};
use super::settings::Settings;
use crate::config::Need;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::payment::{masked, masked_json};
use crate::store::{
    Audit, Entry, Finding, JournalError, read_payment_journal, verify_payment_journal,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read the whole payment journal and find every line that was changed, removed, moved or added
    Verify {
        /// A line that must be there, from an earlier run of this command: its number and hash
        #[arg(long, value_name = "NUMBER:HASH", value_parser = anchor)]
        contains: Option<(u64, String)>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Write the lines of a period for an auditor
    ///
    /// The journal is verified first; what is wrong is told, and the lines are written all the
    /// same. Personal data are masked unless asked for. The masked lines do not hash to what the
    /// chain says; with `--personal-data` and `--format jsonl` they are the lines as they stand.
    Export {
        /// The first day, UTC: 2026-11-01
        #[arg(long, value_name = "DATE")]
        from: NaiveDate,
        /// The last day, UTC, which is included
        #[arg(long, value_name = "DATE")]
        to: NaiveDate,
        /// The file to write, which must not exist; standard output otherwise
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// How to write them
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        /// Leave names, dates of birth and e-mail addresses as they are
        #[arg(long)]
        personal_data: bool,
    },
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON object on each line, as in the journal
    Jsonl,
    /// A table with the fields that every line has
    Csv,
}

fn anchor(text: &str) -> Result<(u64, String), String> {
    let (number, hash) = text.split_once(':').ok_or("it must be NUMBER:HASH")?;
    let number = number
        .parse()
        .map_err(|_| format!("`{number}` is no number"))?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash {
        Ok((number, hash.to_ascii_lowercase()))
    } else {
        Err("the hash must be 64 hex digits".to_owned())
    }
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    let path = settings.load(Need::Nothing)?.store.path;
    match command {
        Command::Verify { contains, shown } => check(&path, contains.as_ref(), &shown),
        Command::Export {
            from,
            to,
            output,
            format,
            personal_data,
        } => export(
            &path,
            &Wanted {
                begin: begin(from),
                end: begin(to.succ_opt().unwrap_or(to)),
                format,
                personal_data,
            },
            output.as_deref(),
        ),
    }
}

fn begin(day: NaiveDate) -> Timestamp {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

fn check(path: &Path, contains: Option<&(u64, String)>, shown: &Shown) -> Outcome {
    let anchor = contains.map(|(number, hash)| (*number, hash.as_str()));
    let audit = verify_payment_journal(path, anchor).map_err(|error| unreadable(&error))?;
    if shown.json {
        print_json(&as_json(&audit));
    } else {
        print(&as_text(path, &audit));
    }
    found(&audit)
}

fn unreadable(error: &JournalError) -> Failure {
    match error {
        JournalError::Io(..) => Failure::failed(with_causes(error)),
        JournalError::Line { .. } => Failure::bad_data(with_causes(error)),
    }
}

/// What is wrong with the journal, as the command's failure.
fn found(audit: &Audit) -> Outcome {
    if audit.findings.is_empty() {
        return Ok(());
    }
    let findings: Vec<String> = audit.findings.iter().map(finding).collect();
    Err(Failure::bad_data(format!(
        "the payment journal is not what was written\n{}\nA file never changes once the next one is begun: compare with those of a backup",
        findings.join("\n")
    )))
}

fn finding(Finding { file, line, what }: &Finding) -> String {
    let line = line.map_or_else(String::new, |line| format!(", line {line}"));
    format!("  `{}`{line}: {what}", file.display())
}

fn as_text(path: &Path, audit: &Audit) -> String {
    let verdict = if audit.findings.is_empty() {
        "whole: no line was changed, removed, moved or added"
    } else {
        "not whole"
    };
    let last = if audit.last == 0 {
        "none".to_owned()
    } else {
        format!("{}:{}", audit.last, audit.hash)
    };
    let facts = facts(&[
        ("files", audit.files.to_string()),
        ("lines", audit.lines.to_string()),
        ("last line", last),
        (
            "unfinished append",
            format!("{} bytes", audit.unfinished_bytes),
        ),
        ("findings", audit.findings.len().to_string()),
    ]);
    format!(
        "payment journal of `{}`: {verdict}\n{facts}",
        path.display()
    )
}

fn as_json(audit: &Audit) -> Value {
    let findings: Vec<Value> = audit
        .findings
        .iter()
        .map(|Finding { file, line, what }| {
            json!({"file": file.display().to_string(), "line": line, "finding": what})
        })
        .collect();
    json!({
        "whole": audit.findings.is_empty(),
        "files": audit.files,
        "lines": audit.lines,
        "last": {"number": audit.last, "hash": audit.hash},
        "unfinished_bytes": audit.unfinished_bytes,
        "findings": findings,
    })
}

/// What to export.
#[derive(Debug)]
struct Wanted {
    /// The first instant.
    begin: Timestamp,
    /// The first instant behind the period.
    end: Timestamp,
    format: Format,
    personal_data: bool,
}

fn export(path: &Path, wanted: &Wanted, output: Option<&Path>) -> Outcome {
    if wanted.begin >= wanted.end {
        return Err(Failure::usage("--from must not be after --to"));
    }
    let audit = verify_payment_journal(path, None).map_err(|error| unreadable(&error))?;
    let lines = if let Some(file) = output {
        let refused = |error: io::Error| {
            Failure::failed(format!("cannot write `{}`: {error}", file.display()))
        };
        // Personal data may be in there.
        let created = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file);
        let opened = created.map_err(refused)?;
        let mut buffered = BufWriter::new(&opened);
        let lines = write(path, wanted, &mut buffered)?;
        buffered
            .flush()
            .and_then(|()| File::sync_all(&opened))
            .map_err(refused)?;
        lines
    } else {
        let mut buffered = BufWriter::new(io::stdout().lock());
        let lines = write(path, wanted, &mut buffered)?;
        // Whoever reads it may go away at any time.
        buffered.flush().ok();
        lines
    };
    complain(&format!(
        "{lines} lines from {} to before {}",
        shown(wanted.begin),
        shown(wanted.end)
    ));
    found(&audit)
}

/// Writes the wanted lines and answers how many they were.
fn write(path: &Path, wanted: &Wanted, to: &mut impl Write) -> Result<u64, Failure> {
    let mut lines = 0;
    let mut written = match wanted.format {
        Format::Jsonl => Ok(()),
        Format::Csv => to.write_all(&csv_row(&COLUMNS.map(str::to_owned))),
    };
    read_payment_journal(path, |entry| {
        if entry.line.at >= wanted.begin && entry.line.at < wanted.end && written.is_ok() {
            lines += 1;
            let line = match wanted.format {
                Format::Jsonl => jsonl(&entry, wanted.personal_data),
                Format::Csv => csv_row(&cells(&entry)),
            };
            written = to.write_all(&line);
        }
        if written.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })
    .map_err(|error| unreadable(&error))?;
    written.map_err(|error| Failure::failed(format!("cannot write the lines: {error}")))?;
    Ok(lines)
}

fn jsonl(entry: &Entry<'_>, personal_data: bool) -> Vec<u8> {
    let text = if personal_data {
        entry.text.to_owned()
    } else {
        masked_line(entry.text)
    };
    format!("{text}\n").into_bytes()
}

/// A line without personal data: those in the body, which is a text of its own, and all others.
fn masked_line(text: &str) -> String {
    let mut line: Value = serde_json::from_str(text).unwrap_or_default();
    if let Some(body) = line.pointer_mut("/payment/content/body") {
        let masked = masked_json(body.as_str().unwrap_or_default());
        *body = masked.into();
    }
    masked(&line).to_string()
}

/// The columns of a table: none of them holds personal data.
const COLUMNS: [&str; 12] = [
    "number",
    "commit",
    "at",
    "foreign_id",
    "event",
    "state",
    "operation",
    "amount",
    "currency",
    "address",
    "gateway_id",
    "decided_by",
];

fn cells(entry: &Entry<'_>) -> [String; COLUMNS.len()] {
    let payment = entry
        .line
        .payment
        .clone()
        .map_or(Value::Null, Value::Object);
    let pointed = |path: &str| payment.pointer(path).map(text).unwrap_or_default();
    let body: Value = serde_json::from_str(&pointed("/content/body")).unwrap_or_default();
    let asked = |names: [&str; 3]| {
        let found = names.iter().find_map(|name| body.get(name));
        found.map(text).unwrap_or_default()
    };
    [
        entry.number.to_string(),
        entry.sequence.to_string(),
        shown(entry.line.at),
        entry.line.foreign_id.to_string(),
        text(&json!(entry.line.event)),
        text(&json!(entry.line.state)),
        pointed("/content/operation"),
        asked(["amount", "sender_amount", "amount_to"]),
        asked(["currency", "sender_currency", "convert_to"]),
        asked(["address", "address", "address"]),
        pointed("/gateway_id"),
        pointed("/decision/by"),
    ]
}

/// One row of a table, with its line break. A cell that a spreadsheet would take for a formula gets
/// an apostrophe in front.
fn csv_row(cells: &[String]) -> Vec<u8> {
    let cells = cells.iter().map(|cell| {
        if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            format!("'{cell}")
        } else {
            cell.clone()
        }
    });
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail.
    writer.write_record(cells).ok();
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_line_keeps_the_money_and_hides_the_people() {
        let body = r#"{"amount":"0.10","address":"tb1q","receiver_data":{"first_name":"Ada"}}"#;
        let line = json!({
            "n": 1, "seq": 4, "prev": "0", "foreign_id": "one",
            "payment": {
                "content": {"operation": "withdraw", "body": body},
                "origin": {"handler": {"script": "pay", "name": "go"}},
                "answer": {"id": 5, "end_user_reference": "customer-1"},
            },
        });
        let masked = masked_line(&line.to_string());
        for hidden in ["Ada", "customer-1"] {
            assert!(!masked.contains(hidden), "{masked}");
        }
        for there in ["0.10", "tb1q", r#""name":"go""#, "first_name"] {
            assert!(masked.contains(there), "{there}: {masked}");
        }
    }

    #[test]
    fn a_cell_that_looks_like_a_formula_is_none() {
        let row = csv_row(&["=1+1".into(), "a,b".into(), "order-7".into()]);
        assert_eq!(String::from_utf8(row).unwrap(), "'=1+1,\"a,b\",order-7\n");
    }

    #[test]
    fn an_anchor_is_a_number_and_a_hash() {
        let hash = "AB".repeat(32);
        assert_eq!(anchor(&format!("7:{hash}")), Ok((7, "ab".repeat(32))));
        for wrong in ["7", "7:ab", "x:"] {
            assert!(anchor(wrong).is_err(), "{wrong}");
        }
    }
}
