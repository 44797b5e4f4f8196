//! How keys become bytes whose order is the order of the keys.
//!
//! Scans, prefixes and "resume after" all work on these bytes, so every encoding here keeps order
//! and is prefix-free: a text ends with a terminator, numbers have a fixed width, and a tuple is
//! its parts one after the other. Used by tables; other modules implement [`Key`] for their own
//! types by naming the parts.

use std::str::FromStr;

use chrono::DateTime;

use crate::domain::clock::Timestamp;
use crate::domain::id::{ForeignId, HandlerId, RunId, SetHash, TransactionKey};

/// Something that records can be stored under.
///
/// `decode(encode(k)) == k`, and `encode` compares as `k` does. An encoding is never the start of
/// another one of the same type.
pub trait Key: Sized {
    /// Appends the key's bytes.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Takes one key off the front of `bytes`; `None` if there is none.
    fn decode(bytes: &mut &[u8]) -> Option<Self>;
}

/// The first part or parts of a tuple key `K`: what a scan can be narrowed to.
pub trait Leading<K>: Key {}

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const TERMINATOR: u8 = 0x01;

/// Appends a text without its terminator: the start of every key whose text starts so.
pub(super) fn encode_open_text(text: &str, bytes: &mut Vec<u8>) {
    for piece in text.as_bytes().split_inclusive(|byte| *byte == ESCAPE) {
        bytes.extend_from_slice(piece);
        if piece.last() == Some(&ESCAPE) {
            bytes.push(ESCAPED_ZERO);
        }
    }
}

fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    encode_open_text(text, bytes);
    bytes.extend([ESCAPE, TERMINATOR]);
}

fn decode_text(bytes: &mut &[u8]) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if byte != ESCAPE {
            text.push(byte);
            continue;
        }
        let (&mark, rest) = bytes.split_first()?;
        *bytes = rest;
        match mark {
            ESCAPED_ZERO => text.push(ESCAPE),
            TERMINATOR => return String::from_utf8(text).ok(),
            _ => return None,
        }
    }
}

fn decode_parsed<T: FromStr>(bytes: &mut &[u8]) -> Option<T> {
    decode_text(bytes)?.parse().ok()
}

impl Key for String {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_text(self, bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        decode_text(bytes)
    }
}

impl Key for u64 {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_be_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self::from_be_bytes(*number))
    }
}

impl Key for i64 {
    fn encode(&self, bytes: &mut Vec<u8>) {
        // With the sign bit flipped, negative numbers come before the others.
        (self.cast_unsigned() ^ (1 << 63)).encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some((u64::decode(bytes)? ^ (1 << 63)).cast_signed())
    }
}

/// Kept to the millisecond; what is finer is cut off.
impl Key for Timestamp {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.timestamp_millis().encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        DateTime::from_timestamp_millis(i64::decode(bytes)?)
    }
}

impl Key for ForeignId {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_text(self.as_str(), bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        decode_parsed(bytes)
    }
}

impl Key for RunId {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.order().encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        u64::decode(bytes).map(Self::new)
    }
}

impl Key for SetHash {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_text(self.as_str(), bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        // A hash is made from sources only; its stored form is the one way back.
        serde_json::from_value(serde_json::Value::String(decode_text(bytes)?)).ok()
    }
}

impl Key for HandlerId {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_text(&self.script, bytes);
        encode_text(&self.name, bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            script: decode_text(bytes)?,
            name: decode_text(bytes)?,
        })
    }
}

impl Key for TransactionKey {
    fn encode(&self, bytes: &mut Vec<u8>) {
        encode_text(&self.kind, bytes);
        encode_text(&self.id, bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            kind: decode_text(bytes)?,
            id: decode_text(bytes)?,
        })
    }
}

macro_rules! tuple_key {
    ($($part:ident . $place:tt),+) => {
        impl<$($part: Key),+> Key for ($($part,)+) {
            fn encode(&self, bytes: &mut Vec<u8>) {
                $(self.$place.encode(bytes);)+
            }

            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                Some(($($part::decode(bytes)?,)+))
            }
        }
    };
}

tuple_key!(A.0);
tuple_key!(A.0, B.1);
tuple_key!(A.0, B.1, C.2);
tuple_key!(A.0, B.1, C.2, D.3);

impl<A: Key, B: Key> Leading<(A, B)> for A {}
impl<A: Key, B: Key, C: Key> Leading<(A, B, C)> for A {}
impl<A: Key, B: Key, C: Key> Leading<(A, B, C)> for (A, B) {}
impl<A: Key, B: Key, C: Key, D: Key> Leading<(A, B, C, D)> for A {}
impl<A: Key, B: Key, C: Key, D: Key> Leading<(A, B, C, D)> for (A, B) {}
impl<A: Key, B: Key, C: Key, D: Key> Leading<(A, B, C, D)> for (A, B, C) {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded<K: Key>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    fn holds<K: Key + Ord + std::fmt::Debug>(left: &K, right: &K) -> Result<(), TestCaseError> {
        let (a, b) = (encoded(left), encoded(right));
        prop_assert_eq!(a.cmp(&b), left.cmp(right), "{:?} against {:?}", left, right);
        prop_assert!(left == right || !b.starts_with(&a));
        let mut rest = a.as_slice();
        prop_assert_eq!(&K::decode(&mut rest).unwrap(), left);
        prop_assert!(rest.is_empty());
        Ok(())
    }

    /// Texts that stress the escaping: few letters, so that prefixes and zeros are frequent.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[\0\u{1}\u{2}ab\u{ff}]{0,5}", any::<String>()]
    }

    fn handler() -> impl Strategy<Value = HandlerId> {
        (text(), text()).prop_map(|(script, name)| HandlerId { script, name })
    }

    proptest! {
        #[test]
        fn the_order_of_bytes_is_the_order_of_keys(
            left in (text(), any::<i64>(), text(), any::<u64>()),
            right in (text(), any::<i64>(), text(), any::<u64>()),
        ) {
            holds(&left, &right)?;
            holds(&(left.0.clone(), left.1), &(left.0.clone(), right.1))?;
            holds(&(left.3, left.0), &(right.3, right.0))?;
        }

        #[test]
        fn identities_keep_order_and_come_back(
            left in handler(),
            right in handler(),
            millis in (-8_000_000_000_000_i64..8_000_000_000_000, -5_i64..5),
        ) {
            holds(&left, &right)?;
            let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
            holds(&(at(millis.0), right), &(at(millis.1), left))?;
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            if let Some(key) = <(String, Timestamp, RunId, SetHash)>::decode(&mut rest) {
                prop_assert_eq!(encoded(&key), &bytes[..bytes.len() - rest.len()]);
            }
            TransactionKey::decode(&mut bytes.as_slice());
            ForeignId::decode(&mut bytes.as_slice());
        }
    }

    #[test]
    fn derived_ids_come_back() {
        let run = RunId::new(7);
        let set = SetHash::of([("a.rhai", "1")]);
        let bytes = encoded(&(run, set.clone()));
        assert_eq!(Key::decode(&mut bytes.as_slice()), Some((run, set)));
    }
}
