//! The note of the last checkpoint: up to where the index itself is safely on disk.
//!
//! Two files are written in turn, so that a write that is interrupted leaves the other one. The
//! index must stand at the checkpoint or later; the journal's segments before the checkpoint
//! before it are no longer needed.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::journal_format::{Mark, seal, sealed, take_u64};
use super::layout::{Layout, read_file};

const MAGIC: &[u8; 8] = b"BURSARCP";
const SLOTS: [u64; 2] = [0, 1];

/// The checkpoints noted in a store's folder.
#[derive(Debug)]
pub(super) struct Manifest {
    layout: Layout,
    /// Number of the last checkpoint; its parity is its slot.
    generation: u64,
    /// The last checkpoint.
    pub(super) checkpoint: Mark,
}

/// What was found in the slots.
#[derive(Debug)]
pub(super) struct Found {
    /// The newest checkpoint that is readable.
    pub(super) manifest: Option<Manifest>,
    /// The slots that are missing or damaged.
    pub(super) damaged: Vec<u64>,
}

impl Manifest {
    /// Writes both slots of a store whose index is on disk up to `checkpoint`.
    pub(super) fn create(layout: &Layout, checkpoint: &Mark) -> io::Result<()> {
        for slot in SLOTS {
            write(layout, slot, checkpoint)?;
        }
        super::layout::sync_folder(&layout.dir)
    }

    /// Reads both slots.
    pub(super) fn read(layout: &Layout) -> io::Result<Found> {
        let mut found = Found {
            manifest: None,
            damaged: Vec::new(),
        };
        for slot in SLOTS {
            let bytes = read_file(&layout.manifest(slot))?;
            match bytes.as_deref().and_then(decode) {
                Some((generation, checkpoint)) if generation % 2 == slot => {
                    let newest = found.manifest.as_ref().map(|newest| newest.generation);
                    if newest.is_none_or(|newest| newest < generation) {
                        found.manifest = Some(Self {
                            layout: layout.clone(),
                            generation,
                            checkpoint,
                        });
                    }
                }
                Some(_) | None => found.damaged.push(slot),
            }
        }
        Ok(found)
    }

    /// Notes a checkpoint: on disk when this returns.
    pub(super) fn note(&mut self, checkpoint: Mark) -> io::Result<()> {
        self.generation += 1;
        write(&self.layout, self.generation, &checkpoint)?;
        self.checkpoint = checkpoint;
        Ok(())
    }
}

fn write(layout: &Layout, generation: u64, checkpoint: &Mark) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(generation.to_be_bytes());
    checkpoint.encode(&mut bytes);
    seal(&mut bytes);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(layout.manifest(generation % 2))?;
    file.write_all(&bytes)?;
    file.sync_all()
}

fn decode(bytes: &[u8]) -> Option<(u64, Mark)> {
    let mut rest = bytes.strip_prefix(MAGIC).filter(|_| sealed(bytes))?;
    Some((take_u64(&mut rest)?, Mark::decode(&mut rest)?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn at(sequence: u64) -> Mark {
        Mark {
            sequence,
            ..Mark::default()
        }
    }

    #[test]
    fn the_newest_readable_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        Manifest::create(&layout, &Mark::default()).unwrap();
        let mut manifest = Manifest::read(&layout).unwrap().manifest.unwrap();
        manifest.note(at(5)).unwrap();
        manifest.note(at(9)).unwrap();
        let found = Manifest::read(&layout).unwrap();
        assert_eq!(found.manifest.unwrap().checkpoint, at(9));
        assert!(found.damaged.is_empty());

        let newest = layout.manifest(1);
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, &bytes[..bytes.len() - 1]).unwrap();
        let found = Manifest::read(&layout).unwrap();
        assert_eq!(found.manifest.unwrap().checkpoint, at(5));
        assert_eq!(found.damaged, [1]);

        fs::remove_file(layout.manifest(0)).unwrap();
        let found = Manifest::read(&layout).unwrap();
        assert!(found.manifest.is_none());
        assert_eq!(found.damaged, [0, 1]);
    }
}
