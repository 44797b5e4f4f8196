//! Errors in what a person wrote — configuration, scripts, CSV files — as *where, what, how to
//! fix it*, with one renderer for all of them.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// One mistake in one place of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, as a lower-case fragment that names the thing.
    pub message: String,
    /// Where, if there is a place.
    pub place: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A place in a text, with as much of the text as the renderer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as its author knows it, relative to the folder it was looked for in.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters are marked; at least 1.
    pub width: usize,
    /// The whole line, without its end. Empty when the text is not available.
    pub text: String,
}

impl Place {
    /// The place of the byte range `span` in `source`.
    #[must_use]
    pub fn of_span(file: &str, source: &str, span: std::ops::Range<usize>) -> Self {
        let start = floor_char_boundary(source, span.start);
        let before = source.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let text = source
            .get(line_start..)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();
        let marked = source
            .get(start..floor_char_boundary(source, span.end.max(start)))
            .and_then(|marked| marked.lines().next())
            .unwrap_or_default();
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: source
                .get(line_start..start)
                .unwrap_or_default()
                .chars()
                .count()
                + 1,
            width: marked.chars().count().max(1),
            text: text.to_owned(),
        }
    }

    /// Line `line`, column `column` (both from 1) of `source`, one character wide.
    #[must_use]
    pub fn of_position(file: &str, source: &str, line: usize, column: usize) -> Self {
        Self {
            file: file.to_owned(),
            line: line.max(1),
            column: column.max(1),
            width: 1,
            text: source
                .lines()
                .nth(line.saturating_sub(1))
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

impl Diagnostic {
    /// A mistake without a place or advice; add them with the other methods.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: None,
            help: None,
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Says how to fix it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `file:line:column`, or nothing when there is no place.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        self.place
            .as_ref()
            .map(|place| format!("{}:{}:{}", place.file, place.line, place.column))
    }
}

impl fmt::Display for Diagnostic {
    /// Several lines: message, `file:line:column`, the line with a mark under it, the help. Plain
    /// text without colours, and without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = Level::ERROR.primary_title(self.message.as_str());
        let mut group = match &self.place {
            None => Group::with_title(title),
            Some(place) => {
                let start = byte_of(&place.text, place.column.saturating_sub(1));
                let end = byte_of(&place.text, place.column.saturating_sub(1) + place.width);
                let snippet = Snippet::source(place.text.as_str())
                    .path(place.file.as_str())
                    .line_start(place.line)
                    .annotation(AnnotationKind::Primary.span(start..end.max(start)));
                title.element(snippet)
            }
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

/// Renders several mistakes under each other, with an empty line between them.
#[must_use]
pub fn render(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// The candidate closest to `wrong`, when one is close enough to be what was meant.
#[must_use]
pub fn closest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(wrong, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn byte_of(text: &str, characters: usize) -> usize {
    text.char_indices()
        .nth(characters)
        .map_or(text.len(), |(at, _)| at)
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_shows_where_what_and_how_to_fix_it() {
        let source = "[gateway]\ntimeuot = \"30s\"\n";
        let diagnostic = Diagnostic::new("unknown key `timeuot`")
            .at(Place::of_span("daemon.toml", source, 10..17))
            .help("did you mean `timeout`?");
        assert_eq!(diagnostic.location().as_deref(), Some("daemon.toml:2:1"));
        assert_eq!(
            diagnostic.to_string(),
            "\
error: unknown key `timeuot`
 --> daemon.toml:2:1
  |
2 | timeuot = \"30s\"
  | ^^^^^^^
  |
  = help: did you mean `timeout`?"
        );
    }

    #[test]
    fn columns_count_characters_and_any_span_is_safe() {
        let source = "größe = 1\nx";
        let place = Place::of_span("f", source, 7..8);
        assert_eq!((place.line, place.column), (1, 6));
        for start in 0..20 {
            for end in 0..20 {
                let place = Place::of_span("f", source, start..end);
                let text = Diagnostic::new("m").at(place).to_string();
                assert!(text.contains('m'));
            }
        }
    }

    #[test]
    fn a_near_miss_is_suggested_and_a_far_one_is_not() {
        assert_eq!(closest("timeuot", ["timeout", "key"]), Some("timeout"));
        assert_eq!(closest("zebra", ["timeout", "key"]), None);
    }
}
