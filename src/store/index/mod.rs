//! The index: the only code that uses sled.
//!
//! It knows bytes, and which tables grow at their end (`in_order`, `chunk`), and promises nothing about durability: that is the guard
//! journal's. The mark of the last group comes with, or after, everything of the groups up to it,
//! so what sled recovers after a crash is the state after some group, and perhaps a part of the
//! groups after that one.
//!
//! # Design
//! sled 0.34.7 panics on about a third of all damaged files while it opens them, and opens others
//! silently with records missing. The panics are caught here and become errors; nothing of a
//! panicked index is used afterwards. The missing records are noticed by recovery, which counts.
//! A `flush` of sled is no fsync, so a checkpoint syncs sled's file through a handle of ours.

use std::any::Any;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod chunk;
mod in_order;

use self::in_order::{Cuts, InOrder};
use super::error::IndexError;
use super::journal_format::{Mark, Writes};
use super::layout::{entries, sync_folder};
use super::scan::{Order, Span};

/// Where the mark is kept. Starts with no letter, so it is in no table.
const MARK_KEY: &[u8] = b"!hw";
/// The first byte of a key that can be in a table.
const FIRST_TABLE: u8 = b'a';
/// Bytes of a segment of sled's. A page that is larger than a quarter of it goes to a file of its
/// own, which sled never syncs; with our limit on a record, no page comes near that.
const SEGMENT: usize = 4 * 1024 * 1024;
/// How often, and after which pause, it is tried whether sled has let go of its file.
const RELEASE_TRIES: usize = 200;
const RELEASE_PAUSE: Duration = Duration::from_millis(10);
/// After so many rows the thread of the index lets others have the processor: it is never in a hurry,
/// and the writer, for which everybody waits, would else get it only when its share is used up.
const ROWS_A_TURN: usize = 8;
/// How many records a visiting thread takes for itself at a time.
const VISITED_AT_ONCE: usize = 512;

/// A stored key and its stored bytes.
pub(super) type Stored = (Vec<u8>, Vec<u8>);

/// The open index. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Index {
    tree: sled::Db,
    cuts: Arc<Cuts>,
    file: Arc<File>,
    folder: PathBuf,
    /// Whether nothing can be applied any more, as on a failing disk.
    #[cfg(test)]
    pub(super) fails: Arc<std::sync::atomic::AtomicBool>,
}

/// Why the index cannot be opened or read as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenIndexError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// sled found its files damaged.
    #[error("sled cannot read it: {0}")]
    Sled(sled::Error),
    /// sled did not expect such files.
    #[error("sled panicked: {0}")]
    Panic(String),
    /// A record's checksum does not hold, under this key.
    #[error("the record `{0}` is not what was written")]
    Record(String),
}

impl From<IndexError> for OpenIndexError {
    fn from(IndexError(error): IndexError) -> Self {
        error.into()
    }
}

impl From<sled::Error> for OpenIndexError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull
                        | io::ErrorKind::QuotaExceeded
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::OutOfMemory
                ) =>
            {
                Self::Io(error)
            }
            sled::Error::Io(_)
            | sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self::Sled(error),
        }
    }
}

impl Index {
    /// Opens the index, or makes an empty one if there is none.
    pub(super) fn open(folder: &Path, cache_bytes: u64) -> Result<Self, OpenIndexError> {
        remove_unfinished_snapshots(folder)?;
        wait_for_release(folder)?;
        contained(|| {
            let tree = sled::Config::new()
                .path(folder)
                .cache_capacity(cache_bytes)
                .segment_size(SEGMENT)
                .open()?;
            let file = Arc::new(File::open(folder.join("db"))?);
            sync_folder(folder)?;
            folder.parent().map_or(Ok(()), sync_folder)?;
            Ok(Self {
                tree,
                cuts: Arc::default(),
                file,
                folder: folder.to_owned(),
                #[cfg(test)]
                fails: Arc::default(),
            })
        })
    }

