//! Query parameters of lists. Unknown ones are mistakes: a filter that is silently ignored shows
//! what was not asked for.

use url::form_urlencoded;

use super::failure::Failure;
use crate::domain::clock::Timestamp;
use crate::domain::diagnostic::closest;
use crate::domain::duration;
use crate::domain::id::ForeignIdError;
use crate::domain::payment::State;
use crate::domain::plan::PlanState;
use crate::domain::run::RunState;
use crate::runner::Filter;

/// Rows of a list unless asked otherwise.
const USUAL_LIMIT: usize = 50;

/// The most rows of a list.
const MOST_ROWS: usize = 1_000;

/// A list that can be filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// Runs of handlers.
    Runs,
    /// Payments.
    Payments,
    /// Callbacks and custom events.
    Callbacks,
    /// Batches that people approve.
    Batches,
    /// By nothing.
    Slots,
}

impl List {
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Runs => &[
                "limit",
                "since",
                "until",
                "state",
                "script",
                "handler",
                "foreign_id",
            ],
            Self::Payments | Self::Batches => {
                &["limit", "since", "until", "state", "script", "handler"]
            }
            Self::Callbacks => &["limit", "since", "until", "kind"],
            Self::Slots => &["limit"],
        }
    }

    fn states(self) -> Vec<&'static str> {
        match self {
            Self::Runs => RunState::ALL.map(RunState::as_str).to_vec(),
            Self::Payments => State::ALL.map(State::as_str).to_vec(),
            Self::Batches => PlanState::ALL.map(PlanState::as_str).to_vec(),
            Self::Callbacks | Self::Slots => Vec::new(),
        }
    }
}

/// Reads the parameters of `list`. Durations are counted back from `now`.
///
/// # Errors
/// All mistakes in one message.
pub(super) fn read(list: List, query: Option<&str>, now: Timestamp) -> Result<Filter, Failure> {
    let mut filter = Filter {
        limit: USUAL_LIMIT,
        ..Filter::EVERYTHING
    };
    let mut mistakes = Vec::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if let Err(mistake) = parameter(list, &name, &value, now, &mut filter) {
            mistakes.push(mistake);
        }
    }
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && since >= until
    {
        mistakes.push("`since` must be before `until`".to_owned());
    }
    if mistakes.is_empty() {
        Ok(filter)
    } else {
        Err(Failure::bad_request(mistakes.join("; ")))
    }
}

/// Reads one parameter, or says what is wrong with it.
fn parameter(
    list: List,
    name: &str,
    value: &str,
    now: Timestamp,
    filter: &mut Filter,
) -> Result<(), String> {
    let known = list.parameters();
    match name {
        name if !known.contains(&name) => Err(format!(
            "there is no parameter `{name}`; {}",
            suggestion(name, known)
        )),
        "limit" => match value.parse() {
            Ok(limit) if (1..=MOST_ROWS).contains(&limit) => {
                filter.limit = limit;
                Ok(())
            }
            Ok(_) | Err(_) => Err(format!(
                "`limit` must be a whole number from 1 to {MOST_ROWS}, not `{value}`"
            )),
        },
        "since" => instant(name, value, now).map(|at| filter.since = Some(at)),
        "until" => instant(name, value, now).map(|at| filter.until = Some(at)),
        "foreign_id" => value
            .parse()
            .map(|id| filter.foreign_id = Some(id))
            .map_err(|error: ForeignIdError| error.to_string()),
        "state" if !list.states().contains(&value) => Err(format!(
            "there is no state `{value}`; {}",
            suggestion(value, &list.states())
        )),
        "state" | "kind" => {
            filter.state = Some(value.to_owned());
            Ok(())
        }
        "handler" => {
            filter.handler = Some(value.to_owned());
            Ok(())
        }
        _ => {
            filter.script = Some(value.to_owned());
            Ok(())
        }
    }
}

/// An instant, or how long ago it was.
fn instant(name: &str, value: &str, now: Timestamp) -> Result<Timestamp, String> {
    let ago = |text: &str| {
        let ago = chrono::TimeDelta::from_std(duration::parse(text).ok()?).ok()?;
        now.checked_sub_signed(ago)
    };
    value.parse().ok().or_else(|| ago(value)).ok_or_else(|| {
        format!(
            "`{name}` must be an instant such as `2026-11-22T09:00:00Z`, or how long ago such as `24h`, not `{value}`"
        )
    })
}

fn suggestion(wrong: &str, known: &[&str]) -> String {
    match closest(wrong, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are {}", known.join(", ")),
    }
}
