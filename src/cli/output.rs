//! What is printed: tables, stories and JSON.
//!
//! What people are shown is stripped of control characters, so that no text from outside can drive
//! the terminal of whoever looks at a payment.

use std::io::Write;

use serde_json::Value;

/// The longest text that is only there to recognise something by.
const LONGEST_SUMMARY: usize = 60;

/// Prints to standard output, and a line break. Whoever reads it may go away at any time.
pub(super) fn print(text: &str) {
    write_line(std::io::stdout().lock(), &clean(text));
}

/// Prints to standard error, and a line break.
pub(super) fn complain(text: &str) {
    write_line(std::io::stderr().lock(), &clean(text));
}

/// Prints a value as JSON for programs, every character as it is.
pub(super) fn print_json(value: &Value) {
    write_line(std::io::stdout().lock(), &format!("{value:#}"));
}

fn write_line(mut to: impl Write, text: &str) {
    // `bursar runs list | head` closes the pipe early: that is no failure of this command.
    writeln!(to, "{text}").ok();
}

/// Without control characters, but for line breaks and tabs.
fn clean(text: &str) -> String {
    let drives = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.replace(drives, "\u{fffd}")
}

/// A field of an object as text: nothing for null, JSON for what is no text.
pub(super) fn field(value: &Value, name: &str) -> String {
    value.get(name).map_or_else(String::new, text)
}

/// A value as text: nothing for null, JSON for what is no text.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A field that holds an instant, to the second, in UTC.
pub(super) fn time(value: &Value, name: &str) -> String {
    let text = field(value, name);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// The elements of an array; nothing for anything else.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The elements of the array in a field.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).map_or(&[], items)
}

/// Rows under headings, in aligned columns; a sentence when there is no row.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "nothing to show".to_owned();
    }
    let headings = headings.iter().map(|&text| text.to_owned()).collect();
    let cells: Vec<Vec<String>> = std::iter::once(&headings)
        .chain(rows)
        .map(|row| row.iter().map(|text| cell(text)).collect())
        .collect();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            let widths = cells.iter().filter_map(|row| row.get(column));
            widths.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let lines = cells.iter().map(|row| {
        let padded = row.iter().zip(&widths);
        let padded: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// On one line: tables have no others.
fn cell(text: &str) -> String {
    text.replace(['\n', '\t'], " ")
}

/// The first line, shortened: for errors and descriptions in lists. Keys are never shortened, since
/// people copy them.
pub(super) fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= LONGEST_SUMMARY {
        return line.to_owned();
    }
    let start: String = line.chars().take(LONGEST_SUMMARY - 1).collect();
    format!("{start}…")
}

/// Named values under each other; those that are empty are left out, further lines of a value are
/// indented below its first.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    let lines = facts.iter().filter(|(_, value)| !value.is_empty());
    let lines = lines.map(|(name, value)| {
        let indent = format!("\n  {:width$}  ", "");
        format!("  {name:<width$}  {}", value.replace('\n', &indent))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_keys_are_whole() {
        let rows = [
            vec!["r1".to_owned(), "größer\nmore".to_owned(), "x".to_owned()],
            vec!["k".repeat(70), "e".to_owned(), String::new()],
        ];
        let (heading, key) = (" ".repeat(70), "k".repeat(70));
        assert_eq!(
            table(&["ID", "ERROR", "X"], &rows),
            format!(
                "ID{}ERROR        X\nr1{}größer more  x\n{key}  e",
                &heading, &heading
            )
        );
        assert_eq!(table(&["ID"], &[]), "nothing to show");
    }

    #[test]
    fn a_summary_is_the_first_line_shortened() {
        assert_eq!(short("größer\nmore"), "größer");
        assert_eq!(short(&"ä".repeat(61)), format!("{}…", "ä".repeat(59)));
        assert_eq!(short(&"ä".repeat(60)), "ä".repeat(60));
    }

    #[test]
    fn nothing_from_outside_can_drive_the_terminal() {
        assert_eq!(
            clean("\u{1b}[2Jgone\u{7}\r\n\tnext \u{9b}"),
            "\u{fffd}[2Jgone\u{fffd}\u{fffd}\n\tnext \u{fffd}"
        );
    }

    #[test]
    fn a_field_is_a_text_whatever_it_holds() {
        let value = json!({"text": "a", "list": [1, "b"], "none": null});
        for (name, expected) in [
            ("text", "a"),
            ("list", "[1,\"b\"]"),
            ("none", ""),
            ("x", ""),
        ] {
            assert_eq!(field(&value, name), expected, "{name}");
        }
    }

    #[test]
    fn instants_are_shown_to_the_second() {
        let value = json!({"at": "2026-11-22T09:00:00.123Z", "odd": "soon"});
        assert_eq!(time(&value, "at"), "2026-11-22 09:00:00");
        assert_eq!(time(&value, "odd"), "soon");
    }

    #[test]
    fn empty_facts_are_left_out_and_long_ones_are_indented() {
        let text = facts(&[
            ("run", "r1".to_owned()),
            ("error", "one\ntwo".to_owned()),
            ("url", String::new()),
        ]);
        assert_eq!(text, "  run    r1\n  error  one\n         two");
    }
}
