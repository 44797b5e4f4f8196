//! Finding and opening a store: the folder, its format and lock, then examination and replay.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Options;
use super::applier::Applier;
use super::blobs::Blobs;
use super::departures::Departures;
use super::ends::Ends;
use super::error::{Damage, OpenError, Remedy};
use super::guard_journal::{GuardJournal, read_high_water};
use super::journal_format::{HEADER_LENGTH, Mark};
use super::layout::{self, Layout, read_file, sync_folder, unfinished, write_file};
use super::lock::Lock;
use super::manifest::Manifest;
use super::pace::Pace;
use super::payment_journal::PaymentJournal;
use super::recent::Recent;
use super::recovery::{Examination, examine};
use super::view::View;
use super::writer::{Failure, Writer};
use crate::telemetry::Telemetry;

/// A store that is ready for its threads.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) applier: Applier,
    pub(super) blobs: Blobs,
    pub(super) departures: Departures,
    pub(super) lock: Lock,
}

impl Opened {
    /// Writes a checkpoint, while there are no threads yet.
    pub(super) fn checkpoint(&mut self) -> Result<(), Failure> {
        self.writer.journal.rotate(&self.writer.mark)?;
        self.applier.checkpoint()
    }
}

/// Opens the store in `dir`, or makes a new one where there is none.
pub(super) fn open(
    dir: &Path,
    options: &Options,
    telemetry: &Telemetry,
) -> Result<Opened, OpenError> {
    create_dir(dir)?;
    let layout = Layout::new(dir);
    let lock = Lock::take(&layout)?;
    if !is_store(&layout)? {
        create(&layout).map_err(OpenError::io("make a store in", dir))?;
    }
    open_locked(layout, lock, options, telemetry)
}

/// Opens a store that is there.
pub(super) fn open_locked(
    layout: Layout,
    lock: Lock,
    options: &Options,
    telemetry: &Telemetry,
) -> Result<Opened, OpenError> {
    let dir = layout.dir.as_path();
    let examination = examine(&layout, options.cache_bytes)?;
    if let Some(damage) = examination.damage.first() {
        return Err(damage.clone().into());
    }
    let journal = &examination.journal;
    let Some((last, path)) = journal.segments.last() else {
        return Err(Damage::new(dir, Remedy::Restore, "parts are missing").into());
    };
    // Before the index gets its groups: it must never be ahead of the journal on the disk.
    let guard_journal =
        GuardJournal::open(&layout, *last, journal.whole_length, options.segment_bytes)
            .map_err(OpenError::io("open", path))?;
    // The payment journal may lack what the guard journal's last group has.
    let completed = examination
        .payments
        .complete(&layout)
        .map_err(OpenError::io("complete", &layout.payment_journal()))?;
    if let Some(bytes) = completed {
        telemetry.payment_journal_completed(bytes);
    }
    let head = examination.payments.head.clone();
    let payments = PaymentJournal::open(&layout, head, options.segment_bytes)
        .map_err(OpenError::io("open", &layout.payment_journal()))?;
    // From here on, an older release could not read everything.
    renew_format(&layout).map_err(OpenError::io("write", &layout.format()))?;
    examination.replay()?;
    announce(&examination, telemetry);
    let (Some(index), Some(manifest)) = (examination.index, examination.manifest) else {
        return Err(Damage::new(dir, Remedy::Restore, "parts are missing").into());
    };
    let departures =
        Departures::open(&layout).map_err(OpenError::io("open", &layout.departures()))?;
    let view = View::new(index, journal.end);
    let pace = Arc::new(Pace::new(manifest.checkpoint));
    let repaired = journal.behind > 0 || !examination.damaged_slots.is_empty();
    let mut opened = Opened {
        writer: Writer {
            view: view.clone(),
            journal: guard_journal,
            payments,
            mark: journal.end,
            segment_bytes: options.segment_bytes,
            pace: Arc::clone(&pace),
            telemetry: telemetry.clone(),
            ends: Ends::default(),
            recent: Recent::default(),
        },
        applier: Applier {
            view,
            layout: layout.clone(),
            manifest,
            applied: journal.end,
            keep_segments: Arc::default(),
            pace,
            telemetry: telemetry.clone(),
        },
        blobs: Blobs::new(layout),
        departures,
        lock,
    };
    if repaired {
        let checkpointed = opened.checkpoint();
        let dir = &opened.blobs.layout().dir;
        checkpointed
            .map_err(|failure| OpenError::io("checkpoint", dir)(io::Error::other(failure)))?;
    }
    Ok(opened)
}

