//! The one thread that brings the index up to date, and writes checkpoints.
//!
//! It applies one frozen layer of the overlay after the other. A failure poisons the store; what
//! was acknowledged is in the guard journal and stays visible in the overlay until the process
//! ends, and the next start replays it. Started by `Store::open`; ends when the writer has.
//!
//! # Design
//! A checkpoint does not hold up the writer: the writer goes on in a new segment and asks for it;
//! it is noted for the last group applied, once sled is flushed, and only then segments go. So a
//! segment goes only if everything in it is in the index and on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::guard_journal::drop_through;
use super::journal_format::Mark;
use super::layout::Layout;
use super::manifest::Manifest;
use super::pace::{Pace, Turn};
use super::poison::Poison;
use super::view::View;
use super::writer::Failure;
use crate::crash_point::CrashPoint;
use crate::telemetry::Telemetry;

/// Everything that applying needs; owned by its thread.
#[derive(Debug)]
pub(super) struct Applier {
    pub(super) view: View,
    pub(super) layout: Layout,
    pub(super) manifest: Manifest,
    /// The last group in the index.
    pub(super) applied: Mark,
    /// Whether segments stay, because a backup needs them.
    pub(super) keep_segments: Arc<AtomicBool>,
    pub(super) pace: Arc<Pace>,
    pub(super) telemetry: Telemetry,
}

/// Lets nobody wait for a thread that has ended, however it has.
struct Leaving<'a>(&'a Pace);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Applier {
    /// Applies what is laid over the index, until the writer has ended or the first failure.
    pub(super) fn run(mut self, poison: &Poison) {
        let pace = Arc::clone(&self.pace);
        // Dropped last, so that whoever is woken finds the store poisoned.
        let _leaving = Leaving(&pace);
        let _guard = poison.guard();
        while let Turn::Apply { checkpoint } = pace.next() {
            if let Err(failure) = self.take_turn(checkpoint) {
                poison.poison(&failure.to_string());
                return;
            }
        }
    }

    /// Applies the active layer, and writes a checkpoint if one is wanted.
    pub(super) fn take_turn(&mut self, checkpoint: bool) -> Result<(), Failure> {
        if let Some((layer, mark)) = self.view.overlay.freeze() {
            self.view.index.apply_many(layer.writes(), &mark)?;
            CrashPoint::IndexApplied.pass();
            self.applied = mark;
            drop(layer);
            self.view.overlay.take_away();
        }
        if checkpoint {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Makes the index durable up to where it is, so that the journal before the last checkpoint
    /// is no longer needed. Keeps one checkpoint's distance more than it must: an index that lost
    /// its newest part can then still be brought up to date.
    pub(super) fn checkpoint(&mut self) -> Result<(), Failure> {
        let previous = self.manifest.checkpoint.sequence;
        self.view.index.flush()?;
        self.manifest.note(self.applied)?;
        self.pace.checkpointed(self.applied);
        CrashPoint::CheckpointWritten.pass();
        if previous < self.applied.sequence && !self.keep_segments.load(Ordering::SeqCst) {
            drop_through(&self.layout, previous)?;
        }
        self.telemetry.store_checkpoint(self.applied.sequence);
        Ok(())
    }
}
