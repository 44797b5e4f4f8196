//! Whether the parts of a damaged store that are left are everything that was acknowledged.
//!
//! Decides only; `rebuild` acts on it, and a refusal to start chooses its words by it.
//!
//! # Design
//! There are two proofs. A guard journal that is whole, and reaches everything noted elsewhere,
//! says by count and sum what the index must hold at its end; an index that holds that, with the
//! missing groups applied, is complete. Without such a journal, an index is complete if it holds
//! what its own mark says, and if that mark is exactly the one that the high water notes: the
//! high water is written before a group goes to the index, so an index that agrees with it misses
//! nothing. Parts that contradict each other prove nothing.

use std::io;

use super::error::Remedy;
use super::journal_format::greatest_sequence;
use super::layout::Layout;
use super::recovery::Examination;

/// Which part proves that nothing is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The guard journal; the index can be brought to its end.
    Journal,
    /// The index; the guard journal cannot be used and is begun anew.
    Index,
}

/// The proof, if there is one.
pub(super) fn proof(examination: &Examination) -> io::Result<Option<Proof>> {
    if examination.mixed {
        Ok(None)
    } else if journal_reaches_everything(examination) {
        Ok(index_fits_the_journal(examination).then_some(Proof::Journal))
    } else {
        Ok(index_alone_is_complete(examination)?.then_some(Proof::Index))
    }
}

/// What helps with a damaged store, as far as can be told without trying.
pub(super) fn remedy(examination: &Examination) -> Remedy {
    let proven = proof(examination).is_ok_and(|proof| proof.is_some());
    // With a whole journal, other ways to read the index may come to what it says.
    let possible = !examination.mixed && journal_reaches_everything(examination);
    if proven || possible {
        Remedy::Rebuild
    } else {
        Remedy::Restore
    }
}

fn journal_reaches_everything(examination: &Examination) -> bool {
    let journal = &examination.journal;
    let reached = match examination.high_water {
        Some(reached) => reached <= journal.end.sequence,
        // Without the note, the torn bytes may have been an acknowledged group.
        None => journal.torn_bytes == 0,
    };
    let checkpoint = examination.manifest.as_ref();
    journal.whole
        && reached
        && checkpoint.is_none_or(|noted| noted.checkpoint.sequence <= journal.end.sequence)
}

fn index_fits_the_journal(examination: &Examination) -> bool {
    let (applied, journal) = (&examination.applied, &examination.journal);
    let joined = journal
        .first()
        .is_some_and(|first| first <= applied.sequence + 1);
    let total = examination.total;
    applied.sequence <= journal.end.sequence
        && joined
        && total.is_some_and(|total| journal.end.counts_as(total.records, total.sum))
}

fn index_alone_is_complete(examination: &Examination) -> io::Result<bool> {
    let applied = &examination.applied;
    let checkpoint = examination.manifest.as_ref().map(|noted| noted.checkpoint);
    let agrees =
        checkpoint.is_none_or(|noted| noted.sequence < applied.sequence || noted == *applied);
    let total = examination.total;
    Ok(applied.sequence > 0
        && examination.high_water == Some(applied.sequence)
        && examination.journal.behind == 0
        && agrees
        && total.is_some_and(|total| applied.counts_as(total.records, total.sum))
        && greatest_group(&examination.layout)? <= applied.sequence)
}

/// The last group of which the journal's folder holds any trace.
fn greatest_group(layout: &Layout) -> io::Result<u64> {
    let mut greatest = 0;
    for (first, path) in layout.segments()? {
        let found = greatest_sequence(&std::fs::read(path)?).unwrap_or_default();
        greatest = greatest.max(first.saturating_sub(1)).max(found);
    }
    Ok(greatest)
}
