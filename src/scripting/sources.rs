//! The texts of a set of scripts, as they stand in the scripts folder.
//!
//! Reads the folder and decides what in it is a script; does not look into the texts. Called at
//! start, at every reload, and by whoever checks a folder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::domain::diagnostic::Diagnostic;
use crate::domain::id::SetHash;

/// The most bytes one script may have.
pub const MAX_SOURCE_BYTES: u64 = 1024 * 1024;

/// The most folders within each other.
const MAX_DEPTH: usize = 16;

/// Path below the scripts folder, with `/` between folders and with `.rhai`, to source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, String>);

impl FromIterator<(String, String)> for Sources {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Sources {
    /// Reads all scripts below `dir`. Left out are dot files, `*~`, `*.tmp`, `#…` (disabled by
    /// hand) and `*.test.rhai`. Symbolic links are followed while they stay below `dir`, since
    /// that is how Kubernetes mounts files.
    ///
    /// # Errors
    /// Everything that keeps a script from being read, at once. The caller goes on with what it
    /// had.
    pub fn read(dir: &Path) -> Result<Self, Vec<Diagnostic>> {
        let root = dir.canonicalize().map_err(|error| {
            vec![
                Diagnostic::new(format!(
                    "the scripts folder {} cannot be read: {error}",
                    dir.display()
                ))
                .help("set `scripts.dir` to a folder that exists"),
            ]
        })?;
        let mut reading = Reading {
            root: root.clone(),
            found: BTreeMap::new(),
            mistakes: Vec::new(),
        };
        reading.folder(&root, "", 0);
        if reading.mistakes.is_empty() {
            Ok(Self(reading.found))
        } else {
            Err(reading.mistakes)
        }
    }

    /// The content hash of the whole set.
    #[must_use]
    pub fn hash(&self) -> SetHash {
        SetHash::of(self.iter())
    }

    /// The source of one file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// Path and source of every file, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(path, source)| (path.as_str(), source.as_str()))
    }
}

struct Reading {
    root: PathBuf,
    found: BTreeMap<String, String>,
    mistakes: Vec<Diagnostic>,
}

impl Reading {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let names = fs::read_dir(folder).and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()
        });
        let mut names = match names {
            Ok(names) => names,
            Err(error) => return self.unreadable(prefix, &error),
        };
        names.sort();
        for name in names {
            self.entry(folder, prefix, &name, depth);
        }
    }

    fn entry(&mut self, folder: &Path, prefix: &str, name: &OsStr, depth: usize) {
        let shown = format!("{prefix}{}", name.to_string_lossy());
        if is_left_out(&name.to_string_lossy()) {
            return;
        }
        let real = match folder.join(name).canonicalize() {
            Ok(real) => real,
            Err(error) => {
                if is_script(&shown) {
                    self.unreadable(&shown, &error);
                }
                return;
            }
        };
        let is_folder = real.is_dir();
        if !is_folder && !is_script(&shown) {
            return;
        }
        if !real.starts_with(&self.root) {
            self.mistakes.push(
                Diagnostic::new(format!("{shown} is a link out of the scripts folder"))
                    .help("put the file itself below the scripts folder"),
            );
        } else if name.to_str().is_none() {
            self.mistakes.push(
                Diagnostic::new(format!("the name of {shown} is not UTF-8")).help("rename it"),
            );
        } else if !is_folder {
            self.file(&real, shown);
        } else if depth < MAX_DEPTH {
            self.folder(&real, &format!("{shown}/"), depth + 1);
        } else {
            self.mistakes.push(Diagnostic::new(format!(
                "{shown} lies more than {MAX_DEPTH} folders deep (is it a link to a folder above?)"
            )));
        }
    }

    fn file(&mut self, real: &Path, shown: String) {
        match fs::metadata(real) {
            Ok(metadata) if metadata.len() > MAX_SOURCE_BYTES => {
                self.mistakes.push(
                    Diagnostic::new(format!(
                        "{shown} has {} bytes; a script may have {MAX_SOURCE_BYTES}",
                        metadata.len()
                    ))
                    .help("keep data in files below `scripts.data_dir` and read it with csv::read"),
                );
                return;
            }
            Ok(_) => {}
            Err(error) => return self.unreadable(&shown, &error),
        }
        match fs::read(real).map(String::from_utf8) {
            Ok(Ok(source)) => {
                self.found.insert(shown, source);
            }
            Ok(Err(error)) => self.mistakes.push(
                Diagnostic::new(format!(
                    "{shown} is not UTF-8 (first bad byte at {})",
                    error.utf8_error().valid_up_to()
                ))
                .help("save the file as UTF-8"),
            ),
            Err(error) => self.unreadable(&shown, &error),
        }
    }

    fn unreadable(&mut self, shown: &str, error: &io::Error) {
        let shown = if shown.is_empty() {
            "the scripts folder"
        } else {
            shown
        };
        self.mistakes
            .push(Diagnostic::new(format!("{shown} cannot be read: {error}")));
    }
}

