//! `[policy]`: what may be paid. Reads the keys of the table, and the limits and rules below it,
//! which are lists of tables and therefore not among the keys that have one value each.
//!
//! What a policy means is in `domain::policy`. Called by `sections`, and again by [`Reread`] when
//! the file has changed while the daemon runs.
//!
//! [`Reread`]: super::Reread

mod addresses;
mod limits;
mod matchers;
mod rows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::reader::Reader;
use super::refusal::Refusal;
use super::{choice, duration};
use crate::domain::diagnostic::{Diagnostic, Place, closest};
use crate::domain::policy::{self, Doubt, MAX_BATCH, OTHERWISE, Subject, Terms, Verdict, doubts};

use rows::Row;

/// `[policy]`
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What it says.
    pub rules: policy::Policy,
    /// What makes no sense in it, with its place: nothing that is wrong, but nothing anybody can
    /// have meant.
    pub doubts: Vec<Diagnostic>,
    /// The files with addresses that it names.
    pub files: Vec<PathBuf>,
    /// Where limits and rules begin, by their names.
    pub places: BTreeMap<String, Place>,
}

/// What an approval takes unless it says otherwise.
const TERMS: Terms = Terms {
    quorum: 1,
    expires_after: 3 * 24 * 60 * 60,
    editor_may_approve: true,
};

/// The keys that say what an approval takes.
const TERM_KEYS: [&str; 3] = ["quorum", "expires", "editor_may_approve"];

/// The most limits, and the most rules: each leaves a line in the record of every payment.
const MOST_ROWS: usize = 50;

/// Reads the policy; its mistakes are in the reader afterwards.
pub(super) fn read(reader: &mut Reader<'_>) -> Policy {
    let mut rules = policy::Policy {
        otherwise: reader.text("policy.otherwise", |text| {
            choice::parse(
                text,
                &[
                    ("allow", &Verdict::Allow),
                    ("refuse", &Verdict::Refuse),
                    ("approve", &Verdict::Approve(TERMS)),
                ],
            )
            .cloned()
        }),
        max_batch: reader.integer("policy.max_batch", &(1..=100_000)),
        zone: reader.text("policy.timezone", zone),
        rates_max_age: reader.text("policy.rates_max_age", |text| {
            let range = Duration::from_secs(10)..=Duration::from_hours(24);
            duration::parse(text, &range).map(delta)
        }),
        limits: Vec::new(),
        rules: Vec::new(),
    };
    let (mut limits, mut decided) = (Vec::new(), Vec::new());
    let mut reading = Reading {
        files: Vec::new(),
        names: BTreeMap::new(),
    };
    if let Some(file) = reader.file {
        rows::each(file, "limit", &mut reader.problems, |row| {
            let place = row.place();
            if let Some(limit) = limits::read(row, &mut reading) {
                limits.push((limit, place));
            }
        });
        rows::each(file, "rule", &mut reader.problems, |row| {
            let place = row.place();
            if let Some(rule) = read_rule(row, &mut reading) {
                decided.push((rule, place));
            }
        });
    }
    let (places_of_limits, places_of_rules): (Vec<Place>, Vec<Place>);
    (rules.limits, places_of_limits) = limits.into_iter().unzip();
    (rules.rules, places_of_rules) = decided.into_iter().unzip();
    let doubts = doubts(&rules).into_iter().map(|doubt| {
        let place = match doubt.about {
            Subject::Limit(number) => places_of_limits.get(number),
            Subject::Rule(number) => places_of_rules.get(number),
        };
        doubted(doubt, place)
    });
    let doubts = doubts.collect();
    let limits = rules.limits.iter().map(|limit| limit.name.clone());
    let of_limits = limits.zip(places_of_limits);
    let of_rules = rules.rules.iter().map(|rule| rule.name.clone());
    let of_rules = of_rules.zip(places_of_rules);
    let places = of_limits.chain(of_rules).collect();
    Policy {
        rules,
        doubts,
        files: reading.files,
        places,
    }
}

