//! Script sets: the one that new firings start on, and the older ones that runs are pinned to.
//!
//! A set is on disk before it is used, by the hash of its sources, so that a run goes on with the
//! very version it began with after every restart and reload.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::config::Limits;
use crate::crash_point::CrashPoint;
use crate::domain::clock::Clock;
use crate::domain::diagnostic::{Diagnostic, render};
use crate::domain::id::SetHash;
use crate::scripting::{Known, ScriptSet, Sources};
use crate::store::schema::{CURRENT_SET, SETS, SetRecord};
use crate::store::{Changes, CommitError, ReadError, Store};

/// The most sets kept compiled besides the current one.
const KEPT: usize = 8;

/// How long after it was replaced a set may still be in the hands of somebody who starts runs on
/// it. Taking it up and writing the runs takes milliseconds.
const STILL_IN_HAND: Duration = Duration::from_hours(1);

/// Why a set that a run is pinned to cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    /// The store has no such set; the run must be parked.
    #[error("the script set {0} that this run began on is not in the store")]
    Missing(SetHash),
    /// It was compiled once, and now it is not: another version of Bursar reads it.
    #[error("the script set {hash} that this run began on does not compile any more:\n{errors}")]
    Broken {
        /// Which.
        hash: SetHash,
        /// Rendered diagnostics.
        errors: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// All script sets in use.
#[derive(Debug)]
pub(super) struct Generations {
    current: ArcSwap<ScriptSet>,
    known: Mutex<HashMap<SetHash, Arc<ScriptSet>>>,
    /// When each earlier set of this process was replaced.
    replaced: Mutex<HashMap<SetHash, Instant>>,
    store: Store,
    limits: Limits,
    names: Known,
    clock: Arc<dyn Clock>,
}

impl Generations {
    /// No scripts at all, until a set is adopted.
    pub(super) fn new(
        store: Store,
        limits: Limits,
        names: Known,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let empty = ScriptSet::compile(Sources::default(), &limits, &names)?;
        Ok(Self {
            current: ArcSwap::from_pointee(empty),
            known: Mutex::default(),
            replaced: Mutex::default(),
            store,
            limits,
            names,
            clock,
        })
    }

    /// The set that new firings start on.
    pub(super) fn current(&self) -> Arc<ScriptSet> {
        self.current.load_full()
    }

    /// Compiles a set under the daemon's limits, without using it.
    pub(super) fn compile(&self, sources: Sources) -> Result<ScriptSet, Vec<Diagnostic>> {
        ScriptSet::compile(sources, &self.limits, &self.names)
    }

    /// Makes a set the current one, in one step, once its sources are on disk.
    pub(super) async fn adopt(&self, set: ScriptSet) -> Result<Arc<ScriptSet>, CommitError> {
        let mut files = BTreeMap::new();
        for (path, source) in set.sources().iter() {
            let hash = self.store.put_blob(source.as_bytes().to_vec()).await?;
            files.insert(path.to_owned(), hash);
        }
        let mut changes = Changes::new();
        let record = SetRecord {
            files,
            loaded_at: self.clock.now(),
        };
        changes.put(&SETS, set.hash(), &record);
        changes.put(&CURRENT_SET, &String::new(), set.hash());
        self.store.commit(changes).await?;
        CrashPoint::ReloadCompiled.pass();
        let set = Arc::new(set);
        self.remember(&set);
        self.make_current(Arc::clone(&set));
        Ok(set)
    }

    fn make_current(&self, set: Arc<ScriptSet>) {
        let before = self.current().hash().clone();
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain(|_, at| at.elapsed() < STILL_IN_HAND);
        replaced.insert(before, Instant::now());
        drop(replaced);
        self.current.store(set);
    }

    /// Whether no new run can start on that set: it is not the current one, and whoever took it up
    /// while it was has long written what it started.
    pub(super) fn is_left(&self, hash: &SetHash) -> bool {
        // In the order opposite to that in which a set is replaced.
        if self.current().hash() == hash {
            return false;
        }
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let at = replaced.get(hash);
        at.is_none_or(|at| at.elapsed() >= STILL_IN_HAND)
    }

    /// Makes the set that was used last the current one again. Answers whether there is one.
    pub(super) fn restore(&self) -> Result<Option<SetHash>, SetError> {
        let Some(hash) = self.store.get(&CURRENT_SET, &String::new())? else {
            return Ok(None);
        };
        let set = self.pinned(&hash)?;
        self.make_current(set);
        Ok(Some(hash))
    }

    /// The set with that hash, from memory or from the store.
    pub(super) fn pinned(&self, hash: &SetHash) -> Result<Arc<ScriptSet>, SetError> {
        let current = self.current();
        if current.hash() == hash {
            return Ok(current);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = known.get(hash) {
            return Ok(Arc::clone(set));
        }
        drop(known);
        let record = self
            .store
            .get(&SETS, hash)?
            .ok_or_else(|| SetError::Missing(hash.clone()))?;
        let mut files = BTreeMap::new();
        for (path, blob) in record.files {
            let source = self.store.get_blob(&blob)?;
            files.insert(path, String::from_utf8_lossy(&source).into_owned());
        }
        let set = self
            .compile(files.into_iter().collect())
            .map_err(|errors| SetError::Broken {
                hash: hash.clone(),
                errors: render(&errors),
            })?;
        let set = Arc::new(set);
        self.remember(&set);
        Ok(set)
    }

    fn remember(&self, set: &Arc<ScriptSet>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            // Whatever is dropped can be had from the store again.
            known.retain(|_, set| Arc::strong_count(set) > 1);
        }
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(set.hash().clone(), Arc::clone(set));
    }
}
