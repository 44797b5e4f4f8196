//! The stored form of one record: version, checksum, JSON.
//!
//! `version u16 | crc32 u32 | json`, numbers big-endian; the checksum covers key, version and
//! JSON. So a value that sits under the wrong key or has a flipped bit is noticed on every read,
//! whatever the index itself believes.

use serde::{Serialize, de::DeserializeOwned};

const VERSION: usize = 2;
const HEAD: usize = VERSION + 4;
/// Bytes that few records go beyond.
const USUAL: usize = 512;

/// The stored form of `record` under `key`.
pub(super) fn encode<V: Serialize + ?Sized>(
    key: &[u8],
    version: u16,
    record: &V,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut stored = Vec::with_capacity(USUAL);
    stored.extend(version.to_be_bytes());
    stored.extend([0; HEAD - VERSION]);
    serde_json::to_writer(&mut stored, record)?;
    if let Some((head, json)) = stored.split_at_mut_checked(HEAD) {
        let checksum = checksum(key, version, json).to_be_bytes();
        head.split_at_mut(VERSION).1.copy_from_slice(&checksum);
    }
    Ok(stored)
}

/// The version of a whole stored record and its JSON; `None` if the checksum does not hold.
pub(super) fn check<'a>(key: &[u8], stored: &'a [u8]) -> Option<(u16, &'a [u8])> {
    let (version, rest) = stored.split_first_chunk()?;
    let (crc, json) = rest.split_first_chunk()?;
    let version = u16::from_be_bytes(*version);
    (checksum(key, version, json) == u32::from_be_bytes(*crc)).then_some((version, json))
}

/// The checksum that a stored record carries, unchecked; 0 if it is too short to carry one.
pub(super) fn carried_checksum(stored: &[u8]) -> u32 {
    stored
        .get(VERSION..HEAD)
        .and_then(|crc| crc.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// The record in `json`.
pub(super) fn parse<V: DeserializeOwned>(json: &[u8]) -> Result<V, serde_json::Error> {
    serde_json::from_slice(json)
}

fn checksum(key: &[u8], version: u16, json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // Without its length, the end of the key could pass for the start of the value.
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(&version.to_be_bytes());
    hasher.update(json);
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
            let mut stored = encode(&key, version, &text).unwrap();
            let (found, json) = check(&key, &stored).unwrap();
            prop_assert_eq!(found, version);
            prop_assert_eq!(parse::<String>(json).unwrap(), text);
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
        let stored = encode(b"a", 1, &1).unwrap();
        assert!(check(b"a", &stored).is_some());
        assert!(check(b"b", &stored).is_none());
    }
}
