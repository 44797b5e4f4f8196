//! The durable store: a guard journal that is the point of durability, and sled as its index.
//!
//! Everything that must survive the process goes through [`Store::commit`]: when it returns `Ok`,
//! the changes are on disk, all of them. One thread writes; many commits that wait at the same
//! time become one group, which costs one sync. A second thread brings the index up to date with
//! what is durable; until then it lies over the index in memory. Reads go to both and see only
//! what is durable. Large contents are blobs: files named by their hash.
//!
//! | file | is about |
//! |---|---|
//! | `table`, `key`, `codec`, `packing`, `scan`, `changes` | what callers say: records, keys, ranges, changes |
//! | `writer`, `ends`, `recent`, `poison` | group commit, what it need not look up, and its end after a failure |
//! | `overlay`, `view` | what is durable and not yet in the index, and reading both as one |
//! | `applier`, `pace` | bringing the index up to date, and when |
//! | `guard_journal`, `journal_format`, `tail`, `manifest`, `layout`, `lock` | files of our own |
//! | `index` | the only code that uses sled |
//! | `recovery`, `verify` | what is found at a start, and whether to go on with it |
//! | `proof`, `rebuild` | what of a damaged store is provably everything, and repairing it |
//! | `rebuild_payments` | a store of the payments alone, when nothing else is left |
//! | `copy`, `backup`, `restore` | copies of the whole store, and what a restored one does not know |
//! | `payment_journal` | every step of every payment, for ever |
//! | `departures` | what is about to be sent and has certainly not left |
//! | `blobs`, `unreferenced` | large contents, and deleting those that nothing names |
//!
//! The store knows no payment, run or callback: the modules that own them declare the tables. It
//! keeps no history and takes no decision; a decision that rests on something read says so with a
//! precondition, which is checked in the same commit. Opened by `daemon`, used by `runner`;
//! `cli` uses the offline functions.
//!
//! A store that was restored from a backup is older than the world, which is dangerous where
//! money moves: `restore` says what it does not know.

mod applier;
mod backup;
mod blobs;
mod changes;
mod codec;
mod copy;
mod departures;
mod ends;
mod error;
mod guard_journal;
mod index;
mod journal_format;
mod key;
mod layout;
mod lock;
mod manifest;
mod open;
mod overlay;
mod pace;
mod packing;
mod payment_journal;
mod poison;
mod proof;
mod rebuild;
mod rebuild_payments;
mod recent;
mod recovery;
mod restore;
mod scan;
pub mod schema;
mod table;
mod tail;
mod unreferenced;
mod verify;
mod view;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

pub use backup::{BackupError, backup};
pub use blobs::BlobHash;
pub use changes::{Changes, MAX_CHANGES_BYTES, MAX_RECORD_BYTES};
pub use copy::Copied;
pub use departures::Departure;
pub use error::{CommitError, Damage, IndexError, OpenError, ReadError, Remedy};
pub use key::{Key, Leading};
pub use packing::Dictionary;
pub use payment_journal::{
    Audit, Entry, Finding, JournalError, Rows, awaited, put_payment, put_rows,
    read_payment_journal, verify_payment_journal,
};
pub use rebuild::{RebuildError, Rebuilt, Repair, rebuild};
pub use rebuild_payments::{Made, RebuiltPayments, rebuild_payments};
pub use restore::{RestoreError, restore};
pub use scan::{Each, Order, Range, Unreadable};
pub use table::{Record, Table, Versioned};
pub use unreferenced::Unreferenced;
pub use verify::{Report, verify};

use blobs::Blobs;
use departures::Departures;
use lock::Lock;
use open::Opened;
use poison::Poison;
use scan::Span;
use view::View;
use writer::Command;

use crate::telemetry::Telemetry;

/// The most commits that wait for the writer; more wait for a place in the queue.
const QUEUE: usize = 4096;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for the index's cache. The process uses about three times as much.
    pub cache_bytes: u64,
    /// Bytes of guard journal between two checkpoints. A start reads up to twice as much.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * 1024 * 1024,
            segment_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A handle of the open store. Cheap to clone.
