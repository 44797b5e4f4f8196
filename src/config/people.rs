//! `[[admin.user]]`: people besides `admin`, each with a name, a role and a token.
//!
//! The keys of the element with number N stand in the layers as `admin.user.N.name` and so on, and
//! the element itself as `admin.user.N`. Names and tokens say who approved a payment, so two people
//! can have neither in common.

use super::choice;
use super::keys::Kind;
use super::reader::{Reader, diagnostic};
use super::refusal::Refusal;
use super::secret_ref;
use super::source::{Entry, Value};
use super::{Need, User};
use crate::domain::diagnostic::closest;
use crate::domain::person::{ADMIN, Role};
use crate::domain::secret::Secret;

/// The table.
pub const TABLE: &str = "admin.user";

/// Its keys.
const FIELDS: [(&str, Kind); 3] = [
    ("name", Kind::Text),
    ("role", Kind::Text),
    ("token", Kind::Secret),
];

/// The most characters of a name.
const LONGEST_NAME: usize = 64;

/// What the keys of an element begin with.
pub fn prefix(number: usize) -> String {
    format!("{TABLE}.{number}")
}

/// What the value of a key must be; or, for what is none, what may have been meant.
pub fn kind(field: &str) -> Result<Kind, String> {
    let known = FIELDS.iter().find(|(name, _)| *name == field);
    known.map(|(_, kind)| *kind).ok_or_else(|| {
        match closest(field, FIELDS.iter().map(|(name, _)| *name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`[[{TABLE}]]` has name, role, token"),
        }
    })
}

impl Reader<'_> {
    /// Whether there is anybody below `[[admin.user]]`.
    pub fn has_users(&self) -> bool {
        self.given.contains_key(&prefix(0))
    }

    /// Everybody below `[[admin.user]]`, whatever mistakes there are; `admin` is the token of
    /// `admin.token`.
    pub fn users(&mut self, admin: Option<&Secret>, need: Need) -> Vec<User> {
        let elements: Vec<(String, Entry)> = (0_usize..)
            .map(prefix)
            .map_while(|prefix| {
                let element = self.given.get(&prefix)?.clone();
                Some((prefix, element))
            })
            .collect();
        let mut users = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut tokens: Vec<(String, Secret)> = admin
            .map(|token| (ADMIN.to_owned(), token.clone()))
            .into_iter()
            .collect();
        for (prefix, element) in elements {
            let name = self.user_text(&prefix, "name", &element, parse_name);
            let role = self.user_text(&prefix, "role", &element, parse_role);
            let token = self.user_token(&prefix, &element, need);
            if let Some(name) = &name {
                if names.contains(name) {
                    let place = self.user_entry(&prefix, "name", &element).place;
                    let refusal = Refusal::new(format!("`{name}` is the name of another one too"))
                        .help(
                            "names say who approved a payment: give each person one of their own",
                        );
                    self.refuse("admin.user.name", &place, refusal);
                }
                names.push(name.clone());
            }
            let who = name.clone().unwrap_or_else(|| "somebody".to_owned());
            if let Some(token) = &token {
                let same = |(_, known): &&(String, Secret)| known.expose() == token.expose();
                if let Some((other, _)) = tokens.iter().find(same) {
                    let place = self.user_entry(&prefix, "token", &element).place;
                    let refusal = Refusal::new(format!("`{who}` has the same token as `{other}`"))
                        .help("tokens say who somebody is: give each person one of their own");
                    self.refuse("admin.user.token", &place, refusal);
                }
                tokens.push((who, token.clone()));
            }
            if let (Some(name), Some(role)) = (name, role) {
                let token = token.unwrap_or_else(|| Secret::new(""));
                users.push(User { name, role, token });
            }
        }
        users
    }

    fn user_entry(&self, prefix: &str, field: &str, element: &Entry) -> Entry {
        let given = self.given.get(&format!("{prefix}.{field}"));
        given.unwrap_or(element).clone()
    }

    /// The text of a field, when it is there and right.
    fn user_text<T>(
        &mut self,
        prefix: &str,
        field: &str,
        element: &Entry,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<T> {
        let name = format!("{TABLE}.{field}");
        let entry = self.user_entry(prefix, field, element);
        let parsed = match &entry.value {
            Value::Text(text) => parse(text),
            Value::Other(_) if entry.place == element.place => {
                Err(Refusal::new("is missing").help("each person has name, role and token"))
            }
            Value::Integer(_) | Value::Boolean(_) | Value::List(_) | Value::Other(_) => {
                let found = entry.value.describe();
                Err(Refusal::new(format!("must be text, not {found}")))
            }
        };
        parsed
            .map_err(|refusal| self.refuse(&name, &entry.place, refusal))
            .ok()
    }

    fn user_token(&mut self, prefix: &str, element: &Entry, need: Need) -> Option<Secret> {
        let reference = self.user_text(prefix, "token", element, secret_ref::parse)?;
        let place = self.user_entry(prefix, "token", element).place;
        match reference.resolve(self.environment, self.folder) {
            Ok(secret) => return Some(secret),
            // Whoever uses one token has no business with those of the others.
            Err(refusal) if need == Need::Everything => {
                self.refuse("admin.user.token", &place, refusal);
            }
            Err(refusal) => {
                let absent = diagnostic("admin.user.token", &place, refusal);
                self.absent.push(absent);
            }
        }
        None
    }
}

fn parse_name(text: &str) -> Result<String, Refusal> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    if text == ADMIN {
        return Err(
            Refusal::new(format!("`{ADMIN}` is whoever presents `admin.token`"))
                .help("choose another name"),
        );
    }
    if text.is_empty() || text.chars().count() > LONGEST_NAME || !text.chars().all(is_plain) {
        return Err(Refusal::new(format!(
            "a name is 1 to {LONGEST_NAME} letters, digits and `.-_@`"
        ))
        .help("such as \"ana\" or \"ana@shop.example\""));
    }
    Ok(text.to_owned())
}

