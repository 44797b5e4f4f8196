//! Records made short: compressed with a dictionary of what records of their kind have in common.
//!
//! Most of a record are the words of its JSON, and each stands there once or twice, so compressing
//! it by itself gains little. With a dictionary that has these words in their usual order, an
//! event or a run takes between a quarter and two fifths of its bytes, in the guard journal, the
//! index, its cache and every backup. Pure; used by `codec`.
//!
//! ```text
//! packed  dictionary u8 | length of the JSON u16, big-endian | LZ4 block
//! ```
//!
//! # Design
//! The first byte of a packed record is never that of a JSON text, so packed and unpacked records
//! stand side by side and older stores are read as they are. What a dictionary holds is for ever:
//! records were packed with it. Better words get a number of their own.

use std::borrow::Cow;

/// What records of one kind have in common. The number is stored; see the notes on design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Dictionary {
    /// Events, with the callbacks in them.
    Events = 1,
    /// Runs.
    Runs = 2,
    /// Steps of runs.
    Steps = 3,
    /// Payments.
    Payments = 4,
}

impl Dictionary {
    const ALL: [Self; 4] = [Self::Events, Self::Runs, Self::Steps, Self::Payments];

    const fn words(self) -> &'static str {
        match self {
            Self::Events => include_str!("events.txt"),
            Self::Runs => include_str!("runs.txt"),
            Self::Steps => include_str!("steps.txt"),
            Self::Payments => include_str!("payments.txt"),
        }
    }

    fn numbered(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|dictionary| *dictionary as u8 == number)
    }
}

/// Bytes before the block.
const HEAD: usize = 3;
/// The longest text that is packed, in bytes: its length fits into the head.
const LONGEST: usize = u16::MAX as usize;

/// Packs `json` at the start of `room`; `None` if that would not make it shorter. The room grows as
/// needed, and what was in it is lost.
pub(super) fn pack<'a>(
    dictionary: Dictionary,
    json: &[u8],
    room: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    if json.len() > LONGEST {
        return None;
    }
    let length = u16::try_from(json.len()).ok()?;
    let most = HEAD + lz4_flex::block::get_maximum_output_size(json.len());
    if room.len() < most {
        room.resize(most, 0);
    }
    let (head, block) = room.split_at_mut_checked(HEAD)?;
    let [high, low] = length.to_be_bytes();
    head.copy_from_slice(&[dictionary as u8, high, low]);
    let words = dictionary.words().as_bytes();
    let packed = HEAD + lz4_flex::block::compress_into_with_dict(json, block, words).ok()?;
    (packed < json.len()).then(|| room.get(..packed))?
}

/// The JSON of a record, packed or not. `None` if it cannot be unpacked.
pub(super) fn unpack(kept: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some((&[number, high, low], block)) = kept.split_first_chunk() else {
        return Some(Cow::Borrowed(kept));
    };
    // Every JSON text begins behind the control characters.
    if number >= b' ' {
        return Some(Cow::Borrowed(kept));
    }
    let words = Dictionary::numbered(number)?.words().as_bytes();
    let length = usize::from(u16::from_be_bytes([high, low]));
    let mut json = vec![0; length];
    let unpacked = lz4_flex::block::decompress_into_with_dict(block, &mut json, words).ok()?;
    (unpacked == length).then_some(Cow::Owned(json))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_comes_back(which in 0..Dictionary::ALL.len(), text: String, cut in 0..1200_usize) {
            let dictionary = Dictionary::ALL[which];
            let known: String = dictionary.words().chars().skip(cut).collect();
            let json = serde_json::to_vec(&[known, text]).unwrap();
            // As left by another record.
            let mut room = vec![b'x'; cut];
            let kept = pack(dictionary, &json, &mut room).unwrap_or(&json);
            prop_assert!(kept.len() <= json.len());
            prop_assert_eq!(&*unpack(kept).unwrap(), &json);
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused_without_panic(kept: Vec<u8>) {
            unpack(&kept);
        }

        #[test]
        fn a_damaged_record_is_unpacked_or_refused_without_panic(at: usize, byte: u8) {
            let json = Dictionary::Runs.words().as_bytes();
            let mut kept = pack(Dictionary::Runs, json, &mut Vec::new()).unwrap().to_vec();
            let at = at % kept.len();
            kept[at] = byte;
            unpack(&kept);
        }
    }

    #[test]
    fn what_does_not_get_shorter_stays_as_it_is() {
        assert_eq!(pack(Dictionary::Events, b"7", &mut Vec::new()), None);
        assert_eq!(&*unpack(b"7").unwrap(), b"7");
        assert_eq!(&*unpack(b"[]").unwrap(), b"[]");
        assert_eq!(&*unpack(b"").unwrap(), b"");
        assert_eq!(unpack(&[200, 0, 0]).as_deref(), Some(&[200, 0, 0][..]));
        assert_eq!(unpack(&[9, 0, 0, 1]), None);
    }

    #[test]
    fn no_dictionary_ever_changes() {
        let digests = Dictionary::ALL.map(|dictionary| {
            let digest = crc32fast::hash(dictionary.words().as_bytes());
            format!("{} {dictionary:?} {digest:08x}", dictionary as u8)
        });
        insta::assert_snapshot!(digests.join("\n"), @"
        1 Events 3a7c382f
        2 Runs 33d3c6fb
        3 Steps 795be974
        4 Payments 0c0b0500
        ");
    }
}
