//! `bursar store verify`: everything that is known about a store's folder, without starting it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Options;
use super::blobs::BlobHash;
use super::error::{Damage, OpenError, Remedy};
use super::layout::{Layout, entries};
use super::lock::Lock;
use super::open::find_store;
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
    /// Lines in the payment journal.
    pub payment_lines: u64,
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
    let layout = find_store(dir)?;
    let _lock = Lock::take(&layout)?;
    let examination = examine(&layout, Options::default().cache_bytes)?;
    let blobs = verify_blobs(&layout).map_err(OpenError::io("read", &layout.blobs()))?;
    let mut damage = examination.damage;
    damage.extend(blobs.damage);
    Ok(Report {
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
        blobs: blobs.whole,
        payment_lines: examination.payments.lines,
        damaged_slots: examination.damaged_slots,
        damage,
    })
}

/// What is in the folder of blobs.
#[derive(Debug, Default)]
pub(super) struct FoundBlobs {
    /// Blobs whose content is what their name says.
    pub(super) whole: u64,
    /// The others.
    pub(super) damage: Vec<Damage>,
}

/// Reads all blobs.
pub(super) fn verify_blobs(layout: &Layout) -> io::Result<FoundBlobs> {
    let mut found = FoundBlobs::default();
    for folder in entries(&layout.blobs())? {
        if !folder.is_dir() {
            continue;
        }
        for path in entries(&folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name == Some(BlobHash::of(&fs::read(&path)?).as_str()) {
                found.whole += 1;
            } else {
                let finding = "the content of this blob is not what its name says";
                found
                    .damage
                    .push(Damage::new(&path, Remedy::Restore, finding));
            }
        }
    }
    Ok(found)
}
