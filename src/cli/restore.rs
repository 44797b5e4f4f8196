//! `bursar restore DIR`

use std::path::PathBuf;

use super::exit_code::{Failure, Outcome};
use super::output::print;
use super::settings::Settings;
use super::store::refused;
use crate::config::Need;
use crate::store::{RestoreError, restore};
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The folder that `bursar backup` made
    dir: PathBuf,
}

pub(super) fn run(settings: &Settings, options: Options) -> Outcome {
    let Options { dir } = options;
    let path = settings.load(Need::Nothing)?.store.path;
    let restored = restore(&dir, &path, &Telemetry::default());
    let copied = restored.map_err(|error| match error {
        RestoreError::Occupied(_) => Failure::failed(error),
        RestoreError::Damaged { .. } => Failure::bad_data(error),
        RestoreError::Failed(error) => refused(&error),
    })?;
    print(&format!(
        "restored `{}`: {} records and {} blobs, up to commit {}\n\
         what was paid and called back since that backup is unknown to it: compare what the \
         gateway has with `bursar payments list` before more money moves",
        path.display(),
        copied.records,
        copied.blobs,
        copied.sequence
    ));
    Ok(())
}