/// Endings of names that are left out, though some of them end like a script.
const LEFT_OUT: [&str; 3] = ["~", ".tmp", ".test.rhai"];

fn is_left_out(name: &str) -> bool {
    name.starts_with(['.', '#']) || LEFT_OUT.iter().any(|ending| name.ends_with(ending))
}

fn is_script(path: &str) -> bool {
    path.strip_suffix(".rhai").is_some()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn paths(sources: &Sources) -> Vec<&str> {
        sources.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn scripts_are_found_in_sub_folders_and_the_rest_is_left_out() {
        let dir = folder(&[
            ("b.rhai", b"2"),
            ("a/deep/c.rhai", b"3"),
            ("lib/x.rhai", b""),
            (".hidden.rhai", b""),
            ("a.rhai~", b""),
            ("a.rhai.tmp", b""),
            ("#off.rhai", b""),
            ("b.test.rhai", b""),
            ("README.md", b""),
            (".git/x.rhai", b""),
        ]);
        let sources = Sources::read(dir.path()).unwrap();
        assert_eq!(paths(&sources), ["a/deep/c.rhai", "b.rhai", "lib/x.rhai"]);
        assert_eq!(sources.get("b.rhai"), Some("2"));
    }

    #[test]
    fn a_mounted_config_map_is_read_through_its_links() {
        let dir = folder(&[("..2026_11_22/pay.rhai", b"1")]);
        symlink("..2026_11_22", dir.path().join("..data")).unwrap();
        symlink("..data/pay.rhai", dir.path().join("pay.rhai")).unwrap();
        assert_eq!(paths(&Sources::read(dir.path()).unwrap()), ["pay.rhai"]);
    }

    #[test]
    fn everything_that_cannot_be_read_is_reported_at_once() {
        let outside = folder(&[("secret.rhai", b"")]);
        let dir = folder(&[
            ("latin1.rhai", b"// gr\xfc\xdfe"),
            ("large.rhai", &vec![b' '; 1024 * 1024 + 1]),
        ]);
        symlink(
            outside.path().join("secret.rhai"),
            dir.path().join("link.rhai"),
        )
        .unwrap();
        symlink("nowhere", dir.path().join("broken.rhai")).unwrap();
        symlink(".", dir.path().join("loop")).unwrap();
        let mistakes = Sources::read(dir.path()).unwrap_err();
        let text = crate::domain::diagnostic::render(&mistakes);
        for expected in [
            "latin1.rhai is not UTF-8 (first bad byte at 5)",
            "large.rhai has 1048577 bytes",
            "link.rhai is a link out of the scripts folder",
            "broken.rhai cannot be read",
            "folders deep",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_names_the_setting() {
        let dir = tempfile::tempdir().unwrap();
        let mistakes = Sources::read(&dir.path().join("none")).unwrap_err();
        assert!(mistakes[0].to_string().contains("scripts.dir"));
    }

    #[test]
    fn the_hash_follows_paths_and_contents() {
        let of = |path: &str, source: &str| {
            Sources::from_iter([(path.to_owned(), source.to_owned())]).hash()
        };
        assert_eq!(of("a.rhai", "1"), of("a.rhai", "1"));
        assert_ne!(of("a.rhai", "1"), of("b.rhai", "1"));
        assert_ne!(of("a.rhai", "1"), of("a.rhai", "2"));
    }
}
