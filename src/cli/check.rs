//! `bursar check`: configuration and scripts, without running anything.

use super::check_policy;
use super::exit_code::{Failure, Outcome};
use super::output::{complain, print};
use super::settings::Settings;
use crate::config::{Config, Need};
use crate::domain::clock::{Clock, SystemClock, Timestamp};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::handler::{Handler, Trigger};
use crate::scripting::{Known, Script, ScriptSet, Sources};

/// How many firings of a schedule are shown.
const SHOWN_FIRINGS: usize = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Options {}

pub(super) fn run(settings: &Settings, _options: Options) -> Outcome {
    let config = settings.load(Need::Nothing)?;
    let set = compile(&config).map_err(|mistakes| Failure::bad_input(&mistakes))?;
    let odd = check_policy::mistakes(&config.policy, &set);
    if !odd.is_empty() {
        return Err(Failure::bad_input(&odd));
    }
    let now = SystemClock.now();
    for script in set.scripts() {
        print(&describe(script, set.handlers(), now));
    }
    print(&format!(
        "{}: {}, {}, no mistakes",
        config.scripts.dir.display(),
        counted(set.scripts().len(), "script"),
        counted(set.handlers().len(), "handler"),
    ));
    for doubtful in &check_policy::warnings(&config.policy) {
        complain(&warning(doubtful));
    }
    for absent in &config.absent_secrets {
        complain(&warning(absent));
    }
    Ok(())
}

fn compile(config: &Config) -> Result<ScriptSet, Vec<Diagnostic>> {
    let names = Known {
        secrets: config.secrets.keys().cloned().collect(),
    };
    let sources = Sources::read(&config.scripts.dir)?;
    ScriptSet::compile(sources, &config.scripts.limits, &names)
}

fn describe(script: &Script, handlers: &[Handler], now: Timestamp) -> String {
    let about = script.doc.lines().next().unwrap_or_default();
    let mut lines = vec![format!("{}  {about}", script.path).trim_end().to_owned()];
    for id in &script.handlers {
        if let Some(handler) = handlers.iter().find(|handler| handler.id == *id) {
            lines.extend(of_handler(handler, now));
        }
    }
    lines.join("\n")
}

fn of_handler(handler: &Handler, now: Timestamp) -> Vec<String> {
    let name = &handler.id.name;
    match &handler.trigger {
        Trigger::Event(event) => vec![format!("  {name}: on {}", event.pattern)],
        Trigger::Schedule(trigger) => {
            let schedule = &trigger.schedule;
            let title = format!("  {name}: {} ({})", schedule.expression(), schedule.zone());
            let next =
                std::iter::successors(schedule.next_after(now), |at| schedule.next_after(*at));
            let next = next.take(SHOWN_FIRINGS);
            let next = next.map(|at| format!("    {}", at.format("%Y-%m-%d %H:%M:%S UTC")));
            std::iter::once(title).chain(next).collect()
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn warning(absent: &Diagnostic) -> String {
    match &absent.help {
        Some(help) => format!("warning: {} ({help})", absent.message),
        None => format!("warning: {}", absent.message),
    }
}
