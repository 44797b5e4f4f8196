//! Repairing a damaged store with what is left of it: `bursar store rebuild`.
//!
//! It only goes on with a store that is provably everything that was acknowledged (`proof`); it
//! never makes one that is smaller. Everything is tried out on copies of the index first, so a
//! refusal has changed nothing. What is replaced is kept beside it, under a name that ends in
//! `damaged-N`, for a person to remove. Blobs are neither examined nor touched.
//!
//! # Design
//! sled reads its settings, a snapshot and then its log, and refuses nearly every damaged snapshot
//! and setting although the log alone is often enough; so each index is tried as it is and with
//! its log alone. An index
//! that an earlier rebuild replaced is tried too: that is what makes a rebuild that was killed
//! between two repairs begin again with what it had.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Options;
use super::copy::{copy_tree, remove_folder, sync_tree};
use super::error::{Damage, OpenError};
use super::guard_journal::{GuardJournal, write_high_water};
use super::index::wait_for_release;
use super::journal_format::Mark;
use super::layout::{Layout, create_folder, sync_folder};
use super::lock::Lock;
use super::manifest::Manifest;
use super::open::{find_damaged_store, has_format, open_locked, write_format};
use super::proof::{Proof, proof};
use super::recovery::{Examination, examine};
use super::restore::note_lost;
use crate::telemetry::Telemetry;

/// A store that is whole again.
#[derive(Debug)]
pub struct Rebuilt {
    /// The last group of commits in it.
    pub sequence: u64,
    /// Records in its index.
    pub records: u64,
    /// What was done, in order; nothing if nothing was wrong.
    pub repairs: Vec<Repair>,
}

/// One thing that a rebuild does. Each is whole or not done when the process is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Keeps a part under another name.
    KeepAside {
        /// What the part is called in the store.
        part: PathBuf,
        /// What it is called now.
        kept: PathBuf,
    },
    /// Puts an index that was proven whole into its place.
    PutIndex {
        /// Where it was tried out.
        attempt: PathBuf,
        /// Its place.
        index: PathBuf,
    },
    /// Begins the guard journal anew after this group, which the index holds.
    BeginJournal(u64),
    /// Writes the note of the last group anew.
    NoteHighWater(u64),
    /// Writes the note of the last checkpoint anew.
    NoteCheckpoint,
    /// Notes that everything but the payments is lost, for the first start to say so.
    NoteLost,
    /// Writes the version of the store's layout anew.
    NoteFormat,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepAside { part, kept } => {
                write!(f, "kept `{}` as `{}`", part.display(), kept.display())
            }
            Self::PutIndex { .. } => f.write_str("made the index anew, with every record"),
            Self::BeginJournal(sequence) => {
                write!(f, "began the guard journal anew after group {sequence}")
            }
            Self::NoteHighWater(sequence) => {
                write!(f, "noted anew that group {sequence} is the last")
            }
            Self::NoteCheckpoint => f.write_str("wrote the manifest anew"),
            Self::NoteLost => f.write_str("noted that only the payments are known"),
            Self::NoteFormat => f.write_str("wrote the format's version anew"),
        }
    }
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// What is left is not provably everything. A backup is what is left; nothing was changed.
    #[error("{}", refusal(dir, damage))]
    Incomplete {
        /// The store's folder.
        dir: PathBuf,
        /// What is missing or damaged.
        damage: Vec<Damage>,
    },
    /// There is no store, it is in use or newer than this release, or the operating system
    /// refused. A rebuild that was interrupted is begun again.
    #[error(transparent)]
    Failed(#[from] OpenError),
}

fn refusal(dir: &Path, damage: &[Damage]) -> String {
    let mut text =
        "what is left of the store is not provably everything, so it stays as it is:".to_owned();
    for Damage { file, finding, .. } in damage {
        // Writing to a string does not fail.
        write!(text, "\n  `{}`: {finding}", file.display()).ok();
    }
    let dir = dir.display();
    write!(
        text,
        "\nA backup can be brought back: `mv {dir} {dir}.replaced`, then `bursar restore DIR`. \
         Without one, `bursar store rebuild --payments-only` makes the payments anew from the \
         payment journal"
    )
    .ok();
    text
}

