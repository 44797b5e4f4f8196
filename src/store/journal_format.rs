//! The bytes of the guard journal: pure encoding, decoding and judging of one segment.
//!
//! A segment is a header and records, one record per group commit, numbers big-endian:
//!
//! ```text
//! header  "BURSARGJ" | version u16 | mark | crc32 of these
//! record  "BGR1" | payload length u32 | previous chain u32 | mark without chain | payload | crc32 of these
//! mark    sequence u64 | records u64 | sum u64 | chain u32
//! payload per key: key length u32 | key | value length u32 + 1, or 0 for a removal | value
//! ```
//!
//! The lines that a group adds to the payment journal stand in its payload under the empty key,
//! which is no record's.
//!
//! Behind the last record there may be zeros, of any number: room that was made for later records.
//! They end the segment as the end of the file does.
//!
//! # Design
//! A record's checksum is its link in the chain: it covers the checksum before it, so records
//! cannot be dropped, swapped or mixed with another store's. Every record says how many records
//! the index holds after it and the sum of their checksums. That is what an index is measured
//! against at open: whatever sled lost, kept too long or mixed up, the sums do not agree.

use std::collections::BTreeMap;
use std::ops::Range;

use super::codec;

/// The newest version of the segments this release reads, and the one it writes.
pub(super) const VERSION: u16 = 2;

const HEADER_MAGIC: &[u8; 8] = b"BURSARGJ";
const RECORD_MAGIC: &[u8; 4] = b"BGR1";
/// Length of a segment's header.
pub(super) const HEADER_LENGTH: usize = 8 + 2 + Mark::LENGTH + 4;
const RECORD_HEAD: usize = 4 + 4 + 4 + 24;

/// What a group writes: the last value of each key, `None` for a removal.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Where the store stands after a group: what the index must hold then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Number of the group, from 1; 0 before the first.
    pub(super) sequence: u64,
    /// How many records there are.
    pub(super) records: u64,
    /// The sum of their checksums.
    pub(super) sum: u64,
    /// Checksum of the group's record in the journal.
    pub(super) chain: u32,
}

impl Mark {
    /// Length of an encoded mark.
    pub(super) const LENGTH: usize = 28;

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        for number in [self.sequence, self.records, self.sum] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.chain.to_be_bytes());
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            sequence: take_u64(bytes)?,
            records: take_u64(bytes)?,
            sum: take_u64(bytes)?,
            chain: take_u32(bytes)?,
        })
    }

    /// Counts one write: the stored bytes before and after.
    pub(super) fn count(&mut self, old: Option<u32>, new: Option<u32>) {
        if let Some(checksum) = old {
            self.records = self.records.wrapping_sub(1);
            self.sum = self.sum.wrapping_sub(checksum.into());
        }
        if let Some(checksum) = new {
            self.records = self.records.wrapping_add(1);
            self.sum = self.sum.wrapping_add(checksum.into());
        }
    }

    /// Whether an index with these contents is the one meant.
    pub(super) const fn counts_as(&self, records: u64, sum: u64) -> bool {
        self.records == records && self.sum == sum
    }
}

/// A new segment that begins after `mark`.
pub(super) fn encode_header(mark: &Mark) -> Vec<u8> {
    let mut bytes = HEADER_MAGIC.to_vec();
    bytes.extend(VERSION.to_be_bytes());
    mark.encode(&mut bytes);
    seal(&mut bytes);
    bytes
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Not a whole header.
    Damaged,
    /// Of a newer version.
    Newer(u16),
}

/// The mark that a segment begins after.
pub(super) fn decode_header(segment: &[u8]) -> Result<Mark, BadHeader> {
    let header = segment.get(..HEADER_LENGTH).ok_or(BadHeader::Damaged)?;
    let mut rest = header
        .strip_prefix(HEADER_MAGIC)
        .ok_or(BadHeader::Damaged)?;
    let version = take_u16(&mut rest).ok_or(BadHeader::Damaged)?;
    if version > VERSION {
        return Err(BadHeader::Newer(version));
    }
    if !sealed(header) {
        return Err(BadHeader::Damaged);
    }
    Mark::decode(&mut rest).ok_or(BadHeader::Damaged)
}

