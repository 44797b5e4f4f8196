//! Shows that the rules can fail: each is held against sources that break it, and against ones that
//! only look as if they did.

use super::source::{Source, code};
use super::{
    directions, dropped_matches, file_length, names, opening, outside_crates, private_matters,
    unfinished, unmapped,
};

/// Checks how often `rule` objects to each text at a path.
#[track_caller]
fn assert_objections(rule: fn(&Source) -> Vec<String>, cases: &[(&str, &str, usize)]) {
    for (path, text, expected) in cases {
        let violations = rule(&Source::new(path, text));
        assert_eq!(
            violations.len(),
            *expected,
            "{path}: {text}\n{violations:#?}"
        );
    }
}

#[test]
fn a_wrong_direction_is_found() {
    assert_objections(
        directions,
        &[
            ("src/domain/a.rs", "use crate::store::Store;", 1),
            ("src/domain/a.rs", "use super::super::store::Store;", 1),
            (
                "src/domain/mod.rs",
                "use super::{store::Store, gateway};",
                2,
            ),
            ("src/domain/a.rs", "use super::super::domain::b;", 0),
            (
                "src/domain/a.rs",
                "// crate::store\nlet a = \"crate::store\";",
                0,
            ),
            (
                "src/domain/a.rs",
                "#[cfg(test)]\nmod tests { use crate::store; }",
                0,
            ),
            (
                "src/gateway/a.rs",
                "use crate::{domain::id, store::{A, B}};",
                2,
            ),
            ("src/gateway/a.rs", "let a = crate::runner::run();", 1),
            ("src/gateway/a.rs", "use crate::config::Gateway;", 0),
            (
                "src/gateway/a.rs",
                "use crate::config::{Gateway, Config};",
                1,
            ),
            ("src/simulator/a.rs", "use crate::domain::money::Amount;", 0),
            ("src/simulator/a.rs", "use crate::domain::signature;", 1),
            ("src/http/a.rs", "use crate::runner::Handle;", 0),
            ("src/http/a.rs", "use crate::store::Store;", 1),
            ("src/runner/a.rs", "use crate::daemon::Daemon;", 1),
            ("src/daemon/a.rs", "use crate::{runner, config::Config};", 0),
            ("src/daemon/a.rs", "use crate::cli::Command;", 1),
            ("src/crash_point.rs", "mod a { use super::CrashPoint; }", 0),
        ],
    );
}

#[test]
fn an_outside_crate_away_from_home_is_found() {
    assert_objections(
        outside_crates,
        &[
            ("src/runner/a.rs", "use sled::Db;", 1),
            ("src/runner/a.rs", "use rhai as r;", 1),
            ("src/runner/a.rs", "fn f() -> ::axum::Router {}", 1),
            ("src/lib.rs", "#[derive(clap::Parser)]", 1),
            ("src/store/a.rs", "use sled::Db;", 0),
            ("src/runner/a.rs", "use super::notify::x; mod notify;", 0),
            ("src/runner/a.rs", "//! [`sled::Db`]\nlet notify = 1;", 0),
        ],
    );
}

#[test]
fn a_long_file_is_found() {
    assert_objections(
        file_length,
        &[
            ("src/a.rs", &"\n".repeat(501), 1),
            (
                "src/a.rs",
                &("\n".repeat(400) + "#[cfg(test)]" + "\n".repeat(400).as_str()),
                0,
            ),
        ],
    );
}

#[test]
fn a_file_without_an_opening_is_found() {
    assert_objections(
        opening,
        &[
            ("src/a.rs", "use std::fs;", 1),
            ("src/a.rs", "//! Does.", 0),
        ],
    );
}

#[test]
fn a_dropped_matches_is_found() {
    assert_objections(
        dropped_matches,
        &[
            ("src/a.rs", "fn f() { matches!(a, Some((1, _))); }", 1),
            ("src/a.rs", "fn f() -> bool {\n matches!(a, B) }", 0),
            ("src/a.rs", "let b =\n matches!(a, B);", 0),
            ("src/a.rs", "assert!(matches!(a, B));", 0),
        ],
    );
}

#[test]
fn unfinished_work_is_found() {
    let ignored = concat!("#[ign", "ore]\nfn f() {}");
    assert_objections(
        unfinished,
        &[
            ("src/a.rs", concat!("// TO", "DO: later"), 1),
            ("src/a.rs", concat!("fn f() { to", "do!() }"), 1),
            ("src/a.rs", ignored, 1),
        ],
    );
}

#[test]
fn an_empty_name_is_found() {
    assert_objections(
        names,
        &[
            ("src/store/utils.rs", "", 1),
            ("src/common/a.rs", "", 1),
            ("src/store/engine.rs", "struct EngineRoom;", 2),
            ("src/scripting/engine.rs", "struct EngineRoom;", 0),
            ("src/a.rs", "pub struct StoreManager { a: u8 }", 1),
            ("src/a.rs", "mod helpers {}", 1),
            ("src/a.rs", "struct Store; // struct Helper", 0),
        ],
    );
}

#[test]
fn private_matters_are_found() {
    assert_objections(
        private_matters,
        &[
            ("src/a.rs", concat!("\"/ho", "me/ana\""), 1),
            ("src/a.rs", concat!("\"sk_", "live_1\""), 1),
            ("src/a.rs", "\"/srv/scripts\"", 0),
        ],
    );
}

#[test]
fn a_module_that_is_not_on_the_map_is_found() {
    assert_objections(
        unmapped,
        &[("src/lib.rs", "//! - [`a`]: it\npub mod a;\npub mod b;", 1)],
    );
}

#[test]
fn strings_and_comments_are_not_code() {
    for (text, expected) in [
        ("a // b", "a     "),
        ("a(\"b // c\") d", "a(        ) d"),
        (r#"a("\"b") c"#, "a(     ) c"),
        ("r#\"a\"b\"# c", "         c"),
        ("'\"' a \"b\"", "    a    "),
        ("'\\'' a \"b\"", "     a    "),
        ("&'a str; \"ü\"", "&'a str;     "),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
}

#[test]
fn a_violation_names_its_line_and_what_to_do() {
    let source = Source::new("src/domain/a.rs", "//! A.\n\nuse crate::store;\n");
    assert_eq!(
        directions(&source),
        [
            "src/domain/a.rs:3: `domain` may not use `store`; pass what is needed in, or move what both need to `domain` (the table is in tests/it/tidy)"
        ]
    );
}
