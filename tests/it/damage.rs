//! Damaged stores: whatever happens to a file, the store opens with everything that was
//! acknowledged, or refuses to start and says which file and which command. Never with less.
//! After a refusal, a rebuild makes the store whole or refuses by name and changes nothing.
//!
//! Injected, one at a time, into copies of real folders: files cut, flipped bits, zeroed heads,
//! rubbish at the end, files and folders gone, folders of an older time or of another store, and
//! what interrupted writes leave behind. Not injected: two faults at once, and lies of the disk
//! about what it has synced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bursar::store::{
    BlobHash, Changes, OpenError, Options, Order, Range, RebuildError, Store, Table, rebuild,
    verify,
};
use bursar::telemetry::Telemetry;

const TABLE: Table<String, String> = Table::new("damage/", 1);
const BLOB: &[u8] = b"a content that is kept beside the index";

type Records = BTreeMap<String, String>;

fn options() -> Options {
    Options {
        cache_bytes: 1024 * 1024,
        segment_bytes: 50_000,
    }
}

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(dir, &options(), &Telemetry::default())
}

/// A folder to damage copies of, and what it acknowledged.
struct Original {
    name: &'static str,
    dir: tempfile::TempDir,
    records: Records,
}

/// Commits `groups` groups of new, changed and removed records.
async fn fill(store: &Store, records: &mut Records, groups: usize) {
    for group in 0..groups {
        let mut changes = Changes::new();
        for number in 0..20 {
            let key = format!("{:04}-{number}", group * 7919 % 1000);
            let value = format!("{group} {number} {}", "x".repeat(100));
            changes.put(&TABLE, &key, &value);
            records.insert(key, value);
        }
        if let Some(key) = records.keys().nth(group % 5).cloned() {
            changes.remove(&TABLE, &key);
            records.remove(&key);
        }
        store.commit(changes).await.unwrap();
    }
    store.put_blob(BLOB.to_vec()).await.unwrap();
}

/// A store that was opened and closed `times` times, with `groups` groups each time.
async fn closed(name: &'static str, times: usize, groups: usize) -> Original {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::new();
    for _ in 0..times {
        let store = open(dir.path()).unwrap();
        fill(&store, &mut records, groups).await;
        store.close().await.unwrap();
    }
    Original { name, dir, records }
}

/// What a killed process leaves behind after `groups` groups: a copy of the open folder.
async fn killed(name: &'static str, groups: usize, pause: std::time::Duration) -> Original {
    let dir = tempfile::tempdir().unwrap();
    let living = tempfile::tempdir().unwrap();
    let mut records = Records::new();
    let store = open(living.path()).unwrap();
    fill(&store, &mut records, groups).await;
    tokio::time::sleep(pause).await;
    copy(living.path(), dir.path());
    Original { name, dir, records }
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

/// The files below a folder, relative to it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Something that happens to the bytes of a file; `None` removes it.
type Fault = (&'static str, fn(Vec<u8>) -> Option<Vec<u8>>);

fn cut(mut bytes: Vec<u8>, by: usize) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(by));
    bytes
}

/// Flips a bit at so many thousandths of the file, or its last byte.
fn flip(mut bytes: Vec<u8>, thousandths: usize) -> Option<Vec<u8>> {
    let at = (bytes.len() * thousandths / 1000).min(bytes.len().checked_sub(1)?);
    bytes[at] ^= 0b0000_0100;
    Some(bytes)
}

