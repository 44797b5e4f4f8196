//! `bursar dev`: the simulated gateway, a daemon and its dashboard in this process, and a short
//! scenario, told as it is observed.
//!
//! Nothing real is touched: whatever the configuration says, requests go to the simulator, scripts
//! reach no network, and files are in a folder of its own. The scripts are those of the
//! configuration, or the shipped ones where there are none.

mod observer;
mod scenario;
mod shipped;
mod stage;
mod story;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;

use super::exit_code::{Failure, Outcome, with_causes};
use super::output::{complain, print};
use super::settings::Settings;
use super::stop::Stop;
use crate::config::Need;
use crate::domain::diagnostic::render;
use crate::runner::Handle;
use stage::Stage;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Keep state there instead of in a temporary folder
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// End after the scenario
    #[arg(long)]
    once: bool,
}

/// How often it is looked for a reload.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(settings: &Settings, options: Options) -> Outcome {
    let config = settings.load(Need::Nothing)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?
        .block_on(async {
            let stop = Stop::new()?;
            let (stage, daemon) = Stage::set(config, options.state).await?;
            print(&stage.greeting());
            let (end, ended) = oneshot::channel::<()>();
            let mut daemon = tokio::spawn(daemon.run_until(async { drop(ended.await) }));
            let told = tokio::select! {
                told = perform(&stage, options.once) => told,
                () = stop.asked() => Ok(()),
                _ = &mut daemon => Err(Failure::failed("the daemon has ended; its log says why")),
            };
            drop(end);
            if !daemon.is_finished() {
                match daemon.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(Failure::failed(with_causes(&error))),
                    Err(_) => return Err(Failure::failed("the daemon has died")),
                }
            }
            told
        })
}

/// The scenario, and unless that is all, whatever is saved to the scripts folder afterwards.
async fn perform(stage: &Stage, once: bool) -> Outcome {
    let played = scenario::play(stage).await;
    if once {
        return if played? {
            Ok(())
        } else {
            Err(Failure::failed("not everything came out as it should"))
        };
    }
    // With scripts of one's own the scenario may not fit, and the rest is there all the same.
    if let Err(failure) = played {
        complain(&failure.text);
    }
    print(&stage.farewell());
    tell_reloads(&stage.runner, &stage.scripts).await;
    Ok(())
}

/// Tells every reload, for ever.
async fn tell_reloads(runner: &Handle, folder: &Path) {
    let look = || {
        let scripts = runner.scripts();
        (scripts.get("set").cloned(), runner.reload_errors())
    };
    let mut known = look();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = look();
        if now == known {
            continue;
        }
        if now.1.is_empty() {
            print(&format!(
                "reloaded: the scripts in {} are in use",
                folder.display()
            ));
        } else {
            print(&format!(
                "not reloaded, the scripts from before go on:\n{}",
                render(&now.1)
            ));
        }
        known = now;
    }
}
