//! The chain of the payment journal's lines: what a line begins with, and walking the lines of a
//! file to find everything that does not follow. Pure.

use sha2::{Digest, Sha256};

use crate::store::tail::without_room;

/// What the first line names as the hash of the line before it.
pub(super) const BEFORE_ALL: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// The most flaws of one file that are told one by one.
const MOST_FLAWS: usize = 50;

/// The SHA-256 of a line, without its line break, in hex.
pub(super) fn hash(line: &[u8]) -> String {
    hex::encode(Sha256::digest(line))
}

/// What a line begins with.
pub(super) fn prefix(number: u64, sequence: u64, before: &str) -> Vec<u8> {
    format!(r#"{{"n":{number},"seq":{sequence},"prev":"{before}","#).into_bytes()
}

/// The number, sequence and hash of the line before, that a line begins with.
pub(super) fn place(line: &[u8]) -> Option<(u64, u64, &str)> {
    let rest = line.strip_prefix(br#"{"n":"#)?;
    let (number, rest) = take_number(rest)?;
    let rest = rest.strip_prefix(br#","seq":"#)?;
    let (sequence, rest) = take_number(rest)?;
    let rest = rest.strip_prefix(br#","prev":""#)?;
    let (before, rest) = rest.split_at_checked(BEFORE_ALL.len())?;
    rest.strip_prefix(br#"","#)?;
    Some((number, sequence, std::str::from_utf8(before).ok()?))
}

fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (number, rest) = bytes.split_at_checked(digits)?;
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// A line, as the next one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u64,
    pub(super) sequence: u64,
    pub(super) hash: String,
}

impl Link {
    /// What stands before the first line.
    pub(super) fn before_all() -> Self {
        Self {
            number: 0,
            sequence: 0,
            hash: BEFORE_ALL.to_owned(),
        }
    }
}

/// Something that does not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    /// The line in its file, from 1.
    pub(super) line: usize,
    pub(super) finding: String,
}

/// What a file's lines come to.
#[derive(Debug)]
pub(super) struct Walked {
    /// The last whole line.
    pub(super) last: Link,
    pub(super) flaws: Vec<Flaw>,
    /// How many whole lines there are.
    pub(super) lines: usize,
    /// Bytes of whole lines.
    pub(super) length: usize,
    /// Bytes behind the last line break, without the room: an interrupted append, if they are at the
    /// journal's end.
    pub(super) torn: usize,
}

/// Walks the lines of a file that goes on after `before`, up to the room at its end. `each` sees
/// every line that begins as a line must, with its offset.
pub(super) fn walk(
    content: &[u8],
    before: Link,
    mut each: impl FnMut(&Link, usize, &[u8]),
) -> Walked {
    let mut walked = Walked {
        last: before,
        flaws: Vec::new(),
        lines: 0,
        length: 0,
        torn: 0,
    };
    for line in without_room(content).split_inclusive(|byte| *byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            walked.torn = line.len();
            break;
        };
        walked.lines += 1;
        let Some((number, sequence, prev)) = place(text) else {
            walked.flaw("is no line of the journal".into());
            walked.length += line.len();
            continue;
        };
        walked.compare(number, sequence, prev);
        walked.last = Link {
            number,
            sequence,
            hash: hash(text),
        };
        each(&walked.last, walked.length, text);
        walked.length += line.len();
    }
    walked
}

impl Walked {
    fn flaw(&mut self, finding: String) {
        self.flaw_at(self.lines, finding);
    }

    fn flaw_at(&mut self, line: usize, finding: String) {
        if self.flaws.len() < MOST_FLAWS {
            self.flaws.push(Flaw { line, finding });
        }
    }

    fn compare(&mut self, number: u64, sequence: u64, prev: &str) {
        let Link {
            number: last,
            sequence: last_sequence,
            hash,
        } = &self.last;
        let expected = last + 1;
        if number > expected {
            let missing = if number - 1 == expected {
                format!("line number {expected} is missing before it")
            } else {
                format!(
                    "the lines with the numbers {expected} to {} are missing before it",
                    number - 1
                )
            };
            self.flaw(missing);
        } else if number < expected {
            self.flaw(format!(
                "has the number {number} and stands after number {last}: it is out of order or a duplicate"
            ));
        } else if prev != hash {
            // It is the line before that is not what it was, unless that is in another file.
            let finding = format!(
                "line number {last} was changed, or it is not the one that number {number} was written after"
            );
            self.flaw_at(self.lines.saturating_sub(1).max(1), finding);
        } else if sequence < *last_sequence {
            self.flaw(format!(
                "is of commit {sequence} and stands after one of commit {last_sequence}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(lines: u64) -> Vec<Vec<u8>> {
        let mut before = BEFORE_ALL.to_owned();
        (1..=lines)
            .map(|number| {
                let mut line = prefix(number, number * 2, &before);
                line.extend(format!(r#""what":{number}}}"#).as_bytes());
                before = hash(&line);
                line
            })
            .collect()
    }

    fn walked(lines: &[Vec<u8>]) -> Walked {
        let mut content = lines.join(&b'\n');
        content.push(b'\n');
        walk(&content, Link::before_all(), |_, _, _| {})
    }

    fn findings(lines: &[Vec<u8>]) -> Vec<(usize, String)> {
        let flaws = walked(lines).flaws.into_iter();
        flaws.map(|flaw| (flaw.line, flaw.finding)).collect()
    }

    #[test]
    fn every_kind_of_tampering_is_found_where_it_is() {
        let whole = journal(6);
        assert_eq!(findings(&whole), []);
        assert_eq!(walked(&whole).last.number, 6);

        let mut changed = whole.clone();
        let end = changed[2].len() - 2;
        changed[2][end] = b'9';
        assert_eq!(
            findings(&changed),
            [(
                3,
                "line number 3 was changed, or it is not the one that number 4 was written after"
                    .into()
            )]
        );
        let mut missing = whole.clone();
        missing.remove(2);
        assert_eq!(
            findings(&missing),
            [(3, "line number 3 is missing before it".into())]
        );
        let mut swapped = whole.clone();
        swapped.swap(2, 3);
        assert_eq!(findings(&swapped).len(), 3);
        let mut doubled = whole.clone();
        doubled.insert(3, whole[2].clone());
        assert!(findings(&doubled)[0].1.contains("duplicate"));
        let mut garbled = whole.clone();
        garbled[4] = b"{}".to_vec();
        assert_eq!(
            findings(&garbled)[0],
            (5, "is no line of the journal".into())
        );
    }

    #[test]
    fn bytes_without_a_line_break_at_the_end_are_torn() {
        let mut content = journal(2).join(&b'\n');
        let last = content.len() - journal(1)[0].len() - 1;
        let walked = walk(&content, Link::before_all(), |_, _, _| {});
        assert_eq!((walked.lines, walked.torn), (1, last));
        content.push(b'\n');
        assert_eq!(walk(&content, Link::before_all(), |_, _, _| {}).torn, 0);
    }
}
