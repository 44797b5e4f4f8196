//! README and docs say what is so: shown scripts compile, the reference is complete, the recorded
//! session is one that happens.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use bursar::config::{File, Need, resolve};
use bursar::domain::diagnostic::render;
use bursar::scripting::effects::Code;
use bursar::scripting::{Known, ScriptSet, Sources, reference};

const PAGES: [&str; 3] = ["README.md", "docs/approvals.md", "docs/scripting.md"];

/// Pages that show configuration.
const CONFIGURED: [&str; 3] = ["README.md", "docs/approvals.md", "docs/policy.md"];

/// Above it people write, below it this test does.
const MARKER: &str =
    "<!-- What follows is written by the test `the_reference_is_the_one_of_the_program`. -->\n";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The fenced blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let after = page.split(&fence).skip(1);
    after
        .map(|rest| rest.split("\n```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_configuration_that_is_shown_has_no_mistakes() {
    for page in CONFIGURED {
        let written = read(page);
        let shown = blocks(&written, "toml");
        assert!(!shown.is_empty(), "{page}");
        for text in shown {
            let folder = tempfile::tempdir().unwrap();
            // Lists of addresses that are shown as being in files.
            fs::write(folder.path().join("deny.txt"), "tb1qnever\n").unwrap();
            let file = File {
                name: page,
                text: &text,
                folder: folder.path(),
            };
            if let Err(mistakes) = resolve(Some(file), &BTreeMap::new(), Need::Nothing) {
                panic!("{page} shows\n{text}\n{}", render(&mistakes));
            }
        }
    }
}

#[test]
fn every_script_that_is_shown_has_no_mistakes() {
    let config = resolve(None, &BTreeMap::new(), Need::Nothing).unwrap();
    for page in PAGES {
        // The reference's examples are run beside the functions.
        let written = read(page);
        let written = written.split(MARKER).next().unwrap();
        let shown = blocks(written, "rhai");
        assert!(!shown.is_empty(), "{page}");
        for script in shown {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("lib")).unwrap();
            let library = read("scripts/lib/merchant.rhai");
            fs::write(folder.path().join("lib/merchant.rhai"), library).unwrap();
            fs::write(folder.path().join("shown.rhai"), &script).unwrap();
            let sources = Sources::read(folder.path()).unwrap();
            let set = ScriptSet::compile(sources, &config.scripts.limits, &Known::default());
            if let Err(mistakes) = set {
                panic!("{page} shows\n{script}\n{}", render(&mistakes));
            }
        }
    }
}

/// The reference as a page shows it.
fn written_reference() -> String {
    let mut text = "\n## Functions\n".to_owned();
    let mut namespace = None;
    for doc in reference() {
        if namespace != Some(doc.namespace) && !doc.namespace.is_empty() {
            writeln!(text, "\n### `{}::`", doc.namespace).unwrap();
        } else if namespace != Some(doc.namespace) {
            text.push_str("\n### Without a namespace\n");
        }
        namespace = Some(doc.namespace);
        let (signature, about) = (doc.full_signature(), doc.text.replace('\n', "\n\n"));
        let example = doc.example;
        writeln!(
            text,
            "\n**`{signature}`** — {about}\n\n```rhai\n{example}\n```"
        )
        .unwrap();
    }
    text
}

#[test]
fn the_reference_is_the_one_of_the_program() {
    let page = read("docs/scripting.md");
    let (written, generated) = page.split_once(MARKER).unwrap();
    let expected = written_reference();
    if std::env::var_os("BURSAR_WRITE_DOCS").is_some() {
        fs::write(
            path("docs/scripting.md"),
            format!("{written}{MARKER}{expected}"),
        )
        .unwrap();
        return;
    }
    assert!(
        generated == expected,
        "docs/scripting.md is not up to date: run this test with BURSAR_WRITE_DOCS=1"
    );
    let codes = Code::ALL.map(|code| format!("`{}`", code.as_str()));
    let missing: Vec<_> = codes
        .iter()
        .filter(|code| !written.contains(*code))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn links_and_files_that_are_named_are_there() {
    for page in PAGES {
        let folder = path(page).parent().unwrap().to_owned();
        let text = read(page);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.starts_with("http") {
                assert!(folder.join(target).exists(), "{page}: {target}");
            }
        }
    }
}