/// Says what was found and repaired.
fn announce(examination: &Examination, telemetry: &Telemetry) {
    let journal = &examination.journal;
    telemetry.store_opened(
        &examination.layout.dir,
        journal.end.sequence,
        journal.end.records,
        journal.behind,
    );
    if journal.torn_bytes > 0 {
        telemetry.store_tail_cut(journal.torn_bytes);
    }
    for slot in &examination.damaged_slots {
        telemetry.store_slot_damaged(slot);
    }
}

/// The store in `dir`.
///
/// # Errors
/// [`OpenError::Io`] if there is none.
pub(super) fn find_store(dir: &Path) -> Result<Layout, OpenError> {
    let layout = Layout::new(dir);
    if dir.is_dir() && is_store(&layout)? {
        return Ok(layout);
    }
    let nothing = io::Error::from(io::ErrorKind::NotFound);
    Err(OpenError::io("find a store in", dir)(nothing))
}

/// The store in `dir`, even if the file is damaged that says what it is.
pub(super) fn find_damaged_store(dir: &Path) -> Result<Layout, OpenError> {
    let layout = Layout::new(dir);
    match find_store(dir) {
        Err(OpenError::Damaged(damage)) if damage.file == layout.format() => Ok(layout),
        found => found,
    }
}

/// Whether the file is whole that says what the folder of a store is.
pub(super) fn has_format(layout: &Layout) -> Result<bool, OpenError> {
    match is_store(layout) {
        Err(OpenError::Damaged(damage)) if damage.file == layout.format() => Ok(false),
        found => found,
    }
}

/// Makes a folder and those above it, durably.
pub(super) fn create_dir(dir: &Path) -> Result<(), OpenError> {
    fs::create_dir_all(dir).map_err(OpenError::io("make the folder", dir))?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), |parent| {
        sync_folder(parent).map_err(OpenError::io("sync the folder", parent))
    })
}

fn format_text(version: u16) -> String {
    format!("bursar store {version}\n")
}

/// Whether there is a store of a format we know; false where there was never one.
pub(super) fn is_store(layout: &Layout) -> Result<bool, OpenError> {
    let note = layout.unfinished_copy();
    if note.exists() {
        let finding = "a backup or restore into this folder was interrupted";
        return Err(Damage::new(&note, Remedy::CopyAgain, finding).into());
    }
    let path = layout.format();
    let Some(bytes) = read_file(&path).map_err(OpenError::io("read", &path))? else {
        return if was_never_used(layout)? {
            Ok(false)
        } else {
            let finding = "the file is missing, but the folder holds data";
            Err(Damage::new(&path, Remedy::Rebuild, finding).into())
        };
    };
    let version = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_prefix("bursar store ")?.trim_end().parse().ok())
        .filter(|version| format_text(*version).as_bytes() == bytes);
    match version {
        Some(version) if version <= layout::VERSION => Ok(true),
        Some(found) => Err(OpenError::Newer {
            file: path,
            found,
            known: layout::VERSION,
        }),
        None => Err(Damage::new(&path, Remedy::Rebuild, "the file is damaged").into()),
    }
}

/// Whether nothing is there but what a first start leaves behind that was interrupted.
fn was_never_used(layout: &Layout) -> Result<bool, OpenError> {
    let payments = layout.payment_journal();
    if layout.index().exists() || layout.blobs().exists() || payments.exists() {
        return Ok(false);
    }
    let read = OpenError::io("read", &layout.dir);
    let facts = || {
        let mut largest = 0;
        for (_, segment) in layout.segments()? {
            largest = largest.max(fs::metadata(segment)?.len());
        }
        Ok((largest, read_high_water(layout)?.unwrap_or_default()))
    };
    let (largest, reached) = facts().map_err(read)?;
    Ok(largest <= HEADER_LENGTH as u64 && reached == 0)
}

/// Makes an empty store. The format's file comes last: until it is there, there is no store.
fn create(layout: &Layout) -> io::Result<()> {
    GuardJournal::create(layout, &Mark::default())?;
    Manifest::create(layout, &Mark::default())?;
    write_format(layout)
}

/// Notes the newest format where an older one is noted.
fn renew_format(layout: &Layout) -> io::Result<()> {
    let noted = read_file(&layout.format())?;
    if noted.is_some_and(|text| text == format_text(layout::VERSION).as_bytes()) {
        return Ok(());
    }
    write_format(layout)
}

/// Makes the folder a store: on disk when this returns.
pub(super) fn write_format(layout: &Layout) -> io::Result<()> {
    let path = layout.format();
    write_file(
        &path,
        format_text(layout::VERSION).as_bytes(),
        &unfinished(&path),
    )
}
