//! The guard journal on disk: appending, syncing and rotating its segments.
//!
//! A group is durable when [`GuardJournal::sync`] has returned; that is the store's point of
//! durability. Reading back and judging what is there is recovery's work. Used by the writer.
//!
//! # Design
//! A sync after a write that makes the file longer has to wait for the file system's own journal,
//! and with it for what others have written to their files, as the index does all the time. So
//! room is made ahead, with zeros, and most records only overwrite some of them. What is left of
//! the room is given back when the segment is left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use super::journal_format::{HEADER_LENGTH, Mark, encode_header, seal, sealed, take_u64};
use super::layout::{Layout, create_folder, read_file, sync_folder, unfinished, write_file};

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct GuardJournal {
    layout: Layout,
    segment: File,
    /// Where the next record goes.
    length: u64,
    /// Length of the file.
    reserved: u64,
    /// Bytes of room to make at a time.
    room: u64,
    high_water: File,
}

/// The most bytes of room that are made at a time: many groups, and still written in a moment.
const MOST_ROOM: u64 = 1024 * 1024;

impl GuardJournal {
    /// Makes the journal of a store that stands at `mark`: one empty segment.
    pub(super) fn create(layout: &Layout, mark: &Mark) -> io::Result<()> {
        create_folder(&layout.journal())?;
        create_segment(layout, mark)?;
        write_high_water(layout, mark.sequence)
    }

    /// Opens the journal to go on in the segment that begins with `first_sequence` and is
    /// `length` bytes long; whatever is behind them is cut off. What is left is on disk when this
    /// returns: a process that was killed may have written its last group without syncing it.
    /// `segment_bytes` is about what a segment will hold.
    pub(super) fn open(
        layout: &Layout,
        first_sequence: u64,
        length: u64,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let segment = open_segment(layout, first_sequence)?;
        if segment.metadata()?.len() != length {
            segment.set_len(length)?;
        }
        segment.sync_all()?;
        Ok(Self {
            layout: layout.clone(),
            segment,
            length,
            reserved: length,
            room: MOST_ROOM.min(segment_bytes),
            high_water: OpenOptions::new().write(true).open(layout.high_water())?,
        })
    }

    /// Appends a record. Not durable yet.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let end = self.length + record.len() as u64;
        if end > self.reserved {
            let zeros = vec![0; usize::try_from(self.room).unwrap_or_default()];
            // First the room, so that a record is never followed by anything but zeros.
            self.segment.write_all_at(&zeros, end)?;
            self.reserved = end + self.room;
        }
        self.segment.write_all_at(record, self.length)?;
        self.length = end;
        Ok(())
    }

    /// Makes everything appended durable, and notes up to where it reaches.
    pub(super) fn sync(&mut self, sequence: u64) -> io::Result<()> {
        self.segment.sync_data()?;
        // The note itself is not synced: it may be late after a power cut, but it is never early.
        self.high_water
            .write_all_at(&encode_high_water(sequence), 0)
    }

    /// Bytes in the current segment's records.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.length.saturating_sub(HEADER_LENGTH as u64)
    }

    /// Goes on in a new segment, which begins after `mark`.
    pub(super) fn rotate(&mut self, mark: &Mark) -> io::Result<()> {
        create_segment(&self.layout, mark)?;
        self.give_back()?;
        self.segment = open_segment(&self.layout, mark.sequence + 1)?;
        self.length = HEADER_LENGTH as u64;
        self.reserved = self.length;
        Ok(())
    }

    /// Gives back the room behind the last record. Not durable: zeros there do no harm.
    fn give_back(&self) -> io::Result<()> {
        if self.reserved > self.length {
            self.segment.set_len(self.length)?;
        }
        Ok(())
    }

    /// Lets everything that is appended from now on go to another file.
    #[cfg(test)]
    pub(super) fn divert(&mut self, path: &str) {
        self.segment = OpenOptions::new().write(true).open(path).unwrap();
    }
}

impl Drop for GuardJournal {
    fn drop(&mut self) {
        // Room that stays does no harm.
        drop(self.give_back());
    }
}

fn open_segment(layout: &Layout, first_sequence: u64) -> io::Result<File> {
    let path = layout.segment(first_sequence);
    OpenOptions::new().write(true).open(path)
}

/// Removes the segments that end at or before `sequence`.
pub(super) fn drop_through(layout: &Layout, sequence: u64) -> io::Result<()> {
    let segments = layout.segments()?;
    let next = segments.iter().skip(1);
    for ((_, path), (next_first, _)) in segments.iter().zip(next) {
        if *next_first <= sequence + 1 {
            fs::remove_file(path)?;
        }
    }
    sync_folder(&layout.journal())
}

/// The last sequence that is certainly in the journal; `None` if the file is missing or damaged.
pub(super) fn read_high_water(layout: &Layout) -> io::Result<Option<u64>> {
    let bytes = read_file(&layout.high_water())?;
    Ok(bytes
        .filter(|bytes| bytes.len() == HIGH_WATER_LENGTH && sealed(bytes))
        .and_then(|bytes| take_u64(&mut bytes.as_slice())))
}

/// Notes up to where the journal reaches: on disk when this returns.
pub(super) fn write_high_water(layout: &Layout, sequence: u64) -> io::Result<()> {
    let path = layout.high_water();
    write_file(&path, &encode_high_water(sequence), &unfinished(&path))
}

const HIGH_WATER_LENGTH: usize = 12;

fn encode_high_water(sequence: u64) -> Vec<u8> {
    let mut bytes = sequence.to_be_bytes().to_vec();
    seal(&mut bytes);
    bytes
}

fn create_segment(layout: &Layout, mark: &Mark) -> io::Result<()> {
    let path = layout.segment(mark.sequence + 1);
    write_file(&path, &encode_header(mark), &unfinished(&path))
}
