//! Rhai's errors as diagnostics: where, what, and how to fix it.

use rhai::{Dynamic, EvalAltResult, LexError, Map, ParseError, ParseErrorType, Position};
use serde_json::Value;

use super::effects::{Code, Failure};
use super::json;
use super::reference::doc_of;
use super::sources::Sources;
use crate::domain::diagnostic::{Diagnostic, Place, closest};

/// The place of a position in a file.
pub(super) fn place(sources: &Sources, file: &str, position: Position) -> Place {
    Place::of_position(
        file,
        sources.get(file).unwrap_or_default(),
        position.line().unwrap_or(1),
        position.position().unwrap_or(1),
    )
}

/// What is wrong with a script that does not compile.
pub(super) fn of_parsing(sources: &Sources, file: &str, error: &ParseError) -> Diagnostic {
    diagnose_parsing(sources, file, error.err_type(), error.position())
}

fn diagnose_parsing(
    sources: &Sources,
    file: &str,
    error: &ParseErrorType,
    position: Position,
) -> Diagnostic {
    let at = place(sources, file, position);
    let help = help_for_parsing(error, &at, sources.get(file).unwrap_or_default());
    let diagnostic = Diagnostic::new(lower_case_first(&error.to_string())).at(at);
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

fn help_for_parsing(error: &ParseErrorType, at: &Place, source: &str) -> Option<String> {
    if let ParseErrorType::Reserved(word) = error {
        return Some(format!(
            "`{word}` is a reserved word of the language; use another name{}",
            if word == "eval" {
                ""
            } else {
                " (as a map key, write it in quotes)"
            }
        ));
    }
    if let ParseErrorType::PropertyExpected = error {
        return Some(
            "after a dot, a reserved word (such as `default`, `shared`, `curry`) is no property; \
             write map[\"name\"]"
                .to_owned(),
        );
    }
    if let ParseErrorType::VariableUndefined(name) = error {
        return Some(match closest(name, identifiers(source, name)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "functions do not see the variables around them, closures do; was it meant \
                     to be a text in quotes?"
                .to_owned(),
        });
    }
    if let ParseErrorType::BadInput(LexError::MalformedNumber(number)) = error {
        return Some(if number.contains(['e', 'E']) {
            "write the number without an exponent: 0.00000001 instead of 1e-8".to_owned()
        } else {
            "a number has at most 28 digits".to_owned()
        });
    }
    if has_exponent_before(at) {
        return Some("write the number without an exponent: 0.00000001 instead of 1e-8".to_owned());
    }
    if brace_without_hash(at) {
        return Some("a map is written with a # before the brace: #{ key: value }".to_owned());
    }
    if let ParseErrorType::MissingToken(token, _) = error {
        return Some(format!("a `{token}` is missing here or a little before"));
    }
    None
}

/// Whether the marked place ends a literal such as `1e-8`: Rhai reads `1` and stumbles over `e`.
fn has_exponent_before(at: &Place) -> bool {
    let bytes = at.text.as_bytes();
    bytes.windows(3).any(|window| {
        matches!(window, [digit, b'e' | b'E', next]
            if digit.is_ascii_digit() && (next.is_ascii_digit() || matches!(next, b'-' | b'+')))
    })
}

/// Whether the line has a brace after `=`, `(`, `,`, `:` or `return`, where only a map can be meant.
fn brace_without_hash(at: &Place) -> bool {
    let until = at.column.saturating_add(at.width);
    let before: String = at.text.chars().take(until).collect();
    before.match_indices('{').any(|(index, _)| {
        let left = before.get(..index).unwrap_or_default().trim_end();
        left.ends_with(['=', '(', ',', ':', '[']) || left.ends_with("return")
    })
}

/// All words of a source that could be names, without the one that is not known.
fn identifiers<'a>(source: &'a str, unknown: &'a str) -> impl Iterator<Item = &'a str> {
    source
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(move |word| {
            *word != unknown
                && word.chars().count() > 2
                && word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        })
}

/// The innermost error, with the file and position it belongs to. Rhai pairs a callee's file with
/// the position of the call, so each error's file is what the frame above it says.
fn innermost<'e>(
    error: &'e EvalAltResult,
    file: &'e str,
) -> (&'e EvalAltResult, &'e str, Position) {
    let mut found = (error, file, error.position());
    loop {
        let (inner, file) = if let EvalAltResult::ErrorInFunctionCall(_, source, inner, _) = found.0
        {
            let source = Some(source.as_str()).filter(|source| !source.is_empty());
            (inner.as_ref(), source.unwrap_or(found.1))
        } else if let EvalAltResult::ErrorInModule(module, inner, _) = found.0 {
            (inner.as_ref(), module.as_str())
        } else {
            return found;
        };
        let position = inner.position();
        if position.is_none() {
            found.0 = inner;
        } else {
            found = (inner, file, position);
        }
    }
}

