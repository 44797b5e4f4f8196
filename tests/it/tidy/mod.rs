//! The house rules that no compiler keeps, as tests whose messages say what to do. Each rule is a
//! function from a source to its violations; `proof` holds them against sources that break them.

mod proof;
mod source;

use std::collections::BTreeSet;

use source::{Source, code, is_name, project, uses, words};

/// Who may use whom, as in `src/lib.rs`. What is missing here may use nothing of ours.
const MAY_USE: [(&str, &[&str]); 15] = [
    ("domain", &[]),
    ("crash_point", &["domain"]),
    ("memory", &[]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
    ("gateway", &["domain", "telemetry", "config"]),
    ("store", &["domain", "telemetry", "config", "crash_point"]),
    ("scripting", &["domain", "telemetry", "config"]),
    ("triggers", &["domain", "telemetry", "config"]),
    ("outbound", &["domain", "telemetry", "config"]),
    (
        "runner",
        &[
            "domain",
            "telemetry",
            "config",
            "crash_point",
            "gateway",
            "store",
            "scripting",
            "triggers",
            "outbound",
        ],
    ),
    ("http", &["domain", "telemetry", "config", "runner"]),
    ("simulator", &["domain::money"]),
    (
        "testing",
        &[
            "domain",
            "config",
            "runner",
            "scripting",
            "simulator",
            "store",
        ],
    ),
    (
        "cli",
        &[
            // `call` is one signed request from the shell, past the daemon.
            "gateway",
            // `dev` looks at the daemon that it has in its own process.
            "runner",
            "domain",
            "telemetry",
            "config",
            "daemon",
            "testing",
            "simulator",
            "store",
            "scripting",
        ],
    ),
];

/// `daemon` stands above everything but the command line.
const DAEMON_MAY_NOT_USE: [&str; 1] = ["cli"];

/// The only modules that see the whole configuration.
const SEES_WHOLE_CONFIG: [&str; 4] = ["config", "daemon", "cli", "testing"];

/// Outside crates and the modules they are confined to.
const CONFINED: [(&str, &[&str]); 12] = [
    ("reqwest", &["gateway", "outbound"]),
    ("sled", &["store"]),
    ("rhai", &["scripting"]),
    ("axum", &["http", "simulator"]),
    ("clap", &["cli"]),
    ("tokio_cron_scheduler", &["triggers"]),
    ("notify", &["daemon"]),
    ("hyper", &["simulator", "http", "cli"]),
    ("hyper_util", &["simulator", "http", "cli"]),
    ("toml", &["config"]),
    ("prometheus", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
];

/// Names that say nothing, under which everything collects.
const EMPTY_NAMES: [&str; 9] = [
    "core", "types", "util", "utils", "helper", "helpers", "manager", "common", "misc",
];

/// The longest file, in lines without tests.
const FILE_LINES: usize = 500;

/// Whether `path` is `allowed` or below it.
fn is_below(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn directions(source: &Source) -> Vec<String> {
    let Some(area) = source.area() else {
        return Vec::new();
    };
    let may_use = |path: &str| {
        is_below(path, area)
            || match MAY_USE.iter().find(|(module, _)| *module == area) {
                Some((_, allowed)) => allowed.iter().any(|allowed| is_below(path, allowed)),
                None => area == "daemon" && !DAEMON_MAY_NOT_USE.iter().any(|no| is_below(path, no)),
            }
    };
    let ours = |path: &str| {
        path.starts_with("daemon") || MAY_USE.iter().any(|(module, _)| is_below(path, module))
    };
    let mut violations = Vec::new();
    for (at, path) in uses(source) {
        if ours(&path) && !may_use(&path) {
            violations.push(source.violation(
                at,
                &format!(
                    "`{area}` may not use `{path}`; pass what is needed in, or move what both need to `domain` (the table is in tests/it/tidy)"
                ),
            ));
        }
        if is_below(&path, "config::Config") && !SEES_WHOLE_CONFIG.contains(&area) {
            violations.push(source.violation(
                at,
                &format!("`{area}` takes the whole `Config`; take its own section"),
            ));
        }
    }
    violations
}

fn outside_crates(source: &Source) -> Vec<String> {
    let code = code(source.without_tests());
    let mut violations = Vec::new();
    for (name, homes) in CONFINED {
        let at_home = source.area().is_some_and(|area| homes.contains(&area));
        let is_own_module = code.contains(&format!("mod {name};"));
        if at_home || is_own_module || !source.path.starts_with("src/") {
            continue;
        }
        for at in words(&code, name) {
            let before = &code[..at];
            let is_used =
                code[at + name.len()..].starts_with("::") || before.trim_end().ends_with("use");
            let is_part_of_a_path = before
                .strip_suffix("::")
                .is_some_and(|before| before.ends_with(is_name));
            if is_used && !is_part_of_a_path {
                violations.push(source.violation(
                    at,
                    &format!(
                        "`{name}` is used in {} only; ask that module instead",
                        homes.join(" and ")
                    ),
                ));
            }
        }
    }
    violations
}

fn file_length(source: &Source) -> Vec<String> {
    let lines = source.without_tests().lines().count();
    if source.path.starts_with("src/") && lines > FILE_LINES {
        return vec![format!(
            "{}: {lines} lines without tests; split it by what it is responsible for ({FILE_LINES} at most)",
            source.path
        )];
    }
    Vec::new()
}

fn opening(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.violation(
        0,
        "open the file with `//!`: what it is responsible for, what it does not do, who calls it",
    )]
}

fn dropped_matches(source: &Source) -> Vec<String> {
    let code = code(&source.text);
    words(&code, "matches")
        .into_iter()
        .filter(|at| {
            let begins = code[..*at].trim_end().ends_with([';', '{', '}']);
            begins && code[*at..].starts_with("matches!(") && is_statement(&code[*at..])
        })
        .map(|at| source.violation(at, "this `matches!` asserts nothing; wrap it in `assert!`"))
        .collect()
}

/// Whether the macro call that `code` begins with is followed by a semicolon.
fn is_statement(code: &str) -> bool {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return code[at + 1..].trim_start().starts_with(';'),
            ')' => depth -= 1,
            _ => {}
        }
    }
    false
}

