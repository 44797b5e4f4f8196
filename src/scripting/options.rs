//! Option maps: `#{ timezone: "Europe/Berlin", retry: #{ attempts: 3 } }`. Every option must be
//! known and of its type; a misspelt one is refused with a suggestion instead of being ignored.

use std::time::Duration;

use rhai::{Dynamic, Map};

use crate::domain::diagnostic::closest;
use crate::domain::duration;

/// An option map being read. `what` names it in errors: `schedule`, `retry`.
pub(super) struct Options {
    what: &'static str,
    map: Map,
}

/// What is wrong with an option.
pub(super) type Refused = String;

impl Options {
    /// Takes a map whose keys must all be among `known`.
    pub(super) fn new(what: &'static str, map: Map, known: &[&str]) -> Result<Self, Refused> {
        for key in map.keys() {
            if !known.contains(&key.as_str()) {
                let advice = match closest(key, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are {}", known.join(", ")),
                };
                return Err(format!("{what} has no option `{key}`; {advice}"));
            }
        }
        Ok(Self { what, map })
    }

    /// The value as it is.
    pub(super) fn value(&mut self, key: &str) -> Option<Dynamic> {
        self.map.remove(key)
    }

    fn wrong(&self, key: &str, expected: &str, found: &Dynamic) -> Refused {
        format!(
            "{} option `{key}` must be {expected}, not {}",
            self.what,
            type_in_words(found)
        )
    }

    /// A text.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Refused> {
        self.value(key)
            .map(|value| {
                value
                    .clone()
                    .into_string()
                    .map_err(|_| self.wrong(key, "a text", &value))
            })
            .transpose()
    }

    /// A duration such as `"90m"`.
    pub(super) fn duration(&mut self, key: &str) -> Result<Option<Duration>, Refused> {
        let what = self.what;
        self.value(key)
            .map(|value| {
                let text = value
                    .clone()
                    .into_string()
                    .map_err(|_| self.wrong(key, "a duration such as \"90m\"", &value))?;
                duration::parse(&text).map_err(|error| format!("{what} option `{key}`: {error}"))
            })
            .transpose()
    }

    /// A whole number of at least one.
    pub(super) fn count(&mut self, key: &str) -> Result<Option<u32>, Refused> {
        self.value(key)
            .map(|value| {
                value
                    .as_int()
                    .ok()
                    .and_then(|number| u32::try_from(number).ok())
                    .filter(|number| *number > 0)
                    .ok_or_else(|| self.wrong(key, "a whole number above 0", &value))
            })
            .transpose()
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Refused> {
        self.value(key)
            .map(|value| {
                let flag = value.as_bool();
                flag.map_err(|_| self.wrong(key, "true or false", &value))
            })
            .transpose()
    }

    /// A map.
    pub(super) fn map(&mut self, key: &str) -> Result<Option<Map>, Refused> {
        self.value(key)
            .map(|value| {
                value
                    .clone()
                    .try_cast::<Map>()
                    .ok_or_else(|| self.wrong(key, "a map such as #{ key: \"value\" }", &value))
            })
            .transpose()
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, Refused> {
        self.value(key)
            .map(|value| {
                value
                    .clone()
                    .into_typed_array::<String>()
                    .map_err(|_| self.wrong(key, "a list of texts", &value))
            })
            .transpose()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Refused> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| Some(*value))
            .ok_or_else(|| {
                let all: Vec<String> = words
                    .iter()
                    .map(|(word, _)| format!("\"{word}\""))
                    .collect();
                format!(
                    "{} option `{key}` must be one of {}, not \"{text}\"",
                    self.what,
                    all.join(", ")
                )
            })
    }
}

/// A value's type as a person would say it.
pub(super) fn type_in_words(value: &Dynamic) -> String {
    match value.type_name() {
        "()" => "nothing".to_owned(),
        "i64" => format!("the number {value}"),
        "bool" => format!("{value}"),
        "string" => format!("the text \"{value}\""),
        "array" => "a list".to_owned(),
        "map" => "a map".to_owned(),
        "Fn" => "a function".to_owned(),
        other => {
            if value.is_decimal() {
                format!("the number {value}")
            } else {
                format!("a value of type {other}")
            }
        }
    }
}
