//! Writing the payment journal: composing lines, appending, syncing, going on in a new file, and
//! copying it up to a line. Judges nothing. Used by the writer, recovery and backups.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::chain::{BEFORE_ALL, hash, prefix};
use super::{HEAD, Head};
use crate::store::journal_format::{seal, sealed, take_u64};
use crate::store::layout::{Layout, create_folder, read_file, sync_folder};
use crate::store::tail::Tail;

/// Personal data are in there: nobody but the daemon's user reads it.
const MODE: u32 = 0o600;

/// The journal, open for appending.
#[derive(Debug)]
pub(in crate::store) struct PaymentJournal {
    layout: Layout,
    pub(super) head: Head,
    /// The last line's file; `None` before the first line.
    file: Option<Tail>,
    note: Option<File>,
    /// Bytes of a file beyond which the next line goes to a new one.
    file_bytes: u64,
}

/// Lines with their places, and where the journal stands after them.
#[derive(Debug)]
pub(in crate::store) struct Composed {
    pub(in crate::store) text: Vec<u8>,
    head: Head,
}

impl Composed {
    /// The head's stored bytes.
    pub(in crate::store) fn stored_head(&self) -> io::Result<Vec<u8>> {
        let key = Head::stored_key();
        let encoded = HEAD.encode(&key, &self.head);
        Ok(encoded.map_err(io::Error::other)?.stored)
    }
}

impl PaymentJournal {
    /// Opens the journal to go on after `head`. What is there is whole up to it.
    pub(in crate::store) fn open(layout: &Layout, head: Head, file_bytes: u64) -> io::Result<Self> {
        let mut journal = Self {
            layout: layout.clone(),
            head,
            file: None,
            note: None,
            file_bytes,
        };
        if journal.head.number > 0 {
            let path = layout.payment_file(journal.head.file);
            let file = OpenOptions::new().write(true).open(path)?;
            journal.file = Some(Tail::new(file, journal.head.length, file_bytes)?);
            journal.note = Some(open_note(layout)?);
        }
        Ok(journal)
    }

    /// Gives lines their places: in the group of that sequence, after the last line. All of them go
    /// to one file.
    pub(in crate::store) fn compose(&self, lines: &[String], sequence: u64) -> Composed {
        let mut head = self.head.clone();
        if head.number == 0 || head.length >= self.file_bytes {
            head.file = head.number + 1;
            head.length = 0;
        }
        if head.number == 0 {
            BEFORE_ALL.clone_into(&mut head.hash);
        }
        let mut text = Vec::new();
        for line in lines {
            head.number += 1;
            let begin = text.len();
            text.extend(prefix(head.number, sequence, &head.hash));
            // A line is an object: its place goes before its first field.
            text.extend(line.as_bytes().iter().skip(1));
            head.hash = hash(text.get(begin..).unwrap_or_default());
            text.push(b'\n');
        }
        head.length += text.len() as u64;
        Composed { text, head }
    }

    /// Appends composed lines. Not durable yet.
    pub(in crate::store) fn append(&mut self, composed: &Composed) -> io::Result<()> {
        if self.file.is_none() || composed.head.file != self.head.file {
            if self.note.is_none() {
                create_folder(&self.layout.payment_journal())?;
                self.note = Some(open_note(&self.layout)?);
            }
            let file = create(&self.layout, composed.head.file)?;
            self.file = Some(Tail::new(file, 0, self.file_bytes)?);
        }
        let file = self.file.as_mut();
        file.map_or(Ok(()), |file| file.append(&composed.text))
    }

    /// Makes what was appended durable, and notes up to where the journal reaches.
    pub(in crate::store) fn sync(&mut self, composed: Composed) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync()?;
        }
        if composed.head.file != self.head.file {
            sync_folder(&self.layout.payment_journal())?;
        }
        self.head = composed.head;
        // Not synced: the note may be late after a power cut, but it is never early.
        self.note
            .as_ref()
            .map_or(Ok(()), |note| note.write_all_at(&encode(&self.head), 0))
    }

    /// Lets everything that is appended from now on go to another file.
    #[cfg(test)]
    pub(in crate::store) fn divert(&mut self, path: &str) {
        self.file.as_mut().unwrap().divert(path);
    }
}

fn create(layout: &Layout, first: u64) -> io::Result<File> {
    open_private(&layout.payment_file(first), true)
}

fn open_note(layout: &Layout) -> io::Result<File> {
    open_private(&layout.payment_head(), false)
}

fn open_private(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(MODE)
        .open(path)
}

/// Writes the lines of an interrupted append again, from `start` on in the file that begins with
/// line `first`: on disk when this returns.
pub(super) fn complete(layout: &Layout, first: u64, start: u64, lines: &[u8]) -> io::Result<()> {
    create_folder(&layout.payment_journal())?;
    let file = open_private(&layout.payment_file(first), false)?;
    file.set_len(start)?;
    file.write_all_at(lines, start)?;
    file.sync_all()?;
    sync_folder(&layout.payment_journal())
}

/// Notes where the journal ends: on disk when this returns.
pub(super) fn write_head_note(layout: &Layout, head: &Head) -> io::Result<()> {
    let note = open_note(layout)?;
    note.set_len(NOTE_LENGTH as u64)?;
    note.write_all_at(&encode(head), 0)?;
    note.sync_all()?;
    sync_folder(&layout.payment_journal())
}

/// The last line that is certainly there, by number and hash; `None` if the note is missing or
/// damaged.
pub(super) fn read_head_note(layout: &Layout) -> io::Result<Option<(u64, String)>> {
    let bytes = read_file(&layout.payment_head())?;
    Ok(bytes
        .filter(|bytes| bytes.len() == NOTE_LENGTH && sealed(bytes))
        .and_then(|bytes| {
            let mut rest = bytes.as_slice();
            let number = take_u64(&mut rest)?;
            let hash = std::str::from_utf8(rest.get(..BEFORE_ALL.len())?).ok()?;
            Some((number, hash.to_owned()))
        }))
}

const NOTE_LENGTH: usize = 8 + BEFORE_ALL.len() + 4;

fn encode(head: &Head) -> Vec<u8> {
    let mut bytes = head.number.to_be_bytes().to_vec();
    bytes.extend(head.hash.as_bytes());
    seal(&mut bytes);
    bytes
}

/// Copies the journal up to `head`, while it may grow. Not durable by itself.
pub(in crate::store) fn copy(from: &Layout, to: &Layout, head: &Head) -> io::Result<()> {
    if head.number == 0 {
        return Ok(());
    }
    create_folder(&to.payment_journal())?;
    for (first, path) in from.payment_files()? {
        if first > head.file {
            continue;
        }
        let length = if first == head.file {
            head.length
        } else {
            fs::metadata(&path)?.len()
        };
        let mut target = create(to, first)?;
        io::copy(&mut File::open(&path)?.take(length), &mut target)?;
    }
    write_head_note(to, head)
}
