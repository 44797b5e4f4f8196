//! The bytes of a chunk: neighbouring records in one record of sled's. Pure.
//!
//! ```text
//! chunk  0xffff | records
//! record shared u16 | rest u16 | length u32 | rest of the key | stored bytes
//! ```
//!
//! Numbers are big-endian, and `shared` says how many bytes of its key a record takes over from the
//! chunk's, which is at most the first record's. A record alone under its own key stands there
//! without all this: stored bytes begin with their version, which is small.

/// How every chunk begins.
const MARK: [u8; 2] = [0xff; 2];

/// A record's key and its stored bytes.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// The bytes are no chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// The records of a chunk, one after the other.
struct Rows<'a> {
    rest: &'a [u8],
}

/// A record as it stands in its chunk.
struct Raw<'a> {
    shared: usize,
    rest: &'a [u8],
    stored: &'a [u8],
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Raw<'a>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let raw = take(&mut self.rest);
        if raw.is_none() {
            self.rest = &[];
        }
        Some(raw.ok_or(Damaged))
    }
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<Raw<'a>> {
    let (shared, left) = bytes.split_first_chunk()?;
    let (rest, left) = left.split_first_chunk()?;
    let (length, left) = left.split_first_chunk()?;
    let (rest, left) = left.split_at_checked(u16::from_be_bytes(*rest).into())?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (stored, left) = left.split_at_checked(length)?;
    *bytes = left;
    Some(Raw {
        shared: u16::from_be_bytes(*shared).into(),
        rest,
        stored,
    })
}

/// What is stored under `wanted` in the chunk under `key`.
pub(super) fn find<'a>(
    key: &[u8],
    chunk: &'a [u8],
    wanted: &[u8],
) -> Result<Option<&'a [u8]>, Damaged> {
    let Some(rest) = chunk.strip_prefix(&MARK) else {
        return Ok((key == wanted).then_some(chunk));
    };
    for raw in (Rows { rest }) {
        let raw = raw?;
        let own = wanted.split_at_checked(raw.shared);
        if own.is_some_and(|(shared, rest)| key.starts_with(shared) && rest == raw.rest) {
            return Ok(Some(raw.stored));
        }
    }
    Ok(None)
}

/// The records of the chunk under `key`.
pub(super) fn rows(key: &[u8], chunk: &[u8]) -> Result<Vec<Row>, Damaged> {
    let Some(rest) = chunk.strip_prefix(&MARK) else {
        return Ok(vec![(key.to_vec(), chunk.to_vec())]);
    };
    Rows { rest }
        .map(|raw| {
            let raw = raw?;
            let shared = key.get(..raw.shared).ok_or(Damaged)?;
            Ok(([shared, raw.rest].concat(), raw.stored.to_vec()))
        })
        .collect()
}

/// The chunk of `rows` that is kept under `key`.
pub(super) fn encode(key: &[u8], rows: &[Row]) -> Vec<u8> {
    if let [(own, stored)] = rows
        && own == key
    {
        return stored.clone();
    }
    let mut chunk = Vec::with_capacity(rows.iter().map(size).sum::<usize>() + MARK.len());
    chunk.extend(MARK);
    for (own, stored) in rows {
        let shared = key.iter().zip(own).take_while(|(a, b)| a == b).count();
        let shared = shared.min(u16::MAX.into());
        let rest = own.get(shared..).unwrap_or_default();
        chunk.extend(short(shared).to_be_bytes());
        chunk.extend(short(rest.len()).to_be_bytes());
        chunk.extend(
            u32::try_from(stored.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        chunk.extend(rest);
        chunk.extend(stored);
    }
    chunk
}

/// Bytes of a record in a chunk, at most.
pub(super) fn size((key, stored): &Row) -> usize {
    8 + key.len() + stored.len()
}

// Key and record together have at most `MAX_RECORD_BYTES`.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_record_is_found_and_nothing_else(
            records in btree_map(vec(0..3_u8, 0..6), vec(0..200_u8, 0..40), 1..12),
            other in vec(0..3_u8, 0..6),
        ) {
            let rows_given: Vec<Row> = records.clone().into_iter().collect();
            let key = &rows_given[0].0;
            let chunk = encode(key, &rows_given);
            prop_assert_eq!(rows(key, &chunk), Ok(rows_given.clone()));
            for (own, stored) in &rows_given {
                prop_assert_eq!(find(key, &chunk, own), Ok(Some(stored.as_slice())));
            }
            let found = find(key, &chunk, &other);
            prop_assert_eq!(found, Ok(records.get(&other).map(Vec::as_slice)));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(key: Vec<u8>, mut chunk: Vec<u8>, wanted: Vec<u8>) {
            chunk.splice(0..0, MARK);
            drop(rows(&key, &chunk));
            drop(find(&key, &chunk, &wanted));
        }
    }

    #[test]
    fn a_record_alone_under_its_own_key_is_kept_as_it_is() {
        let row = (b"k".to_vec(), vec![0, 1, 9]);
        assert_eq!(encode(b"k", std::slice::from_ref(&row)), row.1);
        // Its chunk began with another one, which is gone.
        let chunk = encode(b"a", std::slice::from_ref(&row));
        assert_eq!(rows(b"a", &chunk), Ok(vec![row]));
        assert_eq!(
            rows(b"a", chunk.get(..chunk.len() - 1).unwrap()),
            Err(Damaged)
        );
    }
}
