//! Where values are written: turns a file and the environment into entries by dotted name, each
//! with its place, and reports what is no known key. Values are not interpreted here.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, Kind, LISTS, NOT_YET, TABLES};
use super::{mask, people, secret_ref};
use crate::domain::diagnostic::{Diagnostic, Place, closest};

/// What the names of overriding environment variables begin with.
const PREFIX: &str = "BURSAR__";

/// One value as it was written.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Where it stands, without anything that could be a secret.
    pub place: Place,
}

/// A value by its kind in TOML.
#[derive(Debug, Clone)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number that fits.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// An array of any values.
    List(Vec<Entry>),
    /// Anything else, described in words.
    Other(&'static str),
}

impl Value {
    /// The value in one text, for comparison only: it may be a secret.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.value.to_text()).collect();
                items.join("\n")
            }
            Self::Other(what) => (*what).to_owned(),
        }
    }

    /// What it is, in the words of error messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Other(what) => what,
        }
    }
}

/// The entries of one layer by dotted name.
pub type Entries = BTreeMap<String, Entry>;

/// Reads a TOML text. Entries that are well-formed come back even when others are not.
pub fn of_file(name: &str, text: &str, problems: &mut Vec<Diagnostic>) -> Entries {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut unreadable = BTreeSet::new();
    for error in errors {
        let place = Place::of_span(name, text, error.span().unwrap_or_default());
        unreadable.insert(place.line);
        problems.push(Diagnostic::new(error.message()).at(mask::unreadable(place, text)));
    }
    let mut walk = Walk {
        name,
        text,
        unreadable,
        entries: Entries::new(),
        problems,
    };
    walk.table("", table.get_ref());
    walk.entries
}

struct Walk<'a> {
    name: &'a str,
    text: &'a str,
    /// Lines that are not TOML. What was made of them may be no key at all, but part of a secret.
    unreadable: BTreeSet<usize>,
    entries: Entries,
    problems: &'a mut Vec<Diagnostic>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            if name == people::TABLE {
                self.people(value);
                continue;
            }
            if LISTS.contains(&name.as_str()) {
                continue;
            }
            let problem = if NOT_YET.contains(&name.as_str()) {
                not_yet(&name)
            } else if TABLES.contains(&name.as_str()) {
                if let DeValue::Table(inner) = value.get_ref() {
                    self.table(&name, inner);
                    continue;
                }
                Diagnostic::new(format!("`{name}` must be a table"))
                    .help(format!("write `[{name}]` on a line of its own"))
            } else if let Some(known) = keys::find(&name) {
                let entry = self.entry(value, known.kind);
                self.entries.insert(name, entry);
                continue;
            } else {
                unknown(&name, matches!(value.get_ref(), DeValue::Table(_)))
            };
            let place = Place::of_span(self.name, self.text, key.span());
            if !self.unreadable.contains(&place.line) {
                self.problems
                    .push(problem.at(mask::unknown_key(place, self.text)));
            }
        }
    }

    /// The elements of `[[admin.user]]`, and their keys.
    fn people(&mut self, value: &Spanned<DeValue<'_>>) {
        let elements: Vec<_> = match value.get_ref() {
            DeValue::Array(elements) => elements.iter().collect(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Boolean(_)
            | DeValue::Float(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => vec![value],
        };
        let are_tables = elements.iter().all(|element| element.get_ref().is_table());
        if value.get_ref().is_table() || !are_tables {
            let place = Place::of_span(self.name, self.text, value.span());
            let problem = Diagnostic::new(format!("`{}` must be a list of tables", people::TABLE))
                .help(format!("begin each person with `[[{}]]`", people::TABLE));
            self.problems.push(problem.at(mask::value(place)));
            return;
        }
        for (number, element) in elements.into_iter().enumerate() {
            let prefix = people::prefix(number);
            let place = Place::of_span(self.name, self.text, element.span());
            let whole = Entry {
                value: Value::Other("a table"),
                place: mask::value(place),
            };
            self.entries.insert(prefix.clone(), whole);
            for (key, value) in element.get_ref().as_table().into_iter().flatten() {
                let name = key.get_ref().as_ref();
                match people::kind(name) {
                    Ok(kind) => {
                        let entry = self.entry(value, kind);
                        self.entries.insert(format!("{prefix}.{name}"), entry);
                    }
                    Err(help) => {
                        let place = Place::of_span(self.name, self.text, key.span());
                        let problem =
                            Diagnostic::new(format!("unknown key `{}.{name}`", people::TABLE));
                        self.problems
                            .push(problem.help(help).at(mask::unknown_key(place, self.text)));
                    }
                }
            }
        }
    }

    fn entry(&self, value: &Spanned<DeValue<'_>>, kind: Kind) -> Entry {
        let place = Place::of_span(self.name, self.text, value.span());
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or(Value::Other("a number that is too large"), Value::Integer),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.entry(item, kind)).collect())
            }
            DeValue::Float(_) => Value::Other("a number with a point"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Table(_) => Value::Other("a table"),
        };
        let place = if is_confidential(&place.text, &value, kind) {
            mask::value(place)
        } else {
            place
        };
        Entry { value, place }
    }
}

