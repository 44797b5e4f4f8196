//! Tables that grow at their end: their neighbouring records are kept in chunks.
//!
//! What is accepted later has a greater key in these tables, and is written many records at a time.
//! Each of them by itself would cost sled as much as one chunk, and the pages that it splits for
//! them, which is most of it, would stay half empty for ever. Reading and changing one record
//! costs the reading of its chunk, which is why other tables have none.
//!
//! # Design
//! A chunk holds everything from its key on up to the next chunk's, so that it is found with one
//! search. Its key is at most that of its first record, and stays when that is removed. New records
//! at the end become new chunks, or are added to the last one as long as that is the smaller
//! part: so a record is rewritten a few times at the most, however few come at once. Records that
//! are in the index never move to another chunk but in one batch with their removal from the first.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use sled::{Batch, Db, IVec};

use super::chunk::{self, Damaged, Row};
use crate::store::error::IndexError;
use crate::store::scan::{Order, Span};
use crate::store::schema::IN_ORDER;

/// Bytes at which a chunk is full. sled keeps 16 of them in a page, and reads and rewrites pages.
const FULL: usize = if cfg!(test) { 80 } else { 4 * 1024 };

/// What all keys of the table begin with that `key` is in, if the table grows at its end.
pub(super) fn table(key: &[u8]) -> Option<&[u8]> {
    IN_ORDER.iter().find_map(|prefix| {
        let rest = key.strip_prefix(prefix.as_bytes())?;
        (rest.first() == Some(&0)).then(|| key.get(..=prefix.len()))?
    })
}

/// The records of a chunk.
pub(super) fn rows(key: &[u8], chunk: &[u8]) -> Result<Vec<Row>, IndexError> {
    chunk::rows(key, chunk).map_err(|Damaged| unreadable(key))
}

fn unreadable(key: &[u8]) -> IndexError {
    let text = format!("the records from `{}` on are damaged", key.escape_ascii());
    sled::Error::Io(io::Error::new(io::ErrorKind::InvalidData, text)).into()
}

/// The chunk that holds `key`, if there is any.
fn holder(tree: &Db, table: &[u8], key: &[u8]) -> Result<Option<(IVec, IVec)>, IndexError> {
    Ok(tree.range(table..=key).next_back().transpose()?)
}

/// The stored bytes under a key of such a table.
pub(super) fn get(tree: &Db, table: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
    let Some((first, chunk)) = holder(tree, table, key)? else {
        return Ok(None);
    };
    let found = chunk::find(&first, &chunk, key).map_err(|Damaged| unreadable(&first))?;
    Ok(found.map(<[u8]>::to_vec))
}

/// Up to `limit` keys of a span of such a table, with their stored bytes.
pub(super) fn scan(
    tree: &Db,
    cuts: &Cuts,
    table: &[u8],
    span: &Span,
    order: Order,
    limit: usize,
) -> Result<Vec<Row>, IndexError> {
    loop {
        let before = cuts.0.load(Ordering::SeqCst);
        let found = scan_once(tree, table, span, order, limit)?;
        if before.is_multiple_of(2) && before == cuts.0.load(Ordering::SeqCst) {
            return Ok(found);
        }
        std::thread::yield_now();
    }
}

fn scan_once(
    tree: &Db,
    table: &[u8],
    span: &Span,
    order: Order,
    limit: usize,
) -> Result<Vec<Row>, IndexError> {
    let (low, high) = span.bounds();
    let begin = match low {
        Bound::Included(low) | Bound::Excluded(low) => {
            let holder = holder(tree, table, low)?;
            holder.map_or_else(|| low.into(), |(first, _)| first)
        }
        Bound::Unbounded => table.into(),
    };
    let chunks = tree.range::<&[u8], _>((Bound::Included(&*begin), high));
    let mut chunks: Box<dyn Iterator<Item = _>> = match order {
        Order::Ascending => Box::new(chunks),
        Order::Descending => Box::new(chunks.rev()),
    };
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(chunk) = chunks.next()
    {
        let (first, chunk) = chunk?;
        let mut rows = rows(&first, &chunk)?;
        if order == Order::Descending {
            rows.reverse();
        }
        found.extend(rows.into_iter().filter(|(key, _)| span.contains(key)));
    }
    found.truncate(limit);
    Ok(found)
}

