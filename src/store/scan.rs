//! Which records of a table to read, and in which order.

use std::marker::PhantomData;

use super::key::{Key, Leading, encode_open_text};

/// A range of the keys of a table, by their encoded order.
#[derive(Debug)]
pub struct Range<K> {
    /// What the encoded keys start with.
    pub(super) prefix: Vec<u8>,
    /// The encoded key to go on after, in the direction of the scan.
    pub(super) after: Option<Vec<u8>>,
    keys: PhantomData<fn(K)>,
}

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

impl<K: Key> Range<K> {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            prefix: Vec::new(),
            after: None,
            keys: PhantomData,
        }
    }

    /// The keys whose first part or parts are `leading`.
    #[must_use]
    pub fn within<L: Leading<K>>(leading: &L) -> Self {
        let mut range = Self::all();
        leading.encode(&mut range.prefix);
        range
    }

    /// Narrows the range to keys whose next part is a text that starts with `text`.
    #[must_use]
    pub fn starting_with(mut self, text: &str) -> Self {
        encode_open_text(text, &mut self.prefix);
        self
    }

    /// Goes on after `key`, in the direction of the scan. The key need not exist any more.
    #[must_use]
    pub fn after(mut self, key: &K) -> Self {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        self.after = Some(bytes);
        self
    }
}
