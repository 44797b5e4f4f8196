//! `bursar backup DIR`

use std::path::{Path, PathBuf, absolute};

use serde_json::{Value, json};

use super::admin_client::Daemon;
use super::exit_code::{Failure, Outcome, with_causes};
use super::output::{field, print};
use super::settings::Settings;
use super::store::refused;
use crate::config::Need;
use crate::store::{BackupError, OpenError, backup};
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The folder to make; it may be there if it is empty
    dir: PathBuf,
}

/// Whoever has the store open makes the copy: the daemon, or nobody and then this process.
pub(super) fn run(settings: &Settings, options: Options) -> Outcome {
    let Options { dir } = options;
    let path = settings.load(Need::Nothing)?.store.path;
    let dir = absolute(&dir)
        .map_err(|error| Failure::usage(format!("`{}` is no folder: {error}", dir.display())))?;
    let copied = match backup(&path, &dir, &Telemetry::default()) {
        Ok(copied) => json!(copied),
        Err(BackupError::Failed(OpenError::Locked(_))) => by_daemon(settings, &dir)?,
        Err(BackupError::Failed(error)) => return Err(refused(&error)),
        Err(error @ BackupError::Damaged { .. }) => return Err(Failure::bad_data(error)),
        Err(error @ (BackupError::Occupied(_) | BackupError::Inside(_) | BackupError::Busy)) => {
            return Err(Failure::failed(with_causes(&error)));
        }
    };
    print(&format!(
        "backed up to `{}`: {} records and {} blobs, up to commit {}",
        dir.display(),
        field(&copied, "records"),
        field(&copied, "blobs"),
        field(&copied, "sequence")
    ));
    Ok(())
}

fn by_daemon(settings: &Settings, dir: &Path) -> Result<Value, Failure> {
    let dir = dir
        .to_str()
        .ok_or_else(|| Failure::usage(format!("`{}` is no name in UTF-8", dir.display())))?;
    Daemon::of(settings)?.post_long("backup", &json!({"dir": dir}))
}