/// Counts the cuts of chunks, each when it begins and when it is over. sled reads a range page by page:
/// whoever reads one meanwhile may find a record twice or not at all, and reads it again.
#[derive(Debug, Default)]
pub(super) struct Cuts(AtomicU64);

/// Writes records of such tables, in the order of their keys.
#[derive(Debug)]
pub(super) struct InOrder<'a> {
    tree: &'a Db,
    cuts: &'a Cuts,
    open: Option<Open>,
}

/// The chunk that is being written to.
#[derive(Debug)]
struct Open {
    /// Under which it is, or will be.
    key: Vec<u8>,
    /// Bytes of it as it is in the index; `None` if it is not there.
    stored: Option<usize>,
    rows: Vec<Row>,
    /// How many of the rows come up to and with the last one that is in the index.
    kept: usize,
    /// Whether any of those is not as it is there.
    changed: bool,
    /// The chunk behind it begins here.
    end: Vec<u8>,
}

impl<'a> InOrder<'a> {
    pub(super) const fn new(tree: &'a Db, cuts: &'a Cuts) -> Self {
        Self {
            tree,
            cuts,
            open: None,
        }
    }

    /// Writes a record of `table`, or removes it.
    pub(super) fn write(
        &mut self,
        table: &[u8],
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), IndexError> {
        if let Some(open) = &mut self.open
            && key >= open.key.as_slice()
            && key < open.end.as_slice()
        {
            open.set(key, value);
            return Ok(());
        }
        self.close()?;
        self.open
            .insert(Open::at(self.tree, table, key)?)
            .set(key, value);
        Ok(())
    }

    /// Brings what was written into the index.
    pub(super) fn close(&mut self) -> Result<(), IndexError> {
        match self.open.take() {
            Some(open) => open.close(self.tree, self.cuts),
            None => Ok(()),
        }
    }
}

impl Open {
    fn at(tree: &Db, table: &[u8], key: &[u8]) -> Result<Self, IndexError> {
        let found = holder(tree, table, key)?;
        let (key, rows, stored) = match &found {
            Some((first, chunk)) => (first.to_vec(), rows(first, chunk)?, Some(chunk.len())),
            None => (key.to_vec(), Vec::new(), None),
        };
        // Keys of other tables come behind, at the latest.
        let next = tree.range::<&[u8], _>((Bound::Excluded(key.as_slice()), Bound::Unbounded));
        let next = next.keys().next().transpose()?;
        let mut end = table.to_vec();
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        if let Some(next) = next.filter(|next| **next < *end) {
            end = next.to_vec();
        }
        Ok(Self {
            kept: rows.len(),
            key,
            stored,
            rows,
            changed: false,
            end,
        })
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let is_last = self
            .rows
            .last()
            .is_none_or(|(last, _)| last.as_slice() < key);
        let place = if is_last {
            Err(self.rows.len())
        } else {
            self.rows
                .binary_search_by(|(own, _)| own.as_slice().cmp(key))
        };
        match (place, value) {
            (Ok(at), Some(value)) => {
                self.changed |= at < self.kept;
                if let Some((_, stored)) = self.rows.get_mut(at) {
                    *stored = value.to_vec();
                }
            }
            (Ok(at), None) => {
                self.rows.remove(at);
                if at < self.kept {
                    self.kept -= 1;
                    self.changed = true;
                }
            }
            (Err(at), Some(value)) => {
                self.rows.insert(at, (key.to_vec(), value.to_vec()));
                if at < self.kept {
                    self.kept += 1;
                    self.changed = true;
                }
            }
            (Err(_), None) => {}
        }
    }

    fn close(mut self, tree: &Db, cuts: &Cuts) -> Result<(), IndexError> {
        let new: usize = self.rows.iter().skip(self.kept).map(chunk::size).sum();
        if !self.changed {
            if new == 0 {
                return Ok(());
            }
            if self.stored.is_some_and(|stored| stored > new) {
                let rows = self.rows.split_off(self.kept);
                return Self::put(tree, cuts, None, &rows, 0);
            }
        }
        if self.rows.is_empty() {
            if self.stored.is_some() {
                tree.remove(&self.key)?;
            }
            return Ok(());
        }
        let all: usize = self.rows.iter().map(chunk::size).sum();
        if self.changed && all <= 2 * FULL {
            // Cutting it for every record that has grown would cost more than it is worth.
            tree.insert(&self.key, chunk::encode(&self.key, &self.rows))?;
            return Ok(());
        }
        let key = self.stored.is_some().then_some(self.key.as_slice());
        Self::put(tree, cuts, key, &self.rows, self.kept)
    }