/// Reads the variables that override keys. Others are none of our business.
pub fn of_environment(
    environment: &BTreeMap<String, String>,
    problems: &mut Vec<Diagnostic>,
) -> Entries {
    let mut entries = Entries::new();
    for (variable, text) in environment {
        let Some(rest) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let place = Place {
            file: format!("environment variable {variable}"),
            line: 1,
            column: 1,
            width: text
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                .max(1),
            text: text.lines().next().unwrap_or_default().to_owned(),
        };
        match key_of_variable(rest).and_then(|name| Some((keys::find(&name)?, name))) {
            Some((key, name)) => {
                let value = Value::Text(text.clone());
                let place = if is_confidential(text, &value, key.kind) {
                    mask::everything(place)
                } else {
                    place
                };
                let value = value_of_variable(text, key.kind, &place);
                entries.insert(name, Entry { value, place });
            }
            None => problems.push(unknown_variable(variable).at(mask::everything(place))),
        }
    }
    entries
}

/// `GATEWAY__BASE_URL` is `gateway.base_url`; the names of secrets keep their case.
fn key_of_variable(rest: &str) -> Option<String> {
    if let Some(secret) = rest.strip_prefix("SECRETS__") {
        return Some(format!("secrets.{secret}"));
    }
    (rest == rest.to_ascii_uppercase()).then(|| rest.to_ascii_lowercase().replace("__", "."))
}

fn value_of_variable(text: &str, kind: Kind, place: &Place) -> Value {
    let as_text = || Value::Text(text.to_owned());
    match kind {
        Kind::Text | Kind::Secret => as_text(),
        Kind::Integer => text.parse().map_or_else(|_| as_text(), Value::Integer),
        Kind::Boolean => text.parse().map_or_else(|_| as_text(), Value::Boolean),
        Kind::List => Value::List(
            // A comma may belong to a password, whose halves would not be known as such.
            text.split(|c| c == ',' && !mask::is_doubtful(text))
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Entry {
                    value: Value::Text(item.to_owned()),
                    place: place.clone(),
                })
                .collect(),
        ),
    }
}

/// Whether `text`, in which a known key's value stands, must not be shown.
fn is_confidential(text: &str, value: &Value, kind: Kind) -> bool {
    let is_reference =
        matches!(value, Value::Text(reference) if secret_ref::parse(reference).is_ok());
    (kind == Kind::Secret && !is_reference) || mask::is_doubtful(text)
}

fn not_yet(name: &str) -> Diagnostic {
    Diagnostic::new(format!("`{name}` is not available in this version")).help(
        "remove it: a daemon that started without applying it would not do what this file says",
    )
}

fn unknown(name: &str, is_table: bool) -> Diagnostic {
    let (table, key) = name.rsplit_once('.').unwrap_or(("", name));
    if table == "secrets" {
        return Diagnostic::new(format!("`{key}` cannot be the name of a secret"))
            .help("use letters, digits and `_`, such as SHOP_TOKEN");
    }
    if is_table {
        let problem = Diagnostic::new(format!("unknown table `{name}`"));
        return match closest(name, TABLES) {
            Some(table) => problem.help(format!("did you mean `[{table}]`?")),
            None => problem.help(format!("there are [{}]", TABLES.join("], ["))),
        };
    }
    let mut elsewhere = KEYS.iter().filter_map(|known| {
        let (_, last) = known.name.rsplit_once('.')?;
        (last == key).then_some(known.name)
    });
    let names = KEYS.iter().map(|known| known.name).chain(LISTS);
    let siblings = names.filter_map(|known| {
        let (parent, last) = known.rsplit_once('.')?;
        (parent == table).then_some(last)
    });
    let problem = Diagnostic::new(format!("unknown key `{name}`"));
    if let Some(sibling) = closest(key, siblings.clone()) {
        problem.help(format!("did you mean `{sibling}`?"))
    } else if let Some(place) = elsewhere.next() {
        problem.help(format!("did you mean `{place}`?"))
    } else if table.is_empty() {
        problem.help(format!("keys stand in tables: [{}]", TABLES.join("], [")))
    } else {
        let list: Vec<_> = siblings.collect();
        problem.help(format!("`[{table}]` has {}", list.join(", ")))
    }
}

fn unknown_variable(variable: &str) -> Diagnostic {
    let problem = Diagnostic::new(format!("unknown environment variable `{variable}`"));
    let known: Vec<_> = KEYS
        .iter()
        .map(|key| {
            format!(
                "{PREFIX}{}",
                key.name.to_ascii_uppercase().replace('.', "__")
            )
        })
        .collect();
    match closest(&variable.to_ascii_uppercase(), known.iter().map(String::as_str)) {
        Some(name) => problem.help(format!("did you mean `{name}`?")),
        None => problem.help(
            "variables that begin with BURSAR__ override keys: `gateway.base_url` is BURSAR__GATEWAY__BASE_URL",
        ),
    }
}
