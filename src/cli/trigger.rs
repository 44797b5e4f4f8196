//! `bursar trigger SCRIPT NAME [--at SLOT]`

use serde_json::json;

use super::admin_client::Daemon;
use super::exit_code::Outcome;
use super::output::{field, print};
use super::settings::Settings;
use crate::domain::clock::Timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The script, as `schedules list` shows it
    script: String,
    /// The schedule's name
    name: String,
    /// The slot the handler is told it runs for, such as 2026-11-22T09:00:00Z [default: now]
    #[arg(long, value_name = "SLOT")]
    at: Option<Timestamp>,
}

pub(super) fn run(settings: &Settings, options: Options) -> Outcome {
    let Options { script, name, at } = options;
    let script = script.strip_suffix(".rhai").unwrap_or(&script);
    let mut wanted = json!({"script": script, "name": name});
    if let (Some(at), Some(wanted)) = (at, wanted.as_object_mut()) {
        wanted.insert("at".into(), json!(at));
    }
    let fired = Daemon::of(settings)?.post("trigger", &wanted)?;
    let run = field(&fired, "run");
    print(&format!("fired; `bursar runs show {run}` says how it goes"));
    Ok(())
}