    /// The stored bytes under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        if let Some(table) = in_order::table(key) {
            return in_order::get(&self.tree, table, key);
        }
        Ok(self.tree.get(key)?.map(|stored| stored.to_vec()))
    }

    /// Up to `limit` keys of a span, with their stored bytes.
    pub(super) fn scan(
        &self,
        span: &Span,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Stored>, IndexError> {
        if span.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(table) = in_order::table(span.start()) {
            return in_order::scan(&self.tree, &self.cuts, table, span, order, limit);
        }
        let range = self.tree.range::<&[u8], _>(span.bounds());
        let pairs: Box<dyn Iterator<Item = _>> = match order {
            Order::Ascending => Box::new(range),
            Order::Descending => Box::new(range.rev()),
        };
        pairs
            .take(limit)
            .map(|pair| {
                let (key, stored) = pair?;
                Ok((key.to_vec(), stored.to_vec()))
            })
            .collect()
    }

    /// Applies a group and its mark; see [`Index::apply_many`].
    pub(super) fn apply(&self, writes: &Writes, mark: &Mark) -> Result<(), IndexError> {
        let writes = writes.iter();
        self.apply_many(
            writes.map(|(key, value)| (key.as_slice(), value.as_deref())),
            mark,
        )
    }

    /// Applies the writes of one group or many, and the mark of the last one. Not durable by itself.
    ///
    /// The mark comes last, and what sled recovers ends somewhere in what it was given, in order. So
    /// a crash in between leaves the mark before and a part of the writes, all of them of groups
    /// that the journal has and that are replayed, in order, from that mark on.
    ///
    /// # Design
    /// One by one, because each of sled's batches makes it write its buffer to the file twice and
    /// wait for the disk each time, and because once there was a batch, all reads take a lock.
    pub(super) fn apply_many<'a>(
        &self,
        writes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        mark: &Mark,
    ) -> Result<(), IndexError> {
        #[cfg(test)]
        if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(sled::Error::Unsupported("as a test".into()).into());
        }
        let mut in_order = InOrder::new(&self.tree, &self.cuts);
        for (place, (key, value)) in writes.enumerate() {
            if place % ROWS_A_TURN == 0 {
                std::thread::yield_now();
            }
            match (in_order::table(key), value) {
                (Some(table), value) => in_order.write(table, key, value)?,
                (None, Some(stored)) => drop(self.tree.insert(key, stored)?),
                (None, None) => drop(self.tree.remove(key)?),
            }
        }
        in_order.close()?;
        self.tree.insert(MARK_KEY, encoded(mark))?;
        Ok(())
    }

    /// Makes everything applied durable.
    pub(super) fn flush(&self) -> Result<(), IndexError> {
        self.tree.flush()?;
        self.file
            .sync_data()
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|error| sled::Error::Io(error).into())
    }

    /// The mark of the last group that is in the index; `None` if there is none.
    pub(super) fn mark(&self) -> Result<Option<Mark>, OpenIndexError> {
        contained(|| {
            let Some(bytes) = self.tree.get(MARK_KEY)? else {
                return Ok(None);
            };
            let mark = Mark::decode(&mut &*bytes);
            mark.map(Some)
                .ok_or_else(|| OpenIndexError::Record(MARK_KEY.escape_ascii().to_string()))
        })
    }

    /// The next records after a key, a bounded number of them, in the order of their keys. To go on, take
    /// the last one of these.
    pub(super) fn records_after(&self, after: &[u8]) -> Result<Vec<Stored>, IndexError> {
        let low = if after.is_empty() {
            Bound::Included([FIRST_TABLE].as_slice())
        } else {
            Bound::Excluded(after)
        };
        let read = self.tree.range::<&[u8], _>((low, Bound::Unbounded));
        let mut records = Vec::new();
        for pair in read.take(VISITED_AT_ONCE) {
            let (key, stored) = pair?;
            match in_order::table(&key) {
                Some(_) => {
                    // A chunk that was cut meanwhile may begin with what was read before.
                    let last = records.last().map(|(last, _): &Stored| last.clone());
                    let rows = in_order::rows(&key, &stored)?.into_iter();
                    records.extend(rows.filter(|(key, _)| Some(key) > last.as_ref()));
                }
                None => records.push((key.to_vec(), stored.to_vec())),
            }
        }
        Ok(records)
    }

    /// Gives every record to a visitor, once, on two threads with a result each.
    ///
    /// The threads read from both ends until they meet, because nothing is known about how the
    /// keys are spread: half of the keys is not half of the key space.
    pub(super) fn visit<T: Default + Send>(
        &self,
        visitor: impl Fn(&mut T, &[u8], &[u8]) -> Result<(), OpenIndexError> + Sync,
    ) -> Result<[T; 2], OpenIndexError> {
        let frontiers = Mutex::new(Frontiers::default());
        let worker = |order| {
            contained(|| {
                let mut result = T::default();
                self.visit_from(order, &frontiers, |key, stored| {
                    visitor(&mut result, key, stored)
                })?;
                Ok(result)
            })
        };
        let (low, high) = std::thread::scope(|scope| {
            let low = scope.spawn(|| worker(Order::Ascending));
            let high = worker(Order::Descending);
            (low.join(), high)
        });
        let low = low.unwrap_or_else(|payload| Err(OpenIndexError::Panic(message(&*payload))));
        Ok([low?, high?])
    }

    fn visit_from(
        &self,
        order: Order,
        frontiers: &Mutex<Frontiers>,
        mut visitor: impl FnMut(&[u8], &[u8]) -> Result<(), OpenIndexError>,
    ) -> Result<(), OpenIndexError> {
        let range = self.tree.range([FIRST_TABLE]..);
        let mut pairs: Box<dyn Iterator<Item = _>> = match order {
            Order::Ascending => Box::new(range),
            Order::Descending => Box::new(range.rev()),
        };
        loop {
            let read: Result<Vec<_>, _> = pairs.by_ref().take(VISITED_AT_ONCE).collect();
            let mut read = read?;
            let full = read.len() == VISITED_AT_ONCE;
            let met = {
                let mut frontiers = frontiers.lock().unwrap_or_else(PoisonError::into_inner);
                !frontiers.claim(order, &mut read)
            };
            for (key, stored) in &read {
                if in_order::table(key).is_none() {
                    visitor(key, stored)?;
                    continue;
                }
                for (key, stored) in in_order::rows(key, stored)? {
                    visitor(&key, &stored)?;
                }
            }
            if met || !full {
                return Ok(());
            }
        }
    }
}

