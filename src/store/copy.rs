//! A new store's folder while a backup or a restore writes it.
//!
//! The folder says that it is unfinished until everything in it is on disk and was read back; a
//! folder that says so is not taken for a store by anybody. What was written is removed again when
//! the copy fails, so that a full disk gets its room back. Nothing else is ever removed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Options;
use super::error::OpenError;
use super::index::wait_for_release;
use super::layout::{Layout, create_folder, entries, sync_folder, unfinished, write_file};
use super::open::{create_dir, write_format};
use super::recovery::examine;
use super::verify::verify_blobs;

/// A store that is being written.
#[derive(Debug)]
pub(super) struct NewStore {
    pub(super) layout: Layout,
    finished: bool,
}

/// What is in a finished copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The last group of commits in it.
    pub sequence: u64,
    /// Records in its index.
    pub records: u64,
    /// Blobs beside it.
    pub blobs: u64,
}

impl NewStore {
    /// Begins a copy in `dir`, made if it is missing; `None` if there is something in it.
    pub(super) fn begin(dir: &Path) -> Result<Option<Self>, OpenError> {
        create_dir(dir)?;
        let found = entries(dir).map_err(OpenError::io("list", dir))?;
        if !found.is_empty() {
            return Ok(None);
        }
        let copy = Self {
            layout: Layout::new(dir),
            finished: false,
        };
        let path = copy.layout.unfinished_copy();
        let text = b"A backup or restore is writing this folder. It is not a store yet.\n";
        write_file(&path, text, &unfinished(&path)).map_err(OpenError::io("write", &path))?;
        Ok(Some(copy))
    }

    /// Makes the copy a store: everything is on disk and was read back when this returns.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] if what was read back is not what it must be.
    pub(super) fn finish(mut self) -> Result<Copied, OpenError> {
        let dir = self.layout.dir.clone();
        let sync = || sync_tree(&dir).map_err(OpenError::io("sync", &dir));
        sync()?;
        let copied = self.read_back()?;
        // Opening the index may have written to it.
        let index = self.layout.index();
        wait_for_release(&index).map_err(OpenError::io("close", &index))?;
        sync()?;
        write_format(&self.layout).map_err(OpenError::io("write", &self.layout.format()))?;
        let note = self.layout.unfinished_copy();
        fs::remove_file(&note)
            .and_then(|()| sync_folder(&dir))
            .map_err(OpenError::io("remove", &note))?;
        self.finished = true;
        Ok(copied)
    }

    fn read_back(&self) -> Result<Copied, OpenError> {
        let examination = examine(&self.layout, Options::default().cache_bytes)?;
        let blobs =
            verify_blobs(&self.layout).map_err(OpenError::io("read", &self.layout.blobs()))?;
        let mut damage = examination.damage.iter().chain(&blobs.damage);
        match damage.next() {
            Some(damage) => Err(damage.clone().into()),
            None => Ok(Copied {
                sequence: examination.journal.end.sequence,
                records: examination.records,
                blobs: blobs.whole,
            }),
        }
    }

    /// Removes what was written. The note goes last, so that what cannot be removed is no store.
    fn remove(&self) -> io::Result<()> {
        let layout = &self.layout;
        let folders = [layout.index(), layout.blobs(), layout.journal()];
        for folder in folders.into_iter().chain([layout.payment_journal()]) {
            remove_folder(&folder)?;
        }
        let (first, second) = (layout.manifest(0), layout.manifest(1));
        let rest = [layout.high_water(), layout.restored(), layout.format()];
        for file in [first, second].into_iter().chain(rest) {
            remove_file(&unfinished(&file))?;
            remove_file(&file)?;
        }
        remove_file(&unfinished(&layout.unfinished_copy()))?;
        remove_file(&layout.unfinished_copy())
    }
}

impl Drop for NewStore {
    fn drop(&mut self) {
        if !self.finished {
            // The error that led here is told; a folder that stays says that it is unfinished.
            drop(self.remove());
        }
    }
}

/// Copies all blobs of a store. Not durable by itself.
pub(super) fn copy_blobs(from: &Layout, to: &Layout) -> Result<(), OpenError> {
    // What is being written right now is named by no record yet.
    copy_tree(&from.blobs(), &to.blobs(), |path| {
        path.extension().is_none()
    })
}

/// Copies the files of a folder and of the folders below, those whose names are `wanted`. Not
/// durable by itself. Copies nothing if there is no such folder.
pub(super) fn copy_tree(
    from: &Path,
    to: &Path,
    wanted: fn(&Path) -> bool,
) -> Result<(), OpenError> {
    if !from.is_dir() {
        return Ok(());
    }
    create_folder(to).map_err(OpenError::io("make the folder", to))?;
    for path in entries(from).map_err(OpenError::io("list", from))? {
        let target = path
            .file_name()
            .map_or_else(PathBuf::new, |name| to.join(name));
        if path.is_dir() {
            copy_tree(&path, &target, wanted)?;
        } else if wanted(&path) {
            copy_file(&path, &target)?;
        }
    }
    Ok(())
}

/// Copies one file, if there is one. Not durable by itself.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), OpenError> {
    match fs::copy(from, to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => Ok(()),
        Err(error) => Err(OpenError::io("copy to", to)(error)),
    }
}

/// Makes everything in a folder and below it durable.
pub(super) fn sync_tree(folder: &Path) -> io::Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Removes a folder with everything in it, if there is one.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    if_there(fs::remove_dir_all(folder))
}

fn remove_file(file: &Path) -> io::Result<()> {
    if_there(fs::remove_file(file))
}

fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) | Err(_) => removed,
    }
}