/// An index to try.
#[derive(Debug)]
enum Source {
    /// As it is.
    Whole(PathBuf),
    /// Without what sled reads before its log and can make anew.
    Log(PathBuf),
    /// Made from the guard journal alone.
    Nothing,
}

impl Source {
    /// What there is to try, the most likely first.
    fn all(layout: &Layout) -> io::Result<Vec<Self>> {
        let mut indexes = vec![layout.index()];
        indexes.extend(layout.replaced_indexes()?);
        indexes.retain(|index| index.is_dir());
        let mut sources: Vec<_> = indexes
            .into_iter()
            .flat_map(|index| [Self::Whole(index.clone()), Self::Log(index)])
            .collect();
        sources.push(Self::Nothing);
        Ok(sources)
    }

    fn copy(&self, to: &Path) -> Result<(), OpenError> {
        match self {
            Self::Whole(index) => copy_tree(index, to, |_| true),
            Self::Log(index) => copy_tree(index, to, |path| !is_made_anew(path)),
            Self::Nothing => create_folder(to).map_err(OpenError::io("make the folder", to)),
        }
    }
}

fn is_made_anew(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == "conf" || name.starts_with("snap."))
}

/// Makes the store in `dir`, which no process may have open, whole again. Needs room for another
/// index. Does nothing to a store that is whole, and can be interrupted and repeated at any time.
///
/// # Errors
/// [`RebuildError`]; it says what to do.
pub fn rebuild(dir: &Path, telemetry: &Telemetry) -> Result<Rebuilt, RebuildError> {
    let layout = find_damaged_store(dir)?;
    let lock = Lock::take(&layout)?;
    let plan = plan(&layout)?;
    plan.carry_out(layout, lock, telemetry)
}

/// What has to be done, decided before any of it is.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) repairs: Vec<Repair>,
    /// Where the store stands.
    pub(super) mark: Mark,
}

pub(super) fn plan(layout: &Layout) -> Result<Plan, RebuildError> {
    remove_attempts(layout)?;
    let sources = Source::all(layout).map_err(OpenError::io("list", &layout.dir))?;
    let mut first_damage = None;
    for (number, source) in sources.iter().enumerate() {
        let attempt = layout.attempt(number);
        source.copy(&attempt)?;
        let examination = examine(&layout.with_index(&attempt), Options::default().cache_bytes)?;
        let proof = proof(&examination).map_err(OpenError::io("read", &layout.journal()))?;
        if let Some(proof) = proof {
            // A rebuild mends the store, not the payment journal.
            if let Some(damage) = examination.payments.damage.first().cloned() {
                drop(examination);
                remove_attempts(layout)?;
                return Err(OpenError::from(damage).into());
            }
            let plan = plan_with(layout, &examination, proof, &attempt, source)?;
            drop(examination);
            wait_for_release(&attempt)
                .and_then(|()| sync_tree(&attempt))
                .map_err(OpenError::io("sync", &attempt))?;
            return Ok(plan);
        }
        first_damage.get_or_insert_with(|| shown(layout, &attempt, examination.damage));
    }
    remove_attempts(layout)?;
    Err(RebuildError::Incomplete {
        dir: layout.dir.clone(),
        damage: first_damage.unwrap_or_default(),
    })
}

/// Damage of an index that was tried out, told about the one it was copied from.
fn shown(layout: &Layout, attempt: &Path, mut damage: Vec<Damage>) -> Vec<Damage> {
    for damage in &mut damage {
        if damage.file == *attempt {
            damage.file = layout.index();
        }
    }
    damage
}

fn plan_with(
    layout: &Layout,
    examination: &Examination,
    proof: Proof,
    attempt: &Path,
    source: &Source,
) -> Result<Plan, OpenError> {
    examination.replay()?;
    if let Some(index) = &examination.index {
        index
            .flush()
            .map_err(|error| OpenError::io("write", attempt)(io::Error::other(error)))?;
    }
    let mut plan = Plan {
        repairs: Vec::new(),
        mark: match proof {
            Proof::Journal => examination.journal.end,
            Proof::Index => examination.applied,
        },
    };
    if !matches!(source, Source::Whole(index) if *index == layout.index()) {
        plan.keep_aside(layout, layout.index())?;
        plan.repairs.push(Repair::PutIndex {
            attempt: attempt.to_owned(),
            index: layout.index(),
        });
    }
    if proof == Proof::Index {
        plan.keep_aside(layout, layout.journal())?;
        plan.repairs.push(Repair::BeginJournal(plan.mark.sequence));
    } else if examination.high_water.is_none() {
        plan.repairs.push(Repair::NoteHighWater(plan.mark.sequence));
    }
    if examination.manifest.is_none() {
        plan.repairs.push(Repair::NoteCheckpoint);
    }
    if !has_format(layout)? {
        plan.repairs.push(Repair::NoteFormat);
    }
    Ok(plan)
}

