//! The one thread that writes the store.
//!
//! It takes everything that waits as one group: checks the preconditions in order, appends the
//! group to the guard journal, syncs it, appends its lines to the payment journal if it has any and
//! syncs that, lays the group over the index, tells everybody. The index itself
//! gets the group later, from the applier's thread. It never
//! retries: after the first failure the store is poisoned, because what is on disk is then known
//! only after the next start (a failed fsync may have thrown the data away and succeed when
//! repeated). Started by `Store::open`; ends when the last handle is gone.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::changes::{Changes, MAX_CHANGES_BYTES};
use super::codec::carried_checksum;
use super::ends::Ends;
use super::error::{CommitError, IndexError};
use super::guard_journal::GuardJournal;
use super::journal_format::{Mark, Writes, checksum, encode_record};
use super::pace::{Gone, Pace};
use super::payment_journal::{Head, PaymentJournal};
use super::poison::Poison;
use super::recent::{Recent, Written};
use super::view::View;
use crate::crash_point::CrashPoint;
use crate::telemetry::Telemetry;

/// The most commands in one group.
const GROUP: usize = 1024;

/// After a group of so many commits, more are awaited before the next one: they are on their way.
const CROWD: usize = 8;

/// How long, about as a sync takes. Whoever was answered last comes again at once, and a group for the
/// first of them alone would keep the others waiting for its sync and the next one.
const GATHERING: Duration = Duration::from_micros(400);

/// What the writer is asked to do. The answer is dropped unsent when the store is poisoned.
#[derive(Debug)]
pub(super) enum Command {
    /// Commit each of these changes.
    Commit(Vec<Changes>, oneshot::Sender<Outcomes>),
    /// Write the last checkpoint and end.
    Close(oneshot::Sender<()>),
}

/// What became of each of some changes, in their order.
pub(super) type Outcomes = Vec<Result<(), CommitError>>;

/// Everything that writing needs; owned by the writer's thread.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) view: View,
    pub(super) journal: GuardJournal,
    pub(super) payments: PaymentJournal,
    /// Where the store stands.
    pub(super) mark: Mark,
    /// Bytes of the journal between two checkpoints.
    pub(super) segment_bytes: u64,
    pub(super) pace: Arc<Pace>,
    pub(super) telemetry: Telemetry,
    pub(super) ends: Ends,
    pub(super) recent: Recent,
}

