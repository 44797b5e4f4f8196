//! What is really in a store's folder, and how a store that was not closed is made whole.
//!
//! Every start goes through here, so a start after a crash is nothing special. Nothing is written
//! to an index that does not check out: first everything is examined, then the groups that the
//! index does not have yet are replayed. Used by `Store::open` and `verify`.
//!
//! # Design
//! The journal says for each group how many records the index holds after it and the sum of their
//! checksums. The index is opened only if its contents, with the missing groups applied in
//! thought, are what the journal's last group says. That holds whatever happened to sled's files:
//! records that are gone, old versions that came back, and a group that was applied in part all
//! change the count or the sum.
//!
//! The index may lack many groups, which were acknowledged before it got them, and it may hold a
//! part of those: what it holds under a key that a missing group writes does not count, because
//! that key is written again when they are replayed.
//!
//! An interrupted append leaves a torn tail; damage to the last record looks the same. The high
//! water tells them apart: a group that was acknowledged is below it. It is written after each
//! sync but not synced itself, so the one case left open is a power cut together with damage to
//! the very last record.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::codec::{carried_checksum, check};
use super::error::{Damage, OpenError, Remedy};
use super::guard_journal::read_high_water;
use super::index::{Index, OpenIndexError};
use super::journal_format::{
    BadHeader, End, Mark, Payload, Record, VERSION, checksum, decode_header, decode_payload,
    records,
};
use super::layout::Layout;
use super::manifest::Manifest;
use super::payment_journal::{Comparison, Head, Pending};
use super::proof::remedy;

/// Everything that was found, and everything that is wrong with it.
#[derive(Debug)]
pub(super) struct Examination {
    pub(super) layout: Layout,
    pub(super) damage: Vec<Damage>,
    /// The newest readable checkpoint.
    pub(super) manifest: Option<Manifest>,
    /// Slots of the manifest that are missing or damaged; one of them does no harm.
    pub(super) damaged_slots: Vec<PathBuf>,
    pub(super) journal: Journal,
    /// The index, if it could be opened.
    pub(super) index: Option<Index>,
    /// The last group in the index.
    pub(super) applied: Mark,
    /// Readable records in the index.
    pub(super) records: u64,
    /// Count and sum of what the index holds with the missing groups applied, if it is readable.
    pub(super) total: Option<Mark>,
    /// The last group that was certainly acknowledged; `None` if the note is missing or damaged.
    pub(super) high_water: Option<u64>,
    /// Whether the parts contradict each other about what a group is.
    pub(super) mixed: bool,
    /// The payment journal beside it.
    pub(super) payments: Comparison,
}

/// What the guard journal holds.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The segments with their first sequence, oldest first.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// The last whole group.
    pub(super) end: Mark,
    /// Length of the whole part of the last segment.
    pub(super) whole_length: u64,
    /// Bytes behind it.
    pub(super) torn_bytes: u64,
    /// What the groups that the index lacks will leave under their keys.
    pending: BTreeMap<Vec<u8>, Option<u32>>,
    /// How many groups these are.
    pub(super) behind: u64,
    /// Whether the segments are readable to the end and follow each other.
    pub(super) whole: bool,
}

impl Journal {
    /// The first sequence there is.
    pub(super) fn first(&self) -> Option<u64> {
        self.segments.first().map(|(first, _)| *first)
    }
}

