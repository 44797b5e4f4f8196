//! A file that grows at its end, with room made ahead. Used by the two journals.
//!
//! Knows nothing of what it holds; whoever reads such a file takes zeros at its end for room.
//!
//! # Design
//! A sync after a write that makes the file longer has to write the file's own record as well, and
//! may have to wait for what others have written to theirs, as the index does all the time. So room
//! is made ahead, with zeros, and most writes only overwrite some of them. What is left of the room
//! is given back when the file is left.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The most bytes of room that are made at a time: many groups, and still written in a moment, for
/// which everybody waits.
const MOST_ROOM: u64 = 256 * 1024;

/// The end of a file, open for appending.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    /// Where the next bytes go.
    length: u64,
    /// Length of the file.
    reserved: u64,
    /// Bytes of room to make at a time.
    room: u64,
}

impl Tail {
    /// Goes on after `length` bytes of a file; whatever is behind them is cut off, not durably.
    /// `most` is about how long the file will become.
    pub(super) fn new(file: File, length: u64, most: u64) -> io::Result<Self> {
        if file.metadata()?.len() != length {
            file.set_len(length)?;
        }
        Ok(Self {
            file,
            length,
            reserved: length,
            room: MOST_ROOM.min(most),
        })
    }

    /// Appends bytes. Not durable yet.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.length + bytes.len() as u64;
        if end > self.reserved {
            let zeros = vec![0; usize::try_from(self.room).unwrap_or_default()];
            // First the room, so that what was appended is never followed by anything but zeros.
            self.file.write_all_at(&zeros, end)?;
            self.reserved = end + self.room;
        }
        self.file.write_all_at(bytes, self.length)?;
        self.length = end;
        Ok(())
    }

    /// Makes everything appended durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes the file durable with everything about it.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Bytes without the room.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Lets everything that is appended from now on go to another file.
    #[cfg(test)]
    pub(super) fn divert(&mut self, path: &str) {
        self.file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if self.reserved > self.length {
            // Room that stays does no harm.
            drop(self.file.set_len(self.length));
        }
    }
}

/// Bytes of a file without the room at their end. What is appended never ends with a zero.
pub(super) fn without_room(content: &[u8]) -> &[u8] {
    let end = content.iter().rposition(|byte| *byte != 0);
    content
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_followed_by_zeros_until_the_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "head and what an interrupted append left").unwrap();
        let open = || std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let read = || std::fs::read(&path).unwrap();
        let mut tail = Tail::new(open(), 4, 10).unwrap();
        assert_eq!(read(), b"head");
        tail.append(b" one").unwrap();
        assert_eq!(read(), b"head one\0\0\0\0\0\0\0\0\0\0");
        tail.append(b" two").unwrap();
        tail.sync().unwrap();
        assert_eq!(read(), b"head one two\0\0\0\0\0\0");
        assert_eq!(without_room(&read()), b"head one two");
        tail.append(b" much longer").unwrap();
        assert_eq!(read(), b"head one two much longer\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(tail.length(), 24);
        drop(tail);
        assert_eq!(read(), b"head one two much longer");
        assert_eq!(without_room(b"\0\0"), b"");
    }
}