const FAULTS: [Fault; 19] = [
    ("untouched", Some),
    ("gone", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("cut by 1", |bytes| Some(cut(bytes, 1))),
    ("cut by 100", |bytes| Some(cut(bytes, 100))),
    ("cut by 20000", |bytes| Some(cut(bytes, 20_000))),
    ("cut to half", |bytes| {
        let half = bytes.len() / 2;
        Some(cut(bytes, half))
    }),
    ("flipped at 0", |bytes| flip(bytes, 0)),
    ("flipped at 1 %", |bytes| flip(bytes, 10)),
    ("flipped at 5 %", |bytes| flip(bytes, 50)),
    ("flipped at 15 %", |bytes| flip(bytes, 150)),
    ("flipped at 30 %", |bytes| flip(bytes, 300)),
    ("flipped at 50 %", |bytes| flip(bytes, 500)),
    ("flipped at 70 %", |bytes| flip(bytes, 700)),
    ("flipped at 90 %", |bytes| flip(bytes, 900)),
    ("flipped at the end", |bytes| flip(bytes, 1000)),
    ("first 4 KiB zeroed", |mut bytes| {
        let head = bytes.len().min(4096);
        bytes[..head].fill(0);
        Some(bytes)
    }),
    ("zeros at the end", |mut bytes| {
        bytes.extend([0; 100]);
        Some(bytes)
    }),
    ("rubbish at the end", |mut bytes| {
        bytes.extend((0..100_u8).map(|n| n.wrapping_mul(37)));
        Some(bytes)
    }),
];

/// How a damaged store behaved, all of which are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Opened with everything, took another record, and opened with that too.
    Whole,
    /// Did not start, and said why; a rebuild then made it whole.
    Rebuilt,
    /// Did not start, and said why; a rebuild said what is missing.
    Refused,
}

fn contents(store: &Store) -> Result<Records, String> {
    store
        .scan(&TABLE, &Range::all(), usize::MAX, Order::Ascending)
        .map(|all| all.into_iter().collect())
        .map_err(|error| format!("opened, but cannot be read: {error}"))
}

/// Opens a damaged folder: nothing may be missing, and nothing unsaid.
async fn judge(dir: &Path, expected: &Records) -> Result<Outcome, String> {
    match open(dir) {
        Ok(store) => judge_whole(dir, store, expected).await,
        Err(refusal) => {
            judge_refusal(dir, &refusal)?;
            if matches!(refusal, OpenError::Newer { .. }) {
                return Ok(Outcome::Refused);
            }
            judge_rebuild(dir, expected).await
        }
    }
}

/// Everything must be there, and it must be possible to go on.
async fn judge_whole(dir: &Path, store: Store, expected: &Records) -> Result<Outcome, String> {
    let found = contents(&store)?;
    if found != *expected {
        return Err(format!(
            "opened with {} records instead of {}",
            found.len(),
            expected.len()
        ));
    }
    if store
        .get_blob(&BlobHash::of(BLOB))
        .is_ok_and(|blob| blob != BLOB)
    {
        return Err("gave another blob".to_owned());
    }
    let mut changes = Changes::new();
    changes.put(&TABLE, &"later".into(), &"record".into());
    let committed = store.commit(changes).await;
    committed.map_err(|error| format!("cannot commit: {error}"))?;
    drop(store);
    let store = open(dir).map_err(|error| format!("second start: {error}"))?;
    let mut expected = expected.clone();
    expected.insert("later".into(), "record".into());
    if contents(&store)? == expected {
        Ok(Outcome::Whole)
    } else {
        Err("less at the second start".to_owned())
    }
}

/// A rebuild makes the store whole, or changes nothing and says where to go from there.
async fn judge_rebuild(dir: &Path, expected: &Records) -> Result<Outcome, String> {
    let before = snapshot(dir);
    match rebuild(dir, &Telemetry::default()) {
        Ok(rebuilt) if rebuilt.repairs.is_empty() => Err("nothing to repair".to_owned()),
        Ok(rebuilt) => {
            let store = open(dir).map_err(|error| format!("{rebuilt:?}, then: {error}"))?;
            let judged = judge_whole(dir, store, expected).await;
            judged.map_err(|wrong| format!("{rebuilt:?}, then: {wrong}"))?;
            Ok(Outcome::Rebuilt)
        }
        Err(RebuildError::Failed(OpenError::Newer { .. })) => Ok(Outcome::Refused),
        Err(RebuildError::Failed(error)) => Err(format!("rebuild failed: {error:?}")),
        Err(refusal @ RebuildError::Incomplete { .. }) => {
            let text = refusal.to_string();
            let way = format!(
                "`mv {0} {0}.replaced`, then `bursar restore DIR`",
                dir.display()
            );
            if !text.contains(&way) || !text.contains("\n  `") {
                Err(format!("rebuild does not say why or what then: {text}"))
            } else if snapshot(dir) != before {
                Err("rebuild refused and changed something".to_owned())
            } else {
                Ok(Outcome::Refused)
            }
        }
    }
}