/// Examines a folder that holds a store and is locked by us. Opens the index, and with it lets
/// sled recover its own files; changes nothing else.
///
/// # Errors
/// [`OpenError::Io`] and [`OpenError::Newer`]; damage is part of the result.
pub(super) fn examine(layout: &Layout, cache_bytes: u64) -> Result<Examination, OpenError> {
    let found = Manifest::read(layout).map_err(OpenError::io("read", &layout.manifest(0)))?;
    let mut examination = Examination {
        layout: layout.clone(),
        damage: Vec::new(),
        manifest: found.manifest,
        damaged_slots: found
            .damaged
            .iter()
            .map(|slot| layout.manifest(*slot))
            .collect(),
        journal: Journal::default(),
        index: None,
        applied: Mark::default(),
        records: 0,
        total: None,
        high_water: read_high_water(layout).map_err(OpenError::io("read", &layout.high_water()))?,
        mixed: false,
        payments: Comparison::default(),
    };
    if examination.manifest.is_none() {
        let finding = "both slots of the manifest are missing or damaged";
        examination.report(&layout.manifest(0), finding);
    }
    examination.open_index(cache_bytes)?;
    examination.read_journal()?;
    examination.compare_positions();
    examination.count_index()?;
    examination.compare_payments()?;
    let mut remedy = remedy(&examination);
    if remedy == Remedy::Restore && examination.payments.is_whole() {
        remedy = Remedy::RebuildPayments;
    }
    for damage in &mut examination.damage {
        damage.remedy = remedy;
    }
    let of_payments = examination.payments.damage.iter().cloned();
    examination.damage.extend(of_payments);
    Ok(examination)
}

impl Examination {
    fn report(&mut self, file: &Path, finding: impl Into<String>) {
        self.damage
            .push(Damage::new(file, Remedy::Restore, finding));
    }

    fn report_index(&mut self, error: OpenIndexError) -> Result<(), OpenError> {
        let folder = self.layout.index();
        match error {
            OpenIndexError::Io(error) => Err(OpenError::io("open", &folder)(error)),
            OpenIndexError::Sled(_) | OpenIndexError::Panic(_) | OpenIndexError::Record(_) => {
                self.report(&folder, format!("the index is damaged ({error})"));
                Ok(())
            }
        }
    }

    fn open_index(&mut self, cache_bytes: u64) -> Result<(), OpenError> {
        let opened = Index::open(&self.layout.index(), cache_bytes)
            .and_then(|index| Ok((index.mark()?, index)));
        match opened {
            Ok((mark, index)) => {
                self.applied = mark.unwrap_or_default();
                self.index = Some(index);
                Ok(())
            }
            Err(error) => self.report_index(error),
        }
    }

    fn read_journal(&mut self) -> Result<(), OpenError> {
        let folder = self.layout.journal();
        self.journal.segments = self
            .layout
            .segments()
            .map_err(OpenError::io("list", &folder))?;
        if self.journal.segments.is_empty() {
            self.report(&folder, "the guard journal has no segments");
            return Ok(());
        }
        let segments = self.journal.segments.clone();
        for (number, (first, path)) in segments.iter().enumerate() {
            let bytes = std::fs::read(path).map_err(OpenError::io("read", path))?;
            let start = match decode_header(&bytes) {
                Ok(start) => start,
                Err(BadHeader::Newer(found)) => {
                    return Err(OpenError::Newer {
                        file: path.clone(),
                        found,
                        known: VERSION,
                    });
                }
                Err(BadHeader::Damaged) => {
                    self.report(
                        path,
                        "the head of this segment of the guard journal is damaged",
                    );
                    return Ok(());
                }
            };
            let end = self.journal.end;
            if start.sequence + 1 != *first || (number > 0 && start != end) {
                let finding = format!(
                    "this segment of the guard journal does not go on where the one before it ends ({})",
                    end.sequence
                );
                self.report(path, finding);
                return Ok(());
            }
            let is_last = number + 1 == segments.len();
            if !self.read_segment(path, &bytes, start, is_last) {
                return Ok(());
            }
        }
        self.journal.whole = true;
        Ok(())
    }