/// The record of the group that leads from `previous` to `mark`, whose chain is filled in. `lines`
/// are what it adds to the payment journal.
pub(super) fn encode_record(
    previous: &Mark,
    mark: &mut Mark,
    writes: &Writes,
    lines: &[u8],
) -> Vec<u8> {
    let mut bytes = RECORD_MAGIC.to_vec();
    bytes.extend([0; 4]);
    bytes.extend(previous.chain.to_be_bytes());
    for number in [mark.sequence, mark.records, mark.sum] {
        bytes.extend(number.to_be_bytes());
    }
    if !lines.is_empty() {
        bytes.extend([0; 4]);
        bytes.extend((length_u32(lines) + 1).to_be_bytes());
        bytes.extend(lines);
    }
    for (key, value) in writes {
        bytes.extend(length(key));
        bytes.extend(key);
        match value {
            Some(value) => {
                bytes.extend((length_u32(value) + 1).to_be_bytes());
                bytes.extend(value);
            }
            None => bytes.extend([0; 4]),
        }
    }
    let payload = length(bytes.get(RECORD_HEAD..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(4..8) {
        field.copy_from_slice(&payload);
    }
    mark.chain = seal(&mut bytes);
    bytes
}

/// One whole record in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The mark after it.
    pub(super) mark: Mark,
    /// The chain before it.
    pub(super) previous: u32,
    /// Where its payload is.
    pub(super) payload: Range<usize>,
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a whole record.
    Whole,
    /// With bytes from `at` on that are no whole record, and no later record after them: what
    /// an interrupted append leaves behind.
    Torn {
        /// Offset of the first of them.
        at: usize,
    },
    /// With a whole record, and from `at` on with nothing but zeros: room for later records.
    Reserved {
        /// Offset of the first of them.
        at: usize,
    },
    /// A record that is not whole or not the next one begins at `at`, and there are later ones.
    Damaged {
        /// Its offset.
        at: usize,
    },
}

/// The records of a segment whose header says `start`, in order, and how it ends.
pub(super) fn records(segment: &[u8], start: &Mark) -> (Vec<Record>, End) {
    let mut records = Vec::new();
    let mut last = *start;
    let mut at = HEADER_LENGTH;
    while at < segment.len() {
        match decode_record(segment, at) {
            Some(record)
                if record.previous == last.chain && record.mark.sequence == last.sequence + 1 =>
            {
                last = record.mark;
                at = record.payload.end + 4;
                records.push(record);
            }
            Some(_) => return (records, End::Damaged { at }),
            None if is_reserved(segment, at) => return (records, End::Reserved { at }),
            None if later_record(segment, at + 1) => return (records, End::Damaged { at }),
            None => return (records, End::Torn { at }),
        }
    }
    (records, End::Whole)
}

/// What a group does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Payload {
    /// What it writes.
    pub(super) writes: Writes,
    /// What it adds to the payment journal.
    pub(super) lines: Vec<u8>,
}

/// What stands in a record's payload; `None` if it is malformed.
pub(super) fn decode_payload(mut payload: &[u8]) -> Option<Payload> {
    let mut writes = Writes::new();
    let mut lines = Vec::new();
    while !payload.is_empty() {
        let length = take_u32(&mut payload)?;
        let key = take(&mut payload, length)?.to_vec();
        let value = match take_u32(&mut payload)?.checked_sub(1) {
            Some(length) => Some(take(&mut payload, length)?.to_vec()),
            None => None,
        };
        if key.is_empty() {
            lines = value?;
        } else {
            writes.insert(key, value);
        }
    }
    Some(Payload { writes, lines })
}

/// The checksum that each write leaves behind, for counting.
pub(super) fn checksum(value: Option<&Vec<u8>>) -> Option<u32> {
    value.map(|stored| codec::carried_checksum(stored))
}

