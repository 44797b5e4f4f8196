//! Where each table ends, so that the writer need not look for records that come after everything.
//!
//! Most new records do: events, runs and rows by time have keys that only grow. Looking each of them
//! up in the index, to find nothing, would cost the writer more than the rest of its work on it. Owned
//! by the writer, which says what it writes.

use std::collections::HashMap;

use super::error::IndexError;
use super::index::Index;
use super::scan::{Order, Span};

/// The greatest key that any record of a table has had, by the table's prefix.
#[derive(Debug, Default)]
pub(super) struct Ends(HashMap<Vec<u8>, Vec<u8>>);

impl Ends {
    /// Whether a key comes after every key that its table has in the index, or had since.
    pub(super) fn is_beyond(&mut self, key: &[u8], index: &Index) -> Result<bool, IndexError> {
        let prefix = prefix(key);
        if let Some(end) = self.0.get(prefix) {
            return Ok(key > end.as_slice());
        }
        let last = index.scan(&Span::of(prefix.to_vec()), Order::Descending, 1)?;
        let end = last
            .into_iter()
            .next()
            .map_or_else(Vec::new, |(last, _)| last);
        let is_beyond = key > end.as_slice();
        self.0.insert(prefix.to_vec(), end);
        Ok(is_beyond)
    }

    /// Says that there will be a record under a key.
    pub(super) fn reach(&mut self, key: &[u8]) {
        if let Some(end) = self.0.get_mut(prefix(key))
            && key > end.as_slice()
        {
            key.clone_into(end);
        }
    }
}

/// What all stored keys of the key's table begin with.
fn prefix(key: &[u8]) -> &[u8] {
    let end = key.iter().position(|byte| *byte == 0);
    end.and_then(|end| key.get(..=end)).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal_format::{Mark, Writes};

    #[test]
    fn only_what_comes_after_everything_that_was_ever_there_is_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), 1024 * 1024).unwrap();
        let stored = Writes::from([
            (b"a/\0e".to_vec(), Some(vec![1])),
            (b"b/\0a".to_vec(), Some(vec![1])),
        ]);
        index.apply(&stored, &Mark::default()).unwrap();
        let mut ends = Ends::default();
        let beyond = |ends: &mut Ends, key: &[u8]| ends.is_beyond(key, &index).unwrap();
        assert!(!beyond(&mut ends, b"a/\0e") && !beyond(&mut ends, b"a/\0d"));
        assert!(beyond(&mut ends, b"a/\0f") && beyond(&mut ends, b"c/\0a"));
        // A record that is only in the journal yet, and one that will be removed again.
        ends.reach(b"a/\0g");
        ends.reach(b"a/\0b");
        assert!(!beyond(&mut ends, b"a/\0f") && !beyond(&mut ends, b"a/\0g"));
        assert!(beyond(&mut ends, b"a/\0h") && beyond(&mut ends, b"b/\0b"));
    }
}