/// What went wrong in an execution that began in `file`.
pub(super) fn of_execution(sources: &Sources, file: &str, error: &EvalAltResult) -> Diagnostic {
    let (inner, file, position) = innermost(error, file);
    if let EvalAltResult::ErrorParsing(error, position) = inner {
        return diagnose_parsing(sources, file, error, *position);
    }
    let at = place(sources, file, position);
    let (message, help) = message_and_help(inner, sources, file);
    let diagnostic = Diagnostic::new(message).at(at);
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

fn message_and_help(
    error: &EvalAltResult,
    sources: &Sources,
    file: &str,
) -> (String, Option<String>) {
    if let EvalAltResult::ErrorRuntime(thrown, _) = error {
        return (thrown_message(thrown), None);
    }
    if let EvalAltResult::ErrorFunctionNotFound(signature, _) = error {
        return unknown_function(signature);
    }
    if let EvalAltResult::ErrorPropertyNotFound(name, _) = error {
        return missing_property(
            name.trim_matches('"'),
            sources.get(file).unwrap_or_default(),
        );
    }
    let mut message = lower_case_first(&error.to_string());
    if let Some(at) = message.rfind(" (line ") {
        message.truncate(at);
    }
    (message, help_for(error).map(str::to_owned))
}

fn help_for(error: &EvalAltResult) -> Option<&'static str> {
    if let EvalAltResult::ErrorDataRace(..) = error {
        return Some(
            "a closure uses the value that it is called on; give it a copy: let copy = value;",
        );
    }
    if let EvalAltResult::ErrorStackOverflow(_) = error {
        return Some(
            "`scripts.limits.call_depth` limits calls within each other; does a function call itself?",
        );
    }
    if let EvalAltResult::ErrorDataTooLarge(..) = error {
        return Some("`scripts.limits` has the largest sizes of texts, lists and maps");
    }
    None
}

fn missing_property(name: &str, source: &str) -> (String, Option<String>) {
    let advice = match closest(name, identifiers(source, name)) {
        Some(meant) => format!("did you mean `{meant}`? "),
        None => String::new(),
    };
    (
        format!("the map has no property `{name}`"),
        Some(format!(
            "{advice}one that may be missing is read with map.get(\"{name}\"), which is () then"
        )),
    )
}

/// What a script threw: an uncaught failure, a text, or anything else.
fn thrown_message(thrown: &Dynamic) -> String {
    if let Ok(map) = thrown.as_map_ref()
        && let Some(message) = map.get("message")
    {
        return match map.get("code") {
            Some(code) => format!("{code}: {message}"),
            None => message.to_string(),
        };
    }
    if thrown.is_unit() {
        return "the script threw an error".to_owned();
    }
    thrown.to_string()
}

/// Rhai names a function that does not exist by its arguments' types: `on (&str, i64, Fn)`.
fn unknown_function(signature: &str) -> (String, Option<String>) {
    let (name, types) = signature.split_once(" (").unwrap_or((signature, ")"));
    let name = name.replace(" :: ", "::");
    let types = types
        .trim_end_matches(')')
        .replace("&str | ImmutableString | String", "text")
        .replace("string", "text")
        .replace("rust_decimal::decimal::Decimal", "decimal")
        .replace("i64", "integer")
        .replace("array", "list")
        .replace("Fn", "function");
    match doc_of(&name) {
        Some(doc) => (
            format!("`{name}` cannot be called with ({types})"),
            Some(format!("it is {}", doc.full_signature())),
        ),
        None => (
            format!("there is no function `{name}` that takes ({types})"),
            None,
        ),
    }
}

