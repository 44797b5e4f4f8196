//! Which records of a table to read, and in which order.

use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use super::error::ReadError;
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

/// A record that cannot be read, as it is stored.
#[derive(Debug)]
pub struct Unreadable {
    /// Why not.
    pub error: ReadError,
    /// Its bytes.
    pub stored: Vec<u8>,
}

/// A key and its record, or what is stored instead.
pub type Each<K, V> = (K, Result<V, Unreadable>);

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

impl Order {
    /// Whether `first` comes before `second`.
    pub(super) fn precedes(self, first: &[u8], second: &[u8]) -> bool {
        match self {
            Self::Ascending => first < second,
            Self::Descending => first > second,
        }
    }
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

    /// Begins, in ascending order, with the keys whose first part or parts are `leading`; there must
    /// be a part behind them.
    #[must_use]
    pub fn since<L: Leading<K>>(mut self, leading: &L) -> Self {
        let mut bytes = Vec::new();
        leading.encode(&mut bytes);
        self.after = Some(bytes);
        self
    }
}

/// Stored keys that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
}

impl Span {
    /// The keys that start with `prefix`.
    pub(super) fn of(prefix: Vec<u8>) -> Self {
        let high = successor(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self {
            low: Bound::Included(prefix),
            high,
        }
    }

    /// Leaves out everything up to `after`, in the direction of a scan. A position outside of the
    /// span neither widens it nor makes it end before it begins.
    pub(super) fn go_on_after(&mut self, after: Vec<u8>, order: Order) {
        match order {
            Order::Ascending => {
                let ahead = match &self.low {
                    Bound::Included(low) | Bound::Excluded(low) => after >= *low,
                    Bound::Unbounded => true,
                };
                if ahead {
                    self.low = Bound::Excluded(after);
                }
            }
            Order::Descending => {
                let ahead = match &self.high {
                    Bound::Included(high) | Bound::Excluded(high) => after <= *high,
                    Bound::Unbounded => true,
                };
                if ahead {
                    self.high = Bound::Excluded(after);
                }
            }
        }
    }

    /// Whether no key can be in it.
    pub(super) fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Bound::Included(low), Bound::Included(high)) => low > high,
            (
                Bound::Included(low) | Bound::Excluded(low),
                Bound::Included(high) | Bound::Excluded(high),
            ) => low >= high,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }

    /// Where it begins, in the order of keys.
    pub(super) fn start(&self) -> &[u8] {
        match &self.low {
            Bound::Included(low) | Bound::Excluded(low) => low,
            Bound::Unbounded => &[],
        }
    }

    /// Whether a key is in it.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        RangeBounds::<[u8]>::contains(&self.bounds(), key)
    }

    /// Its ends.
    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (borrowed(&self.low), borrowed(&self.high))
    }
}

fn borrowed(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The smallest bytes that are greater than everything that starts with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_of_a_prefix_is_behind_everything_that_starts_with_it() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }
}
