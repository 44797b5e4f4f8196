//! Takes out of a place's text whatever could be a secret, before it is shown to anybody.
//!
//! People put literals where references belong, misspell `secret`, or forget a quote behind a
//! password. None of that may reach a terminal or a log, so where in doubt the line is not shown.

use super::keys::{KEYS, Kind};
use crate::domain::diagnostic::Place;

const STARS: &str = "***";

/// Hides what stands behind the `=`, or the whole line when there is none.
pub fn value(mut place: Place) -> Place {
    let Some((before, _)) = place.text.split_once('=') else {
        return if is_header(&place.text) {
            place
        } else {
            everything(place)
        };
    };
    let shown = format!("{before}= ");
    let start = shown.chars().count() + 1;
    if place.column + place.width > start {
        place.column = start;
        place.width = STARS.len();
    }
    place.text = shown + STARS;
    place
}

/// Hides the whole line.
pub fn everything(mut place: Place) -> Place {
    STARS.clone_into(&mut place.text);
    place.column = 1;
    place.width = STARS.len();
    place
}

/// Whether the text may hold another key's value (an inline table) or a URL with a password.
pub fn is_doubtful(text: &str) -> bool {
    text.contains(['{', '@'])
}

/// For a key that is not known, in a line of `source`: its value is shown only when the same name
/// is harmless elsewhere.
pub fn unknown_key(place: Place, source: &str) -> Place {
    if is_harmless(&place, source) {
        place
    } else {
        value(place)
    }
}

/// For a line of `source` that could not be read: it may as well be the middle of a secret.
pub fn unreadable(place: Place, source: &str) -> Place {
    if is_harmless(&place, source) {
        place
    } else if key_of(&place.text).is_some_and(|key| kinds_of(key).next().is_some()) {
        value(place)
    } else {
        everything(place)
    }
}

/// Whether a line plainly sets one key that is no secret, outside of `[secrets]`.
fn is_harmless(place: &Place, source: &str) -> bool {
    let in_secrets = source
        .lines()
        .take(place.line)
        .filter(|line| line.trim_start().starts_with('['))
        .last()
        .is_some_and(|header| header.contains("secrets"));
    let mut kinds = key_of(&place.text)
        .into_iter()
        .flat_map(kinds_of)
        .peekable();
    !in_secrets
        && !place.text.contains("secrets")
        && !is_doubtful(&place.text)
        && kinds.peek().is_some()
        && kinds.all(|kind| kind != Kind::Secret)
}

/// The last part of the key that a line sets.
fn key_of(text: &str) -> Option<&str> {
    let (before, _) = text.split_once('=')?;
    before.trim().rsplit('.').next()
}

/// The kinds of the known keys of that name, whatever their table.
fn kinds_of(key: &str) -> impl Iterator<Item = Kind> {
    KEYS.iter()
        .filter(move |known| known.name.rsplit('.').next() == Some(key))
        .map(|known| known.kind)
}

/// Whether a line holds nothing but a table's name or a remark about it.
fn is_header(text: &str) -> bool {
    text.trim()
        .strip_prefix('[')
        .is_some_and(|rest| !rest.contains(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, column: usize, width: usize) -> Place {
        Place {
            file: "f".to_owned(),
            line: 1,
            column,
            width,
            text: text.to_owned(),
        }
    }

    #[test]
    fn what_could_be_a_secret_is_hidden_and_the_mark_stays_on_the_line() {
        for (hidden, expected) in [
            (value(place("key = \"abc\"", 7, 5)), ("key = ***", 7, 3)),
            (value(place("key=\"abc\"", 5, 5)), ("key= ***", 6, 3)),
            (value(place("kye = \"abc\"", 1, 3)), ("kye = ***", 1, 3)),
            (value(place("  \"abc\",", 3, 5)), ("***", 1, 3)),
            (value(place("[polciy]", 2, 6)), ("[polciy]", 2, 6)),
            (value(place("[\"abc\"]", 2, 5)), ("***", 1, 3)),
            (
                unknown_key(place("kye = \"a\"", 1, 3), ""),
                ("kye = ***", 1, 3),
            ),
            (
                unknown_key(place("timeout = 3", 1, 7), ""),
                ("timeout = 3", 1, 7),
            ),
            (
                unknown_key(place("timeout = { key = \"abc\" }", 1, 7), ""),
                ("timeout = ***", 1, 7),
            ),
            (
                unreadable(place("timeout = \"30s", 11, 4), ""),
                ("timeout = \"30s", 11, 4),
            ),
            (
                unreadable(place("secret = \"abc", 10, 4), ""),
                ("secret = ***", 10, 3),
            ),
            (
                unreadable(place("path = \"abc", 8, 4), "[secrets]"),
                ("path = ***", 8, 3),
            ),
            (unreadable(place("SHOP = \"abc", 8, 4), ""), ("***", 1, 3)),
            (unreadable(place("abc==\"\"\"", 5, 3), ""), ("***", 1, 3)),
            (unreadable(place("abc", 1, 3), ""), ("***", 1, 3)),
        ] {
            assert_eq!(
                (hidden.text.as_str(), hidden.column, hidden.width),
                expected
            );
        }
    }
}
