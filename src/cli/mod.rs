//! The command line: reads arguments, runs one command, and says how it ended.
//!
//! One file per command, with its options and its `run`. The only module that knows clap and that
//! prints: results go to standard output, everything else to standard error. Commands that look at
//! or steer a running daemon ask it over its admin listener (`admin_client`); the others do their
//! work in this process. Nothing here decides: what a command shows or does is somebody else's.

mod admin_client;
mod audit;
mod backup;
mod batches;
mod call;
mod callbacks;
mod check;
mod check_policy;
mod dev;
mod exchange;
mod exit_code;
mod listed;
mod output;
mod pause;
mod payments;
mod policy;
mod restore;
mod run;
mod runs;
mod schedules;
mod scripts;
mod send;
mod settings;
mod simulate;
mod stop;
mod store;
mod trigger;
mod why;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::{Parser, Subcommand};

use exit_code::Outcome;
use settings::Settings;

pub use exit_code::ExitCode;

/// Runs a merchant's payment rules against the CryptoProcessing.com gateway.
#[derive(Debug, Parser)]
#[command(name = "bursar", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 64 bad configuration or script,
65 stored data unreadable or newer, 70 a bug in bursar";

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: simulator, daemon and overview in one process, no keys needed
    Dev(dev::Options),
    /// Run the daemon
    Run(run::Options),
    /// Check configuration and scripts without running them
    Check(check::Options),
    /// Run the gateway simulator on its own
    Simulate(simulate::Options),
    /// Fire a schedule now
    Trigger(trigger::Options),
    /// Sign a callback and post it to a daemon
    Send(send::Options),
    /// Runs of handlers
    #[command(subcommand)]
    Runs(runs::Command),
    /// Payments and what became of them
    #[command(subcommand)]
    Payments(payments::Command),
    /// Batches that people approve as a whole
    #[command(subcommand)]
    Batches(batches::Command),
    /// Tell why a payment was made and what became of it
    Why(why::Options),
    /// What may be paid
    #[command(subcommand)]
    Policy(policy::Command),
    /// Callbacks and custom events
    #[command(subcommand)]
    Callbacks(callbacks::Command),
    /// Schedules, their next slots and what became of the last ones
    #[command(subcommand)]
    Schedules(schedules::Command),
    /// The scripts in use
    #[command(subcommand)]
    Scripts(scripts::Command),
    /// Stop money at once; callbacks, reads and look-ups go on
    ///
    /// When this has answered, no further payment leaves, and that outlives restarts. Requests
    /// that were under way end normally. Payments that scripts ask for meanwhile are decided and
    /// recorded as `intended`, and are sent after `bursar resume`.
    Pause(pause::Pause),
    /// Let money go on after `bursar pause`
    Resume(pause::Resume),
    /// The payment journal: every step of every payment
    #[command(subcommand)]
    Audit(audit::Command),
    /// Send one signed request to the gateway
    Call(call::Options),
    /// The stored data, while no daemon runs
    #[command(subcommand)]
    Store(store::Command),
    /// Copy the stored data, whether the daemon runs or not
    Backup(backup::Options),
    /// Bring a backup back as the stored data
    ///
    /// The folder `store.path` must be empty or missing; move it away first. A backup is older
    /// than the world: payments made since are unknown to it. Those that were open then are
    /// looked up at the gateway. A script that asks for a later one again sends it again, with
    /// the same `foreign_id`, and that the gateway refuses it then is assumed, not documented.
    Restore(restore::Options),
}

/// Runs the command that `arguments` name, the program's own name first.
pub fn main<I>(arguments: I) -> std::process::ExitCode
where
    I: IntoIterator<Item: Into<OsString> + Clone>,
{
    let code = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => perform(arguments),
        Err(error) => {
            // Help and version are "errors" too, on standard output.
            error.print().ok();
            if error.use_stderr() {
                ExitCode::Usage
            } else {
                ExitCode::Success
            }
        }
    };
    code.into()
}

fn perform(arguments: Arguments) -> ExitCode {
    match catch_unwind(AssertUnwindSafe(|| dispatch(arguments))) {
        Ok(Ok(())) => ExitCode::Success,
        Ok(Err(failure)) => {
            output::complain(&failure.text);
            failure.code
        }
        Err(_) => {
            output::complain(
                "error: this is a bug in bursar; please report it with the lines above",
            );
            ExitCode::Bug
        }
    }
}

fn dispatch(Arguments { settings, command }: Arguments) -> Outcome {
    match command {
        Command::Dev(options) => dev::run(&settings, options),
        Command::Run(options) => run::run(&settings, options),
        Command::Check(options) => check::run(&settings, options),
        Command::Simulate(options) => simulate::run(&settings, options),
        Command::Trigger(options) => trigger::run(&settings, options),
        Command::Send(options) => send::run(&settings, options),
        Command::Runs(command) => runs::run(&settings, command),
        Command::Payments(command) => payments::run(&settings, command),
        Command::Batches(command) => batches::run(&settings, command),
        Command::Why(options) => why::run(&settings, &options),
        Command::Policy(command) => policy::run(&settings, command),
        Command::Callbacks(command) => callbacks::run(&settings, command),
        Command::Schedules(command) => schedules::run(&settings, command),
        Command::Scripts(command) => scripts::run(&settings, command),
        Command::Pause(options) => pause::pause(&settings, &options),
        Command::Resume(options) => pause::resume(&settings, &options),
        Command::Audit(command) => audit::run(&settings, command),
        Command::Call(options) => call::run(&settings, options),
        Command::Store(command) => store::run(&settings, command),
        Command::Backup(options) => backup::run(&settings, options),
        Command::Restore(options) => restore::run(&settings, options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Arguments::command().debug_assert();
    }

    /// The long help of a command and of everything below it.
    fn helps(command: &mut clap::Command, path: &str, into: &mut String) {
        use std::fmt::Write;
        let help = command.render_long_help();
        write!(into, "──── {path}\n{help}\n").unwrap();
        for below in command.get_subcommands_mut() {
            if below.get_name() != "help" {
                let path = format!("{path} {}", below.get_name());
                helps(below, &path, into);
            }
        }
    }

    #[test]
    fn every_command_says_what_it_does() {
        let mut command = Arguments::command();
        command.build();
        let mut text = String::new();
        helps(&mut command, "bursar", &mut text);
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(text.join("\n"));
    }
}