///
/// Dropping the last handle writes the last checkpoint and releases the folder; that blocks for
/// as long as a flush takes. [`Store::close`] does the same and says whether it worked.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// Shared by all handles. The order of the fields is the order in which they are dropped: the
/// lock goes last.
#[derive(Debug)]
struct Shared {
    commands: Option<mpsc::Sender<Command>>,
    /// The writer's and the applier's.
    threads: Vec<JoinHandle<()>>,
    poison: Poison,
    view: View,
    blobs: Arc<Blobs>,
    departures: Departures,
    keep_segments: Arc<AtomicBool>,
    telemetry: Telemetry,
    _lock: Lock,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.commands = None;
        for thread in self.threads.drain(..) {
            // A panic in there has poisoned the store already; there is nobody left to tell.
            drop(thread.join());
        }
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl Store {
    /// Opens the store in `dir`, made if it is missing. Blocks, and reads everything there is:
    /// what opens is what was acknowledged, all of it.
    ///
    /// # Errors
    /// [`OpenError`]; its text is for the operator and names the file and the way out.
    pub fn open(dir: &Path, options: &Options, telemetry: &Telemetry) -> Result<Self, OpenError> {
        let opened = open::open(dir, options, telemetry)?;
        restore::warn_once(opened.blobs.layout(), telemetry)?;
        Self::start(opened).map_err(OpenError::io("start the threads that write", dir))
    }

    fn start(opened: Opened) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (writer, applier) = (opened.writer, opened.applier);
        let poison = Poison::new(&writer.telemetry);
        let view = writer.view.clone();
        let pace = Arc::clone(&writer.pace);
        let keep_segments = Arc::clone(&applier.keep_segments);
        let telemetry = writer.telemetry.clone();
        let applying = thread("store-index", {
            let poison = poison.clone();
            move || applier.run(&poison)
        })?;
        let writing = thread("store-writer", {
            let poison = poison.clone();
            move || writer.run(receiver, &poison)
        });
        // Without a writer there is nobody else to tell the applier.
        let writing = writing.inspect_err(|_not_started| pace.close())?;
        Ok(Self {
            shared: Arc::new(Shared {
                commands: Some(commands),
                threads: vec![writing, applying],
                poison,
                view,
                blobs: Arc::new(opened.blobs),
                departures: opened.departures,
                keep_segments,
                telemetry,
                _lock: opened.lock,
            }),
        })
    }

    /// Makes changes durable: all of them are on disk when this returns `Ok`, none of them when
    /// it returns [`CommitError::Refused`] or [`CommitError::Unstorable`].
    ///
    /// Waits while too many commits are waiting. If the future is dropped the changes may still
    /// be made.
    ///
    /// # Errors
    /// [`CommitError`]; its variants say what to do.
    pub async fn commit(&self, changes: Changes) -> Result<(), CommitError> {
        let outcomes = self.commit_each(vec![changes]).await;
        outcomes.into_iter().next().unwrap_or(Ok(()))
    }

    /// Makes each of these changes durable as [`Store::commit`] would one after the other, and answers
    /// what became of each, in their order. One that cannot be made keeps no other one from being made.
    pub async fn commit_each(&self, mut all: Vec<Changes>) -> Vec<Result<(), CommitError>> {
        let mut outcomes = Vec::with_capacity(all.len());
        while !all.is_empty() {
            let later = all.split_off(changes::fitting(&all));
            let count = all.len();
            match self.ask(|answer| Command::Commit(all, answer)).await {
                Some(some) => outcomes.extend(some),
                None => outcomes.extend((0..count).map(|_| Err(CommitError::Poisoned))),
            }
            all = later;
        }
        outcomes
    }

