//! `csv::`: tables with a header line. All mistakes of a file are reported at once, with lines.

use rhai::{Array, Dynamic, Identifier, Map, Module, NativeCallContext};
use serde_json::{Value, json};

use crate::domain::diagnostic::closest;
use crate::domain::money::parse_decimal;
use crate::scripting::current::{self, Called};
use crate::scripting::effects::{Code, Failure, FileAccess, Request};
use crate::scripting::options::{Options, type_in_words};
use crate::scripting::reference::FunctionDoc;

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    function!(module, "read", |context, path: &str| read(
        &context,
        path,
        Map::new()
    ));
    function!(module, "read", |context, path: &str, options: Map| {
        read(&context, path, options)
    });
    function!(module, "write", |context, path: &str, rows: Array| {
        write(&context, path, &rows, Map::new())
    });
    function!(
        module,
        "write",
        |context, path: &str, rows: Array, options: Map| { write(&context, path, &rows, options) }
    );
    module
}

/// What the caller expects of a table.
#[derive(Default)]
struct Expected {
    columns: Vec<String>,
    decimals: Vec<String>,
}

/// One mistake in a table.
#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    line: u64,
    message: String,
}

fn read(context: &NativeCallContext, path: &str, options: Map) -> Called<Dynamic> {
    let expected = Options::new("csv::read", options, &["columns", "decimals"])
        .and_then(|mut options| {
            Ok(Expected {
                columns: options.texts("columns")?.unwrap_or_default(),
                decimals: options.texts("decimals")?.unwrap_or_default(),
            })
        })
        .map_err(current::invalid)?;
    let request = Request::File(FileAccess::Read {
        path: path.to_owned(),
    });
    let answer = current::step(context, "csv::read", request)?;
    let text = answer.as_str().unwrap_or_default();
    parse(text, &expected)
        .map(Dynamic::from_array)
        .map_err(|mistakes| current::failure(invalid_table(path, &mistakes)))
}

fn invalid_table(path: &str, mistakes: &[Mistake]) -> Failure {
    let lines: Vec<String> = mistakes
        .iter()
        .map(|mistake| format!("line {}: {}", mistake.line, mistake.message))
        .collect();
    let errors: Vec<Value> = mistakes
        .iter()
        .map(|mistake| json!({"line": mistake.line, "message": mistake.message}))
        .collect();
    Failure {
        code: Code::InvalidData,
        message: format!("{path}: {}", lines.join("; ")),
        details: json!({ "errors": errors }),
    }
}

fn parse(text: &str, expected: &Expected) -> Result<Array, Vec<Mistake>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.as_bytes());
    let header: Vec<String> = match reader.headers() {
        Ok(header) => header.iter().map(str::to_owned).collect(),
        Err(error) => {
            let message = error.to_string();
            return Err(vec![Mistake { line: 1, message }]);
        }
    };
    let mut mistakes = check_header(&header, expected);
    let names: Vec<Identifier> = header.iter().map(Into::into).collect();
    let mut rows = Array::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                match row(&names, &record, expected) {
                    Ok(row) => rows.push(Dynamic::from_map(row)),
                    Err(messages) => mistakes.extend(
                        messages
                            .into_iter()
                            .map(|message| Mistake { line, message }),
                    ),
                }
            }
            Err(error) => mistakes.push(Mistake {
                line: error.position().map_or(0, csv::Position::line),
                message: error.to_string(),
            }),
        }
    }
    if mistakes.is_empty() {
        Ok(rows)
    } else {
        Err(mistakes)
    }
}