impl Plan {
    /// Performs the repairs, and opens the store as a start would: it is whole only if that says so.
    pub(super) fn carry_out(
        self,
        layout: Layout,
        lock: Lock,
        telemetry: &Telemetry,
    ) -> Result<Rebuilt, RebuildError> {
        let dir = layout.dir.clone();
        for repair in &self.repairs {
            self.perform(repair, &layout)
                .map_err(OpenError::io("repair the store in", &dir))?;
            telemetry.store_repaired(&dir, &repair.to_string());
        }
        remove_attempts(&layout)?;
        let mut opened = open_locked(layout, lock, &Options::default(), telemetry)?;
        if !self.repairs.is_empty() {
            opened
                .checkpoint()
                .map_err(|failure| OpenError::io("checkpoint", &dir)(io::Error::other(failure)))?;
        }
        Ok(Rebuilt {
            sequence: opened.writer.mark.sequence,
            records: opened.writer.mark.records,
            repairs: self.repairs,
        })
    }

    pub(super) fn keep_aside(&mut self, layout: &Layout, part: PathBuf) -> Result<(), OpenError> {
        if part.exists() {
            let kept = layout
                .aside(&part)
                .map_err(OpenError::io("list", &layout.dir))?;
            self.repairs.push(Repair::KeepAside { part, kept });
        }
        Ok(())
    }

    /// Does one repair: it is on disk when this returns.
    pub(super) fn perform(&self, repair: &Repair, layout: &Layout) -> io::Result<()> {
        match repair {
            Repair::KeepAside { part, kept } => fs::rename(part, kept),
            Repair::PutIndex { attempt, index } => fs::rename(attempt, index),
            Repair::BeginJournal(_) => GuardJournal::create(layout, &self.mark),
            Repair::NoteHighWater(sequence) => write_high_water(layout, *sequence),
            // That the index is on disk up to anywhere is known after the next checkpoint.
            Repair::NoteCheckpoint => Manifest::create(layout, &Mark::default()),
            Repair::NoteLost => note_lost(layout),
            Repair::NoteFormat => write_format(layout),
        }?;
        sync_folder(&layout.dir)
    }
}

