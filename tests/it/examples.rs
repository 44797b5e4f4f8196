//! Every folder of `examples/`: its script in a daemon that is configured by its `daemon.toml`, with
//! what `expected.txt` says happening to it; and the demonstration, run as a stranger runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bursar::config::{File, Need, resolve};
use bursar::domain::operation::Operation as Call;
use bursar::simulator::{Fault, Faults, Rule, SentCallback};
use serde_json::json;

use crate::kit::SetClock;
use crate::scripts::{call, logged};
use crate::stage::{Running, Stage, eventually, everything, executed};

/// When the play begins; no schedule is due soon.
const BEGIN: &str = "2026-11-23T08:31:00Z";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// One thing that happens, and the lines that follow from it.
struct Act {
    what: String,
    lines: Vec<String>,
}

fn acts(text: &str) -> Vec<Act> {
    let mut acts: Vec<Act> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("> ") {
            Some(what) => acts.push(Act {
                what: what.to_owned(),
                lines: Vec::new(),
            }),
            None => acts.last_mut().unwrap().lines.push(line.to_owned()),
        }
    }
    acts
}

/// An example on a stage.
struct Play {
    stage: Stage,
    clock: Arc<SetClock>,
    daemon: Option<Running>,
    /// Whether deposits stay unconfirmed.
    held_back: bool,
    /// Every line that was logged before.
    seen: Vec<String>,
}

impl Play {
    async fn begin(example: &Path) -> Self {
        let clock = SetClock::at(BEGIN);
        let mut stage = Stage::new().await.clock(clock.clone());
        for file in fs::read_dir(example).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("rhai") => stage.write(&format!("scripts/{name}"), &read(&path)),
                Some("csv") => stage.write(&format!("data/{name}"), &read(&path)),
                _ => {}
            }
        }
        stage = stage.config(&configured(&read(&example.join("daemon.toml"))));
        let daemon = Some(stage.start().await);
        Self {
            stage,
            clock,
            daemon,
            held_back: false,
            seen: Vec::new(),
        }
    }

    fn daemon(&self) -> &Running {
        self.daemon.as_ref().unwrap()
    }

    async fn act(&mut self, act: Act) {
        let words: Vec<&str> = act.what.split(' ').collect();
        match words[..] {
            ["trigger", script, name, slot] => {
                let at = Some(slot.parse().unwrap());
                let run = self.daemon().runner.trigger(script, name, at).await;
                self.daemon().closed(&run.unwrap().to_string()).await;
            }
            ["address", customer, currency] => {
                let taken = json!({
                    "foreign_id": customer, "currency": currency, "end_user_reference": customer,
                    "sender_type": "natural",
                    "sender_data": {
                        "first_name": "Ada", "last_name": "Lovelace",
                        "date_of_birth": "1990-12-10",
                    },
                });
                call(&self.stage, Call::TakeAddress, taken).await;
            }
            ["deposit", customer, amount] => {
                let amount = amount.parse().unwrap();
                self.stage.control.deposit(customer, amount, None).unwrap();
                if !self.held_back {
                    self.rest().await;
                }
            }
            ["hold", "deposits", "back"] => {
                self.stage.control.set_settle_after(None);
                self.held_back = true;
            }
            ["lose", "the", "reply", "to", foreign_id] => {
                self.stage.control.set_faults(Faults(vec![Rule {
                    foreign_id: Some(foreign_id.to_owned()),
                    ..Rule::always(Fault::DropAnswer)
                }]));
            }
            ["send", "every", "callback", "again"] => {
                for sent in self.stage.control.callbacks() {
                    let taken = self.stage.control.resend_callback(sent.id).await;
                    assert!(taken.unwrap(), "{sent:?}");
                }
            }
            ["restart", at] => {
                self.daemon.take().unwrap().stop().await;
                self.clock.set(at);
                self.daemon = Some(self.stage.start().await);
            }
            ["executed", count] => {
                let executed: usize = executed(&self.stage.control).values().sum();
                assert_eq!(executed.to_string(), count);
            }
            ["file", name] => {
                let text = read(&self.stage.path(&format!("data/{name}")));
                let lines: Vec<&str> = text.lines().collect();
                assert_eq!(lines, act.lines, "{name}");
                return;
            }
            _ => panic!("nobody knows how to `{}`", act.what),
        }
        self.expect(&act).await;
    }

    /// Waits until as many new lines were logged as the act names, and compares them.
    async fn expect(&mut self, act: &Act) {
        let lines = eventually(&format!("`{}` has its lines", act.what), || async {
            let mut lines = logged(self.daemon());
            for seen in &self.seen {
                let at = lines.iter().position(|line| line == seen);
                lines.remove(at.unwrap());
            }
            (lines.len() >= act.lines.len()).then_some(lines)
        })
        .await;
        assert_eq!(lines, act.lines, "after `{}`", act.what);
        self.seen.extend(lines);
    }

    /// Waits until the gateway has told the end of everything, and every run has made of it what it
    /// can.
    async fn rest(&self) {
        let ended = |sent: &SentCallback| ["confirmed", "cancelled"].contains(&&sent.status[..]);
        eventually("everything has come to rest", || async {
            let callbacks = self.stage.control.callbacks();
            let told: BTreeSet<u64> = callbacks
                .iter()
                .filter(|sent| ended(sent) && sent.delivered)
                .map(|sent| sent.operation_id)
                .collect();
            let all_told = callbacks
                .iter()
                .all(|sent| told.contains(&sent.operation_id));
            let runs = self.daemon().runner.runs(&everything()).unwrap();
            let mut runs = runs.as_array().unwrap().iter();
            (all_told && runs.all(|run| run["state"] == "succeeded")).then_some(())
        })
        .await;
    }
}

