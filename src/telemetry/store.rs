//! What the store says about itself.

use std::path::Path;

use super::Telemetry;

impl Telemetry {
    /// The store is open and whole.
    pub fn store_opened(&self, dir: &Path, sequence: u64, records: u64, replayed: u64) {
        self.metrics().store_poisoned.set(0);
        tracing::info!(dir = %dir.display(), sequence, records, replayed, "store opened");
    }

    /// A start found an interrupted write, which nobody was told had succeeded, and cut it off.
    pub fn store_tail_cut(&self, bytes: u64) {
        tracing::info!(
            bytes,
            "interrupted write at the end of the guard journal cut off"
        );
    }

    /// A start found that an append to the payment journal was interrupted, and wrote it again.
    pub fn payment_journal_completed(&self, bytes: u64) {
        tracing::info!(
            bytes,
            "interrupted append to the payment journal completed from the guard journal"
        );
    }

    /// A start found one of the manifest's slots unreadable and went on with the other.
    pub fn store_slot_damaged(&self, slot: &Path) {
        tracing::warn!(slot = %slot.display(), "slot of the manifest was unreadable, repaired");
    }

    /// A damaged store was repaired in one respect.
    pub fn store_repaired(&self, dir: &Path, repair: &str) {
        tracing::warn!(dir = %dir.display(), repair, "store repaired");
    }

    /// A copy of the store is on disk.
    pub fn store_backed_up(&self, to: &Path, sequence: u64) {
        tracing::info!(to = %to.display(), sequence, "store backed up");
    }

    /// A backup that somebody asked the daemon for was not made, and they were told why.
    pub fn store_not_backed_up(&self, reason: &str) {
        tracing::warn!(reason, "store not backed up");
    }

    /// A backup was made a store.
    pub fn store_restored(&self, from: &Path, to: &Path, sequence: u64) {
        tracing::warn!(
            from = %from.display(), to = %to.display(), sequence,
            "store restored from a backup"
        );
    }

    /// The first start after a restore.
    pub fn store_was_restored(&self, dir: &Path) {
        tracing::warn!(
            dir = %dir.display(),
            "this store was restored from a backup: payments, callbacks and slots since that \
             backup are unknown to it; before money moves again, compare what the gateway has \
             with `bursar payments list`"
        );
    }

    /// The first start after a rebuild from the payment journal.
    pub fn store_knows_payments_only(&self, dir: &Path) {
        tracing::warn!(
            dir = %dir.display(),
            "this store was made from the payment journal alone: every payment is known and none \
             is made twice, but runs, callbacks, slots and the state of scripts before it are \
             lost; a callback that the gateway sends again is handled again"
        );
    }

    /// A group of commits was decided: so many are durable, so many were refused because their
    /// preconditions did not hold.
    pub fn store_group(&self, made: usize, refused: usize) {
        let commits = &self.metrics().store_commits_total;
        commits.with_label_values(&["ok"]).inc_by(made as u64);
        commits
            .with_label_values(&["refused"])
            .inc_by(refused as u64);
        tracing::trace!(made, refused, "group committed");
    }

    /// The index is durable up to here.
    pub fn store_checkpoint(&self, sequence: u64) {
        tracing::debug!(sequence, "checkpoint written");
    }

    /// The store refuses writes until the next start.
    pub fn store_poisoned(&self, reason: &str) {
        self.metrics()
            .store_commits_total
            .with_label_values(&["failed"])
            .inc();
        self.metrics().store_poisoned.set(1);
        tracing::error!(
            reason,
            "store poisoned: no more writes until the next start"
        );
    }
}
