//! The stored form of one record: version, checksum, JSON.
//!
//! `version u16 | crc32 u32 | json, packed or not`, numbers big-endian; the checksum covers key,
//! version and everything behind it. So a value that sits under the wrong key or has a flipped bit
//! is noticed on every read, whatever the index itself believes.

use std::cell::RefCell;

use serde::{Serialize, de::DeserializeOwned};

use super::packing::{Dictionary, pack, unpack};

const VERSION: usize = 2;
const HEAD: usize = VERSION + 4;
/// Bytes that a record is made in and few go beyond.
const USUAL: usize = 8 * 1024;

thread_local! {
    /// What the last record of the thread was made in: its JSON, and the packed form.
    static ROOM: RefCell<[Vec<u8>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// The stored form of a record.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) stored: Vec<u8>,
    /// Bytes of its stored form if it were not packed.
    pub(super) size: usize,
}

/// The stored form of `record` under `key`, packed with a dictionary if there is one.
pub(super) fn encode<V: Serialize + ?Sized>(
    key: &[u8],
    version: u16,
    dictionary: Option<Dictionary>,
    record: &V,
) -> Result<Encoded, serde_json::Error> {
    // Taken, so that a record which makes others while it is written finds none, not this one.
    let [mut json, mut room] = ROOM.take();
    json.clear();
    serde_json::to_writer(&mut json, record)?;
    let packed = dictionary.and_then(|dictionary| pack(dictionary, &json, &mut room));
    let kept = packed.unwrap_or(&json);
    let mut stored = Vec::with_capacity(HEAD + kept.len());
    stored.extend(version.to_be_bytes());
    stored.extend(checksum(key, version, kept).to_be_bytes());
    stored.extend(kept);
    let size = HEAD + json.len();
    if json.len() <= USUAL {
        ROOM.set([json, room]);
    }
    Ok(Encoded { stored, size })
}

/// The version of a whole stored record and what is kept of it; `None` if the checksum does not
/// hold.
pub(super) fn check<'a>(key: &[u8], stored: &'a [u8]) -> Option<(u16, &'a [u8])> {
    let (version, rest) = stored.split_first_chunk()?;
    let (crc, kept) = rest.split_first_chunk()?;
    let version = u16::from_be_bytes(*version);
    (checksum(key, version, kept) == u32::from_be_bytes(*crc)).then_some((version, kept))
}

/// The checksum that a stored record carries, unchecked; 0 if it is too short to carry one.
pub(super) fn carried_checksum(stored: &[u8]) -> u32 {
    stored
        .get(VERSION..HEAD)
        .and_then(|crc| crc.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// The record in what is kept of it; why it is none.
pub(super) fn parse<V: DeserializeOwned>(kept: &[u8]) -> Result<V, String> {
    let json = unpack(kept).ok_or("it cannot be unpacked")?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

fn checksum(key: &[u8], version: u16, kept: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // Without its length, the end of the key could pass for the start of the value.
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(&version.to_be_bytes());
    hasher.update(kept);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_comes_back_and_no_flipped_bit_passes(
            key: Vec<u8>, version: u16, text: String, at: usize, bit in 0..8,
        ) {
            let words = Some(Dictionary::Runs);
            let mut stored = encode(&key, version, words, &text).unwrap().stored;
            let (found, kept) = check(&key, &stored).unwrap();
            prop_assert_eq!(found, version);
            prop_assert_eq!(parse::<String>(kept).unwrap(), text);
            let at = at % stored.len();
            stored[at] ^= 1_u8 << bit;
            prop_assert!(check(&key, &stored).is_none());
        }

        #[test]
        fn any_bytes_are_checked_without_panic(key: Vec<u8>, stored: Vec<u8>) {
            carried_checksum(&stored);
            check(&key, &stored);
        }
    }

    #[test]
    fn a_record_under_another_key_does_not_pass() {
        let stored = encode(b"a", 1, None, &1).unwrap().stored;
        assert!(check(b"a", &stored).is_some());
        assert!(check(b"b", &stored).is_none());
    }
}