fn parse_role(text: &str) -> Result<Role, Refusal> {
    let roles = Role::ALL.map(|role| (role.as_str(), role));
    choice::parse(text, &roles)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::{Config, File, resolve};
    use crate::domain::diagnostic::{Diagnostic, render};

    fn of(text: &str, tokens: &[(&str, &str)], need: Need) -> Result<Config, Vec<Diagnostic>> {
        let mut environment: BTreeMap<String, String> = [
            ("BURSAR_GATEWAY_KEY", "hunter1"),
            ("BURSAR_GATEWAY_SECRET", "hunter2"),
        ]
        .iter()
        .chain(tokens)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        environment.retain(|_, value| !value.is_empty());
        let file = File {
            name: "daemon.toml",
            text,
            folder: Path::new("."),
        };
        resolve(Some(file), &environment, need)
    }

    const TWO: &str = "\
[[admin.user]]
name = 'ana'
role = 'approve'
token = 'env:ANA'
[[admin.user]]
name = 'ben'
role = 'view'
token = 'env:BEN'
";

    #[test]
    fn people_have_names_roles_and_tokens() {
        let tokens = [("ANA", "a-token"), ("BEN", "b-token")];
        let admin = of(TWO, &tokens, Need::Everything).unwrap().admin;
        let people: Vec<_> = admin
            .users
            .iter()
            .map(|user| (user.name.as_str(), user.role, user.token.expose()))
            .collect();
        assert_eq!(
            people,
            [
                ("ana", Role::Approve, "a-token"),
                ("ben", Role::View, "b-token")
            ]
        );
        assert!(admin.token.is_none());
    }

    #[test]
    fn with_people_a_listener_that_others_reach_needs_no_admin_token() {
        let tokens = [("ANA", "a-token"), ("BEN", "b-token")];
        let text = format!("admin.listen = '0.0.0.0:8081'\n{TWO}");
        assert!(of(&text, &tokens, Need::Everything).is_ok());
        assert!(of("admin.listen = '0.0.0.0:8081'", &[], Need::Everything).is_err());
    }

    #[test]
    fn whoever_uses_one_token_needs_none_of_the_others() {
        let config = of(TWO, &[("ANA", "a-token")], Need::AdminToken).unwrap();
        assert_eq!(config.absent_secrets.len(), 1);
        assert!(of(TWO, &[("ANA", "a-token")], Need::Everything).is_err());
    }

    #[test]
    fn all_mistakes_in_people_are_reported_at_once_and_show_no_token() {
        let text = "\
[[admin.user]]
name = 'ana'
role = 'aprove'
token = 'env:ANA'
[[admin.user]]
name = 'ben'
role = 'view'
token = 'env:ANA'
[[admin.user]]
name = 'ben'
role = 'operate'
token = 'hunter9'
[[admin.user]]
name = 'admin'
rol = 'view'
[[admin.user]]
name = 'caro'
role = 'approve'
token = 'env:ADMIN'
[[admin.user]]
name = 'dora'
role = 'approve'
token = 'env:ADMIN'
";
        let tokens = [("ANA", "hunter7"), ("ADMIN", "hunter8")];
        let mistakes = of(text, &tokens, Need::Everything).unwrap_err();
        let text = render(&mistakes);
        assert!(!text.contains("hunter"), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn people_are_written_as_elements() {
        for text in ["[admin.user]\nname = 'ana'", "admin.user = 'ana'"] {
            let text = render(&of(text, &[], Need::Nothing).unwrap_err());
            assert!(text.contains("[[admin.user]]"), "{text}");
        }
    }
}
