//! Making a store from a backup: `bursar restore DIR`.
//!
//! # Danger
//! A restored store is older than the world. Payments that were open in the backup are looked up
//! at the gateway and go on. Payments that were made after it are unknown here: a script that
//! decides on one of them again asks the gateway for it again. What keeps that from paying twice
//! is the `foreign_id`, which the gateway refuses when it has seen it; for withdrawals this is
//! assumed, not documented, and such a payment is then held for a person. Events are unknown too:
//! a callback or a slot handled after the backup is handled again when it comes again. The first
//! start after a restore says so. Nothing here can know better.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::copy::{Copied, NewStore, copy_blobs, copy_file, copy_tree};
use super::error::{Damage, OpenError};
use super::layout::{Layout, sync_folder, unfinished, write_file};
use super::lock::Lock;
use super::open::find_store;
use crate::telemetry::Telemetry;

/// Why nothing was restored. The backup is untouched, and so is what was in the target's folder.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Move the folder away first.
    #[error("`{dir}` is not empty, and a restore replaces nothing; move it away first: `mv {dir} {dir}.replaced`", dir = .0.display())]
    Occupied(PathBuf),
    /// Take another backup.
    #[error("the backup is damaged: `{}`: {finding}; nothing was restored, take another backup", .file.display())]
    Damaged {
        /// The damaged file of the backup.
        file: PathBuf,
        /// What is wrong with it.
        finding: String,
    },
    /// There is no backup, it is in use or newer than this release, or the operating system
    /// refused.
    #[error(transparent)]
    Failed(OpenError),
}

impl From<OpenError> for RestoreError {
    fn from(error: OpenError) -> Self {
        if let OpenError::Damaged(Damage { file, finding, .. }) = error {
            Self::Damaged { file, finding }
        } else {
            Self::Failed(error)
        }
    }
}

/// Makes a store in `to`, which must be empty or missing, from the backup in `from`, which stays
/// as it is. The store is on disk and was read back when this returns.
///
/// # Errors
/// [`RestoreError`]; what was written of the copy is removed.
pub fn restore(from: &Path, to: &Path, telemetry: &Telemetry) -> Result<Copied, RestoreError> {
    let backup = find_store(from)?;
    let _lock = Lock::respect(&backup)?;
    // A folder that is in use must not be moved away: say that first.
    drop(Lock::respect(&Layout::new(to))?);
    let copy = NewStore::begin(to)?.ok_or_else(|| RestoreError::Occupied(to.to_owned()))?;
    let copied = fill(copy, &backup).map_err(|error| in_backup(error, from, to))?;
    telemetry.store_restored(from, to, copied.sequence);
    Ok(copied)
}

fn fill(copy: NewStore, backup: &Layout) -> Result<Copied, OpenError> {
    let new = copy.layout.clone();
    copy_tree(&backup.index(), &new.index(), |_| true)?;
    copy_blobs(backup, &new)?;
    for slot in [0, 1] {
        copy_file(&backup.manifest(slot), &new.manifest(slot))?;
    }
    copy_tree(&backup.journal(), &new.journal(), |_| true)?;
    copy_tree(&backup.payment_journal(), &new.payment_journal(), |_| true)?;
    copy_file(&backup.high_water(), &new.high_water())?;
    let note = new.restored();
    write_file(
        &note,
        b"The next start warns that this is a backup.\n",
        &unfinished(&note),
    )
    .map_err(OpenError::io("write", &note))?;
    copy.finish()
}

/// Notes that everything but the payments is lost, until the first start: on disk when this returns.
pub(super) fn note_lost(layout: &Layout) -> io::Result<()> {
    let note = layout.payments_only();
    let text = b"The next start warns that only the payments are known.\n";
    write_file(&note, text, &unfinished(&note))
}

/// Says at the first start after a restore, or after a rebuild of the payments alone, what the store does not know.
pub(super) fn warn_once(layout: &Layout, telemetry: &Telemetry) -> Result<(), OpenError> {
    let note = layout.restored();
    if note.exists() {
        telemetry.store_was_restored(&layout.dir);
        remove_note(layout, &note)?;
    }
    let note = layout.payments_only();
    if note.exists() {
        telemetry.store_knows_payments_only(&layout.dir);
        remove_note(layout, &note)?;
    }
    Ok(())
}

fn remove_note(layout: &Layout, note: &Path) -> Result<(), OpenError> {
    fs::remove_file(note)
        .and_then(|()| sync_folder(&layout.dir))
        .map_err(OpenError::io("remove", note))
}

/// The same error, about the file of the backup that was copied.
fn in_backup(error: OpenError, from: &Path, to: &Path) -> RestoreError {
    match RestoreError::from(error) {
        RestoreError::Damaged { file, finding } => RestoreError::Damaged {
            file: file
                .strip_prefix(to)
                .map_or(file.clone(), |path| from.join(path)),
            finding,
        },
        other @ (RestoreError::Occupied(_) | RestoreError::Failed(_)) => other,
    }
}
