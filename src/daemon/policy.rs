//! Reload of policy: watches the configuration's file and the files with addresses that it names,
//! and puts a changed policy in force as a whole, or not at all.
//!
//! # Design
//!
//! A few files are looked at, not watched: two system calls each, three times a second, see every
//! way of saving, whatever the file system reports. The folder of the configuration may hold
//! anything, the store included, so a watch on it would never be quiet.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch as flag;

use crate::config::{Policy, Reading, Reread};
use crate::runner::Handle;
use crate::telemetry::Telemetry;

/// How often the files are looked at. They are read once they are the same at two looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What tells one state of a file from another one, without reading it.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Follows the files until `stop` is set.
pub(super) async fn follow(
    handle: Handle,
    reread: Reread,
    first: Policy,
    telemetry: Telemetry,
    mut stop: flag::Receiver<bool>,
) {
    let mut following = Following {
        files: watched(&reread, &first.files),
        last: first,
        reread,
        seen: Vec::new(),
        read: None,
        reading: None,
        told: Vec::new(),
    };
    loop {
        let pass = async {
            tokio::time::sleep(LOOK_EVERY).await;
            following.look(&handle, &telemetry).await;
        };
        tokio::select! {
            () = pass => {}
            _ = stop.changed() => return,
        }
    }
}

struct Following {
    reread: Reread,
    files: Vec<PathBuf>,
    /// The policy in force.
    last: Policy,
    /// The files at the last look.
    seen: Vec<Stamp>,
    /// The files when they were last read; `None` when they never were.
    read: Option<Vec<Stamp>>,
    /// What was read then.
    reading: Option<Reading>,
    /// Keys that were said to need a restart.
    told: Vec<String>,
}

impl Following {
    async fn look(&mut self, handle: &Handle, telemetry: &Telemetry) {
        let now: Vec<Stamp> = self.files.iter().map(|file| stamp(file)).collect();
        let is_still = now == self.seen;
        self.seen.clone_from(&now);
        if !is_still || self.read.as_ref() == Some(&now) {
            return;
        }
        let reread = self.reread.clone();
        let Ok(reading) = tokio::task::spawn_blocking(move || reread.read()).await else {
            return;
        };
        // Somebody has written while it was read; the next look sees that.
        if self.files.iter().map(|file| stamp(file)).ne(now.clone()) {
            return;
        }
        let mut files = watched(&self.reread, &reading.files);
        if reading.policy.is_err() {
            // The policy in force has its files too, and what is wrong may be in one of them.
            files.extend(self.last.files.iter().cloned());
            files.sort();
            files.dedup();
        }
        // A file that was not followed yet may have changed since: then everything is read again.
        self.read = (files == self.files).then_some(now);
        self.files = files;
        if self.reading.as_ref() != Some(&reading) {
            self.reading = Some(reading.clone());
            self.take_over(handle, telemetry, reading).await;
        }
    }

    async fn take_over(&mut self, handle: &Handle, telemetry: &Telemetry, reading: Reading) {
        if reading.changed != self.told {
            self.told.clone_from(&reading.changed);
            if !reading.changed.is_empty() {
                telemetry.restart_needed(&reading.changed);
            }
        }
        match reading.policy {
            Ok(policy) if policy == self.last => telemetry.policy_unchanged(),
            Ok(policy) => match handle.replace_policy(policy.rules.clone()).await {
                Ok(()) => {
                    telemetry.policy_replaced(policy.rules.limits.len(), policy.rules.rules.len());
                    telemetry.policy_doubted(&policy.doubts);
                    self.last = policy;
                }
                Err(error) => {
                    telemetry.store_unreadable(&error);
                    // Tried again at the next look.
                    self.read = None;
                    self.reading = None;
                }
            },
            Err(mistakes) => telemetry.policy_refused(&mistakes),
        }
    }
}

/// The configuration and what it names, each once.
fn watched(reread: &Reread, files: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = files.to_vec();
    all.push(reread.path().to_owned());
    all.sort();
    all.dedup();
    all
}

fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}
