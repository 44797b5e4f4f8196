//! The payment journal beside a real store: what a kill leaves of it is completed, what somebody
//! did to it is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::chain::{Link, walk};
use crate::store::layout::Layout;
use crate::store::poison::Poison;
use crate::store::tail::without_room;
use crate::store::writer::Command;
use crate::store::{
    Changes, OpenError, Options, Remedy, Store, Table, backup, copy, open, restore, verify,
};
use crate::telemetry::Telemetry;

const NUMBERS: Table<u64, u64> = Table::new("numbers/", 1);

fn options() -> Options {
    Options {
        cache_bytes: 1024 * 1024,
        segment_bytes: 2000,
    }
}

fn start(dir: &Path) -> Result<Store, OpenError> {
    Store::open(dir, &options(), &Telemetry::default())
}

fn telling(number: u64, lines: u64) -> Changes {
    let mut changes = Changes::new();
    changes.put(&NUMBERS, &number, &number);
    for line in 0..lines {
        changes.tell(&json!({"number": number, "line": line, "text": "x".repeat(100)}));
    }
    changes
}

/// Everything in the journal without the room behind it, as one text, and its files.
fn content(dir: &Path) -> (Vec<u8>, usize) {
    let files = Layout::new(dir).payment_files().unwrap();
    let all: Vec<u8> = files
        .iter()
        .flat_map(|(_, path)| without_room(&fs::read(path).unwrap()).to_vec())
        .collect();
    (all, files.len())
}

fn told(dir: &Path) -> Vec<(u64, u64)> {
    let (content, _) = content(dir);
    let mut told = Vec::new();
    let walked = walk(&content, Link::before_all(), |_, _, line| {
        let line: Value = serde_json::from_slice(line).unwrap();
        told.push((
            line["number"].as_u64().unwrap(),
            line["line"].as_u64().unwrap(),
        ));
    });
    assert_eq!((walked.flaws, walked.torn), (Vec::new(), 0));
    told
}

#[tokio::test]
async fn every_line_is_in_the_chain_in_the_order_of_the_commits_through_files_and_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let store = start(dir.path()).unwrap();
        for number in round * 20..(round + 1) * 20 {
            let lines = number % 3;
            store.commit(telling(number, lines)).await.unwrap();
            expected.extend((0..lines).map(|line| (number, line)));
            // On disk when the commit is acknowledged.
            assert_eq!(told(dir.path()), expected);
        }
    }
    let (_, files) = content(dir.path());
    assert!(files > 3, "{files}");
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.payment_lines, expected.len() as u64);
    assert!(report.damage.is_empty());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let file = Layout::new(dir.path()).payment_file(1);
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn commits_that_are_refused_tell_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).unwrap();
    store.commit(telling(1, 1)).await.unwrap();
    let mut changes = telling(1, 5);
    changes.require_absent(&NUMBERS, &1);
    store.commit(changes).await.unwrap_err();
    let mut broken = Changes::new();
    broken.tell(&"no object");
    store.commit(broken).await.unwrap_err();
    assert_eq!(told(dir.path()), [(1, 0)]);
}

/// A store whose last group, with two lines, is in the guard journal and nowhere else yet but in
/// the payment journal. `before` lines stand before them.
async fn killed(before: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).unwrap();
    for number in 0..before {
        store.commit(telling(number, 1)).await.unwrap();
    }
    store.close().await.unwrap();
    let opened = open::open(dir.path(), &options(), &Telemetry::default()).unwrap();
    let (writer, applier) = (opened.writer, opened.applier);
    let (commands, receiver) = mpsc::channel(8);
    let poison = Poison::new(&Telemetry::default());
    let writing = std::thread::spawn(move || writer.run(receiver, &poison));
    let (answer, answered) = oneshot::channel();
    let commit = Command::Commit(vec![telling(1000, 2)], answer);
    commands.send(commit).await.unwrap();
    assert_eq!(answered.await.unwrap(), [Ok(())]);
    let killed = tempfile::tempdir().unwrap();
    applier.view.index.flush().unwrap();
    copy::copy_tree(dir.path(), killed.path(), |_| true).unwrap();
    applier.pace.leave();
    drop(commands);
    writing.join().unwrap();
    killed
}

fn copied(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy::copy_tree(dir, copy.path(), |_| true).unwrap();
    copy
}

/// The last file, its content without the room, and where the last two lines begin in it.
fn last_file(dir: &Path) -> (std::path::PathBuf, Vec<u8>, usize) {
    let (_, path) = Layout::new(dir).payment_files().unwrap().pop().unwrap();
    let bytes = without_room(&fs::read(&path).unwrap()).to_vec();
    let ends: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
    let start = ends.iter().rev().nth(2).map_or(0, |end| end + 1);
    (path, bytes, start)
}

#[tokio::test]
async fn an_append_that_was_interrupted_anywhere_is_completed_from_the_guard_journal() {
    // In a file that goes on, in a file of its own, and as the very first lines.
    for before in [3, 7, 0] {
        let dir = killed(before).await;
        let (whole, _) = content(dir.path());
        let (path, bytes, start) = last_file(dir.path());
        let name = path.strip_prefix(dir.path()).unwrap();
        let lengths = (start..bytes.len()).step_by(61);
        for length in lengths.chain([start + 1, bytes.len() - 1, bytes.len()]) {
            let copy = copied(dir.path());
            let torn = [&bytes[..length], &vec![0; length % 3][..]].concat();
            let torn = &torn[..torn.len().min(bytes.len())];
            fs::write(copy.path().join(name), torn).unwrap();
            if length == start && start == 0 {
                fs::remove_file(copy.path().join(name)).unwrap();
            }
            assert!(verify(copy.path()).unwrap().damage.is_empty());
            let store = start_or_panic(copy.path(), length);
            assert_eq!(content(copy.path()).0, whole, "{before} {length}");
            store.commit(telling(2000, 1)).await.unwrap();
            drop(store);
            assert_eq!(told(copy.path()).last(), Some(&(2000, 0)));
        }
    }
}

