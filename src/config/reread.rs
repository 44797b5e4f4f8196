//! Reads the configuration's file again while the daemon runs, for what may change then: policy.
//! When to look is for the caller to say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::load::{Need, reader, sorted};
use super::policy::Policy;
use super::source::{Entries, of_file};
use super::{File, sections};
use crate::domain::diagnostic::Diagnostic;

/// Where a configuration came from.
#[derive(Clone)]
pub struct Reread {
    path: PathBuf,
    environment: BTreeMap<String, String>,
    /// What else was in the file, by key.
    rest: BTreeMap<String, String>,
}

/// Without the environment, which has the secrets in it.
impl fmt::Debug for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reread")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What the file says now.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The policy, or everything that is wrong with the file.
    pub policy: Result<Policy, Vec<Diagnostic>>,
    /// The files with addresses that were looked for, also when something is wrong.
    pub files: Vec<PathBuf>,
    /// Keys outside of `[policy]` that are not as they were at the start; they need a restart.
    pub changed: Vec<String>,
}

impl Reread {
    pub(super) fn new(path: &Path, text: &str, environment: &BTreeMap<String, String>) -> Self {
        Self {
            path: path.to_owned(),
            environment: environment.clone(),
            rest: rest(&of_file("", text, &mut Vec::new())),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, and the files with addresses that it names. Blocks.
    #[must_use]
    pub fn read(&self) -> Reading {
        let name = self.path.display().to_string();
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                let problem = format!("configuration `{name}` cannot be read: {error}");
                return Reading {
                    policy: Err(vec![Diagnostic::new(problem)]),
                    files: Vec::new(),
                    changed: Vec::new(),
                };
            }
        };
        let file = File {
            name: &name,
            text: &text,
            folder: self.path.parent().unwrap_or(Path::new("")),
        };
        let mut reader = reader(Some(file), &self.environment);
        let config = sections::read(&mut reader, Need::Nothing);
        let files = config.policy.files.clone();
        let problems = std::mem::take(&mut reader.problems);
        let now = rest(&of_file("", &text, &mut Vec::new()));
        let keys = self.rest.keys().chain(now.keys());
        let mut changed: Vec<String> = keys
            .filter(|key| self.rest.get(*key) != now.get(*key))
            .cloned()
            .collect();
        changed.sort();
        changed.dedup();
        Reading {
            policy: if problems.is_empty() {
                Ok(config.policy)
            } else {
                Err(sorted(problems, Some(file)))
            },
            files,
            changed,
        }
    }
}

/// The values of what is not policy, for comparison only: they may be secrets.
fn rest(entries: &Entries) -> BTreeMap<String, String> {
    entries
        .iter()
        .filter(|(key, _)| !key.starts_with("policy."))
        .map(|(key, entry)| (key.clone(), entry.value.to_text()))
        .collect()
}