/// How far the two visiting threads have come: the last key that each took for itself.
#[derive(Debug, Default)]
struct Frontiers {
    low: Option<sled::IVec>,
    high: Option<sled::IVec>,
}

impl Frontiers {
    /// Takes the keys that the other thread has not taken; false if it has taken some.
    fn claim(&mut self, order: Order, read: &mut Vec<(sled::IVec, sled::IVec)>) -> bool {
        let (own, other) = match order {
            Order::Ascending => (&mut self.low, &self.high),
            Order::Descending => (&mut self.high, &self.low),
        };
        let before = read.len();
        if let Some(other) = other {
            read.retain(|(key, _)| match order {
                Order::Ascending => key < other,
                Order::Descending => key > other,
            });
        }
        if let Some((last, _)) = read.last() {
            *own = Some(last.clone());
        }
        read.len() == before
    }
}

/// Waits until threads of sled's that have not ended yet let go of the file. They outlive an index
/// that was dropped in this process by some milliseconds; other processes are kept out by the
/// store's own lock.
pub(super) fn wait_for_release(folder: &Path) -> io::Result<()> {
    let file = folder.join("db");
    if !file.exists() {
        return Ok(());
    }
    let probe = File::open(&file)?;
    for _ in 0..RELEASE_TRIES {
        match probe.try_lock() {
            Ok(()) => return probe.unlock(),
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(RELEASE_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "sled has not let go of it since it was last open",
    ))
}

/// Removes what an interrupted snapshot leaves behind, which would make every later open fail.
/// The snapshot before it is removed only after the new one has its name, so nothing is lost.
fn remove_unfinished_snapshots(folder: &Path) -> io::Result<()> {
    for path in entries(folder)? {
        let unfinished = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating"));
        if unfinished {
            fs::remove_file(&path)?;
            sync_folder(folder)?;
        }
    }
    Ok(())
}

/// Runs something in sled that may panic on damaged files. Whatever panicked is not used again.
pub(super) fn contained<T>(
    attempt: impl FnOnce() -> Result<T, OpenIndexError>,
) -> Result<T, OpenIndexError> {
    catch_unwind(AssertUnwindSafe(attempt))
        .unwrap_or_else(|payload| Err(OpenIndexError::Panic(message(&*payload))))
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        })
        .unwrap_or_else(|| "without a message".to_owned())
}

