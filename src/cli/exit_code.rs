//! How a command ends: the exit codes, and failures on their way to one.

use std::fmt::Display;

use crate::domain::diagnostic::{Diagnostic, render};

/// What the process says to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// It is done.
    Success = 0,
    /// It could not be done; trying again may help.
    Failed = 1,
    /// The command line makes no sense; the command did nothing.
    Usage = 2,
    /// The configuration or a script has mistakes; all of them were printed.
    BadInput = 64,
    /// Stored data are damaged, or written by a newer release.
    BadData = 65,
    /// Bursar itself has a mistake.
    Bug = 70,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: ExitCode,
    /// For people, as it is printed.
    pub(super) text: String,
}

/// What commands return.
pub(super) type Outcome = Result<(), Failure>;

impl Failure {
    /// It could not be done.
    pub(super) fn failed(reason: impl Display) -> Self {
        Self::new(ExitCode::Failed, reason)
    }

    /// The arguments make no sense together.
    pub(super) fn usage(reason: impl Display) -> Self {
        Self::new(ExitCode::Usage, reason)
    }

    /// Stored data cannot be used.
    pub(super) fn bad_data(reason: impl Display) -> Self {
        Self::new(ExitCode::BadData, reason)
    }

    /// What a person wrote has mistakes.
    pub(super) fn bad_input(mistakes: &[Diagnostic]) -> Self {
        Self {
            code: ExitCode::BadInput,
            text: render(mistakes),
        }
    }

    fn new(code: ExitCode, reason: impl Display) -> Self {
        Self {
            code,
            text: format!("error: {reason}"),
        }
    }
}

/// An error with its causes, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