fn unfinished(source: &Source) -> Vec<String> {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("#[ign", "ore"),
    ];
    let mut violations = Vec::new();
    for word in words {
        violations.extend(source.text.match_indices(word).map(|(at, _)| {
            source.violation(
                at,
                &format!("`{word}`: do it, or leave it out; what is left to do is no comment"),
            )
        }));
    }
    violations
}

fn names(source: &Source) -> Vec<String> {
    let advice = "name it after what it does";
    let mut violations = Vec::new();
    let path = source.path.trim_end_matches(".rs");
    let in_scripting = source.area() == Some("scripting");
    for part in path.split('/') {
        if EMPTY_NAMES.contains(&part) || (part == "engine" && !in_scripting) {
            violations.push(source.violation(0, &format!("`{part}` says nothing; {advice}")));
        }
    }
    let code = code(&source.text);
    for keyword in ["mod", "struct", "enum", "trait", "type", "union"] {
        for at in words(&code, keyword) {
            let Some(rest) = code[at + keyword.len()..].strip_prefix(' ') else {
                continue;
            };
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, lower) = (&rest[..end], rest[..end].to_lowercase());
            let is_empty = EMPTY_NAMES.contains(&lower.as_str())
                || ["Manager", "Helper", "Helpers", "Util", "Utils"]
                    .iter()
                    .any(|ending| name.ends_with(ending));
            if is_empty || (lower.contains("engine") && !in_scripting) {
                violations.push(source.violation(at, &format!("`{name}` says nothing; {advice}")));
            }
        }
    }
    violations
}

