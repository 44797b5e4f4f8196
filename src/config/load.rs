//! Finds the operator's file and lays the layers over each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use super::reader::Reader;
use super::source::{Entries, of_environment, of_file};
use super::{Config, DEFAULTS, Reread, sections};
use crate::domain::diagnostic::Diagnostic;

/// The file that is loaded when none is named.
const FILE: &str = "daemon.toml";

/// Which secrets must be there for what is about to be done.
///
/// References are always checked; a secret that is not there is an error only when it is needed,
/// and otherwise empty and listed in [`Config::absent_secrets`]. So `bursar check` works on a
/// machine that has no keys, and nobody who talks to the gateway can go on without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// All of them: `run`.
    Everything,
    /// The gateway's key and secret: `call`, `send`.
    Gateway,
    /// The admin listener's token: commands that talk to it.
    AdminToken,
    /// None: `check`, `simulate`, `dev`.
    Nothing,
}

impl Need {
    pub(super) fn gateway(self) -> bool {
        matches!(self, Self::Everything | Self::Gateway)
    }

    pub(super) fn admin_token(self) -> bool {
        matches!(self, Self::Everything | Self::AdminToken)
    }

    pub(super) fn script_secrets(self) -> bool {
        matches!(self, Self::Everything)
    }
}

/// A configuration file that has been read.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Where its relative paths start.
    pub folder: &'a Path,
}

/// Loads the configuration: `path`, or `daemon.toml` in the working folder when `path` is `None`
/// and there is one, over the built-in defaults; and `environment` over both.
///
/// # Errors
/// Every mistake, in the order of the file, then of the environment: show them all and exit with
/// code 64.
pub fn load(
    path: Option<&Path>,
    environment: &BTreeMap<String, String>,
    need: Need,
) -> Result<Config, Vec<Diagnostic>> {
    let named = path.is_some();
    let path = path.unwrap_or(Path::new(FILE));
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => resolve(
            Some(File {
                name: &name,
                text: &text,
                folder: path.parent().unwrap_or(Path::new("")),
            }),
            environment,
            need,
        )
        .map(|config| Config {
            reread: Some(Reread::new(path, &text, environment)),
            ..config
        }),
        Err(error) if error.kind() == ErrorKind::NotFound && !named => {
            resolve(None, environment, need)
        }
        Err(error) => Err(vec![
            Diagnostic::new(format!("configuration `{name}` cannot be read: {error}"))
                .help("name another file with --config, or leave the option out for the defaults"),
        ]),
    }
}

/// Like [`load`] with a file that has been read already, or with none.
///
/// # Errors
/// As [`load`].
pub fn resolve(
    file: Option<File<'_>>,
    environment: &BTreeMap<String, String>,
    need: Need,
) -> Result<Config, Vec<Diagnostic>> {
    let mut reader = reader(file, environment);
    let config = sections::read(&mut reader, need);
    if reader.problems.is_empty() {
        return Ok(config);
    }
    Err(sorted(reader.problems, file))
}

/// Mistakes in the order of the file, then of anything else.
pub(super) fn sorted(mut problems: Vec<Diagnostic>, file: Option<File<'_>>) -> Vec<Diagnostic> {
    problems.sort_by_key(|problem| {
        problem
            .place
            .as_ref()
            .map(|place| (rank(&place.file, file), place.line, place.column))
    });
    problems
}

pub(super) fn reader<'a>(
    file: Option<File<'a>>,
    environment: &'a BTreeMap<String, String>,
) -> Reader<'a> {
    let mut problems = Vec::new();
    let defaults = of_file("daemon.toml (built in)", DEFAULTS, &mut problems);
    let mut given = file.map_or_else(Entries::new, |file| {
        of_file(file.name, file.text, &mut problems)
    });
    given.extend(of_environment(environment, &mut problems));
    Reader {
        defaults,
        given,
        file,
        folder: file.map_or(Path::new(""), |file| file.folder),
        environment,
        problems,
        absent: Vec::new(),
        asked: BTreeSet::new(),
        refused: BTreeSet::new(),
    }
}

