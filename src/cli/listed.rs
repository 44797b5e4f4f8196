//! Options of everything that lists or shows.

use serde_json::Value;

use super::admin_client::filtered;
use super::output::{print, print_json};

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
    pub(super) shown: Shown,
    /// The most rows, newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl Listed {
    /// The path of the list, with this limit and other filters.
    pub(super) fn path(&self, path: &str, filters: &[(&str, Option<&str>)]) -> String {
        let limit = self.limit.to_string();
        let limit = [("limit", Some(limit.as_str()))];
        filtered(path, &[&limit, filters].concat())
    }
}