pub(super) fn remove_attempts(layout: &Layout) -> Result<(), OpenError> {
    let attempts = layout
        .attempts()
        .map_err(OpenError::io("list", &layout.dir))?;
    for attempt in attempts {
        // Threads of sled's that go on writing there would only delay the removal.
        wait_for_release(&attempt).ok();
        remove_folder(&attempt).map_err(OpenError::io("remove", &attempt))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changes, Order, Range, Store, Table};

    const TABLE: Table<u64, String> = Table::new("rebuild/", 1);

    fn options() -> Options {
        Options {
            segment_bytes: 10_000,
            ..Options::default()
        }
    }

    async fn fill(dir: &Path, range: std::ops::Range<u64>) {
        let store = Store::open(dir, &options(), &Telemetry::default()).unwrap();
        for number in range {
            let mut changes = Changes::new();
            changes.put(&TABLE, &number, &"x".repeat(500));
            store.commit(changes).await.unwrap();
        }
        store.close().await.unwrap();
        // sled writes a snapshot when it opens what is there.
        let store = Store::open(dir, &options(), &Telemetry::default()).unwrap();
        store.close().await.unwrap();
    }

    fn records(dir: &Path) -> usize {
        let store = Store::open(dir, &options(), &Telemetry::default()).unwrap();
        let all = store.scan(&TABLE, &Range::all(), usize::MAX, Order::Ascending);
        all.unwrap().len()
    }

    fn truncate(file: &Path, by: u64) {
        let file = fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(file.metadata().unwrap().len() - by).unwrap();
    }

    fn damage_snapshot(dir: &Path) {
        let files = super::super::layout::entries(&dir.join("index")).unwrap();
        for file in files.iter().filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.starts_with("snap.")
        }) {
            truncate(file, 1);
        }
    }

    /// Damage that needs many repairs.
    fn damage_index_and_notes(dir: &Path) {
        damage_snapshot(dir);
        for file in ["manifest.0", "manifest.1", "high-water", "format"] {
            fs::remove_file(dir.join(file)).unwrap();
        }
    }

    /// Damage that the index alone survives.
    fn damage_journal(dir: &Path) {
        let segments = Layout::new(dir).segments().unwrap();
        truncate(&segments.last().unwrap().1, 1);
        fs::remove_file(dir.join("format")).unwrap();
    }

    #[tokio::test]
    async fn a_rebuild_that_was_interrupted_anywhere_is_begun_again() {
        for (damage, least) in [
            (damage_index_and_notes as fn(&Path), 5),
            (damage_journal, 3),
        ] {
            for done in 0.. {
                let dir = tempfile::tempdir().unwrap();
                fill(dir.path(), 0..150).await;
                damage(dir.path());
                let layout = Layout::new(dir.path());
                let plan = plan(&layout).unwrap();
                assert!(plan.repairs.len() >= least, "{:?}", plan.repairs);
                for repair in plan.repairs.iter().take(done) {
                    plan.perform(repair, &layout).unwrap();
                }
                // A start in between is refused or whole, and harms nothing.
                if let Ok(store) = Store::open(dir.path(), &options(), &Telemetry::default()) {
                    let all = store.scan(&TABLE, &Range::all(), usize::MAX, Order::Ascending);
                    assert_eq!(all.unwrap().len(), 150);
                }
                let rebuilt = rebuild(dir.path(), &Telemetry::default()).unwrap();
                assert_eq!((rebuilt.records, rebuilt.sequence), (150, 150));
                assert_eq!(records(dir.path()), 150, "after {done} repairs");
                assert!(layout.attempts().unwrap().is_empty());
                if done == plan.repairs.len() {
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_whole_store_is_left_as_it_is_and_what_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 0..10).await;
        let rebuilt = rebuild(dir.path(), &Telemetry::default()).unwrap();
        assert_eq!(rebuilt.repairs, []);
        assert_eq!(records(dir.path()), 10);
        let empty = tempfile::tempdir().unwrap();
        let refused = rebuild(empty.path(), &Telemetry::default()).unwrap_err();
        assert!(matches!(
            refused,
            RebuildError::Failed(OpenError::Io { .. })
        ));
    }

    #[tokio::test]
    async fn what_is_replaced_is_kept_and_every_rebuild_has_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        for round in 1..4 {
            fill(dir.path(), 0..round * 150).await;
            damage_snapshot(dir.path());
            let rebuilt = rebuild(dir.path(), &Telemetry::default()).unwrap();
            let kept = dir.path().join(format!("index.damaged-{round}"));
            let part = dir.path().join("index");
            assert!(kept.join("db").exists());
            assert_eq!(
                rebuilt.repairs.first(),
                Some(&Repair::KeepAside { part, kept })
            );
        }
        assert_eq!(records(dir.path()), 450);
    }

    /// The index that was replaced long ago is whole in itself, and older than the journal says.
    #[tokio::test]
    async fn an_index_of_an_earlier_time_does_not_pass_for_a_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), 0..150).await;
        let old = dir.path().join("index.damaged-1");
        copy_tree(&dir.path().join("index"), &old, |_| true).unwrap();
        fill(dir.path(), 150..400).await;
        fs::remove_dir_all(dir.path().join("index")).unwrap();
        let refused = rebuild(dir.path(), &Telemetry::default()).unwrap_err();
        assert!(
            matches!(refused, RebuildError::Incomplete { .. }),
            "{refused}"
        );
        fs::remove_dir_all(dir.path().join("journal")).unwrap();
        let refused = rebuild(dir.path(), &Telemetry::default()).unwrap_err();
        assert!(
            matches!(refused, RebuildError::Incomplete { .. }),
            "{refused}"
        );
    }
}
