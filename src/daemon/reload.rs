//! Hot reload: reads the scripts folder until it holds still, and offers the whole set to the
//! runner.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::watch::Watch;
use crate::domain::diagnostic::Diagnostic;
use crate::runner::{Handle, Reload};
use crate::scripting::Sources;
use crate::store::CommitError;
use crate::telemetry::Telemetry;

/// Two looks this far apart must find the same, or somebody is still writing.
const APART: Duration = Duration::from_millis(100);

/// How often a folder that is being written is looked at before it is taken as it is; the watch
/// reports further changes anyway.
const MOST_LOOKS: usize = 20;

/// Reads the folder as it is once it holds still, and offers it to the runner.
///
/// # Errors
/// When the store cannot write; the old set goes on.
pub(super) async fn look(handle: &Handle, dir: &Path) -> Result<Reload, CommitError> {
    let mut before = read(dir).await;
    for _ in 0..MOST_LOOKS {
        if before
            .as_ref()
            .is_ok_and(|sources| handle.is_current(sources))
        {
            break;
        }
        tokio::time::sleep(APART).await;
        let now = read(dir).await;
        let still = before == now;
        before = now;
        if still {
            break;
        }
    }
    handle.reload(before).await
}

/// Looks whenever the watch says so, until it ends.
pub(super) async fn follow(
    handle: Handle,
    dir: PathBuf,
    mut changed: mpsc::Receiver<()>,
    watch: Watch,
    telemetry: Telemetry,
) {
    while changed.recv().await.is_some() {
        if let Err(error) = look(&handle, &dir).await {
            telemetry.reload_not_stored(&error);
        }
    }
    drop(watch);
}

async fn read(dir: &Path) -> Result<Sources, Vec<Diagnostic>> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || Sources::read(&dir))
        .await
        .unwrap_or_else(|_| Err(vec![Diagnostic::new("reading the scripts was interrupted")]))
}
