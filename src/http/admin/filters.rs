//! Query parameters of lists. Unknown ones are mistakes: a filter that is silently ignored shows
//! what was not asked for.

use url::form_urlencoded;

use super::failure::Failure;
use crate::domain::diagnostic::closest;
use crate::domain::payment::State;
use crate::domain::run::RunState;
use crate::runner::Filter;

/// Rows of a list unless asked otherwise.
const USUAL_LIMIT: usize = 50;

/// The most rows of a list.
const MOST_ROWS: usize = 1_000;

/// A list that can be filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// By `state` and `script`.
    Runs,
    /// By `state` and `script`.
    Payments,
    /// By `kind`.
    Callbacks,
    /// By nothing.
    Slots,
}

impl List {
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Runs | Self::Payments => &["limit", "state", "script"],
            Self::Callbacks => &["limit", "kind"],
            Self::Slots => &["limit"],
        }
    }

    fn states(self) -> Vec<&'static str> {
        match self {
            Self::Runs => RunState::ALL.map(RunState::as_str).to_vec(),
            Self::Payments => State::ALL.map(State::as_str).to_vec(),
            Self::Callbacks | Self::Slots => Vec::new(),
        }
    }
}

/// Reads the parameters of `list`.
///
/// # Errors
/// All mistakes in one message.
pub(super) fn read(list: List, query: Option<&str>) -> Result<Filter, Failure> {
    let mut filter = Filter {
        limit: USUAL_LIMIT,
        state: None,
        script: None,
    };
    let mut mistakes = Vec::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let known = list.parameters();
        match name.as_ref() {
            name if !known.contains(&name) => mistakes.push(format!(
                "there is no parameter `{name}`; {}",
                suggestion(name, known)
            )),
            "limit" => match value.parse() {
                Ok(limit) if (1..=MOST_ROWS).contains(&limit) => filter.limit = limit,
                Ok(_) | Err(_) => mistakes.push(format!(
                    "`limit` must be a whole number from 1 to {MOST_ROWS}, not `{value}`"
                )),
            },
            "state" if !list.states().contains(&value.as_ref()) => mistakes.push(format!(
                "there is no state `{value}`; {}",
                suggestion(&value, &list.states())
            )),
            "state" | "kind" => filter.state = Some(value.into_owned()),
            _ => filter.script = Some(value.into_owned()),
        }
    }
    if mistakes.is_empty() {
        Ok(filter)
    } else {
        Err(Failure::bad_request(mistakes.join("; ")))
    }
}

fn suggestion(wrong: &str, known: &[&str]) -> String {
    match closest(wrong, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are {}", known.join(", ")),
    }
}
