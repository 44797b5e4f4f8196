//! A whole copy of the store, made while it runs: `bursar backup DIR`.
//!
//! The copy is a store's folder like any other, with an empty guard journal. Nobody waits for it:
//! commits go on while it is made. Bringing it back is `restore`'s work.
//!
//! # Design
//! The records are read while they change, so what was read is no state the store ever had. But
//! every change made meanwhile is in the guard journal, and so is what was durable at the beginning
//! and not yet in the index: with the groups after the index's mark at the beginning applied, in
//! order, up to the last durable group at the end, every record is as it was at the end. The index
//! may have got a part of the groups after its mark: never one of a group after that last one.
//! Count and sum at the end prove it. Checkpoints drop no segments while a backup is made.
//! The payment journal is copied up to the
//! line that the copy knows as the last. Blobs are copied after that: those that a record names were there before the record.

use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::copy::{Copied, NewStore, copy_blobs};
use super::error::{Damage, OpenError};
use super::guard_journal::GuardJournal;
use super::index::{Index, OpenIndexError, contained, wait_for_release};
use super::journal_format::{Mark, Writes};
use super::layout::Layout;
use super::manifest::Manifest;
use super::open::{find_store, open};
use super::payment_journal::{self, Head};
use super::recovery::replay;
use super::view::View;
use super::{Options, Store};
use crate::telemetry::Telemetry;

/// Memory for the cache of the index that is written.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Why there is no backup. The store is as it was, and what was written of the copy is removed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Name another folder.
    #[error("`{}` is not empty; name a new folder for each backup", .0.display())]
    Occupied(PathBuf),
    /// Name another folder.
    #[error("`{}` is in the store's own folder and would be lost with it; name another", .0.display())]
    Inside(PathBuf),
    /// Wait until the other backup is made.
    #[error("another backup is being made")]
    Busy,
    /// The copy was read back and is not whole, so the store is not, or the disk of the copy.
    #[error("the copy is not whole: `{}`: {finding}; `bursar store verify` says whether the store is, once the daemon is stopped", .file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// The operating system refused, or there is no store to back up.
    #[error(transparent)]
    Failed(OpenError),
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        if let OpenError::Damaged(Damage { file, finding, .. }) = error {
            Self::Damaged { file, finding }
        } else {
            Self::Failed(error)
        }
    }
}

/// Keeps the guard journal's segments while it lives.
#[derive(Debug)]
struct KeptSegments(Arc<AtomicBool>);

impl KeptSegments {
    fn new(keep: &Arc<AtomicBool>) -> Option<Self> {
        let others = keep.swap(true, Ordering::SeqCst);
        (!others).then(|| Self(Arc::clone(keep)))
    }
}

