//! Reads entries as values: the topmost layer that has a key wins, and every mistake is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::keys;
use super::refusal::Refusal;
use super::secret_ref::{self, SecretRef};
use super::source::{Entries, Entry, Value};
use super::{File, Need, listen};
use crate::domain::diagnostic::{Diagnostic, Place};
use crate::domain::secret::Secret;

/// The layers, and what was wrong with them so far.
///
/// A value that is refused is reported and its default read instead, so that one pass finds every
/// mistake; the configuration made of such values is thrown away.
pub struct Reader<'a> {
    /// The built-in values, which have every key.
    pub defaults: Entries,
    /// What is laid over them: the file, then the environment.
    pub given: Entries,
    /// The operator's file, for what is no single value.
    pub file: Option<File<'a>>,
    /// The folder that relative paths start at.
    pub folder: &'a Path,
    /// Where `env:` looks.
    pub environment: &'a BTreeMap<String, String>,
    /// Every mistake so far.
    pub problems: Vec<Diagnostic>,
    /// Secrets that are not there and need not be.
    pub absent: Vec<Diagnostic>,
    /// Keys that were asked for.
    pub asked: BTreeSet<String>,
    /// Keys whose value was refused.
    pub refused: BTreeSet<String>,
}

impl Reader<'_> {
    /// A text with a grammar.
    pub fn text<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Refusal>) -> T {
        self.read(name, |value| match value {
            Value::Text(text) => Some(parse(text)),
            Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Other(_) => None,
        })
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, check: impl Fn(bool) -> Result<bool, Refusal>) -> bool {
        self.read(name, |value| match value {
            Value::Boolean(value) => Some(check(*value)),
            Value::Text(_) | Value::Integer(_) | Value::List(_) | Value::Other(_) => None,
        })
    }

    /// A whole number within a range.
    pub fn integer<T>(&mut self, name: &str, range: &RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        self.read(name, |value| match value {
            Value::Integer(number) => Some(
                T::try_from(*number)
                    .ok()
                    .filter(|number| range.contains(number))
                    .ok_or_else(|| {
                        Refusal::new(format!(
                            "{number} is out of range: {} to {}",
                            range.start(),
                            range.end()
                        ))
                    }),
            ),
            Value::Text(_) | Value::Boolean(_) | Value::List(_) | Value::Other(_) => None,
        })
    }

    /// A path, which starts at the configuration's folder unless it is absolute.
    pub fn path(&mut self, name: &str) -> PathBuf {
        let folder = self.folder;
        self.text(name, |text| {
            if text.is_empty() || text.contains('\0') {
                Err(Refusal::new("a path is due"))
            } else {
                Ok(folder.join(text))
            }
        })
    }

    /// A list of texts with one grammar. Every item that is refused is reported.
    pub fn list<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, Refusal>) -> Vec<T> {
        let entry = self.entry(name);
        let Value::List(items) = &entry.value else {
            self.wrong_kind(name, &entry);
            return Vec::new();
        };
        let mut values = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) => match parse(text) {
                    Ok(value) => values.push(value),
                    Err(refusal) => self.refuse(name, &item.place, refusal),
                },
                Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Other(_) => {
                    self.wrong_kind(name, item);
                }
            }
        }
        values
    }

    /// A secret; when it is not there and `needed` is false, it is noted in `absent` and empty.
    pub fn secret(&mut self, name: &str, needed: bool) -> Secret {
        let (reference, entry) = self.reference(name);
        match reference.map(|reference| reference.resolve(self.environment, self.folder)) {
            Some(Ok(secret)) => return secret,
            Some(Err(refusal)) if needed => self.refuse(name, &entry.place, refusal),
            Some(Err(refusal)) => self.absent.push(diagnostic(name, &entry.place, refusal)),
            None => {}
        }
        Secret::new("")
    }

    /// The admin listener's token, for a listener at `address`.
    pub fn token(&mut self, address: std::net::SocketAddr, need: Need) -> Option<Secret> {
        let name = "admin.token";
        let default = SecretRef::Env("BURSAR_ADMIN_TOKEN".to_owned());
        let (reference, entry) = self.reference(name);
        if reference? == default && !self.environment.contains_key("BURSAR_ADMIN_TOKEN") {
            if address.ip().is_loopback() || self.has_users() {
                return None;
            }
            let refusal = Refusal::new(format!(
                "environment variable `BURSAR_ADMIN_TOKEN` is not set, and `admin.listen` is {address}, which others can reach"
            ))
            .help("set it to a long random text, or listen on 127.0.0.1");
            if need.admin_token() {
                self.refuse(name, &entry.place, refusal);
            } else {
                self.absent.push(diagnostic(name, &entry.place, refusal));
            }
            return None;
        }
        Some(self.secret(name, need.admin_token()))
    }

    /// Reports two listeners on one port.
    pub fn two_listeners(&mut self, callbacks: std::net::SocketAddr, admin: std::net::SocketAddr) {
        let refused = |name| self.refused.contains(name);
        if refused("callbacks.listen") || refused("admin.listen") {
            return;
        }
        if listen::collide(callbacks, admin) {
            let place = self.entry("admin.listen").place;
            let refusal = Refusal::new(format!(
                "{admin} is also the port of `callbacks.listen` ({callbacks})"
            ))
            .help("give them different ports: the gateway must not reach the admin listener");
            self.refuse("admin.listen", &place, refusal);
        }
    }

    /// The names given under `[secrets]`.
    pub fn secret_names(&self) -> Vec<String> {
        self.given
            .keys()
            .filter_map(|name| name.strip_prefix("secrets."))
            .map(str::to_owned)
            .collect()
    }

    fn reference(&mut self, name: &str) -> (Option<SecretRef>, Entry) {
        let entry = self.entry(name);
        let reference = match &entry.value {
            Value::Text(text) => secret_ref::parse(text)
                .map_err(|refusal| self.refuse(name, &entry.place, refusal))
                .ok(),
            Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Other(_) => {
                self.wrong_kind(name, &entry);
                None
            }
        };
        (reference, entry)
    }

    fn read<T>(&mut self, name: &str, parse: impl Fn(&Value) -> Option<Result<T, Refusal>>) -> T {
        let entry = self.entry(name);
        match parse(&entry.value) {
            Some(Ok(value)) => return value,
            Some(Err(refusal)) => self.refuse(name, &entry.place, refusal),
            None => self.wrong_kind(name, &entry),
        }
        self.defaults
            .get(name)
            .and_then(|entry| parse(&entry.value)?.ok())
            .expect("a test reads every built-in default")
    }

    fn entry(&mut self, name: &str) -> Entry {
        self.asked.insert(name.to_owned());
        self.given
            .get(name)
            .or_else(|| self.defaults.get(name))
            .cloned()
            .expect("a test finds every key in the built-in defaults; secrets were listed")
    }

    fn wrong_kind(&mut self, name: &str, entry: &Entry) {
        let key = keys::find(name).expect("only keys of the table are asked for");
        let refusal = Refusal::new(format!(
            "must be {}, such as {}, not {}",
            key.kind,
            key.example,
            entry.value.describe()
        ));
        self.refuse(name, &entry.place, refusal);
    }

    pub(super) fn refuse(&mut self, name: &str, place: &Place, refusal: Refusal) {
        self.refused.insert(name.to_owned());
        self.problems.push(diagnostic(name, place, refusal));
    }
}

pub(super) fn diagnostic(name: &str, place: &Place, refusal: Refusal) -> Diagnostic {
    Diagnostic {
        message: format!("`{name}`: {}", refusal.message),
        place: Some(place.clone()),
        help: refusal.help,
    }
}