fn start_or_panic(dir: &Path, length: usize) -> Store {
    start(dir).unwrap_or_else(|error| panic!("cut to {length}: {error}"))
}

fn refusal(dir: &Path) -> (String, Remedy) {
    match start(dir) {
        Err(OpenError::Damaged(damage)) => {
            let file = damage.file.file_name().unwrap().to_str().unwrap();
            (format!("{file}: {}", damage.finding), damage.remedy)
        }
        Ok(_) => panic!("started"),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn what_somebody_did_to_the_journal_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).unwrap();
    for number in 0..40 {
        store.commit(telling(number, 1)).await.unwrap();
    }
    store.close().await.unwrap();
    let files = Layout::new(dir.path()).payment_files().unwrap();
    assert!(files.len() > 3);
    let name = |at: usize| files[at].1.strip_prefix(dir.path()).unwrap().to_owned();
    let refused = |file: usize, change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
        let copy = copied(dir.path());
        let path = copy.path().join(name(file));
        match change(fs::read(&path).unwrap()) {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        assert!(!verify(copy.path()).unwrap().damage.is_empty());
        let (text, remedy) = refusal(copy.path());
        assert_eq!(remedy, Remedy::CopyLines, "{text}");
        text
    };
    let last = files.len() - 1;
    assert_eq!(
        refused(0, &|mut bytes| {
            bytes[150] ^= 1;
            Some(bytes)
        }),
        "00000000000000000001.jsonl: line 1: line number 1 was changed, or it is not the one that number 2 was written after"
    );
    for file in [0, 1, last] {
        assert!(refused(file, &|_| None).contains("missing"));
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len() - 10);
            Some(bytes)
        };
        assert!(refused(file, &cut).contains("cut off"), "{file}");
    }
    let without_the_last_line = |bytes: Vec<u8>| {
        let end = bytes[..bytes.len() - 1]
            .iter()
            .rposition(|byte| *byte == b'\n');
        Some(bytes[..end.map_or(0, |end| end + 1)].to_vec())
    };
    assert!(refused(last, &without_the_last_line).contains("the store knows 40"));
    let changed_at_the_end = |mut bytes: Vec<u8>| {
        let at = bytes.len() - 5;
        bytes[at] ^= 1;
        Some(bytes)
    };
    assert!(refused(last, &changed_at_the_end).contains("the last one, is not the one"));
}

#[tokio::test]
async fn a_store_that_is_older_than_its_payment_journal_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).unwrap();
    store.commit(telling(1, 1)).await.unwrap();
    store.close().await.unwrap();
    let older = copied(dir.path());
    let store = start(dir.path()).unwrap();
    store.commit(telling(2, 1)).await.unwrap();
    store.close().await.unwrap();
    let journal = Layout::new(older.path()).payment_journal();
    fs::remove_dir_all(&journal).unwrap();
    copy::copy_tree(&Layout::new(dir.path()).payment_journal(), &journal, |_| {
        true
    })
    .unwrap();
    let (text, remedy) = refusal(older.path());
    assert!(
        text.contains("the store is older than its payment journal"),
        "{text}"
    );
    assert_eq!(remedy, Remedy::RebuildPayments);

    // Nor one that has lost everything else.
    for part in [
        "index",
        "journal",
        "format",
        "manifest.0",
        "manifest.1",
        "high-water",
    ] {
        let path = dir.path().join(part);
        drop(fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)));
        let (text, _) = refusal(dir.path());
        assert!(text.contains(':'), "{text}");
    }
}

#[tokio::test]
async fn a_backup_has_the_journal_up_to_its_own_end_and_comes_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let store = start(dir.path()).unwrap();
    for number in 0..30 {
        store.commit(telling(number, 1)).await.unwrap();
    }
    let running = copies.path().join("running");
    store.backup(&running).await.unwrap();
    for number in 30..40 {
        store.commit(telling(number, 1)).await.unwrap();
    }
    store.close().await.unwrap();
    let closed = copies.path().join("closed");
    backup(dir.path(), &closed, &Telemetry::default()).unwrap();
    for (copy, lines) in [(running, 30), (closed, 40)] {
        assert_eq!(told(&copy).len(), lines);
        let back = copies.path().join(format!("back-{lines}"));
        restore(&copy, &back, &Telemetry::default()).unwrap();
        let store = start(&back).unwrap();
        store.commit(telling(100, 1)).await.unwrap();
        assert_eq!(told(&back).len(), lines + 1);
    }
}

/// A journal that cannot be written poisons the store, and nobody is told that it worked.
#[tokio::test]
async fn a_line_that_cannot_be_written_is_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path()).unwrap();
    store.commit(telling(1, 1)).await.unwrap();
    drop(store);
    let mut opened = open::open(dir.path(), &options(), &Telemetry::default()).unwrap();
    opened.writer.payments.divert("/dev/full");
    let store = Store::start(opened).unwrap();
    store.commit(telling(2, 0)).await.unwrap();
    store.commit(telling(3, 1)).await.unwrap_err();
    assert!(store.is_poisoned());
    drop(store);
    // The guard journal has it, so the next start completes what was begun.
    drop(start(dir.path()).unwrap());
    assert_eq!(told(dir.path()), [(1, 0), (3, 0)]);
}
