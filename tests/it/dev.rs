//! `bursar dev` through the real binary.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// The binary in a folder and an environment of its own.
fn dev(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.arg("dev").args(arguments);
    command.current_dir(folder).env_clear();
    // The default ports belong to whoever tries it out while the tests run.
    for listener in ["CALLBACKS", "ADMIN"] {
        command.env(format!("BURSAR__{listener}__LISTEN"), "127.0.0.1:0");
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What is told in the same way every time: without where things are, without the date, without the
/// lines of runs that go on side by side, and without the order of what is a race at the gateway too.
fn stable(session: &str) -> Vec<String> {
    let lines = session.lines().filter(|line| {
        let place = line.starts_with("  ") && !line.contains(": ");
        let side_by_side = line.contains("hooks.rhai: customer-9");
        !place && !side_by_side && !line.is_empty()
    });
    lines
        .map(|line| without_race(&without_date(line)))
        .collect()
}

fn without_date(line: &str) -> String {
    let mut parts = line
        .split("payroll-20")
        .flat_map(|part| part.split("payouts-20"));
    let first = parts.next().unwrap().to_owned();
    // What is left of a date such as 2026-11-22 is 26-11-22.
    parts.fold(first, |line, part| format!("{line}DATE{}", &part[8..]))
}

/// How far a payment is when it is looked at, and whether a look-up or the callback tells it first.
fn without_race(line: &str) -> String {
    if let Some((batch, _)) = line.split_once(" rows, ") {
        return batch.to_owned();
    }
    match (line.split_once("BTC: "), line.split_once("; ")) {
        (Some((payment, story)), Some((_, executed))) => {
            let lost = story.starts_with("THE REPLY WAS LOST, looked up and found");
            format!(
                "{payment}{}{executed}",
                if lost { "lost, found " } else { "" }
            )
        }
        _ => line.to_owned(),
    }
}

#[test]
fn the_session_in_the_readme_is_one_that_happens() {
    let readme = include_str!("../../README.md");
    let (_, recorded) = readme.split_once("<!-- session -->\n```text\n").unwrap();
    let (recorded, stays) = recorded.split_once("\nThe dashboard is at ").unwrap();
    assert!(stays.contains("Ctrl-C ends it all."));
    let folder = tempfile::tempdir().unwrap();
    let output = dev(folder.path(), &["--once"]).output().unwrap();
    assert_eq!(stable(recorded), stable(&text(&output.stdout)));
}

#[test]
fn the_scenario_holds_with_the_shipped_scripts_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = dev(folder.path(), &["--once"]).output().unwrap();
    let told = text(&stdout);
    assert_eq!(
        (status.code(), text(&stderr)),
        (Some(0), String::new()),
        "{told}"
    );
    for (what, many) in [
        ("payments asked for by scripts", "5"),
        ("payments executed by the gateway", "5"),
        ("payments confirmed", "5"),
        ("replies lost", "1"),
        ("double payments", "0"),
        (
            "deposits confirmed by the gateway",
            "2, 0.29760000 BTC, told 3 times",
        ),
        ("deposits credited by scripts", "2, 0.29760000 BTC"),
    ] {
        let line = told.lines().find(|line| line.starts_with(what)).unwrap();
        assert_eq!(line[what.len()..].trim(), many, "{told}");
    }
    let third = told
        .lines()
        .find(|line| line.contains("-3  0.1 BTC"))
        .unwrap();
    assert!(
        third.contains("THE REPLY WAS LOST, looked up and found")
            && third.ends_with("executed once"),
        "{third}"
    );
    // What the state was kept in is gone, and nothing else was touched.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn scripts_that_pay_nobody_do_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("scripts")).unwrap();
    fs::write(
        folder.path().join("scripts/a.rhai"),
        "on(\"*\", |event| {});",
    )
    .unwrap();
    let output = dev(folder.path(), &["--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    assert!(
        told.contains("left out: there is no schedule `payroll`"),
        "{told}"
    );
    assert!(text(&output.stderr).contains("not everything came out"));
}

#[test]
fn a_folder_that_was_played_in_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let first = dev(folder.path(), &["--once", "--state", "kept"])
        .output()
        .unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stdout));
    assert!(folder.path().join("kept/daemon.log").exists());
    let again = dev(folder.path(), &["--once", "--state", "kept"])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("always starts clean"));
}

struct Session {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Session {
    fn start(folder: &Path) -> Self {
        let mut process = dev(folder, &[]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// Reads on until a line contains `text`. Answers that line.
    fn until(&mut self, text: &str) -> String {
        let mut read = String::new();
        loop {
            let mut line = String::new();
            let length = self.lines.read_line(&mut line).unwrap();
            assert_ne!(length, 0, "there was no `{text}` in:\n{read}");
            if line.contains(text) {
                return line;
            }
            read.push_str(&line);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn every_reload_is_told_and_a_signal_ends_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let scripts = folder.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    let hooks = scripts.join("hooks.rhai");
    fs::write(&hooks, "on(\"*\", |event| {});").unwrap();
    let mut session = Session::start(folder.path());
    assert!(session.until("Now edit ").contains("scripts/hooks.rhai"));
    fs::write(&hooks, "on(\"*\", |event| { log::inform(1); });").unwrap();
    session.until("not reloaded");
    session.until("log::inform");
    fs::write(&hooks, "on(\"*\", |event| { log::info(1); });").unwrap();
    session.until("reloaded: the scripts in");
    let id = session.process.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    assert_eq!(session.process.wait().unwrap().code(), Some(0));
}