fn check_header(header: &[String], expected: &Expected) -> Vec<Mistake> {
    let mut messages = Vec::new();
    if header.iter().all(String::is_empty) {
        messages.push("there is no header line".to_owned());
    }
    for (index, name) in header.iter().enumerate() {
        let before = header.iter().take(index);
        if name.trim() != name || name.is_empty() {
            messages.push(format!(
                "the name of column {} is `{name}`: it must not be empty or have space around it",
                index + 1
            ));
        } else if before.clone().any(|earlier| earlier == name) {
            messages.push(format!("column `{name}` is there twice"));
        }
    }
    let mut wanted: Vec<&String> = Vec::new();
    for name in expected.columns.iter().chain(&expected.decimals) {
        if !header.contains(name) && !wanted.contains(&name) {
            wanted.push(name);
            let advice = match closest(name, header.iter().map(String::as_str)) {
                Some(near) => format!("; is it `{near}`?"),
                None => String::new(),
            };
            messages.push(format!("there is no column `{name}`{advice}"));
        }
    }
    messages
        .into_iter()
        .map(|message| Mistake { line: 1, message })
        .collect()
}

fn row(
    header: &[Identifier],
    record: &csv::StringRecord,
    expected: &Expected,
) -> Result<Map, Vec<String>> {
    if record.len() != header.len() {
        return Err(vec![format!(
            "{} fields where the header has {}",
            record.len(),
            header.len()
        )]);
    }
    let mut messages = Vec::new();
    let mut map = Map::new();
    for (name, field) in header.iter().zip(record) {
        let value = if expected.decimals.iter().any(|decimal| decimal == name) {
            match parse_decimal(field) {
                Ok(decimal) => Dynamic::from_decimal(decimal),
                Err(error) => {
                    messages.push(format!("column `{name}`: {error}"));
                    Dynamic::UNIT
                }
            }
        } else {
            field.into()
        };
        map.insert(name.clone(), value);
    }
    if messages.is_empty() {
        Ok(map)
    } else {
        Err(messages)
    }
}

fn write(context: &NativeCallContext, path: &str, rows: &Array, options: Map) -> Called<()> {
    let columns = Options::new("csv::write", options, &["columns"])
        .and_then(|mut options| options.texts("columns"))
        .map_err(current::invalid)?;
    let text = table(rows, columns)
        .map_err(|message| current::invalid(format!("csv::write: {message}")))?;
    let request = Request::File(FileAccess::Write {
        path: path.to_owned(),
        text,
    });
    current::step(context, "csv::write", request).map(|_| ())
}

