//! `bursar pause` and `bursar resume`: the kill switch for money.

use serde_json::{Value, json};

use super::admin_client::Daemon;
use super::exit_code::Outcome;
use super::listed::Shown;
use super::output::{complain, field, list};
use super::settings::Settings;

/// Options of `pause`.
#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// Stop only the money of this script, without `.rhai`
    #[arg(long)]
    script: Option<String>,
    /// Why, for those who find it paused
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

/// Options of `resume`.
#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// Lift only the pause of this script, without `.rhai`
    #[arg(long)]
    script: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn pause(settings: &Settings, options: &Pause) -> Outcome {
    let body = json!({"script": options.script, "reason": options.reason});
    let answer = Daemon::of(settings)?.post("pause", &body)?;
    options.shown.show(&answer, |answer| field(answer, "note"));
    Ok(())
}

pub(super) fn resume(settings: &Settings, options: &Resume) -> Outcome {
    let body = json!({"script": options.script});
    let answer = Daemon::of(settings)?.post("resume", &body)?;
    options.shown.show(&answer, |answer| field(answer, "note"));
    Ok(())
}

/// Says on standard error what is paused, if anything is. A remark to what was shown already: where
/// the daemon cannot be asked any more, that is said and is no failure of the command.
pub(super) fn mention(settings: &Settings) {
    match Daemon::of(settings).and_then(|daemon| daemon.get("pause")) {
        Ok(pauses) => {
            for pause in list(&pauses, "pauses") {
                complain(&sentence(pause));
            }
        }
        Err(failure) => complain(&format!(
            "whether money is paused is not known: {}",
            failure.text
        )),
    }
}

fn sentence(pause: &Value) -> String {
    let what = match pause.get("script").and_then(Value::as_str) {
        Some(script) => format!("the money of `{script}`"),
        None => "all money".to_owned(),
    };
    let since = super::output::time(pause, "at");
    let reason = field(pause, "reason");
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    format!(
        "{what} is paused since {since} UTC by {}{why}",
        field(pause, "by")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_with_who_when_and_why() {
        let pause = json!({"script": null, "by": "ana", "at": "2026-11-22T09:00:00.000Z", "reason": "the bank called"});
        assert_eq!(
            sentence(&pause),
            "all money is paused since 2026-11-22 09:00:00 UTC by ana: the bank called"
        );
        let pause =
            json!({"script": "pay", "by": "ana", "at": "2026-11-22T09:00:00.000Z", "reason": null});
        assert_eq!(
            sentence(&pause),
            "the money of `pay` is paused since 2026-11-22 09:00:00 UTC by ana"
        );
    }
}