/// Every file and its content.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), fs::read(dir.join(path)).unwrap());
    files(dir).into_iter().map(read).collect()
}

fn judge_refusal(dir: &Path, refusal: &OpenError) -> Result<(), String> {
    let text = refusal.to_string();
    let says = |part: &str| text.contains(part);
    if !says(dir.to_str().unwrap()) {
        return Err(format!("names no file: {text}"));
    }
    match refusal {
        OpenError::Newer { .. } => return Ok(()),
        OpenError::Locked(_) | OpenError::Io { .. } => {
            return Err(format!("refused for another reason: {refusal:?}"));
        }
        OpenError::Damaged(_) => {}
    }
    if !says("`bursar store verify`")
        || !(says("`bursar store rebuild`") || says("`bursar restore DIR`"))
    {
        return Err(format!("names no command: {text}"));
    }
    match verify(dir) {
        Ok(report) if report.damage.is_empty() => Err(format!("verified as whole: {text}")),
        Ok(_) | Err(_) if open(dir).is_ok() => Err(format!("refused once, then opened: {text}")),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn originals() -> [Original; 4] {
    use std::time::Duration;
    [
        closed("closed", 3, 30).await,
        closed("closed young", 1, 10).await,
        killed("killed", 70, Duration::ZERO).await,
        // sled writes by itself every half second.
        killed("killed later", 15, Duration::from_millis(800)).await,
    ]
}

/// One fault in one file of a copy.
struct Case<'a> {
    original: &'a Original,
    file: PathBuf,
    fault: &'static str,
    bytes: Option<Vec<u8>>,
}

/// Every fault in every file. In a small file many faults come to the same; one of them is enough.
fn cases(originals: &[Original]) -> Vec<Case<'_>> {
    let mut cases = Vec::new();
    for original in originals {
        for file in files(original.dir.path()) {
            let whole = fs::read(original.dir.path().join(&file)).unwrap();
            let mut seen = Vec::new();
            for (fault, inject) in FAULTS {
                let bytes = inject(whole.clone());
                if !seen.contains(&bytes) {
                    seen.push(bytes.clone());
                    let file = file.clone();
                    cases.push(Case {
                        original,
                        file,
                        fault,
                        bytes,
                    });
                }
            }
        }
    }
    cases
}

