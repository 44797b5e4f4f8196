//! What is about to leave and has certainly not left yet, for the next process to read.
//!
//! Whoever is going to send something that must not be sent twice first holds a departure for it,
//! then makes durable that it is being sent, and notes that it leaves right before the first byte.
//! When the process is killed in between, the next one finds the departure still held, and so knows
//! that nothing left. Without a note, or with a damaged one, nothing is known. Used by the money
//! path; decides nothing.
//!
//! ```text
//! head  "BURSARDP" | version u16 | the system's boot id, 36 bytes | zeros | crc32 of these
//! slot  SHA-256 of what it is for | 1 held, 2 left | zeros | crc32 of these; all zeros when free
//! ```
//!
//! # Design
//! Nothing here is synced, which would cost what it is to save. What a process has written is seen by
//! all later ones until the system itself stops; so the notes count only while the system runs that
//! they were written on, which its boot id tells. A backup does not have them.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::journal_format::{seal, sealed};
use super::layout::Layout;

const MAGIC: &[u8; 8] = b"BURSARDP";
const VERSION: u16 = 1;
/// Length of the head and of each slot, with its checksum.
const SLOT: usize = 64;
const HELD: u8 = 1;
const LEFT: u8 = 2;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_ID_LENGTH: usize = 36;

/// What a departure is for, as the file keeps it.
type Subject = [u8; 32];

/// All departures of one store. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Departures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// How many there are in the file.
    count: u64,
    free: Vec<u64>,
    /// Those that an earlier process held until its end.
    kept: HashMap<Subject, u64>,
}

/// A departure that is held. Without an [`end`](Departure::end) it stays as it is for the next process.
#[derive(Debug)]
#[must_use]
pub struct Departure {
    departures: Departures,
    subject: Subject,
    /// `None` when it could not be noted: then nothing will be known.
    slot: Option<u64>,
}

impl Departures {
    /// Reads what the last process has left, and goes on in the same file.
    ///
    /// # Errors
    /// When the file cannot be opened, read or written.
    pub(super) fn open(layout: &Layout) -> io::Result<Self> {
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        Self::open_on(layout, boot_id.trim())
    }

    fn open_on(layout: &Layout, boot_id: &str) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(layout.departures())?;
        let mut content = Vec::new();
        // What the disk has refused may be missing from what is read afterwards.
        if file.sync_all().is_ok() {
            file.read_to_end(&mut content)?;
        }
        let head = head(boot_id);
        let found = head.as_ref().and_then(|head| found(&content, head));
        let departures = Self(Arc::new(Inner {
            file,
            slots: Mutex::default(),
        }));
        let Some(kept) = found else {
            departures.0.file.set_len(0)?;
            departures
                .0
                .file
                .write_all_at(&head.unwrap_or_default(), 0)?;
            return Ok(departures);
        };
        let count = (content.len() / SLOT) as u64;
        let taken: HashSet<u64> = kept.values().copied().collect();
        let free: Vec<u64> = (1..count).filter(|slot| !taken.contains(slot)).collect();
        for slot in &free {
            departures.write(*slot, &[0; SLOT])?;
        }
        *departures.slots() = Slots { count, free, kept };
        Ok(departures)
    }

    /// Notes that something is about to leave, before that is made durable elsewhere. `what` names
    /// this very departure: nothing else ever has or had the same name.
    pub(super) fn hold(&self, what: &str) -> Departure {
        let slot = {
            let mut slots = self.slots();
            slots.free.pop().unwrap_or_else(|| {
                slots.count = slots.count.max(1) + 1;
                slots.count - 1
            })
        };
        let subject = subject(what);
        let noted = self.write(slot, &record(&subject, HELD));
        if noted.is_err() {
            self.slots().free.push(slot);
        }
        Departure {
            departures: self.clone(),
            subject,
            slot: noted.is_ok().then_some(slot),
        }
    }

    /// Whether an earlier process held this departure until its end: it certainly did not leave.
    pub(super) fn never_left(&self, what: &str) -> bool {
        self.slots().kept.contains_key(&subject(what))
    }

    /// Forgets a departure that an earlier process held, once that is on disk elsewhere.
    pub(super) fn forget(&self, what: &str) {
        let kept = self.slots().kept.remove(&subject(what));
        if let Some(slot) = kept {
            self.release(slot);
        }
    }

    fn release(&self, slot: u64) {
        // A slot that cannot be cleared is not used again.
        if self.write(slot, &[0; SLOT]).is_ok() {
            self.slots().free.push(slot);
        }
    }

    fn write(&self, slot: u64, record: &[u8]) -> io::Result<()> {
        self.0.file.write_all_at(record, slot * SLOT as u64)
    }

    // Nothing panics while it holds this lock.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Departure {
    /// Notes that it leaves now.
    ///
    /// # Errors
    /// It could not be noted, and must not leave.
    pub fn leave(&self) -> io::Result<()> {
        self.slot.map_or(Ok(()), |slot| {
            self.departures.write(slot, &record(&self.subject, LEFT))
        })
    }

    /// Forgets it: what became of it is on disk elsewhere, or nothing was marked.
    pub fn end(self) {
        if let Some(slot) = self.slot {
            self.departures.release(slot);
        }
    }
}