/// The failure that a script did not catch, or threw again.
pub(super) fn uncaught_failure(error: &EvalAltResult) -> Option<Failure> {
    let EvalAltResult::ErrorRuntime(thrown, _) = innermost(error, "").0 else {
        return None;
    };
    let mut map: Map = thrown.as_map_ref().ok()?.clone();
    let code = map.remove("code")?.into_immutable_string().ok()?;
    let code = Code::ALL
        .into_iter()
        .find(|known| known.as_str() == code.as_str())?;
    let message = map.remove("message").unwrap_or_default().to_string();
    let details = if map.is_empty() {
        Value::Null
    } else {
        json::from_dynamic(&Dynamic::from_map(map)).unwrap_or_default()
    };
    Some(Failure {
        code,
        message,
        details,
    })
}

fn lower_case_first(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::scripting::Ended;
    use crate::scripting::fake_world::{FakeWorld, execute_with, mistakes};

    #[test]
    fn classic_traps_are_answered_with_advice() {
        for (body, expected) in [
            ("let x = 1e-8;", "without an exponent"),
            ("let x = 1E8;", "without an exponent"),
            ("let go = 1;", "`go` is a reserved word"),
            ("let spawn = 1;", "`spawn` is a reserved word"),
            ("let default = 1;", "`default` is a reserved word"),
            ("let x = #{ shared: 1 };", "in quotes"),
            ("let x = { a: 1 };", "#{ key: value }"),
            ("log::info(\"a\", { a: 1 });", "#{ key: value }"),
            (
                "let x = 0.12345678901234567890123456789012;",
                "at most 28 digits",
            ),
            ("let amount = 1; amuont + 1", "did you mean `amount`?"),
            ("let a = [1, 2;", "expecting ',' to separate"),
            ("let x = 1 let y = 2;", "`;` is missing"),
        ] {
            let text = mistakes(&[("t.rhai", &format!("on(\"e\", |event| {{\n{body}\n}});"))]);
            assert!(text.contains(expected), "{body}\n{text}");
            assert!(
                text.contains("t.rhai:2:") || text.contains("t.rhai:3:"),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_of_a_run_say_where_what_and_how_to_fix_it() {
        for (body, expected) in [
            ("event.amuont", "no property `amuont`"),
            ("let m = #{ amount: 1 }; m.amuont", "did you mean `amount`?"),
            ("state::get(1)", "it is state::get(key, [default])"),
            (
                "gateway::withdraw(\"x\")",
                "`gateway::withdraw` cannot be called with (text)",
            ),
            ("throw \"no\"", "no"),
            ("throw #{ code: \"mine\", message: \"no\" }", "mine: no"),
            ("1 / 0", "division by zero"),
            (
                "\"1.5\" + 1 - 1",
                "no function `-` that takes (text, integer)",
            ),
            (
                "time::add(time::now(), \"soon\")",
                "`soon` is not a duration",
            ),
            ("time::format(0, \"%Q\")", "is not a format"),
            (
                "state::add(\"a\", \"ten\")",
                "`ten` is not a decimal amount",
            ),
            (
                "gateway::withdraw_all([1, #{ x: || 1 }])",
                "payment 0 must be a map, not the number 1",
            ),
            ("file::read(\"none\")", "not_found: there is no file none"),
        ] {
            let Ended::Failed(error) = execute_with(&FakeWorld::new(), body, &json!({})) else {
                panic!("{body} does not fail");
            };
            let text = error.diagnostic.to_string();
            assert!(text.contains(expected), "{body}\n{text}");
            assert!(text.contains("t.rhai:2:"), "{body}\n{text}");
        }
    }
}