impl Drop for KeptSegments {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Store {
    /// Copies the store to `dir`, which must be empty or missing: everything acknowledged before
    /// the call, and whole groups of what is committed meanwhile. The copy is on disk and was
    /// read back when this returns; commits go on all the time. Must be called inside of a tokio
    /// runtime. If the future is dropped the copy may still be made.
    ///
    /// # Errors
    /// [`BackupError`]; the store itself is untouched by it.
    pub async fn backup(&self, dir: &Path) -> Result<Copied, BackupError> {
        let kept = KeptSegments::new(&self.shared.keep_segments).ok_or(BackupError::Busy)?;
        let (shared, target) = (Arc::clone(&self.shared), dir.to_owned());
        let copying = tokio::task::spawn_blocking(move || {
            let copied = write(&shared.view, shared.blobs.layout(), &target);
            drop(kept);
            copied
        });
        let copied = copying
            .await
            .map_err(|ended| OpenError::io("copy the store to", dir)(ended.into()))??;
        self.shared.telemetry.store_backed_up(dir, copied.sequence);
        Ok(copied)
    }
}

/// Copies the store in `from`, which no process may have open, to `to`. Opens it as a start would.
///
/// # Errors
/// [`BackupError`]; the store itself is untouched by it.
pub fn backup(from: &Path, to: &Path, telemetry: &Telemetry) -> Result<Copied, BackupError> {
    let layout = find_store(from)?;
    let opened = open(from, &Options::default(), telemetry).map_err(BackupError::Failed)?;
    let copied = write(&opened.writer.view, &layout, to)?;
    telemetry.store_backed_up(to, copied.sequence);
    Ok(copied)
}

fn write(store: &View, from: &Layout, to: &Path) -> Result<Copied, BackupError> {
    let resolved = |path: &Path| absolute(path).map_err(OpenError::io("find", path));
    if resolved(to)?.starts_with(resolved(&from.dir)?) {
        return Err(BackupError::Inside(to.to_owned()));
    }
    let copy = NewStore::begin(to)?.ok_or_else(|| BackupError::Occupied(to.to_owned()))?;
    let folder = copy.layout.index();
    let (mark, head) = contained(|| copy_index(store, from, &folder))
        .map_err(|error| OpenError::io("copy the index to", &folder)(into_io(error)))?;
    wait_for_release(&folder).map_err(OpenError::io("close", &folder))?;
    copy_blobs(from, &copy.layout)?;
    payment_journal::copy(from, &copy.layout, &head)
        .map_err(OpenError::io("copy", &from.payment_journal()))?;
    Manifest::create(&copy.layout, &mark)
        .and_then(|()| GuardJournal::create(&copy.layout, &mark))
        .map_err(OpenError::io("write", to))?;
    Ok(copy.finish()?)
}

fn into_io(error: OpenIndexError) -> std::io::Error {
    match error {
        OpenIndexError::Io(error) => error,
        OpenIndexError::Sled(_) | OpenIndexError::Panic(_) | OpenIndexError::Record(_) => {
            std::io::Error::other(error)
        }
    }
}

/// Copies every record, then applies what was committed meanwhile. Gives the mark of the copy, and
/// where the payment journal ends for it.
fn copy_index(from: &View, layout: &Layout, to: &Path) -> Result<(Mark, Head), OpenIndexError> {
    let copy = Index::open(to, CACHE_BYTES)?;
    let begin = from.index.mark()?.unwrap_or_default();
    let mut last = Vec::new();
    loop {
        let read = from.index.records_after(&last)?;
        let Some((key, _)) = read.last() else {
            break;
        };
        last.clone_from(key);
        let writes: Writes = read
            .into_iter()
            .map(|(key, stored)| (key, Some(stored)))
            .collect();
        copy.apply(&writes, &begin)?;
    }
    let end = from.overlay.last();
    let applied = replay(&copy, &layout.segments()?, begin, end.sequence)?;
    if applied != end {
        let missing = "the guard journal lacks what was committed meanwhile";
        return Err(std::io::Error::other(missing).into());
    }
    copy.flush()?;
    let head = match copy.get(&Head::stored_key())? {
        Some(stored) => Head::decode(&stored).map_err(std::io::Error::other)?,
        None => Head::default(),
    };
    Ok((end, head))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::store::{Changes, Order, Range, RestoreError, Table, rebuild, restore, verify};

    const COUNTERS: Table<(u64, u64), u64> = Table::new("counter/", 1);
    const TASKS: u64 = 8;

    fn options() -> Options {
        Options {
            segment_bytes: 20_000,
            ..Options::default()
        }
    }

    fn open_store(dir: &Path) -> Store {
        Store::open(dir, &options(), &Telemetry::default()).unwrap()
    }

    /// The `round`th change of a task: one counter in turn is new, changed or removed, and a note
    /// of the round beside it.
    fn change(task: u64, round: u64) -> Changes {
        let mut changes = Changes::new();
        let key = (task, 1 + round % 7);
        if round.is_multiple_of(3) {
            changes.remove(&COUNTERS, &key);
        } else {
            changes.put(&COUNTERS, &key, &round);
        }
        changes.put(&COUNTERS, &(task, 0), &round);
        changes
    }

    /// What a task leaves after so many rounds.
    fn model(task: u64, rounds: u64) -> BTreeMap<(u64, u64), u64> {
        let mut counters = BTreeMap::new();
        for round in 0..=rounds {
            let key = (task, 1 + round % 7);
            if round.is_multiple_of(3) {
                counters.remove(&key);
            } else {
                counters.insert(key, round);
            }
            counters.insert((task, 0), round);
        }
        counters
    }

    fn contents(store: &Store) -> BTreeMap<(u64, u64), u64> {
        let all = store.scan(&COUNTERS, &Range::all(), usize::MAX, Order::Ascending);
        all.unwrap().into_iter().collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_while_others_commit_is_one_state_with_everything_acknowledged_before() {
        let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open_store(dir.path());
        let mut padding = Changes::new();
        for number in 0..2000 {
            padding.put(&COUNTERS, &(1000, number), &number);
        }
        store.commit(padding).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: Vec<_> = (0..TASKS)
            .map(|_| Arc::new(std::sync::atomic::AtomicU64::new(0)))
            .collect();
        let tasks: Vec<_> = (0..TASKS)
            .zip(&acknowledged)
            .map(|(task, acknowledged)| {
                let (store, stop) = (store.clone(), Arc::clone(&stop));
                let acknowledged = Arc::clone(acknowledged);
                tokio::spawn(async move {
                    for round in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        store.commit(change(task, round)).await.unwrap();
                        acknowledged.store(round, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let mut moved = false;
        for number in 0..4 {
            let before: Vec<_> = acknowledged
                .iter()
                .map(|rounds| rounds.load(Ordering::SeqCst))
                .collect();
            let hash = store.put_blob(vec![number; 50_000]).await.unwrap();
            let begin = store.shared.view.index.mark().unwrap().unwrap_or_default();
            let target = copies.path().join(format!("{number}"));
            let report = store.backup(&target).await.unwrap();
            moved |= report.sequence > begin.sequence;
            assert!(verify(&target).unwrap().damage.is_empty());

            let copy = open_store(&target);
            assert_eq!(copy.get_blob(&hash).unwrap(), vec![number; 50_000]);
            let mut found = contents(&copy);
            found.retain(|(task, _), _| *task < TASKS);
            let mut expected = BTreeMap::new();
            for (task, before) in (0..TASKS).zip(before) {
                let rounds = found.get(&(task, 0)).copied().unwrap_or_default();
                assert!(rounds >= before, "task {task}: {rounds} of {before}");
                expected.extend(model(task, rounds));
            }
            assert_eq!(found, expected);
        }
        stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
        assert!(moved, "nothing was committed while a backup was made");
        let behind = store.shared.keep_segments.load(Ordering::SeqCst);
        assert!(!behind);
        store.close().await.unwrap();
        drop(open_store(dir.path()));
    }

    #[tokio::test]
    async fn a_backup_goes_into_an_empty_folder_outside_of_the_store() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open_store(dir.path());
        fs::write(other.path().join("mine"), "precious").unwrap();
        let occupied = store.backup(other.path()).await;
        assert!(matches!(occupied, Err(BackupError::Occupied(_))));
        assert_eq!(fs::read(other.path().join("mine")).unwrap(), b"precious");
        let inside = store.backup(&dir.path().join("backup")).await;
        assert!(matches!(inside, Err(BackupError::Inside(_))));
        let kept = KeptSegments::new(&store.shared.keep_segments);
        let busy = store.backup(&other.path().join("new")).await;
        assert!(matches!(busy, Err(BackupError::Busy)));
        drop(kept);
        store.backup(&other.path().join("new")).await.unwrap();
    }

    #[tokio::test]
    async fn a_backup_of_a_closed_store_is_the_same() {
        let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let empty = copies.path().join("empty");
        assert!(backup(dir.path(), &empty, &Telemetry::default()).is_err());
        let store = open_store(dir.path());
        store.backup(&empty).await.unwrap();
        for round in 0..100 {
            store.commit(change(1, round)).await.unwrap();
        }
        store.close().await.unwrap();
        let target = copies.path().join("target");
        let report = backup(dir.path(), &target, &Telemetry::default()).unwrap();
        assert_eq!(report.sequence, 100);
        assert_eq!(contents(&open_store(&target)), model(1, 99));
        assert_eq!(contents(&open_store(dir.path())), model(1, 99));
        assert!(contents(&open_store(&empty)).is_empty());
    }

    #[tokio::test]
    async fn a_damaged_blob_fails_the_backup_by_name_and_leaves_nothing_behind() {
        let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open_store(dir.path());
        let hash = store.put_blob(vec![1; 100]).await.unwrap();
        let path = format!("blobs/{}/{hash}", &hash.as_str()[..2]);
        fs::write(dir.path().join(&path), "damaged").unwrap();
        let target = copies.path().join("target");
        let refused = store.backup(&target).await.unwrap_err();
        assert!(refused.to_string().contains(&path), "{refused}");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        store.commit(change(1, 1)).await.unwrap();
    }

    async fn backed_up(rounds: u64) -> (tempfile::TempDir, tempfile::TempDir) {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open_store(dir.path());
        for round in 0..rounds {
            store.commit(change(1, round)).await.unwrap();
        }
        store.put_blob(vec![3; 1000]).await.unwrap();
        store.backup(copy.path()).await.unwrap();
        store.commit(change(1, rounds)).await.unwrap();
        (dir, copy)
    }

    #[tokio::test]
    async fn a_backup_comes_back_as_it_was_and_the_first_start_says_so() {
        let (_dir, copy) = backed_up(50).await;
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("state");
        let telemetry = Telemetry::default();
        for _ in 0..2 {
            let restored = restore(copy.path(), &target, &telemetry).unwrap();
            assert_eq!((restored.sequence, restored.blobs), (50, 1));
            assert!(target.join("restored").exists());
            let store = open_store(&target);
            assert!(!target.join("restored").exists());
            assert_eq!(contents(&store), model(1, 49));
            store.commit(change(1, 50)).await.unwrap();
            store.close().await.unwrap();
            assert_eq!(contents(&open_store(&target)), model(1, 50));
            let refused = restore(copy.path(), &target, &telemetry).unwrap_err();
            let target_text = target.display();
            let way = format!("`mv {target_text} {target_text}.replaced`");
            assert!(refused.to_string().contains(&way), "{refused}");
            fs::rename(&target, parent.path().join("state.replaced")).ok();
            fs::remove_dir_all(parent.path().join("state.replaced")).unwrap();
        }
    }

    #[tokio::test]
    async fn a_backup_that_is_damaged_or_in_use_is_not_restored() {
        let (dir, copy) = backed_up(50).await;
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("state");
        let telemetry = Telemetry::default();
        let store = open_store(copy.path());
        let used = restore(copy.path(), &target, &telemetry).unwrap_err();
        assert!(matches!(used, RestoreError::Failed(OpenError::Locked(_))));
        drop(store);
        let none = restore(&parent.path().join("none"), &target, &telemetry);
        assert!(matches!(
            none,
            Err(RestoreError::Failed(OpenError::Io { .. }))
        ));
        let files = ["high-water", "format", "index/db", "manifest.0"];
        for file in files {
            let path = copy.path().join(file);
            let whole = fs::read(&path).unwrap();
            if file == "manifest.0" {
                fs::remove_file(copy.path().join("manifest.1")).unwrap();
            }
            fs::write(&path, "").unwrap();
            let refused = restore(copy.path(), &target, &telemetry).unwrap_err();
            assert!(matches!(refused, RestoreError::Damaged { .. }), "{refused}");
            let text = refused.to_string();
            assert!(text.contains(copy.path().to_str().unwrap()), "{text}");
            assert!(!target.exists() || fs::read_dir(&target).unwrap().count() == 0);
            fs::write(&path, whole).unwrap();
        }
        drop(dir);
    }

    #[test]
    fn an_interrupted_copy_is_not_taken_for_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let copy = NewStore::begin(dir.path()).unwrap().unwrap();
        std::mem::forget(copy);
        let refused = Store::open(dir.path(), &options(), &Telemetry::default()).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("interrupted") && text.contains("`bursar restore DIR` again"));
        assert!(rebuild(dir.path(), &Telemetry::default()).is_err());
        assert!(restore(dir.path(), &dir.path().join("x"), &Telemetry::default()).is_err());
    }
}