/// What is known of the whole policy while its rows are read.
struct Reading {
    /// Files with addresses.
    files: Vec<PathBuf>,
    /// Names of limits and rules, and the lines where they are.
    names: BTreeMap<String, usize>,
}

impl Reading {
    /// The name of a row, which refusals are known by.
    fn name(&mut self, row: &mut Row<'_>) -> Option<String> {
        let (name, place) = row.required_text("name", "\"ether per day\"")?;
        let refusal = if name.is_empty() || name.chars().count() > 80 {
            Refusal::new("a name has 1 to 80 characters")
        } else if name.chars().any(char::is_control) {
            Refusal::new("a name stands on one line")
        } else if [MAX_BATCH, OTHERWISE].contains(&name.as_str()) {
            Refusal::new(format!("`{name}` is the name of a key of `[policy]`"))
                .help("choose another name: refusals are known by it")
        } else if let Some(line) = self.names.get(&name) {
            Refusal::new(format!(
                "`{name}` is also the name of what is in line {line}"
            ))
            .help("choose another name: refusals are known by it")
        } else {
            self.names.insert(name.clone(), place.line);
            return Some(name);
        };
        row.refuse("name", &place, refusal);
        None
    }
}

fn read_rule(row: &mut Row<'_>, reading: &mut Reading) -> Option<policy::Rule> {
    let name = reading.name(row);
    let of = matchers::read(row, reading);
    row.knows(&TERM_KEYS);
    let decide = row
        .required_text("decide", "\"approve\"")
        .and_then(|(text, place)| {
            let words = [("allow", 0), ("refuse", 1), ("approve", 2)];
            row.checked("decide", &place, choice::parse(&text, &words))
        });
    let decide = match decide {
        Some(0) => Some(Verdict::Allow),
        Some(1) => Some(Verdict::Refuse),
        Some(_) => Some(Verdict::Approve(terms(row))),
        None => None,
    };
    if !matches!(decide, None | Some(Verdict::Approve(_))) {
        no_terms(row, "decide");
    }
    Some(policy::Rule {
        name: name?,
        of: of?,
        decide: decide?,
    })
}

/// What an approval takes, as a row says.
fn terms(row: &mut Row<'_>) -> Terms {
    let quorum = row.integer("quorum", 1..=20);
    let range = Duration::from_mins(1)..=Duration::from_hours(90 * 24);
    let expires = row
        .text("expires")
        .and_then(|(text, place)| row.checked("expires", &place, duration::parse(&text, &range)));
    Terms {
        quorum: quorum.unwrap_or(TERMS.quorum),
        expires_after: expires.map_or(TERMS.expires_after, |length| length.as_secs()),
        editor_may_approve: row
            .boolean("editor_may_approve")
            .unwrap_or(TERMS.editor_may_approve),
    }
}

/// Reports terms of an approval where there is none.
fn no_terms(row: &mut Row<'_>, key: &str) {
    for term in TERM_KEYS {
        if let Some(place) = row.place_of(term) {
            let refusal = Refusal::new(format!("means something only with `{key} = \"approve\"`"))
                .help("remove it, or leave the decision to people");
            row.refuse(term, &place, refusal);
        }
    }
}

fn doubted(doubt: Doubt, place: Option<&Place>) -> Diagnostic {
    Diagnostic {
        message: doubt.message,
        place: place.cloned(),
        help: Some(doubt.help),
    }
}

fn delta(length: Duration) -> TimeDelta {
    TimeDelta::from_std(length).unwrap_or(TimeDelta::MAX)
}

fn zone(text: &str) -> Result<Tz, Refusal> {
    text.parse::<Tz>().map_err(|_| {
        let refusal = Refusal::new(format!("`{text}` is not a time zone"));
        match closest(text, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name())) {
            Some(near) => refusal.help(format!("did you mean \"{near}\"?")),
            None => refusal.help("write an IANA name such as \"UTC\" or \"Europe/Berlin\""),
        }
    })
}

#[cfg(test)]
mod tests;
