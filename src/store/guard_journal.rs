//! The guard journal on disk: appending, syncing and rotating its segments.
//!
//! A group is durable when [`GuardJournal::sync`] has returned; that is the store's point of
//! durability. Reading back and judging what is there is recovery's work. Used by the writer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use super::journal_format::{HEADER_LENGTH, Mark, encode_header, seal, sealed, take_u64};
use super::layout::{Layout, create_folder, read_file, sync_folder, unfinished, write_file};
use super::tail::Tail;

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct GuardJournal {
    layout: Layout,
    segment: Tail,
    /// About how many bytes a segment will hold.
    segment_bytes: u64,
    high_water: File,
}

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
        let segment = Tail::new(open_segment(layout, first_sequence)?, length, segment_bytes)?;
        segment.sync_all()?;
        Ok(Self {
            layout: layout.clone(),
            segment,
            segment_bytes,
            high_water: OpenOptions::new().write(true).open(layout.high_water())?,
        })
    }

    /// Appends a record. Not durable yet.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.segment.append(record)
    }

    /// Makes everything appended durable, and notes up to where it reaches.
    pub(super) fn sync(&mut self, sequence: u64) -> io::Result<()> {
        self.segment.sync()?;
        // The note itself is not synced: it may be late after a power cut, but it is never early.
        self.high_water
            .write_all_at(&encode_high_water(sequence), 0)
    }

    /// Bytes in the current segment's records.
    pub(super) fn segment_bytes(&self) -> u64 {
        let length = self.segment.length();
        length.saturating_sub(HEADER_LENGTH as u64)
    }

    /// Goes on in a new segment, which begins after `mark`.
    pub(super) fn rotate(&mut self, mark: &Mark) -> io::Result<()> {
        create_segment(&self.layout, mark)?;
        let segment = open_segment(&self.layout, mark.sequence + 1)?;
        self.segment = Tail::new(segment, HEADER_LENGTH as u64, self.segment_bytes)?;
        Ok(())
    }

    /// Lets everything that is appended from now on go to another file.
    #[cfg(test)]
    pub(super) fn divert(&mut self, path: &str) {
        self.segment.divert(path);
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
