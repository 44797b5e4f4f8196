//! The payments that the lines of the payment journal are, written as an index: for a store of
//! which nothing else is left.
//!
//! Decides nothing about when that is right, and replaces nothing: that is `rebuild_payments`'s.
//!
//! # Design
//! The lines of one payment stand far apart. The first walk notes where they are, by payment; then
//! each payment is put together by itself. So memory is for places and keys, not for contents, and
//! the index gets its records in the order of their keys, which it takes fastest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;

use super::append::read_head_note;
use super::chain::{Link, walk};
use super::rows::{Rows, Spending, put_payment};
use super::{HEAD, Head};
use crate::domain::id::ForeignId;
use crate::domain::payment::{Line, Payment, fold};
use crate::store::Changes;
use crate::store::codec::carried_checksum;
use crate::store::error::{Damage, OpenError, Remedy};
use crate::store::index::Index;
use crate::store::journal_format::{Mark, Writes, checksum};
use crate::store::layout::Layout;

/// Memory for the cache of the index that is written.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Rows that are applied at a time.
const AT_ONCE: usize = 2000;

/// An index that was made of the payment journal.
#[derive(Debug)]
pub(in crate::store) struct Remade {
    /// Where it stands: after every group of which there is a line.
    pub(in crate::store) mark: Mark,
    pub(in crate::store) payments: u64,
    pub(in crate::store) lines: u64,
    /// Payments that are not final.
    pub(in crate::store) open: u64,
}

/// Where a line is: the file's place among the files, offset and length.
type Place = (usize, u64, usize);

/// Where the lines of each payment are.
#[derive(Debug, Default)]
struct Places {
    of: BTreeMap<ForeignId, Vec<Place>>,
    files: Vec<File>,
    head: Head,
    sequence: u64,
}

#[derive(Deserialize)]
struct Named {
    foreign_id: ForeignId,
}

/// Makes an index of the payment journal in a folder that is empty.
///
/// # Errors
/// [`OpenError::Damaged`] for the first thing that is wrong with the journal.
pub(in crate::store) fn remake(layout: &Layout, to: &Path) -> Result<Remade, OpenError> {
    let places = find(layout)?;
    let failed = |error: String| OpenError::io("write", to)(io::Error::other(error));
    let index = Index::open(to, CACHE_BYTES).map_err(|error| failed(error.to_string()))?;
    let mut remade = Remade {
        mark: Mark {
            sequence: places.sequence + 1,
            ..Mark::default()
        },
        payments: 0,
        lines: places.head.number,
        open: 0,
    };
    let mut rows = Writes::new();
    let mut spending = Spending::default();
    for (id, of) in &places.of {
        let payment = payment(layout, &places.files, id, of)?;
        remade.payments += 1;
        remade.open += u64::from(!payment.state.is_final());
        let mut changes = Changes::new();
        put_payment(&mut changes, &payment, Rows::New);
        spending.add(&payment, &mut changes);
        take(changes, &mut rows).map_err(&failed)?;
        if rows.len() >= AT_ONCE {
            apply(&index, &mut rows, &mut remade.mark).map_err(&failed)?;
        }
    }
    for changes in spending.first_paid() {
        take(changes, &mut rows).map_err(&failed)?;
        apply(&index, &mut rows, &mut remade.mark).map_err(&failed)?;
    }
    let key = Head::stored_key();
    let head = HEAD
        .encode(&key, &places.head)
        .map_err(|error| failed(error.to_string()))?;
    rows.insert(key, Some(head.stored));
    apply(&index, &mut rows, &mut remade.mark).map_err(&failed)?;
    index.flush().map_err(|error| failed(error.to_string()))?;
    Ok(remade)
}

/// Takes the rows of changes.
fn take(changes: Changes, rows: &mut Writes) -> Result<(), String> {
    let changes = changes.checked().map_err(|error| error.to_string())?;
    let writes = changes.writes.into_iter();
    rows.extend(writes.map(|write| (write.key, write.value)));
    Ok(())
}

/// Applies rows, counted. A row may be there already: two payments with one id at the gateway.
fn apply(index: &Index, rows: &mut Writes, mark: &mut Mark) -> Result<(), String> {
    for (key, value) in &*rows {
        let old = index.get(key).map_err(|error| error.to_string())?;
        mark.count(
            old.as_deref().map(carried_checksum),
            checksum(value.as_ref()),
        );
    }
    index.apply(rows, mark).map_err(|error| error.to_string())?;
    rows.clear();
    Ok(())
}