fn try_case(case: &Case<'_>) -> Result<Outcome, String> {
    let dir = tempfile::tempdir().unwrap();
    copy(case.original.dir.path(), dir.path());
    let path = dir.path().join(&case.file);
    match &case.bytes {
        Some(bytes) => fs::write(&path, bytes).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .unwrap()
        .block_on(judge(dir.path(), &case.original.records))
}

#[tokio::test]
async fn every_fault_in_every_file_leaves_the_store_whole_or_refused() {
    let originals = originals().await;
    let waiting = Mutex::new(cases(&originals));
    let outcomes = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(case) = waiting.lock().unwrap().pop() else {
                        return;
                    };
                    let outcome = try_case(&case);
                    let Case {
                        original,
                        file,
                        fault,
                        ..
                    } = case;
                    let name = format!("{}: {} {fault}", original.name, file.display());
                    outcomes.lock().unwrap().insert(name, outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let mut wrong = Vec::new();
    for (case, outcome) in &outcomes {
        println!("{outcome:?}\t{case}");
        let right = match outcome {
            Ok(Outcome::Whole) => true,
            Ok(Outcome::Rebuilt | Outcome::Refused) => !case.ends_with("untouched"),
            Err(_) => false,
        };
        if !right {
            wrong.push((case, outcome));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Neither everything is refused, nor does the damage go by unnoticed.
    for expected in [Outcome::Whole, Outcome::Rebuilt, Outcome::Refused] {
        let found = outcomes.values().filter(|found| **found == Ok(expected));
        let count = found.count();
        println!("{expected:?}: {count}");
        assert!(count > 10, "{expected:?}");
    }
}

/// What is done to a copy of `closed`, given the folder and one of another store.
type Mishap = (&'static str, Outcome, fn(&Path, &Path));

fn replace(dir: &Path, other: &Path, name: &str) {
    fs::remove_dir_all(dir.join(name)).unwrap();
    copy(&other.join(name), &dir.join(name));
}

const MISHAPS: [Mishap; 10] = [
    ("nothing", Outcome::Whole, |_, _| {}),
    ("index gone", Outcome::Refused, |dir, _| {
        fs::remove_dir_all(dir.join("index")).unwrap();
    }),
    ("journal gone", Outcome::Rebuilt, |dir, _| {
        fs::remove_dir_all(dir.join("journal")).unwrap();
    }),
    ("manifest gone", Outcome::Rebuilt, |dir, _| {
        fs::remove_file(dir.join("manifest.0")).unwrap();
        fs::remove_file(dir.join("manifest.1")).unwrap();
    }),
    ("everything but blobs gone", Outcome::Refused, |dir, _| {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            } else if !path.ends_with("blobs") {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }),
    ("index of another store", Outcome::Refused, |dir, other| {
        replace(dir, other, "index");
    }),
    (
        "journal of another store",
        Outcome::Rebuilt,
        |dir, other| {
            replace(dir, other, "journal");
        },
    ),
    ("first segment gone", Outcome::Whole, |dir, _| {
        // It ends before the last checkpoint, and the index has all of it.
        let segments = files(&dir.join("journal"));
        fs::remove_file(dir.join("journal").join(&segments[0])).unwrap();
    }),
    ("snapshot interrupted", Outcome::Whole, |dir, _| {
        let snapshot = dir.join("index").join("snap.0000000000000AB7.generating");
        fs::write(snapshot, "half of it").unwrap();
    }),
    ("segment half written", Outcome::Whole, |dir, _| {
        let segment = dir.join("journal").join("00000000000000009999.journal.new");
        fs::write(segment, "BURS").unwrap();
    }),
];

#[tokio::test]
async fn mishaps_with_whole_folders_end_as_they_must() {
    let original = closed("closed", 3, 30).await;
    let other = closed("other", 2, 25).await;
    for (mishap, expected, happen) in MISHAPS {
        let dir = tempfile::tempdir().unwrap();
        copy(original.dir.path(), dir.path());
        happen(dir.path(), other.dir.path());
        let outcome = judge(dir.path(), &original.records).await;
        assert_eq!(outcome, Ok(expected), "{mishap}");
    }
}

/// An index that fell behind is brought up to date as long as the journal reaches back to it.
#[tokio::test]
async fn an_older_index_is_brought_up_to_date_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = Records::new();
    let mut older = Vec::new();
    for round in 0..6 {
        let store = open(dir.path()).unwrap();
        fill(&store, &mut records, 15).await;
        store.close().await.unwrap();
        let copied = tempfile::tempdir().unwrap();
        copy(&dir.path().join("index"), &copied.path().join("index"));
        older.push((round, copied));
    }
    let mut outcomes = Vec::new();
    for (round, index) in &older {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        replace(copied.path(), index.path(), "index");
        let outcome = judge(copied.path(), &records).await;
        outcomes.push(outcome.unwrap_or_else(|wrong| panic!("round {round}: {wrong}")));
    }
    assert_eq!(outcomes.first(), Some(&Outcome::Refused));
    assert_eq!(outcomes[4..], [Outcome::Whole, Outcome::Whole]);
}
