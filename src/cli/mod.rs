//! The command line.

/// Runs the command that `arguments` name.
pub fn main<T>(_arguments: T) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
