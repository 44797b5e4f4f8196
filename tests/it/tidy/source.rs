//! The project's files as the rules see them: which module a file is, what of it is code, and what
//! that code uses. A small reader of Rust, not a parser: it need only be right about our own style.

use std::fs;
use std::path::Path;

/// A text file of the project.
pub struct Source {
    /// Path from the project's root, with `/`.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Names of the module from the crate's root: `src/store/index.rs` is `store`, `index`.
    pub fn module(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap_or_default();
        let path = path.strip_suffix(".rs").unwrap_or_default();
        path.split('/').filter(|part| *part != "mod").collect()
    }

    /// The top-level module, if the file belongs to one.
    pub fn area(&self) -> Option<&str> {
        let first = *self.module().first()?;
        (!matches!(first, "" | "lib" | "main")).then_some(first)
    }

    pub fn is_rust(&self) -> bool {
        Path::new(&self.path).extension() == Some("rs".as_ref())
    }

    /// The text up to its tests.
    pub fn without_tests(&self) -> &str {
        // A module of tests in files of its own is declared with the attribute elsewhere.
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return "";
        }
        let mut from = 0;
        while let Some(at) = self.text[from..].find("#[cfg(test)]").map(|at| at + from) {
            let line = self.text[..at].rfind('\n').map_or(0, |end| end + 1);
            if self.text[line..at].trim().is_empty() {
                return &self.text[..at];
            }
            from = at + 1;
        }
        &self.text
    }

    pub fn violation(&self, at: usize, what: &str) -> String {
        let line = self.text[..at].matches('\n').count() + 1;
        format!("{}:{line}: {what}", self.path)
    }
}

/// The text with comments and the contents of strings blanked out, byte for byte.
pub fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (blank, length) = if rest.starts_with("//") {
            (true, rest.find('\n').unwrap_or(rest.len()))
        } else if let Some(length) = raw_string(rest) {
            (true, length)
        } else if c == '"' {
            (true, closing_quote(rest))
        } else if rest.starts_with("'\"'") {
            (true, 3)
        } else if rest.starts_with("'\\''") {
            (true, 4)
        } else {
            (false, c.len_utf8())
        };
        let (part, after) = rest.split_at(length);
        if blank {
            code.extend(
                part.bytes()
                    .map(|byte| if byte == b'\n' { '\n' } else { ' ' }),
            );
        } else {
            code.push_str(part);
        }
        rest = after;
    }
    code
}

/// The length of the raw string that `text` begins with.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let count = hashes.bytes().take_while(|byte| *byte == b'#').count();
    let body = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + length)
}

/// The length of the string that `text` begins with.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

pub fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `code` as a name of its own.
pub fn words(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| {
            !code[..*at].ends_with(is_name) && !code[at + word.len()..].starts_with(is_name)
        })
        .collect()
}

/// The paths that a path expression or a `use` tree stands for: `a::{b, c::D}` is `a::b`, `a::c::D`.
fn leaves(tree: &str) -> Vec<String> {
    let end = tree.find(|c: char| !is_name(c)).unwrap_or(tree.len());
    let (name, rest) = tree.split_at(end);
    let below = match rest.trim_start().strip_prefix("::").map(str::trim_start) {
        _ if tree.starts_with('{') => return branches(&tree[1..]),
        None => return vec![name.to_owned()],
        Some(rest) => leaves(rest),
    };
    below
        .into_iter()
        .map(|leaf| format!("{name}::{leaf}"))
        .collect()
}

/// The leaves of every branch up to the brace that closes.
fn branches(list: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut start = 0;
    let mut found = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let branch = list[start..at].trim();
                if !branch.is_empty() {
                    found.extend(leaves(branch));
                }
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

/// What the code of a file uses of our own crate, from the root, with where it says so.
pub fn uses(source: &Source) -> Vec<(usize, String)> {
    let code = code(source.without_tests());
    let mut found = Vec::new();
    for at in words(&code, "crate") {
        if let Some(tree) = code[at..].strip_prefix("crate::") {
            found.extend(leaves(tree).into_iter().map(|leaf| (at, leaf)));
        }
    }
    for at in words(&code, "super") {
        let mut tree = &code[at..];
        if code[..at].ends_with("::") {
            continue;
        }
        let mut module = source.module();
        while let Some(rest) = tree.strip_prefix("super::") {
            module.pop();
            tree = rest;
        }
        // Inside of an inline module this is one level off and names nothing that exists.
        if module.is_empty() {
            found.extend(leaves(tree).into_iter().map(|leaf| (at, leaf)));
        }
    }
    found
}

/// Every text file below these folders and files of the project that is there.
pub fn project(places: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for place in places {
        collect(root, &root.join(place), &mut found);
    }
    assert!(!found.is_empty(), "no sources below {places:?}");
    found
}

fn collect(root: &Path, path: &Path, found: &mut Vec<Source>) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries {
            collect(root, &entry.expect("the folder is readable").path(), found);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        let path = path
            .strip_prefix(root)
            .expect("it was found below the root");
        found.push(Source {
            path: path.to_string_lossy().replace('\\', "/"),
            text,
        });
    }
}
