//! Where a secret is found: `env:NAME` or `file:PATH`, never the secret itself.
//!
//! No message here repeats a text that is not such a reference: it might be the secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::refusal::Refusal;
use crate::domain::secret::Secret;

/// A reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file, relative to the configuration's folder.
    File(PathBuf),
}

/// Reads a reference.
pub fn parse(text: &str) -> Result<SecretRef, Refusal> {
    match text.split_once(':') {
        Some(("env", name)) if is_variable(name) => Ok(SecretRef::Env(name.to_owned())),
        Some(("env", _)) => Err(Refusal::new(
            "`env:` is not followed by the name of an environment variable",
        )
        .help("write \"env:NAME\", with letters, digits and `_` in the name")),
        Some(("file", path)) if !path.is_empty() => Ok(SecretRef::File(PathBuf::from(path))),
        Some(("file", _)) => Err(Refusal::new("`file:` is not followed by a path")
            .help("write \"file:PATH\"")),
        Some(_) | None => Err(Refusal::new("a secret must not stand here itself").help(
            "put it into an environment variable or a file and write \"env:NAME\" or \"file:PATH\"; if it was real, replace it: it stood in the clear",
        )),
    }
}

impl SecretRef {
    /// Fetches the secret. A file's line break at its end does not belong to it.
    pub fn resolve(
        &self,
        environment: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Result<Secret, Refusal> {
        let (place, text) = match self {
            Self::Env(name) => (
                format!("environment variable `{name}`"),
                environment.get(name).cloned().ok_or_else(|| {
                    Refusal::new(format!("environment variable `{name}` is not set"))
                })?,
            ),
            Self::File(path) => {
                let path = folder.join(path);
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    Refusal::new(format!(
                        "secret file `{}` cannot be read: {error}",
                        path.display()
                    ))
                })?;
                (format!("secret file `{}`", path.display()), text)
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(Refusal::new(format!("{place} is empty")));
        }
        if text.contains(char::is_control) {
            return Err(Refusal::new(format!(
                "{place} holds a control character, such as a line break in the middle"
            )));
        }
        Ok(Secret::new(text))
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_a_variable_or_a_file() {
        assert_eq!(parse("env:A_1"), Ok(SecretRef::Env("A_1".to_owned())));
        assert_eq!(
            parse("file:/run/secrets/key:1"),
            Ok(SecretRef::File(PathBuf::from("/run/secrets/key:1")))
        );
        for (text, message) in [
            (
                "env:",
                "`env:` is not followed by the name of an environment variable; write \"env:NAME\", with letters, digits and `_` in the name",
            ),
            (
                "env:hunter-2",
                "`env:` is not followed by the name of an environment variable; write \"env:NAME\", with letters, digits and `_` in the name",
            ),
            (
                "file:",
                "`file:` is not followed by a path; write \"file:PATH\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_literal_is_refused_without_being_repeated() {
        for literal in [
            "hunter2",
            "",
            "ENV:hunter2",
            " env:hunter2",
            "vault:hunter2",
        ] {
            let message = parse(literal).unwrap_err().to_string();
            assert!(
                message.starts_with("a secret must not stand here itself; "),
                "{message}"
            );
            assert!(!message.contains("hunter2"));
        }
    }

    #[test]
    fn a_secret_comes_from_where_the_reference_points() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "hunter2\r\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("lines"), "a\nb\n").unwrap();
        let environment = BTreeMap::from([
            ("KEY".to_owned(), "hunter3".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        let at = |name: &str| folder.path().join(name).display().to_string();
        for (text, expected) in [
            ("env:KEY", Ok("hunter3")),
            ("file:key", Ok("hunter2")),
            (
                "env:ABSENT",
                Err("environment variable `ABSENT` is not set".to_owned()),
            ),
            (
                "env:EMPTY",
                Err("environment variable `EMPTY` is empty".to_owned()),
            ),
            (
                "file:absent",
                Err(format!(
                    "secret file `{}` cannot be read: No such file or directory (os error 2)",
                    at("absent")
                )),
            ),
            (
                "file:empty",
                Err(format!("secret file `{}` is empty", at("empty"))),
            ),
            (
                "file:lines",
                Err(format!(
                    "secret file `{}` holds a control character, such as a line break in the middle",
                    at("lines")
                )),
            ),
        ] {
            let found = parse(text).unwrap().resolve(&environment, folder.path());
            assert_eq!(
                found
                    .as_ref()
                    .map(Secret::expose)
                    .map_err(ToString::to_string),
                expected
            );
        }
    }
}