fn subject(what: &str) -> Subject {
    Sha256::digest(what).into()
}

/// `None` for a system that does not say which of its runs this is.
fn head(boot_id: &str) -> Option<Vec<u8>> {
    (boot_id.len() == BOOT_ID_LENGTH).then(|| {
        let version = VERSION.to_be_bytes();
        padded([MAGIC.as_slice(), &version, boot_id.as_bytes()].concat())
    })
}

fn record(subject: &Subject, state: u8) -> Vec<u8> {
    padded([subject.as_slice(), &[state]].concat())
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(SLOT - 4, 0);
    seal(&mut bytes);
    bytes
}

/// What is held and has not left, with its slot; `None` when nothing in the file can be relied on.
fn found(content: &[u8], expected: &[u8]) -> Option<HashMap<Subject, u64>> {
    let (slots, []) = content.as_chunks::<SLOT>() else {
        return None;
    };
    let (first, slots) = slots.split_first()?;
    if first != expected {
        return None;
    }
    let mut held = HashMap::new();
    let mut left = HashSet::new();
    for (number, slot) in (1..).zip(slots) {
        if slot.iter().all(|byte| *byte == 0) {
            continue;
        }
        let subject: Subject = *slot.first_chunk()?;
        match slot.get(subject.len()) {
            Some(&HELD) if sealed(slot) => held.insert(subject, number).is_some(),
            Some(&LEFT) if sealed(slot) => left.insert(subject),
            Some(_) | None => return None,
        };
    }
    held.retain(|subject, _| !left.contains(subject));
    Some(held)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOT: &str = "5c7f9a0e-1d2b-4c3d-8e9f-0a1b2c3d4e5f";
    const LATER_BOOT: &str = "6c7f9a0e-1d2b-4c3d-8e9f-0a1b2c3d4e5f";

    fn layout(dir: &tempfile::TempDir) -> Layout {
        Layout::new(dir.path())
    }

    #[test]
    fn only_what_was_held_to_the_end_certainly_never_left() {
        let dir = tempfile::tempdir().unwrap();
        let first = Departures::open_on(&layout(&dir), BOOT).unwrap();
        let ended = first.hold("ended");
        let (held, left) = (first.hold("held"), first.hold("left"));
        ended.leave().unwrap();
        ended.end();
        left.leave().unwrap();
        assert!(!first.never_left("held"), "it may leave any moment");
        drop((held, left));
        let second = Departures::open_on(&layout(&dir), BOOT).unwrap();
        let known = ["held", "left", "ended", "other"].map(|what| second.never_left(what));
        assert_eq!(known, [true, false, false, false]);
        // It stays known until it is forgotten, also to the process after.
        drop(second.hold("more"));
        let third = Departures::open_on(&layout(&dir), BOOT).unwrap();
        assert!(third.never_left("held") && third.never_left("more"));
        third.forget("held");
        let fourth = Departures::open_on(&layout(&dir), BOOT).unwrap();
        assert!(!fourth.never_left("held") && fourth.never_left("more"));
    }

    #[test]
    fn after_a_start_of_the_system_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        for (boot_id, next) in [(BOOT, LATER_BOOT), (LATER_BOOT, ""), ("", ""), ("", BOOT)] {
            let departures = Departures::open_on(&layout(&dir), boot_id).unwrap();
            drop(departures.hold("held"));
            let departures = Departures::open_on(&layout(&dir), next).unwrap();
            assert!(!departures.never_left("held"), "{boot_id} {next}");
        }
    }

    #[test]
    fn slots_are_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let departures = Departures::open_on(&layout(&dir), BOOT).unwrap();
        for number in 0..100 {
            let held: Vec<_> = (0..3)
                .map(|at| departures.hold(&format!("{number} {at}")))
                .collect();
            held[0].leave().unwrap();
            held.into_iter().for_each(Departure::end);
        }
        let length = std::fs::metadata(layout(&dir).departures()).unwrap().len();
        assert_eq!(length, 4 * SLOT as u64);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_makes_something_certain(at in 0..4 * SLOT, bit in 0..8) {
            let dir = tempfile::tempdir().unwrap();
            let path = layout(&dir).departures();
            let departures = Departures::open_on(&layout(&dir), BOOT).unwrap();
            let (held, left) = (departures.hold("held"), departures.hold("left"));
            left.leave().unwrap();
            drop((held, left));
            let mut content = std::fs::read(&path).unwrap();
            let at = at % content.len();
            content[at] ^= 1_u8 << bit;
            std::fs::write(&path, &content).unwrap();
            let departures = Departures::open_on(&layout(&dir), BOOT).unwrap();
            prop_assert!(!departures.never_left("left") && !departures.never_left("held"));
        }

        #[test]
        fn any_bytes_are_read_without_panic(content: Vec<u8>) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(layout(&dir).departures(), content).unwrap();
            let departures = Departures::open_on(&layout(&dir), BOOT).unwrap();
            prop_assert!(!departures.never_left("held"));
        }
    }
}
