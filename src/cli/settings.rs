//! What every command starts from: the configuration file and the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::exit_code::Failure;
use crate::config::{self, Config, Need};

/// Options that every command takes.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// The configuration [default: daemon.toml in the working folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Settings {
    /// Loads the configuration.
    ///
    /// # Errors
    /// With all mistakes in it.
    pub(super) fn load(&self, need: Need) -> Result<Config, Failure> {
        // Variables that are not UTF-8 are not ours.
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        config::load(self.config.as_deref(), &environment, need)
            .map_err(|mistakes| Failure::bad_input(&mistakes))
    }
}