    /// Puts rows into chunks, of which the first goes to `key`. The first `kept` of them are, or were,
    /// in the one that is there.
    fn put(
        tree: &Db,
        cuts: &Cuts,
        key: Option<&[u8]>,
        rows: &[Row],
        kept: usize,
    ) -> Result<(), IndexError> {
        let mut chunks = cut(rows).into_iter();
        let Some(first) = chunks.next() else {
            return Ok(());
        };
        let own = |rows: &[Row]| rows.first().map(|(key, _)| key.clone()).unwrap_or_default();
        let key = key.map_or_else(|| own(first), <[u8]>::to_vec);
        if first.len() >= kept {
            tree.insert(&key, chunk::encode(&key, first))?;
            for rows in chunks {
                let key = own(rows);
                tree.insert(&key, chunk::encode(&key, rows))?;
            }
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.insert(key.as_slice(), chunk::encode(&key, first));
        for rows in chunks {
            let key = own(rows);
            batch.insert(key.as_slice(), chunk::encode(&key, rows));
        }
        cuts.0.fetch_add(1, Ordering::SeqCst);
        let applied = tree.apply_batch(batch);
        cuts.0.fetch_add(1, Ordering::SeqCst);
        Ok(applied?)
    }
}

/// Rows in chunks that are not fuller than full, if they have more than one row.
fn cut(rows: &[Row]) -> Vec<&[Row]> {
    let mut chunks = Vec::new();
    let mut left = rows;
    while !left.is_empty() {
        let mut bytes = 0;
        let fit = left.iter().take_while(|row| {
            bytes += chunk::size(row);
            bytes <= FULL
        });
        let (chunk, behind) = left.split_at(fit.count().max(1));
        chunks.push(chunk);
        left = behind;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    const TABLE: &[u8] = b"step/\0";

    fn tree(dir: &tempfile::TempDir) -> Db {
        sled::Config::new().path(dir.path()).open().unwrap()
    }

    fn write(tree: &Db, cuts: &Cuts, rows: &[(u8, usize)]) {
        let mut in_order = InOrder::new(tree, cuts);
        for (at, size) in rows {
            let value = vec![1; *size];
            let key = [TABLE, &[*at]].concat();
            in_order.write(TABLE, &key, Some(&value)).unwrap();
        }
        in_order.close().unwrap();
    }

    #[test]
    fn whoever_reads_during_a_cut_reads_again_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, cuts) = (tree(&dir), Cuts::default());
        write(&tree, &cuts, &[(1, 4), (2, 4)]);
        cuts.0.fetch_add(1, Ordering::SeqCst);
        let span = Span::of(TABLE.to_vec());
        std::thread::scope(|scope| {
            let (done, read) = channel();
            let (tree, cuts, span) = (&tree, &cuts, &span);
            scope.spawn(move || {
                let found = scan(tree, cuts, TABLE, span, Order::Descending, 9);
                done.send(found.unwrap().len()).unwrap();
            });
            let early = read.recv_timeout(Duration::from_millis(30));
            cuts.0.fetch_add(1, Ordering::SeqCst);
            assert_eq!(early, Err(RecvTimeoutError::Timeout));
            assert_eq!(read.recv(), Ok(2));
        });
    }

    #[test]
    fn records_that_move_to_another_chunk_are_announced_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, cuts) = (tree(&dir), Cuts::default());
        write(&tree, &cuts, &[(1, 4), (2, 4), (3, 4), (4, 4)]);
        write(&tree, &cuts, &[(5, 4)]);
        write(&tree, &cuts, &[(1, 9)]);
        assert_eq!(cuts.0.load(Ordering::SeqCst), 0);
        write(&tree, &cuts, &[(1, 2 * FULL)]);
        assert_eq!(cuts.0.load(Ordering::SeqCst), 2);
    }
}
