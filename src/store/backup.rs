//! A whole copy of the store, made while it runs: `bursar backup DIR`.
//!
//! The copy is a store's folder like any other, with an empty guard journal. Nobody waits for it:
//! commits go on while it is made. Bringing it back is `restore`'s work.
//!
//! # Design
//! The records are read while they change, so what was read is no state the store ever had. But
//! every change made meanwhile is in the guard journal: with the groups after the mark at the
//! beginning applied, in order, up to the mark at the end, every record is as it was at the end.
//! Count and sum at that mark prove it. Checkpoints drop no segments while a backup is made.
//! Blobs are copied after that: those that a record names were there before the record.

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
use super::recovery::replay;
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
            let copied = write(&shared.index, shared.blobs.layout(), &target);
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
    let copied = write(&opened.writer.index, &layout, to)?;
    telemetry.store_backed_up(to, copied.sequence);
    Ok(copied)
}

fn write(index: &Index, from: &Layout, to: &Path) -> Result<Copied, BackupError> {
    let resolved = |path: &Path| absolute(path).map_err(OpenError::io("find", path));
    if resolved(to)?.starts_with(resolved(&from.dir)?) {
        return Err(BackupError::Inside(to.to_owned()));
    }
    let copy = NewStore::begin(to)?.ok_or_else(|| BackupError::Occupied(to.to_owned()))?;
    let folder = copy.layout.index();
    let mark = contained(|| copy_index(index, from, &folder))
        .map_err(|error| OpenError::io("copy the index to", &folder)(into_io(error)))?;
    wait_for_release(&folder).map_err(OpenError::io("close", &folder))?;
    copy_blobs(from, &copy.layout)?;
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

/// Copies every record, then applies what was committed meanwhile. Gives the mark of the copy.
fn copy_index(from: &Index, layout: &Layout, to: &Path) -> Result<Mark, OpenIndexError> {
    let copy = Index::open(to, CACHE_BYTES)?;
    let begin = from.mark()?.unwrap_or_default();
    let mut last = Vec::new();
    loop {
        let read = from.records_after(&last)?;
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
    let end = from.mark()?.unwrap_or_default();
    let applied = replay(&copy, &layout.segments()?, begin, end.sequence)?;
    if applied != end {
        let missing = "the guard journal lacks what was committed meanwhile";
        return Err(std::io::Error::other(missing).into());
    }
    copy.flush()?;
    Ok(end)
}