/// A failure that poisons the store.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("a file cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error("the index failed: {}", source_text(.0))]
    Index(#[from] IndexError),
    #[error(transparent)]
    Gone(#[from] Gone),
}

fn source_text(error: &IndexError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Commits that were taken together.
#[derive(Debug, Default)]
struct Group {
    writes: Writes,
    /// What the payment journal is told.
    lines: Vec<String>,
    /// What was read of the index, so that it is read once.
    read: HashMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// What is told once the group is durable.
    outcomes: Vec<(Outcomes, oneshot::Sender<Outcomes>)>,
    close: Option<oneshot::Sender<()>>,
}

impl Writer {
    /// Serves commands until every sender is gone, or until the first failure.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>, poison: &Poison) {
        let pace = Arc::clone(&self.pace);
        let _closing = Closing(&pace);
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
        let mut last = 0;
        while commands.blocking_recv_many(&mut received, GROUP) > 0 {
            if last >= CROWD && commits(&received) < last {
                std::thread::park_timeout(GATHERING);
                while received.len() < GROUP
                    && let Ok(command) = commands.try_recv()
                {
                    received.push(command);
                }
            }
            last = commits(&received);
            waiting.extend(received.drain(..));
            while !waiting.is_empty() {
                // The index, or a blob that could not be written, poisons the store from outside.
                if poison.is_set() {
                    return Ok(());
                }
                let mut group = Group::default();
                // Poisoned before the group is dropped, so that nobody hears of it earlier.
                self.gather(&mut waiting, &mut group)
                    .and_then(|()| self.perform(&mut group, poison))
                    .inspect_err(|failure| poison.poison(&failure.to_string()))?;
                if poison.is_set() {
                    return Ok(());
                }
                if let Some(answer) = group.close.take() {
                    self.last_checkpoint()?;
                    tell(answer, ());
                    return Ok(());
                }
            }
        }
        if poison.is_set() {
            return Ok(());
        }
        self.last_checkpoint()
    }

    /// Takes commands into a group until it is full. Preconditions see what is durable and what
    /// earlier commits of the group will have made of it.
    fn gather(
        &mut self,
        waiting: &mut VecDeque<Command>,
        group: &mut Group,
    ) -> Result<(), Failure> {
        while group.close.is_none() && group.bytes < MAX_CHANGES_BYTES {
            match waiting.pop_front() {
                None => break,
                Some(Command::Close(answer)) => group.close = Some(answer),
                Some(Command::Commit(each, answer)) => {
                    let mut outcomes = Outcomes::with_capacity(each.len());
                    for changes in each {
                        outcomes.push(self.add(group, changes)?);
                    }
                    group.outcomes.push((outcomes, answer));
                }
            }
        }
        Ok(())
    }

    /// Adds changes to a group, if they can be made.
    fn add(
        &mut self,
        group: &mut Group,
        changes: Changes,
    ) -> Result<Result<(), CommitError>, Failure> {
        let changes = match changes.checked() {
            Ok(changes) => changes,
            Err(flaw) => return Ok(Err(flaw)),
        };
        if !self.holds(group, &changes)? {
            return Ok(Err(CommitError::Refused));
        }
        group.bytes += changes.bytes();
        for write in changes.writes {
            group.writes.insert(write.key, write.value);
        }
        group.lines.extend(changes.lines);
        Ok(Ok(()))
    }

    fn holds(&mut self, group: &mut Group, changes: &Changes) -> Result<bool, Failure> {
        for condition in &changes.conditions {
            let expected = condition.expected.as_deref();
            let made = group.writes.get(&condition.key);
            let holds = match made.map(|made| made.as_deref() == expected) {
                Some(holds) => holds,
                None => self.found(group, &condition.key, |found| found == expected)?,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What `look` makes of the stored bytes under a key before the group.
    fn found<T>(
        &mut self,
        group: &mut Group,
        key: &[u8],
        look: impl Fn(Option<&[u8]>) -> T,
    ) -> Result<T, Failure> {
        if let Some(read) = group.read.get(key) {
            return Ok(look(read.as_deref()));
        }
        if let Some(looked) = self.view.overlay.look(key, &look) {
            return Ok(looked);
        }
        if self.ends.is_beyond(key, &self.view.index)? {
            return Ok(look(None));
        }
        let read = self.view.index.get(key)?;
        let looked = look(read.as_deref());
        group.read.insert(key.to_vec(), read);
        Ok(looked)
    }

    /// Makes a group durable and tells everybody.
    fn perform(&mut self, group: &mut Group, poison: &Poison) -> Result<(), Failure> {
        if !group.writes.is_empty() || !group.lines.is_empty() {
            self.write(group)?;
            if poison.is_set() {
                return Ok(());
            }
        }
        let (mut made, mut refused) = (0, 0);
        for outcome in group.outcomes.iter().flat_map(|(outcomes, _)| outcomes) {
            match outcome {
                Ok(()) => made += 1,
                Err(CommitError::Refused) => refused += 1,
                Err(CommitError::Unstorable { .. } | CommitError::Poisoned) => {}
            }
        }
        self.telemetry.store_group(made, refused);
        for (outcomes, answer) in group.outcomes.drain(..) {
            tell(answer, outcomes);
        }
        if self.journal.segment_bytes() >= self.segment_bytes {
            self.journal.rotate(&self.mark)?;
            self.pace.want_checkpoint();
        }
        Ok(self.pace.wait_for_room()?)
    }

    fn write(&mut self, group: &mut Group) -> Result<(), Failure> {
        let mut writes = std::mem::take(&mut group.writes);
        let mut mark = self.mark;
        mark.sequence += 1;
        let lines = std::mem::take(&mut group.lines);
        let told = (!lines.is_empty()).then(|| self.payments.compose(&lines, mark.sequence));
        if let Some(told) = &told {
            writes.insert(Head::stored_key(), Some(told.stored_head()?));
        }
        let mut before = Vec::with_capacity(writes.len());
        for (key, value) in &writes {
            let old = match self.recent.get(key) {
                Some(Written(old)) => old,
                None => self.found(group, key, |stored| stored.map(carried_checksum))?,
            };
            before.push(old.is_some());
            mark.count(old, checksum(value.as_ref()));
        }
        for (key, value) in &writes {
            self.recent.set(key, checksum(value.as_ref()));
            if value.is_some() {
                self.ends.reach(key);
            }
        }
        let text = told.as_ref().map_or(&[][..], |told| &told.text);
        let record = encode_record(&self.mark, &mut mark, &writes, text);
        self.journal.append(&record)?;
        CrashPoint::JournalAppended.pass();
        self.journal.sync(mark.sequence)?;
        CrashPoint::JournalSynced.pass();
        if let Some(told) = told {
            self.payments.append(&told)?;
            CrashPoint::PaymentLinesAppended.pass();
            self.payments.sync(told)?;
        }
        self.mark = mark;
        let bytes = self.view.overlay.lay(writes, &before, mark);
        self.pace.laid(bytes);
        Ok(())
    }

    /// Waits until everything is in the index, and notes that, unless it is noted already.
    fn last_checkpoint(&mut self) -> Result<(), Failure> {
        self.pace.drain()?;
        if self.pace.last_checkpoint() == self.mark {
            return Ok(());
        }
        self.journal.rotate(&self.mark)?;
        self.pace.want_checkpoint();
        Ok(self.pace.drain()?)
    }
}

/// How many commits are asked for.
fn commits(commands: &[Command]) -> usize {
    let count = |command: &Command| match command {
        Command::Commit(each, _) => each.len(),
        Command::Close(_) => 0,
    };
    commands.iter().map(count).sum()
}

/// Lets the thread of the index end when the writer's has, however it has.
struct Closing<'a>(&'a Pace);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Tells whoever waits; somebody who no longer does is no concern of the store's.
fn tell<T>(answer: oneshot::Sender<T>, outcome: T) {
    drop(answer.send(outcome));
}