fn table(rows: &Array, columns: Option<Vec<String>>) -> Result<String, String> {
    let maps: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            row.as_map_ref()
                .map_err(|_| format!("row {index} must be a map, not {}", type_in_words(row)))
        })
        .collect::<Result<_, _>>()?;
    let columns = columns.unwrap_or_else(|| {
        maps.first()
            .map(|first| first.keys().map(ToString::to_string).collect())
            .unwrap_or_default()
    });
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns).map_err(|e| e.to_string())?;
    for (index, map) in maps.iter().enumerate() {
        if let Some(extra) = map
            .keys()
            .find(|key| !columns.iter().any(|c| c == key.as_str()))
        {
            return Err(format!("row {index} has `{extra}`, which is not a column"));
        }
        let mut fields = Vec::with_capacity(columns.len());
        for column in &columns {
            let value = map
                .get(column.as_str())
                .ok_or_else(|| format!("row {index} has no `{column}`"))?;
            fields.push(field(value).map_err(|found| {
                format!("row {index}, `{column}`: {found} cannot stand in a table")
            })?);
        }
        writer.write_record(&fields).map_err(|e| e.to_string())?;
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

fn field(value: &Dynamic) -> Result<String, String> {
    let is_plain = value.is_string()
        || value.is_int()
        || value.is_decimal()
        || value.is_bool()
        || value.is_char();
    if value.is_unit() {
        Ok(String::new())
    } else if is_plain {
        Ok(value.to_string())
    } else {
        Err(type_in_words(value))
    }
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    vec![
        FunctionDoc {
            namespace: "csv",
            name: "read",
            signature: "read(path, [options])",
            text: "The rows of a table below `scripts.data_dir` as a list of maps by header, all \
                   values texts. Mistakes are `invalid_data`, with all of them under `errors` as \
                   `#{ line, message }`.\n\
                   Options: `columns` (names that must be there), `decimals` (columns that must \
                   hold decimals and become exact numbers).",
            example: r#"let rows = csv::read("payouts.csv", #{ columns: ["id", "address"], decimals: ["amount"] });
let total = 0.0;
for row in rows { total += row.amount; }"#
                .to_owned(),
        },
        FunctionDoc {
            namespace: "csv",
            name: "write",
            signature: "write(path, rows, [options])",
            text: "Replaces a table below `scripts.data_dir` with a header line and the rows, a \
                   list of maps with the same keys.\n\
                   Options: `columns` (their order; default: alphabetical).",
            example: r#"csv::write("report.csv", [#{ id: 1, amount: 0.5 }], #{ columns: ["id", "amount"] });"#
                .to_owned(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripting::Ended;
    use crate::scripting::fake_world::{FakeWorld, execute_with, returned};

    #[test]
    fn a_bad_table_is_one_error_with_all_its_lines() {
        let world = FakeWorld::new().with_file("p.csv", "id,amount\n1,1.5\n2,x\n3\n");
        let body = r#"let errors = ();
            try { csv::read("p.csv", #{ decimals: ["amount"] }) } catch (e) { errors = [e.code, e.errors]; }
            errors"#;
        assert_eq!(
            returned(&world, body),
            json!(["invalid_data", [
                {"line": 3, "message": "column `amount`: `x` is not a decimal amount (write it like 12.50)"},
                {"line": 4, "message": "1 fields where the header has 2"},
            ]])
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let world = FakeWorld::new();
        let body = r#"csv::write("out.csv", [#{ id: 1, note: "a,b" }, #{ id: 2, note: () }], #{ columns: ["note", "id"] });
            [file::read("out.csv"), csv::read("out.csv")[0].note]"#;
        assert_eq!(
            returned(&world, body),
            json!(["note,id\n\"a,b\",1\n,2\n", "a,b"])
        );
        for rows in ["[1]", "[#{ a: 1 }, #{ b: 1 }]", "[#{ a: [] }]"] {
            let body = format!("csv::write(\"x.csv\", {rows})");
            let ended = execute_with(&world, &body, &Value::Null);
            assert!(matches!(ended, Ended::Failed(_)), "{rows}");
        }
    }

    fn expected(columns: &[&str], decimals: &[&str]) -> Expected {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Expected {
            columns: texts(columns),
            decimals: texts(decimals),
        }
    }

    #[test]
    fn rows_are_maps_by_header_and_decimals_are_exact() {
        let text = "\u{feff}id,amount\r\n7,1.10\n\"8,9\",\"0.2\"\n";
        let rows = parse(text, &expected(&["id"], &["amount"])).unwrap();
        assert_eq!(
            format!("{rows:?}"),
            r#"[#{"amount": 1.10, "id": "7"}, #{"amount": 0.2, "id": "8,9"}]"#
        );
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_lines() {
        let text = "id,amout,id\n1,2\n\n2,x,3\n3,1,1,1\n";
        let mistakes = parse(text, &expected(&["id", "address"], &["amount"])).unwrap_err();
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| format!("{}: {}", mistake.line, mistake.message))
            .collect();
        assert_eq!(
            lines,
            [
                "1: column `id` is there twice",
                "1: there is no column `address`",
                "1: there is no column `amount`; is it `amout`?",
                "2: 2 fields where the header has 3",
                "5: 4 fields where the header has 3",
            ]
        );
        let mistakes =
            parse("amount\n1.5\nten\n1e5\n\"\"\n", &expected(&[], &["amount"])).unwrap_err();
        let lines: Vec<u64> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [3, 4, 5]);
    }

    #[test]
    fn an_empty_file_has_no_header() {
        assert_eq!(
            parse("", &Expected::default()).unwrap_err()[0].message,
            "there is no header line"
        );
    }
}