/// What the stage takes of an example's configuration: all but where things are, which is checked.
fn configured(toml: &str) -> String {
    let environment = BTreeMap::from([
        ("BURSAR_GATEWAY_KEY".to_owned(), "key".to_owned()),
        ("BURSAR_GATEWAY_SECRET".to_owned(), "secret".to_owned()),
    ]);
    let file = File {
        name: "daemon.toml",
        text: toml,
        folder: Path::new("."),
    };
    let config = resolve(Some(file), &environment, Need::Everything);
    assert!(config.is_ok(), "{config:?}");
    let place = |line: &&str| {
        let key = line.split('=').next().unwrap().trim();
        ["base_url", "dir", "data_dir"].contains(&key)
    };
    let table = |line: &str| line.strip_prefix('[')?.strip_suffix(']').map(str::to_owned);
    let mut prefix = String::new();
    let mut lines = String::new();
    for line in toml.lines().filter(|line| !line.starts_with('#')) {
        if let Some(table) = table(line) {
            prefix = table;
        } else if !line.is_empty() && !place(&line) {
            lines.push_str(&prefix);
            lines.push('.');
            lines.push_str(line);
            lines.push('\n');
        }
    }
    lines
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_does_what_it_says() {
    let mut played = 0;
    for example in fs::read_dir(folder()).unwrap() {
        let example = example.unwrap().path();
        assert!(
            example.is_dir(),
            "{}: an example is a folder",
            example.display()
        );
        assert!(read(&example.join("README.md")).starts_with("# "));
        let acts = acts(&read(&example.join("expected.txt")));
        assert!(!acts.is_empty());
        let mut play = Play::begin(&example).await;
        for act in acts {
            play.act(act).await;
        }
        play.daemon.take().unwrap().stop().await;
        played += 1;
    }
    assert!(played >= 3, "{played} examples");
}

/// The cells of the rows of a table in Markdown.
fn cells(table: &str) -> Vec<Vec<String>> {
    let rows = table.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// The demonstration as cargo has built it, which `--test it` alone does not.
fn demonstration() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--locked",
            "--offline",
            "--example",
            "lost-replies",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    let name = format!("lost-replies{}", std::env::consts::EXE_SUFFIX);
    let bursar = Path::new(env!("CARGO_BIN_EXE_bursar"));
    bursar.parent().unwrap().join("examples").join(name)
}

#[test]
fn the_usual_script_pays_twice_and_bursar_does_not() {
    let output = Command::new(demonstration())
        .args(["--rows", "40", "--seed", "1", "--hurry", "--bursar"])
        .arg(env!("CARGO_BIN_EXE_bursar"))
        .output()
        .unwrap();
    let (told, said) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{told}{said}");
    let table = cells(&told);
    let number = |row: usize, column: usize| table[row][column].parse::<usize>().unwrap();
    let [rows, executed, double, missed, in_doubt] = [1, 2, 3, 4, 5];
    for usual in [1, 2] {
        assert!(number(usual, double) > 0, "{told}");
        assert!(number(usual, executed) > number(usual, rows), "{told}");
        assert!(!table[usual][6].starts_with("0 of "), "{told}");
    }
    assert_eq!((number(3, double), number(3, missed)), (0, 0), "{told}");
    assert_eq!(number(3, executed) + number(3, in_doubt), 40, "{told}");
    assert!(number(3, in_doubt) < 40, "{told}");
    assert!(table[3][6].starts_with("0 of "), "{told}");

    // The table in its README comes from a run like this one, with more rows.
    let readme = read(&folder().join("lost-replies/README.md"));
    let written = cells(readme.split("<!-- table -->").nth(1).unwrap());
    assert_eq!(written[0], table[0]);
    for (written, run) in written.iter().zip(&table).skip(1) {
        assert_eq!((&written[0], &written[rows][..]), (&run[0], "300"));
    }
    assert_eq!(written.len(), table.len());
    assert_eq!(
        (&written[3][double][..], &written[3][missed][..]),
        ("0", "0")
    );
}
