//! What stands where in the store's folder, and how files are made durable.
//!
//! ```text
//! format              version of this layout
//! lock                held by the process that owns the folder
//! journal/N.journal   segments of the guard journal, N the sequence of its first group
//! high-water          the last group that is certainly in the journal
//! manifest.0, .1      the last two checkpoints
//! index/              sled
//! blobs/ab/abcd…      contents by their SHA-256
//! payment-journal/    every step of every payment; see `payment_journal`
//! departures          what is about to be sent and has not left; see `departures`
//! unfinished-copy     there while a backup or restore writes this folder: not a store yet
//! payments-only       there from a rebuild of the payments alone to the first start after it
//! restored            there from a restore to the first start after it
//! index.rebuild-N     an index that a rebuild tries out
//! X.damaged-N         what a rebuild replaced, kept for a person to remove
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The version of the layout that this release writes; it reads older ones too. From 2 on, records
/// may be packed.
pub(super) const VERSION: u16 = 2;

/// Ends the names of files that are being written and not yet valid.
const UNFINISHED: &str = "new";
const SEGMENT: &str = "journal";
const LINES: &str = "jsonl";
const INDEX: &str = "index";
const ATTEMPT: &str = "rebuild";
const DAMAGED: &str = "damaged";

/// The paths in one store's folder.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    index: PathBuf,
}

impl Layout {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            index: dir.join(INDEX),
        }
    }

    /// The same store with another index.
    pub(super) fn with_index(&self, index: &Path) -> Self {
        Self {
            dir: self.dir.clone(),
            index: index.to_owned(),
        }
    }

    pub(super) fn format(&self) -> PathBuf {
        self.dir.join("format")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    pub(super) fn segment(&self, first_sequence: u64) -> PathBuf {
        self.journal()
            .join(format!("{first_sequence:020}.{SEGMENT}"))
    }

    pub(super) fn high_water(&self) -> PathBuf {
        self.dir.join("high-water")
    }

    pub(super) fn manifest(&self, slot: u64) -> PathBuf {
        self.dir.join(format!("manifest.{slot}"))
    }

    pub(super) fn index(&self) -> PathBuf {
        self.index.clone()
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    pub(super) fn payment_journal(&self) -> PathBuf {
        self.dir.join("payment-journal")
    }

    pub(super) fn payment_file(&self, first_line: u64) -> PathBuf {
        self.payment_journal()
            .join(format!("{first_line:020}.{LINES}"))
    }

    pub(super) fn payment_head(&self) -> PathBuf {
        self.payment_journal().join("head")
    }

    /// The payment journal's files with the number of the first line their names say, oldest first.
    pub(super) fn payment_files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        numbered_files(&self.payment_journal(), LINES)
    }

    pub(super) fn departures(&self) -> PathBuf {
        self.dir.join("departures")
    }

    pub(super) fn unfinished_copy(&self) -> PathBuf {
        self.dir.join("unfinished-copy")
    }

    pub(super) fn restored(&self) -> PathBuf {
        self.dir.join("restored")
    }

    pub(super) fn payments_only(&self) -> PathBuf {
        self.dir.join("payments-only")
    }

    pub(super) fn attempt(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{INDEX}.{ATTEMPT}-{number}"))
    }

    /// The indexes that rebuilds have tried out and not removed.
    pub(super) fn attempts(&self) -> io::Result<Vec<PathBuf>> {
        self.numbered(&format!("{INDEX}.{ATTEMPT}-"))
    }

    /// The indexes that rebuilds have replaced, newest first.
    pub(super) fn replaced_indexes(&self) -> io::Result<Vec<PathBuf>> {
        let mut replaced = self.numbered(&format!("{INDEX}.{DAMAGED}-"))?;
        replaced.reverse();
        Ok(replaced)
    }

    /// A name that is not taken, under which `path` is kept.
    pub(super) fn aside(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.file_name().and_then(|name| name.to_str());
        let start = format!("{}.{DAMAGED}-", name.unwrap_or_default());
        let taken = self.numbered(&start)?;
        let last = taken.last().and_then(|path| number(path, &start));
        Ok(self
            .dir
            .join(format!("{start}{}", last.unwrap_or_default() + 1)))
    }

    /// What is named `start` and a number, by the number.
    fn numbered(&self, start: &str) -> io::Result<Vec<PathBuf>> {
        let mut found: Vec<_> = entries(&self.dir)?
            .into_iter()
            .filter_map(|path| Some((number(&path, start)?, path)))
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// The journal's segments with the sequence their names say, oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        numbered_files(&self.journal(), SEGMENT)
    }
}

/// The files in a folder that are named by a number and that extension, by the number.
fn numbered_files(folder: &Path, wanted: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        if path
            .extension()
            .is_some_and(|extension| extension == wanted)
            && let Some(number) = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok())
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

fn number(path: &Path, start: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(start)?.parse().ok()
}

/// The paths in a folder; none if the folder is missing.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder, durably. The folder above must exist.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    folder.parent().map_or(Ok(()), sync_folder)
}

/// Writes a whole file: it is on disk with this content when this returns, and at every moment
/// before it is either what it was or what it becomes. `unfinished` names what is written first.
pub(super) fn write_file(path: &Path, content: &[u8], unfinished: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The name under which `path` is written first.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    path.with_added_extension(UNFINISHED)
}

/// Reads a file; `None` if it is missing.
pub(super) fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