fn decode_record(segment: &[u8], at: usize) -> Option<Record> {
    let bytes = segment.get(at..)?;
    let mut rest = bytes.strip_prefix(RECORD_MAGIC)?;
    let length = usize::try_from(take_u32(&mut rest)?).ok()?;
    let whole = bytes.get(..RECORD_HEAD.checked_add(length)?.checked_add(4)?)?;
    if !sealed(whole) {
        return None;
    }
    let previous = take_u32(&mut rest)?;
    let mark = Mark {
        sequence: take_u64(&mut rest)?,
        records: take_u64(&mut rest)?,
        sum: take_u64(&mut rest)?,
        chain: whole.last_chunk().map(|crc| u32::from_be_bytes(*crc))?,
    };
    let start = at + RECORD_HEAD;
    Some(Record {
        mark,
        previous,
        payload: start..start + length,
    })
}

/// Whether nothing was written from `at` on. No record begins with a zero.
fn is_reserved(segment: &[u8], at: usize) -> bool {
    let rest = segment.get(at..).unwrap_or_default();
    rest.iter().all(|byte| *byte == 0)
}

/// Whether a whole record begins anywhere from `at` on. An append starts only when the one before
/// it is synced, so such a record proves that what stands before it was once whole.
fn later_record(segment: &[u8], at: usize) -> bool {
    let rest = segment.get(at..).unwrap_or_default();
    rest.windows(RECORD_MAGIC.len())
        .enumerate()
        .filter(|(_, window)| window == RECORD_MAGIC)
        .any(|(offset, _)| decode_record(segment, at + offset).is_some())
}

/// The greatest sequence of any whole record in a segment, whatever stands between them.
pub(super) fn greatest_sequence(segment: &[u8]) -> Option<u64> {
    segment
        .windows(RECORD_MAGIC.len())
        .enumerate()
        .filter(|(_, window)| window == RECORD_MAGIC)
        .filter_map(|(at, _)| Some(decode_record(segment, at)?.mark.sequence))
        .max()
}

/// Appends the checksum of everything so far, and gives it.
pub(super) fn seal(bytes: &mut Vec<u8>) -> u32 {
    let crc = crc32fast::hash(bytes);
    bytes.extend(crc.to_be_bytes());
    crc
}

/// Whether the last four bytes are the checksum of those before.
pub(super) fn sealed(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk()
        .is_some_and(|(body, crc)| crc32fast::hash(body) == u32::from_be_bytes(*crc))
}

pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

pub(super) fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u16::from_be_bytes(*number))
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number))
}

fn take<'a>(bytes: &mut &'a [u8], length: u32) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

fn length(bytes: &[u8]) -> [u8; 4] {
    length_u32(bytes).to_be_bytes()
}

