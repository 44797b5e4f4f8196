//! The one thread that writes the store.
//!
//! It takes everything that waits as one group: checks the preconditions in order, appends the
//! group to the guard journal, syncs it, applies it to the index, tells everybody. It never
//! retries: after the first failure the store is poisoned, because what is on disk is then known
//! only after the next start (a failed fsync may have thrown the data away and succeed when
//! repeated). Started by `Store::open`; ends when the last handle is gone.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::changes::{Changes, MAX_CHANGES_BYTES};
use super::codec::carried_checksum;
use super::error::{CommitError, IndexError};
use super::guard_journal::GuardJournal;
use super::index::Index;
use super::journal_format::{Mark, Writes, checksum, encode_record};
use super::manifest::Manifest;
use super::poison::Poison;
use crate::crash_point::CrashPoint;
use crate::telemetry::Telemetry;

/// The most commits in one group.
const GROUP: usize = 1024;

/// What the writer is asked to do. The answer is dropped unsent when the store is poisoned.
#[derive(Debug)]
pub(super) enum Command {
    /// Commit these changes.
    Commit(Changes, Answer),
    /// Write the last checkpoint and end.
    Close(Answer),
}

/// Tells whoever waits for a command.
pub(super) type Answer = oneshot::Sender<Result<(), CommitError>>;

/// Everything that writing needs; owned by the writer's thread.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) index: Index,
    pub(super) journal: GuardJournal,
    pub(super) manifest: Manifest,
    /// Where the store stands.
    pub(super) mark: Mark,
    /// Bytes of the journal between two checkpoints.
    pub(super) segment_bytes: u64,
    /// Whether segments stay, because a backup needs them.
    pub(super) keep_segments: Arc<AtomicBool>,
    pub(super) telemetry: Telemetry,
}

/// A failure that poisons the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("a file cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error("the index failed: {}", source_text(.0))]
    Index(#[from] IndexError),
}

fn source_text(error: &IndexError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Commits that were taken together.
#[derive(Debug, Default)]
struct Group {
    writes: Writes,
    /// What preconditions have read of the index, so that it is read once.
    read: HashMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    made: Vec<Answer>,
    refused: Vec<Answer>,
    close: Option<Answer>,
}

impl Writer {
    /// Serves commands until every sender is gone, or until the first failure.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>, poison: &Poison) {
        let _guard = poison.guard();
        if let Err(failure) = self.serve(&mut commands, poison) {
            poison.poison(&failure.to_string());
        }
    }

    fn serve(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        poison: &Poison,
    ) -> Result<(), Failure> {
        let mut received = Vec::with_capacity(GROUP);
        let mut waiting = VecDeque::new();
        while commands.blocking_recv_many(&mut received, GROUP) > 0 {
            waiting.extend(received.drain(..));
            while !waiting.is_empty() {
                // A blob that could not be written poisons the store from outside.
                if poison.is_set() {
                    return Ok(());
                }
                let mut group = Group::default();
                // Poisoned before the group is dropped, so that nobody hears of it earlier.
                self.gather(&mut waiting, &mut group)
                    .and_then(|()| self.perform(&mut group))
                    .inspect_err(|failure| poison.poison(&failure.to_string()))?;
                if let Some(answer) = group.close.take() {
                    self.last_checkpoint()?;
                    tell(answer, Ok(()));
                    return Ok(());
                }
            }
        }
        if poison.is_set() {
            return Ok(());
        }
        self.last_checkpoint()
    }

    /// Takes commands into a group until it is full. Preconditions see the index and what earlier
    /// commits of the group will have made of it.
    fn gather(&self, waiting: &mut VecDeque<Command>, group: &mut Group) -> Result<(), Failure> {
        while group.close.is_none() && group.bytes < MAX_CHANGES_BYTES {
            match waiting.pop_front() {
                None => break,
                Some(Command::Close(answer)) => group.close = Some(answer),
                Some(Command::Commit(changes, answer)) => {
                    if self.holds(group, &changes)? {
                        group.bytes += changes.bytes();
                        for write in changes.writes {
                            group.writes.insert(write.key, write.value);
                        }
                        group.made.push(answer);
                    } else {
                        group.refused.push(answer);
                    }
                }
            }
        }
        Ok(())
    }

    fn holds(&self, group: &mut Group, changes: &Changes) -> Result<bool, Failure> {
        for condition in &changes.conditions {
            let found = match group.writes.get(&condition.key) {
                Some(made) => made,
                None => match group.read.entry(condition.key.clone()) {
                    Entry::Occupied(read) => read.into_mut(),
                    Entry::Vacant(unread) => unread.insert(self.index.get(&condition.key)?),
                },
            };
            if *found != condition.expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a group durable and tells everybody.
    fn perform(&mut self, group: &mut Group) -> Result<(), Failure> {
        if !group.writes.is_empty() {
            self.write(group)?;
        }
        self.telemetry
            .store_group(group.made.len(), group.refused.len());
        for answer in group.made.drain(..) {
            tell(answer, Ok(()));
        }
        for answer in group.refused.drain(..) {
            tell(answer, Err(CommitError::Refused));
        }
        if self.journal.segment_bytes() >= self.segment_bytes {
            self.checkpoint()?;
        }
        Ok(())
    }

    fn write(&mut self, group: &mut Group) -> Result<(), Failure> {
        let writes = &group.writes;
        let mut mark = self.mark;
        mark.sequence += 1;
        for (key, value) in writes {
            let old = match group.read.remove(key) {
                Some(read) => read,
                None => self.index.get(key)?,
            };
            mark.count(
                old.as_deref().map(carried_checksum),
                checksum(value.as_ref()),
            );
        }
        let record = encode_record(&self.mark, &mut mark, writes);
        self.journal.append(&record)?;
        CrashPoint::JournalAppended.pass();
        self.journal.sync(mark.sequence)?;
        CrashPoint::JournalSynced.pass();
        self.index.apply(writes, &mark)?;
        CrashPoint::IndexApplied.pass();
        self.mark = mark;
        Ok(())
    }

    /// Notes where the index stands at the end, unless that is noted already.
    fn last_checkpoint(&mut self) -> Result<(), Failure> {
        if self.manifest.checkpoint == self.mark {
            return Ok(());
        }
        self.checkpoint()
    }

    /// Makes the index durable up to here, so that the journal before the last checkpoint is no
    /// longer needed. Keeps one checkpoint's distance more than it must: an index that lost its
    /// newest part can then still be brought up to date.
    pub(super) fn checkpoint(&mut self) -> Result<(), Failure> {
        let previous = self.manifest.checkpoint.sequence;
        self.index.flush()?;
        self.journal.rotate(&self.mark)?;
        self.manifest.note(self.mark)?;
        CrashPoint::CheckpointWritten.pass();
        if previous < self.mark.sequence && !self.keep_segments.load(Ordering::SeqCst) {
            self.journal.drop_through(previous)?;
        }
        self.telemetry.store_checkpoint(self.mark.sequence);
        Ok(())
    }
}

/// Tells whoever waits; somebody who no longer does is no concern of the store's.
fn tell(answer: Answer, outcome: Result<(), CommitError>) {
    drop(answer.send(outcome));
}
