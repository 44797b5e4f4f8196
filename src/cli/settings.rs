//! What every command starts from: the configuration file and the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::exit_code::Failure;
use crate::config::{self, Config, Need};
use crate::domain::secret::Secret;

/// Options that every command takes.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// The configuration [default: daemon.toml in the working folder, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask the daemon as this `[[admin.user]]`, with their token [default: `admin.token`]
    #[arg(long = "as", global = true, value_name = "NAME")]
    person: Option<String>,
}

impl Settings {
    /// The admin listener and the token to present there: that of `admin.token`, or of whoever
    /// `--as` names.
    ///
    /// # Errors
    /// With all mistakes in the configuration; when there is nobody of that name, or their token
    /// is not there.
    pub(super) fn admin(&self) -> Result<(SocketAddr, Option<Secret>), Failure> {
        let Some(name) = &self.person else {
            let admin = self.load(Need::AdminToken)?.admin;
            return Ok((admin.listen, admin.token));
        };
        let config = self.load(Need::Nothing)?;
        let admin = config.admin;
        let Some(user) = admin.users.iter().find(|user| user.name == *name) else {
            let known: Vec<&str> = admin.users.iter().map(|user| user.name.as_str()).collect();
            let known = match known.as_slice() {
                [] => "there is no `[[admin.user]]`".to_owned(),
                known => format!("there are {}", known.join(", ")),
            };
            return Err(Failure::usage(format!(
                "--as {name}: the configuration has nobody of that name; {known}"
            )));
        };
        if user.token.expose().is_empty() {
            let absent = config.absent_secrets.iter().map(ToString::to_string);
            let absent: Vec<String> = absent.filter(|text| text.contains("admin.user")).collect();
            return Err(Failure::failed(format!(
                "--as {name}: their token is not there\n{}",
                absent.join("\n")
            )));
        }
        Ok((admin.listen, Some(user.token.clone())))
    }

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