    /// What the writer answers; `None` if it no longer does.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        if self.is_poisoned() {
            return None;
        }
        let commands = self.shared.commands.as_ref()?;
        let (answer, answered) = oneshot::channel();
        commands.send(command(answer)).await.ok()?;
        // The answer is dropped unsent only by a store that is poisoned or closed.
        answered.await.ok()
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// [`ReadError`]; the record stays as it is.
    pub fn get<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<Option<V>, ReadError> {
        let read = self.get_versioned(table, key)?;
        Ok(read.map(|versioned| versioned.value))
    }

    /// The record under `key`, to be named in [`Changes::require_unchanged`].
    ///
    /// # Errors
    /// [`ReadError`]; the record stays as it is.
    pub fn get_versioned<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        key: &K,
    ) -> Result<Option<Versioned<V>>, ReadError> {
        let key = table.stored_key(key);
        let Some(stored) = self.shared.view.get(&key)? else {
            return Ok(None);
        };
        let value = table.decode(&key, &stored)?;
        Ok(Some(Versioned { value, stored }))
    }

    /// Whether the record under `key` is still the one that was read or written.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn is_unchanged<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        key: &K,
        read: &Versioned<V>,
    ) -> Result<bool, ReadError> {
        let now = self.shared.view.get(&table.stored_key(key))?;
        Ok(now.as_ref() == Some(&read.stored))
    }

    /// Up to `limit` records of a range, in the order of their keys. To go on, take the range
    /// [`Range::after`] the last key. Commits made meanwhile may or may not be seen.
    ///
    /// # Errors
    /// [`ReadError`] for the first record that cannot be read.
    pub fn scan<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        range: &Range<K>,
        limit: usize,
        order: Order,
    ) -> Result<Vec<(K, V)>, ReadError> {
        self.stored(table, range, limit, order)?
            .into_iter()
            .map(|(key, stored)| Ok((table.key(&key)?, table.decode(&key, &stored)?)))
            .collect()
    }

    /// The same as [`Store::scan`], but a record that cannot be read does not hide the others.
    ///
    /// # Errors
    /// [`ReadError`] when the index fails, or a key is malformed.
    pub fn scan_each<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        range: &Range<K>,
        limit: usize,
        order: Order,
    ) -> Result<Vec<Each<K, V>>, ReadError> {
        self.stored(table, range, limit, order)?
            .into_iter()
            .map(|(key, stored)| {
                let record = table.decode(&key, &stored);
                let record = record.map_err(|error| Unreadable { error, stored });
                Ok((table.key(&key)?, record))
            })
            .collect()
    }

    /// The keys that [`Store::scan`] would answer, without reading their records.
    ///
    /// # Errors
    /// [`ReadError`] when the index fails, or a key is malformed.
    pub fn keys<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        range: &Range<K>,
        limit: usize,
        order: Order,
    ) -> Result<Vec<K>, ReadError> {
        self.stored(table, range, limit, order)?
            .into_iter()
            .map(|(key, _)| table.key(&key))
            .collect()
    }

    fn stored<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        range: &Range<K>,
        limit: usize,
        order: Order,
    ) -> Result<Vec<index::Stored>, ReadError> {
        let table_prefix = table.stored_prefix();
        let prefix = [table_prefix.as_slice(), &range.prefix].concat();
        let mut span = Span::of(prefix);
        if let Some(after) = &range.after {
            span.go_on_after([table_prefix.as_slice(), after].concat(), order);
        }
        Ok(self.shared.view.scan(span, order, limit)?)
    }

    /// Stores a content under its hash: on disk when this returns. The same content is stored
    /// once. Must be called inside of a tokio runtime.
    ///
    /// # Errors
    /// [`CommitError::Poisoned`]: it could not be written, and nothing else will be.
    pub async fn put_blob(&self, content: Vec<u8>) -> Result<BlobHash, CommitError> {
        if self.is_poisoned() {
            return Err(CommitError::Poisoned);
        }
        let blobs = Arc::clone(&self.shared.blobs);
        let put = tokio::task::spawn_blocking(move || blobs.put(&content)).await;
        let failure = match put {
            Ok(Ok(hash)) => return Ok(hash),
            Ok(Err(error)) => format!("a blob cannot be written: {error}"),
            Err(error) => format!("writing a blob ended early: {error}"),
        };
        self.shared.poison.poison(&failure);
        Err(CommitError::Poisoned)
    }

    /// The content with that hash, verified.
    ///
    /// # Errors
    /// [`ReadError::Blob`] if it is missing or damaged.
    pub fn get_blob(&self, hash: &BlobHash) -> Result<Vec<u8>, ReadError> {
        self.shared
            .blobs
            .get(hash)
            .map_err(|source| ReadError::Blob {
                hash: hash.clone(),
                source,
            })
    }

    /// Notes that something is about to be sent and has not left. Held before it is made durable that
    /// it is being sent, and ended when what became of it is durable too. `what` names this very
    /// attempt. Not durable by itself: it outlives the process, not the system.
    pub fn hold_departure(&self, what: &str) -> Departure {
        self.shared.departures.hold(what)
    }

    /// Whether an earlier process ended while it held this departure: then nothing was sent. False
    /// when that is not known.
    #[must_use]
    pub fn never_left(&self, what: &str) -> bool {
        self.shared.departures.never_left(what)
    }

    /// Forgets a departure that an earlier process held, once its end is durable.
    pub fn forget_departure(&self, what: &str) {
        self.shared.departures.forget(what);
    }

    /// Whether the store refuses writes until the next start.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.poison.is_set()
    }

    /// Returns when the store is poisoned, never before.
    pub async fn poisoned(&self) {
        self.shared.poison.wait().await;
    }

    /// Writes the last checkpoint. Commits that come later, through other handles, fail as
    /// poisoned. The folder is released when the last handle is gone.
    ///
    /// # Errors
    /// [`CommitError::Poisoned`] if the store is poisoned; the next start recovers.
    pub async fn close(self) -> Result<(), CommitError> {
        self.ask(Command::Close).await.ok_or(CommitError::Poisoned)
    }
}

#[cfg(test)]
mod tests;