/// Mistakes of the file come first, then those of anything else.
fn rank(name: &str, file: Option<File<'_>>) -> u8 {
    u8::from(file.is_none_or(|file| file.name != name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::keys::{KEYS, TABLES, known_keys};
    use super::super::{LogFormat, source};
    use super::*;
    use crate::domain::diagnostic::render;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn keys() -> BTreeMap<String, String> {
        environment(&[
            ("BURSAR_GATEWAY_KEY", "public"),
            ("BURSAR_GATEWAY_SECRET", "hunter2"),
        ])
    }

    fn of(
        text: &str,
        environment: &BTreeMap<String, String>,
        need: Need,
    ) -> Result<Config, Vec<Diagnostic>> {
        let file = File {
            name: "daemon.toml",
            text,
            folder: Path::new("/etc/bursar"),
        };
        resolve(Some(file), environment, need)
    }

    /// What is wrong with `text`, as people see it.
    fn mistakes(text: &str) -> String {
        render(&of(text, &keys(), Need::Everything).unwrap_err())
    }

    #[test]
    fn the_built_in_defaults_are_a_whole_configuration() {
        let config = resolve(None, &keys(), Need::Everything).unwrap();
        assert_eq!(
            config.gateway.base_url.as_str(),
            "https://app.sandbox.cryptoprocessing.com/api/v2"
        );
        assert_eq!(config.gateway.secret.expose(), "hunter2");
        assert_eq!(config.gateway.timeout, Duration::from_secs(30));
        assert_eq!(config.callbacks.max_body, 256 * 1_024);
        assert_eq!(config.scripts.dir, Path::new("scripts"));
        assert_eq!(config.log.format, LogFormat::Text);
        assert!(config.admin.token.is_none());
        assert!(config.secrets.is_empty());
    }

    #[test]
    fn the_file_the_table_of_keys_and_the_structs_name_the_same_keys() {
        let mut problems = Vec::new();
        let defaults = source::of_file("daemon.toml", DEFAULTS, &mut problems);
        assert_eq!(problems, Vec::new());
        let in_table: BTreeSet<_> = known_keys().map(str::to_owned).collect();
        let in_file: BTreeSet<_> = defaults.keys().cloned().collect();
        assert_eq!(in_file, in_table, "daemon.toml against the table of keys");

        let environment = keys();
        let mut reader = reader(None, &environment);
        sections::read(&mut reader, Need::Everything);
        assert_eq!(reader.asked, in_table, "the structs against the table");

        let tables: BTreeSet<_> = KEYS
            .iter()
            .filter_map(|key| key.name.rsplit_once('.'))
            .map(|(table, _)| table)
            .chain(["secrets"])
            .collect();
        assert_eq!(tables, TABLES.into_iter().collect());
    }

    #[test]
    fn every_example_in_an_error_message_is_accepted() {
        for key in KEYS {
            let (table, last) = key.name.rsplit_once('.').unwrap();
            let text = format!("[{table}]\n{last} = {}\n", key.example);
            let mut environment = keys();
            environment.insert("BURSAR_ADMIN_TOKEN".to_owned(), "hunter3".to_owned());
            of(&text, &environment, Need::Everything).unwrap();
        }
    }

    #[test]
    fn every_default_can_be_given_by_the_environment() {
        let mut problems = Vec::new();
        for (name, entry) in source::of_file("daemon.toml", DEFAULTS, &mut problems) {
            let text = match entry.value {
                source::Value::Text(text) => text,
                source::Value::Integer(number) => number.to_string(),
                source::Value::Boolean(value) => value.to_string(),
                source::Value::List(_) => String::new(),
                source::Value::Other(what) => panic!("{name} is {what}"),
            };
            let variable = format!("BURSAR__{}", name.to_uppercase().replace('.', "__"));
            let mut environment = keys();
            environment.insert(variable, text);
            resolve(None, &environment, Need::Everything).unwrap();
        }
    }

    #[test]
    fn the_file_lies_over_the_defaults_and_the_environment_over_the_file() {
        let text = "\
gateway = { timeout = '10s' }
store.path = 'elsewhere'
[scripts]
dir = '/srv/scripts'
http.allow = ['https://shop.example', 'http://127.0.0.1:9000']
[secrets]
SHOP = 'env:SHOP_TOKEN'
";
        let mut environment = keys();
        environment.extend([
            ("SHOP_TOKEN".to_owned(), "hunter3".to_owned()),
            (
                "BURSAR__SECRETS__Other".to_owned(),
                "env:SHOP_TOKEN".to_owned(),
            ),
            ("BURSAR__GATEWAY__TIMEOUT".to_owned(), "20s".to_owned()),
            ("BURSAR__GATEWAY__MAX_IN_FLIGHT".to_owned(), "32".to_owned()),
            ("BURSAR_CRASH_AT".to_owned(), "nowhere".to_owned()),
        ]);
        let config = of(text, &environment, Need::Everything).unwrap();
        assert_eq!(config.gateway.timeout, Duration::from_secs(20));
        assert_eq!(config.gateway.max_in_flight, 32);
        assert_eq!(config.store.path, Path::new("/etc/bursar/elsewhere"));
        assert_eq!(config.scripts.dir, Path::new("/srv/scripts"));
        assert_eq!(config.scripts.data_dir, Path::new("/etc/bursar/data"));
        assert_eq!(config.scripts.http.allow.len(), 2);
        assert_eq!(config.secrets["SHOP"].expose(), "hunter3");
        assert_eq!(config.secrets["Other"].expose(), "hunter3");

        environment.insert(
            "BURSAR__SCRIPTS__HTTP__ALLOW".to_owned(),
            "a.example, b.example".to_owned(),
        );
        let config = of(text, &environment, Need::Everything).unwrap();
        assert_eq!(config.scripts.http.allow[1].host, "b.example");
    }

    #[test]
    fn a_file_with_many_mistakes_is_reported_whole() {
        let text = r#"
timeout = "30s"

[gateway]
base_url = "http://gateway.example/api/v2"
key = "hunter2-literal"
secret = "env:NOT_SET"
timeuot = "30s"
timeout = 30
max_in_flight = 257
resend_unknown = true
unknown_after = "soon"

[callbacks]
listen = "localhost:8080"
max_body = "256KB"

[scripts.http]
allow = ["https://shop.example", "https://shop.example/credit", 7]

[scripts.limts]
operations = 5

[admin]
listen = "0.0.0.0:8081"

[[admin.user]]
name = "ana"

[secrets]
SHOP = "hunter3-literal"
"not a name" = "env:SHOP"

[policy]
otherwise = "allow"

[log]
level = "debgu"
format = { json = true }
"#;
        let mut environment = keys();
        environment.extend([
            ("BURSAR__STORE__CACHE".to_owned(), "lots".to_owned()),
            ("BURSAR__STORE__CHACHE".to_owned(), "hunter4".to_owned()),
            ("BURSAR__ADMIN__TOKEN".to_owned(), "hunter5".to_owned()),
        ]);
        let rendered = render(&of(text, &environment, Need::Everything).unwrap_err());
        assert!(!rendered.contains("hunter"), "{rendered}");
        insta::assert_snapshot!(rendered);
    }

    #[test]
    fn a_text_that_is_not_toml_is_reported_without_its_secrets() {
        let rendered = mistakes(
            "[gateway]\nsecret = \"hunter2\nkey = hunter3\ntimeout = \"30s\n[secrets]\nA = 'hunter4\n",
        );
        assert!(!rendered.contains("hunter"), "{rendered}");
        insta::assert_snapshot!(rendered);
    }

    #[test]
    fn two_listeners_cannot_share_a_port() {
        let rendered = mistakes("[admin]\nlisten = '127.0.0.1:8080'");
        assert!(
            rendered.contains(
                "`admin.listen`: 127.0.0.1:8080 is also the port of `callbacks.listen` (127.0.0.1:8080)"
            ),
            "{rendered}"
        );
    }

    #[test]
    fn the_admin_listener_needs_a_token_unless_it_is_on_loopback() {
        let public = "[admin]\nlisten = '0.0.0.0:9000'\n";
        let rendered = mistakes(public);
        assert!(
            rendered.contains("`BURSAR_ADMIN_TOKEN` is not set"),
            "{rendered}"
        );
        let config = of(public, &keys(), Need::Nothing).unwrap();
        assert_eq!(config.absent_secrets.len(), 1);

        let mut environment = keys();
        environment.insert("BURSAR_ADMIN_TOKEN".to_owned(), "hunter3".to_owned());
        let config = of(public, &environment, Need::Everything).unwrap();
        assert_eq!(config.admin.token.unwrap().expose(), "hunter3");

        let rendered = mistakes("[admin]\ntoken = 'env:MISTYPED'");
        assert!(
            rendered.contains("`admin.token`: environment variable `MISTYPED` is not set"),
            "{rendered}"
        );
    }

    #[test]
    fn secrets_that_are_not_needed_may_be_absent_and_are_listed() {
        let none = BTreeMap::new();
        let text = "[secrets]\nSHOP = 'env:SHOP_TOKEN'";
        let count = |need| of(text, &none, need).map(|config| config.absent_secrets.len());
        assert_eq!(count(Need::Nothing), Ok(3));
        assert_eq!(count(Need::AdminToken), Ok(3));
        assert_eq!(count(Need::Gateway).unwrap_err().len(), 2);
        assert_eq!(count(Need::Everything).unwrap_err().len(), 3);
        let config = of(text, &none, Need::Nothing).unwrap();
        assert_eq!(config.gateway.secret.expose(), "");
        assert!(of("[gateway]\nkey = 'hunter2'", &none, Need::Nothing).is_err());
    }

    #[test]
    fn a_named_file_must_be_there_and_be_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent.toml");
        let problems = load(Some(&path), &keys(), Need::Nothing).unwrap_err();
        assert!(
            problems[0]
                .message
                .ends_with("absent.toml` cannot be read: No such file or directory (os error 2)"),
            "{problems:?}"
        );
        let path = folder.path().join("binary.toml");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(load(Some(&path), &keys(), Need::Nothing).is_err());
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, "[store]\npath = 'here'").unwrap();
        let config = load(Some(&path), &keys(), Need::Nothing).unwrap();
        assert_eq!(config.store.path, folder.path().join("here"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|[\\[\\]=\"'\n#.{}])*") {
            if let Err(problems) = of(&text, &keys(), Need::Everything) {
                proptest::prop_assert!(!render(&problems).is_empty());
            }
        }

        #[test]
        fn a_literal_secret_is_never_shown(
            // No quotes in front, or the secret is within a key's name, which messages do show.
            before in "[\\[\\]{}=\n, ]{0,3}",
            key in "(gateway\\.)?(key|secret|kye|SHOP|scret)",
            quote in "[\"']{0,3}",
            after in "[\\[\\]{}='\"\n, ]{0,3}",
        ) {
            let text = format!("[gateway]\n{before}{key} = {quote}hunter2{after}\ntimeout = 3\n");
            if let Err(problems) = of(&text, &keys(), Need::Everything) {
                proptest::prop_assert!(!render(&problems).contains("hunter2"));
            }
            let environment = [
                ("BURSAR__GATEWAY__KEY", format!("{quote}hunter2{before}")),
                ("BURSAR__GATEWAY__BASE_URL", format!("https://a:hunter2{before}@host{after}")),
                ("BURSAR__SCRIPTS__HTTP__ALLOW", format!("https://a:hunter2{after}@host{before}")),
            ];
            for (variable, text) in environment {
                let environment = BTreeMap::from([(variable.to_owned(), text)]);
                if let Err(problems) = resolve(None, &environment, Need::Nothing) {
                    proptest::prop_assert!(!render(&problems).contains("hunter2"));
                }
            }
        }
    }
}