    /// Reads the groups of one segment; false if what follows cannot be used.
    fn read_segment(&mut self, path: &Path, bytes: &[u8], start: Mark, is_last: bool) -> bool {
        let (records, end) = records(bytes, &start);
        self.journal.end = start;
        self.compare_mark(path, &start);
        for record in &records {
            self.journal.end = record.mark;
            self.compare_mark(path, &record.mark);
            if record.mark.sequence > self.applied.sequence && !self.note_pending(bytes, record) {
                let finding = format!("group {} is malformed", record.mark.sequence);
                self.report(path, finding);
                return false;
            }
        }
        let (at, torn, damaged) = match end {
            End::Whole => (bytes.len(), 0, false),
            End::Reserved { at } => (at, 0, false),
            End::Torn { at } => (at, bytes.len() - at, !is_last),
            End::Damaged { at } => (at, bytes.len() - at, true),
        };
        self.journal.whole_length = at as u64;
        self.journal.torn_bytes = torn as u64;
        if damaged {
            let finding = format!(
                "the record of group {} at byte {at} is damaged",
                self.journal.end.sequence + 1
            );
            self.report(path, finding);
        }
        !damaged
    }

    fn note_pending(&mut self, bytes: &[u8], record: &Record) -> bool {
        let payload = bytes.get(record.payload.clone()).unwrap_or_default();
        let Some(Payload { writes, lines }) = decode_payload(payload) else {
            return false;
        };
        if !lines.is_empty() {
            self.payments.pending = Pending {
                head: writes.get(&Head::stored_key()).cloned().flatten(),
                lines,
                sequence: record.mark.sequence,
            };
        }
        for (key, value) in writes {
            self.journal.pending.insert(key, checksum(value.as_ref()));
        }
        self.journal.behind += 1;
        true
    }

    /// The journal, the index and the manifest must mean the same group by the same sequence.
    fn compare_mark(&mut self, segment: &Path, mark: &Mark) {
        if self.index.is_some() && self.applied.sequence == mark.sequence && self.applied != *mark {
            let finding = format!(
                "group {} is not the one that the index holds: they are of different stores",
                mark.sequence
            );
            self.report(segment, finding);
            self.mixed = true;
        }
        let checkpoint = self.manifest.as_ref().map(|manifest| manifest.checkpoint);
        if checkpoint.is_some_and(|noted| noted.sequence == mark.sequence && noted != *mark) {
            let finding = format!(
                "group {} is not the one that the manifest notes: they are of different stores",
                mark.sequence
            );
            self.report(segment, finding);
            self.mixed = true;
        }
    }

    fn compare_positions(&mut self) {
        let (end, applied) = (self.journal.end.sequence, self.applied.sequence);
        let last = self.journal.segments.last();
        let journal = last.map_or_else(|| self.layout.journal(), |(_, path)| path.clone());
        let path = self.layout.high_water();
        match self.high_water {
            None => self.report(&path, "the note of the last group is missing or damaged"),
            Some(reached) if reached > end => {
                self.report(
                    &journal,
                    format!("the guard journal ends with group {end}, but it reached {reached}"),
                );
            }
            Some(_) => {}
        }
        let checkpoint = self.manifest.as_ref().map(|manifest| manifest.checkpoint);
        if let Some(noted) = checkpoint.filter(|noted| noted.sequence > end) {
            let finding = format!(
                "the guard journal ends with group {end}, but group {} was checkpointed",
                noted.sequence
            );
            self.report(&journal, finding);
        }
        if self.index.is_some() {
            if applied > end {
                let finding = format!(
                    "the guard journal ends with group {end}, but the index holds group {applied}"
                );
                self.report(&journal, finding);
            }
            if let Some(first) = self.journal.first().filter(|first| *first > applied + 1) {
                let finding = format!(
                    "the index ends with group {applied}, and the guard journal begins with {first}"
                );
                self.report(&self.layout.index(), finding);
            }
        }
    }