fn payment(
    layout: &Layout,
    files: &[File],
    id: &ForeignId,
    places: &[Place],
) -> Result<Payment, OpenError> {
    let folder = layout.payment_journal();
    let mut lines = Vec::with_capacity(places.len());
    for (file, offset, length) in places {
        let mut bytes = vec![0; *length];
        if let Some(file) = files.get(*file) {
            file.read_exact_at(&mut bytes, *offset)
                .map_err(OpenError::io("read", &folder))?;
        }
        let line: Line =
            serde_json::from_slice(&bytes).map_err(|error| unusable(&folder, id, &error))?;
        lines.push(line);
    }
    fold(lines).map_err(|error| unusable(&folder, id, &error))
}

fn unusable(file: &Path, id: &ForeignId, error: &dyn std::error::Error) -> OpenError {
    let finding = format!("the lines of payment `{id}` cannot be used: {error}");
    Damage::new(file, Remedy::CopyLines, finding).into()
}

/// Walks the whole journal, which must be whole.
fn find(layout: &Layout) -> Result<Places, OpenError> {
    let folder = layout.payment_journal();
    let note = read_head_note(layout).map_err(OpenError::io("read", &layout.payment_head()))?;
    let damaged = |file: &Path, finding: String| Damage::new(file, Remedy::CopyLines, finding);
    let files = layout
        .payment_files()
        .map_err(OpenError::io("list", &folder))?;
    let Some((noted, noted_hash)) = note else {
        let finding = if files.is_empty() {
            "there is no payment journal"
        } else {
            "the note of the last line is missing or damaged, so nothing proves that no lines are missing at the end"
        };
        return Err(damaged(&layout.payment_head(), finding.to_owned()).into());
    };
    let mut places = Places::default();
    let mut last = Link::before_all();
    let mut matches = noted == 0;
    let count = files.len();
    for (at, (first, path)) in files.iter().enumerate() {
        let content = fs::read(path).map_err(OpenError::io("read", path))?;
        let mut unnamed = None;
        let expected = last.number + 1;
        let walked = walk(&content, last, |link, offset, text| {
            matches |= link.number == noted && link.hash == noted_hash;
            match serde_json::from_slice::<Named>(text) {
                Ok(Named { foreign_id }) => {
                    let place = (at, offset as u64, text.len());
                    places.of.entry(foreign_id).or_default().push(place);
                }
                Err(error) => unnamed = Some(format!("line number {}: {error}", link.number)),
            }
        });
        let flaw = walked.flaws.first();
        let flaw = flaw.map(|flaw| format!("line {}: {}", flaw.line, flaw.finding));
        let renamed = (*first != expected)
            .then(|| format!("the file must begin with line number {expected}"));
        let torn = (walked.torn > 0 && at + 1 < count)
            .then(|| format!("line {} is cut off", walked.lines + 1));
        if let Some(finding) = flaw.or(renamed).or(torn).or(unnamed) {
            return Err(damaged(path, finding).into());
        }
        last = walked.last;
        places.head.file = *first;
        places.head.length = walked.length as u64;
        places
            .files
            .push(File::open(path).map_err(OpenError::io("open", path))?);
    }
    if !matches {
        let finding = format!(
            "line number {noted} was written and is missing or another one; the journal ends with number {}",
            last.number
        );
        return Err(damaged(&folder, finding).into());
    }
    places.sequence = last.sequence;
    places.head.number = last.number;
    places.head.hash = last.hash;
    Ok(places)
}

/// Cuts an interrupted append off behind the last whole line: on disk when this returns.
pub(in crate::store) fn cut_torn(layout: &Layout) -> io::Result<()> {
    let Some((_, path)) = layout.payment_files()?.pop() else {
        return Ok(());
    };
    let content = fs::read(&path)?;
    let end = content.iter().rposition(|byte| *byte == b'\n');
    let length = end.map_or(0, |end| end + 1);
    if length == content.len() {
        return Ok(());
    }
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    file.set_len(length as u64)?;
    file.sync_all()
}
