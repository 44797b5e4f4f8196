//! Tables: a name, the type of its keys and the type of its records.
//!
//! All tables live in one index, each under its prefix. A table has no state; it says how bytes
//! and values correspond. Tables are declared as constants by the modules that own the records.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use super::codec::{self, Encoded};
use super::error::ReadError;
use super::key::Key;
use super::packing::Dictionary;

/// Ends the prefix in the stored key, so that no table's prefix is the start of another's.
const PREFIX_END: u8 = 0;

/// Bytes that few stored keys go beyond.
const USUAL_KEY: usize = 96;

/// Something that can be stored: whatever serde can write as JSON and read back.
///
/// Enums with numbers in them must be externally tagged, and nothing may be flattened, or exact
/// numbers do not survive. Maps need texts as keys. A type must be able to read what its older
/// versions wrote.
pub trait Record: Serialize + DeserializeOwned {}

impl<T: Serialize + DeserializeOwned> Record for T {}

/// One kind of records.
#[derive(Debug)]
pub struct Table<K, V> {
    prefix: &'static str,
    version: u16,
    dictionary: Option<Dictionary>,
    types: PhantomData<fn(K) -> V>,
}

/// A record as it was read or written, with what is needed to require later that it is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<V> {
    /// The record.
    pub value: V,
    /// Its stored bytes: the record is unchanged if and only if they are.
    pub(super) stored: Vec<u8>,
}

impl<K, V> Table<K, V> {
    /// A table. `prefix` is lower case and ends in `/`; no two tables may share one. `version`
    /// is that of the records written; records of a newer one are refused when read.
    ///
    /// # Panics
    /// When the prefix is malformed; in a constant that is an error of the compiler.
    #[must_use]
    pub const fn new(prefix: &'static str, version: u16) -> Self {
        let bytes = prefix.as_bytes();
        assert!(
            matches!(bytes, [b'a'..=b'z', .., b'/']),
            "a table's prefix starts with a letter and ends in `/`"
        );
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            assert!(
                matches!(*byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'/'),
                "a table's prefix is made of lower-case letters, digits, `_` and `/`"
            );
            rest = tail;
        }
        Self {
            prefix,
            version,
            dictionary: None,
            types: PhantomData,
        }
    }

    /// The same table, whose records are packed with what records of their kind have in common.
    #[must_use]
    pub const fn packed(self, dictionary: Dictionary) -> Self {
        Self {
            dictionary: Some(dictionary),
            ..self
        }
    }

    /// The prefix, which is also the table's name in errors.
    #[must_use]
    pub const fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// What every stored key of this table starts with.
    pub(super) fn stored_prefix(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(USUAL_KEY);
        bytes.extend(self.prefix.as_bytes());
        bytes.push(PREFIX_END);
        bytes
    }
}

impl<K: Key, V: Record> Table<K, V> {
    pub(super) fn stored_key(&self, key: &K) -> Vec<u8> {
        let mut bytes = self.stored_prefix();
        key.encode(&mut bytes);
        bytes
    }

    /// The key in a stored key of this table.
    pub(super) fn key(&self, stored_key: &[u8]) -> Result<K, ReadError> {
        let mut rest = stored_key.get(self.prefix.len() + 1..).unwrap_or_default();
        match K::decode(&mut rest) {
            Some(key) if rest.is_empty() => Ok(key),
            Some(_) | None => Err(self.undecodable(stored_key, "the key is malformed")),
        }
    }

    /// The stored form of a record, or of what is written as one would be.
    pub(super) fn encode<W: Serialize + ?Sized>(
        &self,
        stored_key: &[u8],
        value: &W,
    ) -> Result<Encoded, serde_json::Error> {
        codec::encode(stored_key, self.version, self.dictionary, value)
    }

    pub(super) fn decode(&self, stored_key: &[u8], stored: &[u8]) -> Result<V, ReadError> {
        let Some((found, kept)) = codec::check(stored_key, stored) else {
            return Err(self.undecodable(stored_key, "its checksum does not hold"));
        };
        if found > self.version {
            return Err(ReadError::Newer {
                table: self.prefix,
                key: shown_key(self.prefix, stored_key),
                found,
                known: self.version,
            });
        }
        codec::parse(kept).map_err(|reason| self.undecodable(stored_key, &reason))
    }

    fn undecodable(&self, stored_key: &[u8], reason: &str) -> ReadError {
        ReadError::Undecodable {
            table: self.prefix,
            key: shown_key(self.prefix, stored_key),
            reason: reason.to_owned(),
        }
    }
}

/// A stored key without its table, for people: printable ASCII as it is, the rest escaped.
fn shown_key(prefix: &str, stored_key: &[u8]) -> String {
    let key = stored_key.get(prefix.len() + 1..).unwrap_or(stored_key);
    key.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Table<(String, u64), u32> = Table::new("a/b/", 2);

    #[test]
    fn a_table_whose_prefix_starts_another_has_no_keys_of_it() {
        const NARROW: Table<String, u32> = Table::new("a/", 1);
        let stored_key = WIDE.stored_key(&("x".into(), 1));
        assert!(!stored_key.starts_with(&NARROW.stored_prefix()));
        assert_eq!(WIDE.key(&stored_key).unwrap(), ("x".into(), 1));
    }

    #[test]
    fn a_newer_record_is_refused_by_name() {
        const OLD: Table<(String, u64), u32> = Table::new("a/b/", 1);
        let stored_key = OLD.stored_key(&("x".into(), 7));
        let stored = WIDE.encode(&stored_key, &5).unwrap().stored;
        assert_eq!(WIDE.decode(&stored_key, &stored).unwrap(), 5);
        assert_eq!(
            OLD.decode(&stored_key, &stored).unwrap_err().to_string(),
            r"record `x\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07` in `a/b/` has version 2, this release of bursar reads up to 1; start the newer release"
        );
    }

    #[test]
    fn older_records_are_read() {
        const NEWER: Table<(String, u64), u32> = Table::new("a/b/", 9);
        let stored_key = WIDE.stored_key(&("x".into(), 7));
        let stored = WIDE.encode(&stored_key, &5).unwrap().stored;
        assert_eq!(NEWER.decode(&stored_key, &stored).unwrap(), 5);
    }

    #[test]
    fn a_record_of_another_shape_is_undecodable() {
        const TEXTS: Table<(String, u64), String> = Table::new("a/b/", 2);
        let stored_key = WIDE.stored_key(&("x".into(), 7));
        let stored = WIDE.encode(&stored_key, &5).unwrap().stored;
        assert!(matches!(
            TEXTS.decode(&stored_key, &stored),
            Err(ReadError::Undecodable { table: "a/b/", .. })
        ));
    }
}