    /// Holds the payment journal against what the store knows of it.
    fn compare_payments(&mut self) -> Result<(), OpenError> {
        let index = self.index.as_ref();
        let stored = index
            .map(|index| index.get(&Head::stored_key()))
            .transpose();
        let folder = self.layout.payment_journal();
        // An index that cannot be read is damage already.
        let stored = stored.unwrap_or_default().flatten();
        self.payments
            .compare(&self.layout, stored.as_deref(), self.journal.end.sequence)
            .map_err(OpenError::io("read", &folder))
    }

    /// Reads every record of the index, and compares what it will hold with what it must hold.
    fn count_index(&mut self) -> Result<(), OpenError> {
        let Some(index) = &self.index else {
            return Ok(());
        };
        match count(index, &self.journal.pending) {
            Ok((records, total)) => {
                self.records = records;
                self.total = Some(total);
                let end = self.journal.end;
                if self.damage.is_empty() && !end.counts_as(total.records, total.sum) {
                    let finding = format!(
                        "the index is damaged: after group {} it must hold {} records, but holds {}{}",
                        end.sequence,
                        end.records,
                        total.records,
                        if end.records == total.records {
                            " with other contents"
                        } else {
                            ""
                        }
                    );
                    self.report(&self.layout.index(), finding);
                }
                Ok(())
            }
            Err(error) => self.report_index(error),
        }
    }

    /// Brings a sound index up to the journal's end.
    ///
    /// # Errors
    /// [`OpenError`]; the next start tries again.
    pub(super) fn replay(&self) -> Result<(), OpenError> {
        let (Some(index), true) = (&self.index, self.journal.behind > 0) else {
            return Ok(());
        };
        let end = self.journal.end;
        let applied = replay(index, &self.journal.segments, self.applied, end.sequence).map_err(
            OpenError::io("replay the guard journal into", &self.layout.index()),
        )?;
        if applied == end {
            Ok(())
        } else {
            let finding = "the guard journal changed while it was read";
            Err(Damage::new(&self.layout.journal(), Remedy::Restore, finding).into())
        }
    }
}

/// Applies the groups after `applied` up to `last` to an index, as far as they follow each other.
/// Gives the last one applied.
pub(super) fn replay(
    index: &Index,
    segments: &[(u64, PathBuf)],
    mut applied: Mark,
    last: u64,
) -> io::Result<Mark> {
    let nexts = segments.iter().skip(1).map(|(first, _)| Some(*first));
    for ((_, path), next) in segments.iter().zip(nexts.chain([None])) {
        if next.is_some_and(|next| next <= applied.sequence + 1) {
            continue;
        }
        let bytes = std::fs::read(path)?;
        let Ok(start) = decode_header(&bytes) else {
            break;
        };
        for record in records(&bytes, &start).0 {
            if record.mark.sequence != applied.sequence + 1 || record.mark.sequence > last {
                continue;
            }
            let payload = bytes.get(record.payload).and_then(decode_payload);
            let Some(Payload { writes, .. }) = payload else {
                break;
            };
            index
                .apply(&writes, &record.mark)
                .map_err(io::Error::other)?;
            applied = record.mark;
        }
    }
    Ok(applied)
}

/// How many records are in the index, and what count and sum will be with `pending` applied.
fn count(
    index: &Index,
    pending: &BTreeMap<Vec<u8>, Option<u32>>,
) -> Result<(u64, Mark), OpenIndexError> {
    let counted = index.visit(|(records, total): &mut (u64, Mark), key, stored| {
        *records += 1;
        // A record that a pending group replaces may be as it likes.
        if pending.contains_key(key) {
            return Ok(());
        }
        if check(key, stored).is_none() {
            return Err(OpenIndexError::Record(key.escape_ascii().to_string()));
        }
        total.count(None, Some(carried_checksum(stored)));
        Ok(())
    })?;
    let mut sum = Mark::default();
    let mut records = 0;
    for (read, total) in counted {
        records += read;
        sum.records += total.records;
        sum.sum = sum.sum.wrapping_add(total.sum);
    }
    for left in pending.values() {
        sum.count(None, *left);
    }
    Ok((records, sum))
}
