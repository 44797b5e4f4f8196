//! `bursar store verify`: everything that is known about a store's folder, without starting it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Options;
use super::blobs::BlobHash;
use super::error::{Damage, OpenError, Remedy};
use super::layout::{Layout, entries};
use super::lock::Lock;
use super::open::is_store;
use super::recovery::examine;

/// What is in a store's folder.
#[derive(Debug)]
pub struct Report {
    /// The groups in the guard journal: first and last sequence. The last is 0 in a new store.
    pub journal: (u64, u64),
    /// Bytes of an interrupted append at its end, which the next start cuts off.
    pub torn_bytes: u64,
    /// The group of the last checkpoint.
    pub checkpoint: Option<u64>,
    /// The last group in the index; the next start replays those after it.
    pub index: Option<u64>,
    /// Readable records in the index.
    pub records: u64,
    /// Blobs whose content is what their name says.
    pub blobs: u64,
    /// Slots of the manifest that are unreadable; the next start repairs a single one.
    pub damaged_slots: Vec<PathBuf>,
    /// Everything that keeps the store from starting, and blobs that cannot be read.
    pub damage: Vec<Damage>,
}

/// Examines the store in `dir`, which no process may have open. Reads everything and changes
/// nothing, except that opening the index lets sled recover its own files.
///
/// # Errors
/// [`OpenError`] where there is nothing to examine; damage is part of the report.
pub fn verify(dir: &Path) -> Result<Report, OpenError> {
    let nothing = || io::Error::from(io::ErrorKind::NotFound);
    let layout = Layout::new(dir);
    if !dir.is_dir() {
        return Err(OpenError::io("find a store in", dir)(nothing()));
    }
    let _lock = Lock::take(&layout)?;
    if !is_store(&layout)? {
        return Err(OpenError::io("find a store in", dir)(nothing()));
    }
    let examination = examine(&layout, Options::default().cache_bytes)?;
    let mut report = Report {
        journal: (
            examination.journal.first().unwrap_or_default(),
            examination.journal.end.sequence,
        ),
        torn_bytes: examination.journal.torn_bytes,
        checkpoint: examination
            .manifest
            .map(|manifest| manifest.checkpoint.sequence),
        index: examination.index.map(|_open| examination.applied.sequence),
        records: examination.records,
        blobs: 0,
        damaged_slots: examination.damaged_slots,
        damage: examination.damage,
    };
    verify_blobs(&layout, &mut report).map_err(OpenError::io("read", &layout.blobs()))?;
    Ok(report)
}

fn verify_blobs(layout: &Layout, report: &mut Report) -> io::Result<()> {
    for folder in entries(&layout.blobs())? {
        if !folder.is_dir() {
            continue;
        }
        for path in entries(&folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name == Some(BlobHash::of(&fs::read(&path)?).as_str()) {
                report.blobs += 1;
            } else {
                let finding = "the content of this blob is not what its name says";
                report
                    .damage
                    .push(Damage::new(&path, Remedy::Restore, finding));
            }
        }
    }
    Ok(())
}