fn length_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a group is limited to a few MiB")
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn groups() -> impl Strategy<Value = Vec<Payload>> {
        let bytes = |least: usize| vec(any::<u8>(), least..20);
        let writes = btree_map(bytes(1), option::of(bytes(0)), 0..4);
        let payload = (writes, bytes(0)).prop_map(|(writes, lines)| Payload { writes, lines });
        vec(payload, 1..6)
    }

    fn payload(n: u8) -> Payload {
        Payload {
            writes: Writes::from([(vec![n], Some(vec![n]))]),
            lines: Vec::new(),
        }
    }

    /// A segment with these groups, and the offset at which each record ends.
    fn segment(groups: &[Payload]) -> (Vec<u8>, Vec<usize>) {
        let mut last = Mark {
            sequence: 7,
            records: 3,
            sum: 9,
            chain: 1,
        };
        let mut bytes = encode_header(&last);
        let mut ends = Vec::new();
        for Payload { writes, lines } in groups {
            let mut mark = last;
            mark.sequence += 1;
            bytes.extend(encode_record(&last, &mut mark, writes, lines));
            ends.push(bytes.len());
            last = mark;
        }
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn groups_come_back(groups in groups()) {
            let (bytes, _) = segment(&groups);
            let start = decode_header(&bytes).unwrap();
            prop_assert_eq!(start.sequence, 7);
            let (records, end) = records(&bytes, &start);
            prop_assert_eq!(end, End::Whole);
            let found: Vec<_> = records
                .iter()
                .map(|record| decode_payload(&bytes[record.payload.clone()]).unwrap())
                .collect();
            prop_assert_eq!(found, groups);
            prop_assert_eq!(records.last().unwrap().mark.sequence, 7 + records.len() as u64);
        }

        #[test]
        fn a_cut_segment_keeps_every_whole_record_and_is_torn_after_it(
            groups in groups(), cut: usize,
        ) {
            let (bytes, ends) = segment(&groups);
            let start = decode_header(&bytes).unwrap();
            let cut = HEADER_LENGTH + cut % (bytes.len() - HEADER_LENGTH);
            let (records, end) = records(&bytes[..cut], &start);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            prop_assert_eq!(records.len(), whole);
            let at = if whole == 0 { HEADER_LENGTH } else { ends[whole - 1] };
            prop_assert_eq!(end, if at == cut { End::Whole } else { End::Torn { at } });
        }

        #[test]
        fn a_flipped_bit_never_passes_for_a_whole_segment(
            groups in groups(), at: usize, bit in 0..8,
        ) {
            let (mut bytes, ends) = segment(&groups);
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            match decode_header(&bytes) {
                Err(_) => prop_assert!(at < HEADER_LENGTH),
                Ok(start) => {
                    let hit = ends.iter().position(|end| at < *end).unwrap();
                    let (records, end) = records(&bytes, &start);
                    prop_assert_eq!(records.len(), hit);
                    let begin = if hit == 0 { HEADER_LENGTH } else { ends[hit - 1] };
                    prop_assert_eq!(end, if hit + 1 == ends.len() {
                        End::Torn { at: begin }
                    } else {
                        End::Damaged { at: begin }
                    });
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(noise: Vec<u8>, tail: Vec<u8>, groups in groups()) {
            if let Ok(start) = decode_header(&noise) {
                records(&noise, &start);
            }
            decode_payload(&noise);
            let (mut bytes, _) = segment(&groups);
            let start = decode_header(&bytes).unwrap();
            bytes.extend(tail);
            let (found, _) = records(&bytes, &start);
            prop_assert_eq!(found.len(), groups.len());
        }
    }

    #[test]
    fn a_header_of_a_newer_version_is_told_from_a_damaged_one() {
        let mut bytes = encode_header(&Mark::default());
        bytes[9] = 3;
        assert_eq!(decode_header(&bytes), Err(BadHeader::Newer(3)));
        bytes[9] = 0;
        assert_eq!(decode_header(&bytes), Err(BadHeader::Damaged));
    }

    #[test]
    fn zeros_behind_the_last_record_are_room_and_anything_else_there_is_not() {
        let (mut bytes, ends) = segment(&[payload(1), payload(2)]);
        let start = decode_header(&bytes).unwrap();
        bytes.resize(ends[1] + 500, 0);
        let (found, end) = records(&bytes, &start);
        assert_eq!((found.len(), end), (2, End::Reserved { at: ends[1] }));
        bytes[ends[1] + 400] = 1;
        let (found, end) = records(&bytes, &start);
        assert_eq!((found.len(), end), (2, End::Torn { at: ends[1] }));
        let between = [&bytes[..ends[0]], &[0; 64], &bytes[ends[0]..]].concat();
        let (found, end) = records(&between, &start);
        assert_eq!((found.len(), end), (1, End::Damaged { at: ends[0] }));
    }

    #[test]
    fn records_that_were_dropped_or_swapped_are_damage() {
        let (bytes, ends) = segment(&[payload(1), payload(2), payload(3)]);
        let start = decode_header(&bytes).unwrap();
        let without_the_second = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
        let (found, end) = records(&without_the_second, &start);
        assert_eq!((found.len(), end), (1, End::Damaged { at: ends[0] }));
    }
}
