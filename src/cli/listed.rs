//! Options of everything that lists or shows.

use serde_json::Value;

use super::admin_client::{Daemon, filtered};
use super::exit_code::Outcome;
use super::output::{complain, items, print, print_json};
use super::settings::Settings;

/// For what shows one thing.
#[derive(Debug, clap::Args)]
pub(super) struct Shown {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Shown {
    /// Prints the thing: as it is, or for people.
    pub(super) fn show(&self, thing: &Value, for_people: impl FnOnce(&Value) -> String) {
        if self.json {
            print_json(thing);
        } else {
            print(&for_people(thing));
        }
    }
}

/// For lists of any length.
#[derive(Debug, clap::Args)]
pub(super) struct Listed {
    #[command(flatten)]
    shown: Shown,
    /// The most rows, newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only what was accepted since then: an instant such as 2026-11-22T09:00:00Z, or how long ago
    /// it was, such as 24h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was accepted before then, written in the same way
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Listed {
    /// Shows the list below `path`, with these filters besides its own.
    pub(super) fn list(
        &self,
        settings: &Settings,
        path: &str,
        filters: &[(&str, Option<&str>)],
        for_people: impl FnOnce(&[Value]) -> String,
    ) -> Outcome {
        let limit = self.limit.to_string();
        let own = [
            ("limit", Some(limit.as_str())),
            ("since", self.since.as_deref()),
            ("until", self.until.as_deref()),
        ];
        let path = filtered(path, &[&own, filters].concat());
        let rows = Daemon::of(settings)?.get(&path)?;
        self.shown.show(&rows, |rows| for_people(items(rows)));
        if items(&rows).len() >= usize::from(self.limit) {
            complain(&format!(
                "the newest {limit} are shown, and there may be more: --limit and --until show them"
            ));
        }
        Ok(())
    }
}
