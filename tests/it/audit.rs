//! The payment journal on a daemon's real run against the simulator: everything is in it, whatever
//! is done to it is found, and a store that has lost everything else is made anew from it without
//! a second payment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bursar::simulator::{Fault, Faults, Operation, Options, Rule};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kit::{SetClock, deliver};
use crate::payments::{by_hand, withdraw};
use crate::stage::{SENDER, Stage, everything, executed};

/// Exit code, standard output and standard error of the binary in a folder.
fn bursar(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bursar"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The journal's files, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("state/payment-journal")).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "jsonl"))
        .collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn batch(rows: usize) -> String {
    format!(
        r#"let rows = []; for n in 0..{rows} {{ rows.push(#{{ {SENDER} foreign_id: `row-${{n}}`, currency: "BTC", amount: 0.01, address: `tb1q${{n}}` }}); }} gateway::withdraw_all(rows); state::add("runs", 1);"#
    )
}

/// Every payment as people are shown it, by its key.
fn payments(runner: &bursar::runner::Handle) -> Vec<Value> {
    let rows = runner.payments(&everything()).unwrap();
    let rows = rows.as_array().unwrap().iter();
    let mut payments: Vec<Value> = rows
        .map(|row| runner.payment(row["foreign_id"].as_str().unwrap()).unwrap())
        .collect();
    payments.sort_by_key(|payment| payment["foreign_id"].to_string());
    payments
}

fn once(fault: Fault) -> Rule {
    Rule {
        operation: Some(Operation::Withdrawal),
        times: Some(1),
        ..Rule::always(fault)
    }
}

/// A stage on which twenty payments were made, one of them with a lost reply, and one that the
/// gateway gave up; stopped. And the payments.
async fn paid() -> (Stage, Vec<Value>) {
    let stage = Stage::with(Options {
        faults: Faults(vec![
            once(Fault::DropAnswer),
            Rule::always(Fault::ExecuteRepeat),
        ]),
        ..Options::default()
    })
    .await
    .script("a.rhai", &by_hand(&batch(20)))
    .script("b.rhai", &by_hand(&withdraw("too-much", "900000000")));
    stage.write("daemon.toml", "");
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    daemon.trigger("b", "go").await;
    for n in 0..20 {
        daemon.payment(&format!("row-{n}"), "confirmed").await;
    }
    daemon.payment("too-much", "cancelled").await;
    let (code, told, _) = bursar(stage.folder.path(), &["audit", "verify"]);
    assert_eq!(code, 0, "while it runs: {told}");
    let payments = payments(&daemon.runner);
    daemon.stop().await;
    (stage, payments)
}

/// What somebody may do to a file of the journal, what is left of it, and what is found.
fn tamperings(whole: &str) -> Vec<(&'static str, Option<String>, &'static str)> {
    let lines: Vec<&str> = whole.lines().collect();
    let joined = |lines: &[&str]| format!("{}\n", lines.join("\n"));
    let mut flipped = lines.clone();
    let other = lines[9].replacen("\"state\":\"", "\"state\":\"x", 1);
    flipped[9] = &other;
    let mut removed = lines.clone();
    removed.remove(9);
    let mut swapped = lines.clone();
    swapped.swap(9, 10);
    let mut doubled = lines.clone();
    doubled.insert(10, lines[9]);
    let last = lines.len() - 1;
    vec![
        (
            "flipped",
            Some(joined(&flipped)),
            "line 10: line number 10 was changed",
        ),
        (
            "removed",
            Some(joined(&removed)),
            "line 10: line number 10 is missing",
        ),
        (
            "swapped",
            Some(joined(&swapped)),
            "line 10: line number 10 is missing",
        ),
        (
            "doubled",
            Some(joined(&doubled)),
            "line 11: has the number 10",
        ),
        (
            "the tail cut",
            Some(joined(&lines[..last])),
            "the last lines, or their files, are missing",
        ),
        (
            "half a line",
            Some(whole[..whole.len() - 20].to_owned()),
            "is cut off",
        ),
        (
            "the file removed",
            None,
            "the last lines, or their files, are missing",
        ),
        (
            "the last line changed",
            Some(whole.replace(lines[last], &lines[last].replace('1', "2"))),
            "line",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_a_line_and_every_kind_of_tampering_is_found() {
    let (stage, payments) = paid().await;
    let folder = stage.folder.path();
    let (code, told, _) = bursar(folder, &["audit", "verify", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["whole"]), (0, &Value::Bool(true)), "{told:#}");
    let steps: usize = payments
        .iter()
        .map(|payment| payment["story"].as_array().unwrap().len())
        .sum();
    assert_eq!(told["lines"], steps);
    let anchor = format!(
        "{}:{}",
        told["last"]["number"],
        told["last"]["hash"].as_str().unwrap()
    );
    let verify = ["audit", "verify", "--contains", &anchor];
    assert_eq!(bursar(folder, &verify).0, 0);

    let file = files(folder).remove(0);
    let name = file.strip_prefix(folder).unwrap();
    for (what, text, finding) in tamperings(&fs::read_to_string(&file).unwrap()) {
        let copied = TempDir::new().unwrap();
        copy(folder, copied.path());
        match text {
            Some(text) => fs::write(copied.path().join(name), text).unwrap(),
            None => fs::remove_file(copied.path().join(name)).unwrap(),
        }
        let (code, told, said) = bursar(copied.path(), &["audit", "verify"]);
        assert_eq!(code, 65, "{what}: {told}{said}");
        assert!(said.contains(finding), "{what}: {said}");
        // Nor does the store start.
        let (code, _, said) = bursar(copied.path(), &["store", "verify"]);
        assert_eq!(code, 65, "{what}: {said}");
        assert!(said.contains("payment-journal"), "{what}: {said}");
    }
    // Whoever forges the whole chain is found by a hash that was kept elsewhere.
    let forged = format!("1:{}", "0".repeat(64));
    let (code, _, said) = bursar(folder, &["audit", "verify", "--contains", &forged]);
    assert_eq!(code, 65);
    assert!(said.contains("line number 1 is not the one"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_the_period_and_no_personal_data_unless_asked() {
    let (stage, payments) = paid().await;
    let folder = stage.folder.path();
    let day = payments[0]["created_at"].as_str().unwrap()[..10].to_owned();
    let export = |more: &[&str]| {
        let period = ["audit", "export", "--from", &day, "--to", "2999-12-31"];
        let (code, told, said) = bursar(folder, &[&period[..], more].concat());
        assert_eq!(code, 0, "{said}");
        told
    };
    let masked = export(&[]);
    assert!(!masked.contains("Lovelace") && !masked.contains("customer-1"));
    assert!(masked.contains("tb1q7"));
    let whole: String = files(folder)
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    assert_eq!(masked.lines().count(), whole.lines().count());
    assert_eq!(export(&["--personal-data"]), whole);
    let table = export(&["--format", "csv"]);
    assert_eq!(table.lines().count(), whole.lines().count() + 1);
    assert!(table.starts_with("number,commit,at,foreign_id,event,state"));
    export(&["--output", "report.jsonl"]);
    assert_eq!(
        fs::read_to_string(folder.join("report.jsonl")).unwrap(),
        masked
    );
    let before = [
        "audit",
        "export",
        "--from",
        "2001-01-01",
        "--to",
        "2001-12-31",
    ];
    assert_eq!(bursar(folder, &before).1, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_everything_else_is_made_anew_and_pays_nothing_again() {
    let (stage, before) = paid().await;
    let folder = stage.folder.path();
    let requests = stage.control.requests();
    fs::remove_dir_all(folder.join("state/index")).unwrap();
    fs::remove_dir_all(folder.join("state/journal")).unwrap();
    let Err(refused) = stage.try_start().await else {
        panic!("it starts without its store");
    };
    let refused = format!("{:#}", anyhow(&refused));
    assert!(
        refused.contains("store rebuild --payments-only"),
        "{refused}"
    );
    let (code, _, said) = bursar(folder, &["store", "rebuild"]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("--payments-only"), "{said}");
    let (code, told, said) = bursar(folder, &["store", "rebuild", "--payments-only"]);
    assert_eq!(code, 0, "{said}");
    for part in ["21 payments", "lost:  runs", "no payment is made twice"] {
        assert!(told.contains(part), "{part}: {told}");
    }

    let daemon = stage.start().await;
    assert_eq!(payments(&daemon.runner), before);
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    assert_eq!(
        stage.control.requests().get(&Operation::Withdrawal),
        requests.get(&Operation::Withdrawal)
    );
    assert!(executed(&stage.control).values().all(|times| *times == 1));
    assert_eq!(payments(&daemon.runner), before);
    daemon.stop().await;
    // The chain goes on where it was.
    assert_eq!(bursar(folder, &["audit", "verify"]).0, 0);
    assert_eq!(bursar(folder, &["store", "verify"]).0, 0);
}

/// An error with its causes.
fn anyhow(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A payment whose reply was lost is still open when the store is lost: it is looked up, not sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_payment_is_looked_up_after_a_rebuild() {
    let stage = Stage::with(Options {
        faults: Faults(vec![
            once(Fault::DropAnswer),
            Rule::always(Fault::BlindLookup(1500)),
            Rule::always(Fault::CallbackNever),
            Rule::always(Fault::ExecuteRepeat),
        ]),
        ..Options::default()
    })
    .await
    .script("a.rhai", &by_hand(&withdraw("one", "0.01")));
    stage.write("daemon.toml", "");
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    assert_eq!(daemon.runner.payment("one").unwrap()["status"], "unknown");
    daemon.stop().await;
    for part in [
        "index",
        "journal",
        "high-water",
        "manifest.0",
        "manifest.1",
        "format",
    ] {
        let part = stage.path("state").join(part);
        fs::remove_dir_all(&part)
            .or_else(|_| fs::remove_file(&part))
            .unwrap();
    }
    let (code, told, said) = bursar(
        stage.folder.path(),
        &["store", "rebuild", "--payments-only"],
    );
    assert_eq!(code, 0, "{said}");
    assert!(told.contains("1 payments, of which 1 are open"), "{told}");
    let daemon = stage.start().await;
    daemon.payment("one", "confirmed").await;
    daemon.trigger("a", "go").await;
    assert_eq!(executed(&stage.control), [("one".into(), 1)].into());
    assert_eq!(stage.control.requests()[&Operation::Withdrawal], 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_of_a_payment_with_a_lost_reply_is_told_from_the_trigger_to_the_end() {
    let clock = SetClock::at("2026-11-22T12:00:00Z");
    let stage = Stage::with(Options {
        faults: Faults(vec![
            once(Fault::DropAnswer),
            Rule::always(Fault::CallbackNever),
        ]),
        settle_after: None,
        ..Options::default()
    })
    .await
    .clock(clock)
    .script(
        "a.rhai",
        &by_hand(&format!("\n    {}\n", withdraw("one", "0.01"))),
    );
    let daemon = stage.start().await;
    daemon.trigger("a", "go").await;
    let found = daemon.payment("one", "accepted").await;
    let callback = json!({
        "id": found["id"].as_str().unwrap().parse::<u64>().unwrap(),
        "foreign_id": "one", "type": "withdrawal", "status": "confirmed",
        "currency_sent": {"currency": "BTC", "amount": "0.01"},
    });
    let (status, _) = deliver(&daemon.callbacks, callback.to_string().as_bytes()).await;
    assert_eq!(status, 200);
    daemon.payment("one", "confirmed").await;

    let admin = daemon.admin.strip_prefix("http://").unwrap();
    stage.write("daemon.toml", &format!("admin.listen = \"{admin}\"\n"));
    let folder = stage.folder.path().to_owned();
    let ask = move |arguments: &[&str]| bursar(&folder, arguments);
    let (code, told, said) = ask(&["why", "one"]);
    assert_eq!(code, 0, "{said}");
    insta::assert_snapshot!(told);
    let (code, told, _) = ask(&["why", "one", "--json"]);
    let why: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (code, &why["attempts"][0]["outcome"]["event"]),
        (0, &json!("answer_lost"))
    );
    assert!(!told.contains("Lovelace"), "{told}");
    let (code, _, said) = ask(&["why", "onee"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("there is no payment `onee`; there is `one`"),
        "{said}"
    );
    daemon.stop().await;
}
