//! A set of changes that becomes durable as a whole or not at all, and what it depends on.

use serde::Serialize;

use super::codec::Encoded;
use super::error::CommitError;
use super::key::Key;
use super::table::{Record, Table, Versioned};

/// The largest stored key and record together, in bytes before it is packed. The index works with
/// small records; anything larger belongs into a blob.
pub const MAX_RECORD_BYTES: usize = 32 * 1024;

/// The most bytes one set of changes may have.
pub const MAX_CHANGES_BYTES: usize = 4 * 1024 * 1024;

/// Changes to commit together. Preconditions are about the state before these changes, whatever
/// the order of the calls; of two writes to one key the later counts.
#[derive(Debug, Default)]
pub struct Changes {
    pub(super) conditions: Vec<Condition>,
    pub(super) writes: Vec<Write>,
    /// Lines for the payment journal, each a JSON object.
    pub(super) lines: Vec<String>,
    flaw: Option<CommitError>,
    bytes: usize,
}

/// What must hold for the changes to be made: the bytes stored under `key`, `None` for nothing.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) key: Vec<u8>,
    pub(super) expected: Option<Vec<u8>>,
}

/// New bytes under a key, `None` to remove it.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// How many of these, from the first on, the writer is given at once: at least one.
pub(super) fn fitting(all: &[Changes]) -> usize {
    let mut bytes = 0;
    let fit = all.iter().take_while(|changes| {
        bytes += changes.bytes();
        bytes <= MAX_CHANGES_BYTES
    });
    fit.count().max(1)
}

impl Changes {
    /// No changes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record. One that cannot be stored makes the commit fail as
    /// [`CommitError::Unstorable`].
    pub fn put<K: Key, V: Record>(&mut self, table: &Table<K, V>, key: &K, value: &V) {
        self.put_as(table, key, value);
    }

    /// Writes what serde writes as it would write a `V`: its JSON, or something borrowed.
    pub fn put_as<K: Key, V: Record, W: Serialize + ?Sized>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &W,
    ) {
        let key = table.stored_key(key);
        match table.encode(&key, value) {
            Ok(encoded) => self.write(table.prefix(), key, Some(encoded)),
            Err(error) => self.flaw(table.prefix(), error.to_string()),
        }
    }

    /// What was put under `key`, as it will be read once this is committed; `value` must be it.
    pub fn versioned<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        key: &K,
        value: V,
    ) -> Versioned<V> {
        let key = table.stored_key(key);
        let put = self.writes.iter().rev().find(|write| write.key == key);
        // Without it the changes have a flaw, and nobody will read anything.
        let stored = put.and_then(|write| write.value.clone());
        Versioned {
            value,
            stored: stored.unwrap_or_default(),
        }
    }

    /// Removes a record, if there is one.
    pub fn remove<K: Key, V: Record>(&mut self, table: &Table<K, V>, key: &K) {
        self.write(table.prefix(), table.stored_key(key), None);
    }

    /// Adds a line to the payment journal: the fields of `line`, which must be an object, after
    /// its place there. On disk in the journal's file before the commit is acknowledged.
    pub fn tell<L: Serialize>(&mut self, line: &L) {
        const TABLE: &str = "the payment journal";
        match serde_json::to_string(line) {
            Ok(text) if text.starts_with("{\"") => {
                self.bytes += text.len();
                if self.bytes > MAX_CHANGES_BYTES {
                    let limit = format!("more than {MAX_CHANGES_BYTES} bytes in one commit");
                    self.flaw(TABLE, limit);
                }
                self.lines.push(text);
            }
            Ok(_) => self.flaw(TABLE, "a line must be an object with fields".into()),
            Err(error) => self.flaw(TABLE, error.to_string()),
        }
    }

    /// Makes the commit fail as [`CommitError::Unstorable`]: a record of `table` cannot be made.
    pub fn refuse(&mut self, table: &'static str, reason: &str) {
        self.flaw(table, reason.to_owned());
    }

    /// Requires that there is no record.
    pub fn require_absent<K: Key, V: Record>(&mut self, table: &Table<K, V>, key: &K) {
        self.conditions.push(Condition {
            key: table.stored_key(key),
            expected: None,
        });
    }

    /// Requires that the record is still the one that was read.
    pub fn require_unchanged<K: Key, V: Record>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        read: &Versioned<V>,
    ) {
        self.conditions.push(Condition {
            key: table.stored_key(key),
            expected: Some(read.stored.clone()),
        });
    }

    /// Whether there is nothing to write and nothing to require.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
            && self.writes.is_empty()
            && self.lines.is_empty()
            && self.flaw.is_none()
    }

    /// The changes, if all of them can be stored.
    pub(super) fn checked(self) -> Result<Self, CommitError> {
        match self.flaw {
            Some(flaw) => Err(flaw),
            None => Ok(self),
        }
    }

    /// Bytes of all keys and values to write.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn write(&mut self, table: &'static str, key: Vec<u8>, value: Option<Encoded>) {
        let size = key.len() + value.as_ref().map_or(0, |value| value.size);
        let value = value.map(|value| value.stored);
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        if size > MAX_RECORD_BYTES {
            self.flaw(
                table,
                format!("{size} bytes, at most {MAX_RECORD_BYTES} fit; store it as a blob"),
            );
        } else if self.bytes > MAX_CHANGES_BYTES {
            self.flaw(
                table,
                format!("more than {MAX_CHANGES_BYTES} bytes in one commit"),
            );
        } else {
            self.writes.push(Write { key, value });
        }
    }

    fn flaw(&mut self, table: &'static str, reason: String) {
        self.flaw
            .get_or_insert(CommitError::Unstorable { table, reason });
    }
}