fn encoded(mark: &Mark) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(Mark::LENGTH);
    mark.encode(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn filled(dir: &Path, records: usize, size: usize) -> Index {
        let index = Index::open(dir, 1024 * 1024).unwrap();
        for at in 0..records {
            let write = (format!("t{at:05}").into_bytes(), Some(vec![7; size]));
            index
                .apply(&Writes::from([write]), &Mark::default())
                .unwrap();
        }
        index
    }

    #[test]
    fn a_visit_sees_every_record_once_whoever_comes_to_it() {
        for records in [0, 1, 2, 511, 512, 513, 1024, 3000] {
            let dir = tempfile::tempdir().unwrap();
            let index = filled(dir.path(), records, 1);
            let visited = index
                .visit(|seen: &mut Vec<Vec<u8>>, key, _| {
                    seen.push(key.to_vec());
                    Ok(())
                })
                .unwrap()
                .concat();
            assert_eq!(visited.len(), records);
            assert_eq!(visited.iter().collect::<BTreeSet<_>>().len(), records);
        }
    }

    #[test]
    fn records_in_chunks_are_visited_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), 1024 * 1024).unwrap();
        let key = |at: u32| [b"run/\0".as_slice(), &at.to_be_bytes()].concat();
        for first in (0..3000).step_by(100) {
            let writes = (first..first + 100).map(|at| (key(at), Some(vec![7; 9])));
            index.apply(&writes.collect(), &Mark::default()).unwrap();
        }
        let removed = (0..3000).step_by(7).map(|at| (key(at), None));
        index.apply(&removed.collect(), &Mark::default()).unwrap();
        let expected: BTreeSet<_> = (0..3000).filter(|at| at % 7 != 0).map(key).collect();
        let visited = index.visit(|seen: &mut Vec<Vec<u8>>, key, stored| {
            assert_eq!(stored, [7; 9]);
            seen.push(key.to_vec());
            Ok(())
        });
        let visited = visited.unwrap().concat();
        assert_eq!(visited.len(), expected.len());
        assert_eq!(visited.into_iter().collect::<BTreeSet<_>>(), expected);
        let (mut read, mut after) = (Vec::new(), Vec::new());
        loop {
            let next = index.records_after(&after).unwrap();
            let Some((last, _)) = next.last() else { break };
            after.clone_from(last);
            read.extend(next.into_iter().map(|(key, _)| key));
        }
        assert_eq!(read, Vec::from_iter(expected));
        let chunks = index.tree.len();
        assert!(
            chunks < 2000,
            "{chunks} rows of sled's for {} records",
            read.len()
        );
    }

    #[test]
    fn a_damaged_chunk_is_named_and_nothing_is_read_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path(), 3, 1);
        index.tree.insert(b"run/\0x", &[0xff, 0xff, 0, 5]).unwrap();
        let said = |error: IndexError| error.0.to_string();
        let expected = r"IO error: the records from `run/\x00x` on are damaged";
        assert_eq!(said(index.get(b"run/\0y").unwrap_err()), expected);
        let span = Span::of(b"run/\0".to_vec());
        let scanned = index.scan(&span, Order::Ascending, 1);
        assert_eq!(said(scanned.unwrap_err()), expected);
        assert_eq!(said(index.records_after(&[]).unwrap_err()), expected);
        let write = Writes::from([(b"run/\0y".to_vec(), Some(vec![1]))]);
        let written = index.apply(&write, &Mark::default());
        assert_eq!(said(written.unwrap_err()), expected);
        let visited = index.visit(|(): &mut (), _, _| Ok(()));
        let text = visited.unwrap_err().to_string();
        assert_eq!(text, format!("sled cannot read it: {expected}"));
        assert!(index.get(b"t00000").unwrap().is_some());
    }

    #[test]
    fn readers_miss_nothing_while_chunks_are_cut_and_filled() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), 1024 * 1024).unwrap();
        let key = |at: u32| [b"step/\0".as_slice(), &at.to_be_bytes()].concat();
        let write = |at: u32, size: usize| (key(at), Some(vec![1; size]));
        let lasting: Vec<u32> = (0..60).map(|at| at * 10).collect();
        let writes = lasting.iter().map(|at| write(*at, 4));
        index.apply(&writes.collect(), &Mark::default()).unwrap();
        let span = Span::of(b"step/\0".to_vec());
        std::thread::scope(|scope| {
            let changing = scope.spawn(|| {
                for round in 0..600_u32 {
                    let at = round * 37 % 600;
                    let size = usize::try_from(round % 3 * 30 + 4).unwrap();
                    let other = at / 10 * 10 + 1 + round % 9;
                    let between = (key(other), (round % 2 == 0).then(|| vec![1; 8]));
                    let writes = Writes::from([write(at / 10 * 10, size), between]);
                    index.apply(&writes, &Mark::default()).unwrap();
                }
            });
            while !changing.is_finished() {
                for order in [Order::Ascending, Order::Descending] {
                    let mut found = index.scan(&span, order, usize::MAX).unwrap();
                    if order == Order::Descending {
                        found.reverse();
                    }
                    assert!(found.is_sorted_by(|(left, _), (right, _)| left < right));
                    let keys: BTreeSet<_> = found.into_iter().map(|(key, _)| key).collect();
                    assert!(lasting.iter().all(|at| keys.contains(&key(*at))));
                }
                for at in &lasting {
                    assert!(index.get(&key(*at)).unwrap().is_some());
                }
            }
        });
    }

    #[test]
    fn the_largest_records_do_not_make_sled_use_files_it_does_not_sync() {
        let dir = tempfile::tempdir().unwrap();
        let index = filled(dir.path(), 200, crate::store::MAX_RECORD_BYTES);
        index.flush().unwrap();
        assert_eq!(entries(&dir.path().join("blobs")).unwrap().len(), 0);
    }

    #[test]
    fn an_interrupted_snapshot_does_not_keep_the_index_from_opening() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), 10, 1));
        let leftover = dir.path().join("snap.0000000000000AB7.generating");
        fs::write(&leftover, "half a snapshot").unwrap();
        let index = Index::open(dir.path(), 1024 * 1024).unwrap();
        assert!(!leftover.exists());
        assert!(index.get(b"t00009").unwrap().is_some());
    }
}
