//! One limit or rule as it is written: finds its keys, says where they are, and keeps what is wrong
//! with them. What the values mean is for the callers to say.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::MOST_ROWS;
use crate::config::File;
use crate::config::mask;
use crate::config::refusal::Refusal;
use crate::domain::diagnostic::{Diagnostic, Place, closest};

/// A row of `[[policy.limit]]` or `[[policy.rule]]`.
pub(super) struct Row<'a> {
    file: File<'a>,
    /// `limit` or `rule`.
    what: &'static str,
    table: &'a DeTable<'a>,
    span: std::ops::Range<usize>,
    problems: &'a mut Vec<Diagnostic>,
    /// Keys that were asked for: those there may be.
    asked: BTreeSet<&'static str>,
}

/// Reads every row of one kind. What is not TOML at all is reported elsewhere.
pub(super) fn each(
    file: File<'_>,
    what: &'static str,
    problems: &mut Vec<Diagnostic>,
    mut read: impl FnMut(&mut Row<'_>),
) {
    let (table, _) = DeTable::parse_recoverable(file.text);
    let Some(DeValue::Table(policy)) = table.get_ref().get("policy").map(Spanned::get_ref) else {
        return;
    };
    let Some(rows) = policy.get(what) else {
        return;
    };
    let place = |span| shown(file, span);
    let header = format!("policy.{what}");
    let DeValue::Array(rows) = rows.get_ref() else {
        problems.push(
            Diagnostic::new(format!("`{header}` must be a list of tables"))
                .at(place(rows.span()))
                .help(format!(
                    "write `[[{header}]]`, with two brackets, above each {what}"
                )),
        );
        return;
    };
    if let Some(first_too_many) = rows.get(MOST_ROWS) {
        problems.push(
            Diagnostic::new(format!("there are more than {MOST_ROWS} of `[[{header}]]`"))
                .at(place(first_too_many.span()))
                .help("a list of addresses can stand in a file: address = { file = \"deny.txt\" }"),
        );
    }
    for row in rows.iter().take(MOST_ROWS) {
        let DeValue::Table(table) = row.get_ref() else {
            problems.push(
                Diagnostic::new(format!("`{header}` must be a list of tables"))
                    .at(place(row.span())),
            );
            continue;
        };
        let mut row = Row {
            file,
            what,
            table,
            span: row.span(),
            problems,
            asked: BTreeSet::new(),
        };
        read(&mut row);
        row.finish();
    }
}

/// A place without anything that could be a secret: an address never has an `@`, a URL may.
fn shown(file: File<'_>, span: std::ops::Range<usize>) -> Place {
    let place = Place::of_span(file.name, file.text, span);
    if place.text.contains('@') {
        mask::value(place)
    } else {
        place
    }
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    if let DeValue::String(text) = value {
        Some(text.to_string())
    } else {
        None
    }
}

impl<'a> Row<'a> {
    /// Where it begins.
    pub(super) fn place(&self) -> Place {
        shown(self.file, self.span.clone())
    }

    /// Where relative paths start.
    pub(super) fn folder(&self) -> &'a std::path::Path {
        self.file.folder
    }

    /// Where the value of a key stands; `None` when it is not given.
    pub(super) fn place_of(&mut self, key: &'static str) -> Option<Place> {
        self.value(key).map(|(_, place)| place)
    }

    fn value(&mut self, key: &'static str) -> Option<(&'a DeValue<'a>, Place)> {
        self.asked.insert(key);
        let value = self.table.get(key)?;
        Some((value.get_ref(), shown(self.file, value.span())))
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, Place)> {
        let (value, place) = self.value(key)?;
        if let DeValue::String(text) = value {
            return Some((text.to_string(), place));
        }
        self.refuse(key, &place, Refusal::new("must be text in quotes"));
        None
    }

    /// A text that must be there.
    pub(super) fn required_text(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<(String, Place)> {
        if self.place_of(key).is_none() {
            let (place, what) = (self.place(), self.what);
            self.problems.push(
                Diagnostic::new(format!("this {what} has no `{key}`"))
                    .at(place)
                    .help(format!("add a line such as {key} = {example}")),
            );
            return None;
        }
        self.text(key)
    }

    /// One text, or a list of texts that is not empty.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<(String, Place)>> {
        let (value, place) = self.value(key)?;
        let items: Vec<(Option<String>, Place)> = if let DeValue::Array(items) = value {
            items
                .iter()
                .map(|item| {
                    let text = text_of(item.get_ref());
                    (text, shown(self.file, item.span()))
                })
                .collect()
        } else {
            vec![(text_of(value), place.clone())]
        };
        if items.is_empty() {
            let refusal = Refusal::new("the list is empty, so nothing would ever match")
                .help("name at least one, or leave the key out to match everything");
            self.refuse(key, &place, refusal);
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for (text, place) in items {
            if let Some(text) = text {
                texts.push((text, place));
            } else {
                let refusal = Refusal::new("must be text in quotes, or a list of such texts");
                self.refuse(key, &place, refusal);
            }
        }
        Some(texts)
    }

    /// A table with one text: `{ file = "deny.txt" }`. `None` when the value is no table.
    pub(super) fn inner(&mut self, key: &'static str) -> Option<(Vec<(String, String)>, Place)> {
        let (value, place) = self.value(key)?;
        let DeValue::Table(inner) = value else {
            return None;
        };
        let pairs = inner.iter().map(|(name, value)| {
            let text = text_of(value.get_ref()).unwrap_or_default();
            (name.get_ref().to_string(), text)
        });
        Some((pairs.collect(), place))
    }

    /// A whole number within a range.
    pub(super) fn integer<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let (value, place) = self.value(key)?;
        let number = if let DeValue::Integer(digits) = value
            && digits.radix() == 10
        {
            digits.as_str().parse::<T>().ok()
        } else {
            None
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (from, to) = range.into_inner();
            let refusal = Refusal::new(format!("must be a whole number from {from} to {to}"));
            self.refuse(key, &place, refusal);
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let (value, place) = self.value(key)?;
        if let DeValue::Boolean(value) = value {
            return Some(*value);
        }
        self.refuse(key, &place, Refusal::new("must be true or false"));
        None
    }

    /// The value, or a report of what is wrong with it.
    pub(super) fn checked<T>(
        &mut self,
        key: &str,
        place: &Place,
        value: Result<T, Refusal>,
    ) -> Option<T> {
        value
            .map_err(|refusal| self.refuse(key, place, refusal))
            .ok()
    }

    /// There may be these keys, whether or not anybody asks for them.
    pub(super) fn knows(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
    }

    /// How many mistakes there are so far.
    pub(super) fn mistakes(&self) -> usize {
        self.problems.len()
    }

    /// Reports a mistake in the value of a key.
    pub(super) fn refuse(&mut self, key: &str, place: &Place, refusal: Refusal) {
        self.problems.push(Diagnostic {
            message: format!("`{key}` of this {}: {}", self.what, refusal.message),
            place: Some(place.clone()),
            help: refusal.help,
        });
    }

    /// Reports a mistake that has a place of its own.
    pub(super) fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// Reports keys that nobody has asked for.
    fn finish(&mut self) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if self.asked.contains(name) {
                continue;
            }
            let problem = Diagnostic::new(format!("unknown key `{name}` of a {}", self.what))
                .at(shown(self.file, key.span()));
            let asked = self.asked.iter().copied();
            self.problems.push(match closest(name, asked.clone()) {
                Some(meant) => problem.help(format!("did you mean `{meant}`?")),
                None => problem.help(format!(
                    "a {} has {}",
                    self.what,
                    asked.collect::<Vec<_>>().join(", ")
                )),
            });
        }
    }
}