fn private_matters(source: &Source) -> Vec<String> {
    let machine = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
        concat!("/fa", "rm/"),
        concat!("C:\\", "Users"),
    ];
    let secret = [
        concat!("PRIVATE", " KEY-----"),
        concat!("sk_", "live_"),
        concat!("gh", "p_"),
        concat!("xox", "b-"),
        concat!("AK", "IA"),
        concat!("eyJ", "hbGciOi"),
    ];
    let mut violations = Vec::new();
    for (texts, advice) in [
        (
            machine,
            "a path of one machine; pass it in, or use a temporary folder",
        ),
        (
            secret,
            "looks like a secret; make one up that nobody can mistake for real",
        ),
    ] {
        for text in texts {
            violations.extend(
                source
                    .text
                    .match_indices(text)
                    .map(|(at, _)| source.violation(at, &format!("`{text}`: {advice}"))),
            );
        }
    }
    violations
}

/// What the map in `src/lib.rs` leaves out of the modules it declares.
fn unmapped(lib: &Source) -> Vec<String> {
    let map: String = lib
        .text
        .lines()
        .filter(|line| line.starts_with("//!"))
        .collect();
    let code = code(&lib.text);
    words(&code, "mod")
        .into_iter()
        .filter_map(|at| {
            let name = code[at..].strip_prefix("mod ")?.split(';').next()?;
            (!map.contains(&format!("[`{name}`]"))).then(|| {
                lib.violation(
                    at,
                    &format!("the map at the top leaves out [`{name}`]; say what it is for"),
                )
            })
        })
        .collect()
}

/// The dotted names of all keys below `table`.
fn keys_of(prefix: &str, table: &toml::Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        match value {
            toml::Value::Table(inner) => keys_of(&format!("{name}."), inner, found),
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => {
                found.insert(name);
            }
        }
    }
}

fn rust(places: &[&str]) -> Vec<Source> {
    let mut sources = project(places);
    sources.retain(Source::is_rust);
    sources
}

fn assert_kept(sources: &[Source], rule: fn(&Source) -> Vec<String>) {
    let violations: Vec<_> = sources.iter().flat_map(rule).collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn modules_use_each_other_in_one_direction() {
    assert_kept(&rust(&["src"]), directions);
}

#[test]
fn outside_crates_stay_in_their_modules() {
    assert_kept(&rust(&["src"]), outside_crates);
}

#[test]
fn files_are_short() {
    assert_kept(&rust(&["src"]), file_length);
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_kept(&rust(&["src", "tests", "benches"]), opening);
}

#[test]
fn no_matches_is_thrown_away() {
    assert_kept(&rust(&["src", "tests"]), dropped_matches);
}

#[test]
fn nothing_is_left_unfinished() {
    let places = [
        "src",
        "tests",
        "benches",
        "scripts",
        "examples",
        "docs",
        "README.md",
        "daemon.toml",
    ];
    assert_kept(&project(&places), unfinished);
}

#[test]
fn names_say_something() {
    assert_kept(&rust(&["src", "tests", "benches"]), names);
}

#[test]
fn nothing_of_one_machine_and_no_secret_is_in_the_tree() {
    let places = [
        "src",
        "tests",
        "benches",
        "scripts",
        "examples",
        "docs",
        ".ci",
        "README.md",
        "daemon.toml",
        "deny.toml",
        "Cargo.toml",
    ];
    assert_kept(&project(&places), private_matters);
}

#[test]
fn the_map_names_every_module() {
    assert_kept(&rust(&["src/lib.rs"]), unmapped);
}

#[test]
fn every_module_has_its_row_in_the_table_of_directions() {
    for source in rust(&["src"]) {
        if let Some(area) = source.area() {
            assert!(
                area == "daemon" || MAY_USE.iter().any(|(module, _)| *module == area),
                "{}: give `{area}` a row in the table of tests/it/tidy",
                source.path
            );
        }
    }
}

#[test]
fn the_configuration_file_has_the_keys_that_the_daemon_reads() {
    let text = project(&["daemon.toml"]).remove(0).text;
    let mut in_file = BTreeSet::new();
    keys_of(
        "",
        &text.parse().expect("daemon.toml is TOML"),
        &mut in_file,
    );
    let read: BTreeSet<_> = bursar::config::known_keys().map(str::to_owned).collect();
    assert_eq!(in_file, read, "daemon.toml against src/config/keys.rs");
}
