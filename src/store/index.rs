//! The index: the only code that uses sled.
//!
//! It knows bytes, not tables, and promises nothing about durability: that is the guard
//! journal's. Every group is applied in one batch together with its mark, so what sled recovers
//! after a crash is the state after some group.
//!
//! # Design
//! sled 0.34.7 panics on about a third of all damaged files while it opens them, and opens others
//! silently with records missing. The panics are caught here and become errors; nothing of a
//! panicked index is used afterwards. The missing records are noticed by recovery, which counts.
//! A `flush` of sled is no fsync, so a checkpoint syncs sled's file through a handle of ours.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use super::error::IndexError;
use super::journal_format::{Mark, Writes};
use super::layout::{entries, sync_folder};
use super::scan::Order;

/// Where the mark is kept. Starts with no letter, so it is in no table.
const MARK_KEY: &[u8] = b"!hw";
/// The first byte of a key that can be in a table.
const FIRST_TABLE: u8 = b'a';

/// A stored key and its stored bytes.
pub(super) type Stored = (Vec<u8>, Vec<u8>);

/// The open index. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Index {
    tree: sled::Db,
    file: Arc<File>,
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
}

impl From<sled::Error> for OpenIndexError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if error.kind() != io::ErrorKind::Other => Self::Io(error),
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
        contained(|| {
            let tree = sled::Config::new()
                .path(folder)
                .cache_capacity(cache_bytes)
                .open()?;
            let file = Arc::new(File::open(folder.join("db"))?);
            Ok(Self { tree, file })
        })
    }

    /// The stored bytes under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.tree.get(key)?.map(|stored| stored.to_vec()))
    }

    /// Up to `limit` keys that start with `prefix`, with their stored bytes.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Stored>, IndexError> {
        let end = successor(prefix);
        let mut low = Bound::Included(prefix);
        let mut high = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        // A position outside of the range must not widen it, nor make it end before it begins.
        match (after, order) {
            (Some(after), Order::Ascending) if after >= prefix => low = Bound::Excluded(after),
            (Some(after), Order::Descending) if after < prefix => return Ok(Vec::new()),
            (Some(after), Order::Descending) if end.as_deref().is_none_or(|end| after < end) => {
                high = Bound::Excluded(after);
            }
            (Some(_) | None, Order::Ascending | Order::Descending) => {}
        }
        if let (Bound::Excluded(low), Bound::Excluded(high)) = (low, high)
            && low >= high
        {
            return Ok(Vec::new());
        }
        let range = self.tree.range::<&[u8], _>((low, high));
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

    /// Applies a group and its mark, all or nothing. Not durable by itself.
    pub(super) fn apply(&self, writes: &Writes, mark: &Mark) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(stored) => batch.insert(key.as_slice(), stored.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        let mut bytes = Vec::with_capacity(Mark::LENGTH);
        mark.encode(&mut bytes);
        batch.insert(MARK_KEY, bytes);
        Ok(self.tree.apply_batch(batch)?)
    }

    /// Makes everything applied durable.
    pub(super) fn flush(&self) -> Result<(), IndexError> {
        self.tree.flush()?;
        Ok(self.file.sync_data().map_err(sled::Error::Io)?)
    }

    /// The mark of the last group that is in the index; `None` if there is none.
    pub(super) fn mark(&self) -> Result<Option<Mark>, OpenIndexError> {
        contained(|| {
            let Some(bytes) = self.tree.get(MARK_KEY)? else {
                return Ok(None);
            };
            let mark = Mark::decode(&mut &*bytes);
            mark.map(Some)
                .ok_or_else(|| OpenIndexError::Panic("the mark of the last group is cut".into()))
        })
    }

    /// Visits every key outside of `!hw` with its stored bytes, until the visitor fails.
    pub(super) fn visit<E: From<OpenIndexError>>(
        &self,
        mut visitor: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut result = Ok(());
        contained(|| {
            for pair in self.tree.range([FIRST_TABLE]..) {
                let (key, stored) = pair?;
                result = visitor(&key, &stored);
                if result.is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        result
    }
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
fn contained<T>(attempt: impl FnOnce() -> Result<T, OpenIndexError>) -> Result<T, OpenIndexError> {
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

/// The smallest bytes that are greater than everything that starts with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}
