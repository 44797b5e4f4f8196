//! `bursar dev`: simulator, daemon and overview in one process.

use std::path::PathBuf;

use super::exit_code::{Failure, Outcome};
use super::settings::Settings;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Keep state there instead of in a temporary folder
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// End after the scenario
    #[arg(long)]
    once: bool,
}

pub(super) fn run(_settings: &Settings, options: Options) -> Outcome {
    let Options { state, once } = options;
    drop((state, once));
    Err(Failure::failed("`bursar dev` is not there yet"))
}
