//! People who look at and steer the daemon, and what their roles allow.
//!
//! Who somebody is, is found out elsewhere: by the token that was presented.

use std::fmt;

/// What somebody may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything.
    View,
    /// Besides, steer runs and stop money: trigger, retry, cancel, pause, resume, back up.
    Operate,
    /// Besides, decide about money: approve, reject, resolve.
    Approve,
}

impl Role {
    /// Every role, the one that may least first.
    pub const ALL: [Self; 3] = [Self::View, Self::Operate, Self::Approve];

    /// The word for it in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Approve => "approve",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of whoever presents `admin.token`, and of everybody when there are no tokens.
pub const ADMIN: &str = "admin";

/// Somebody whose token, or whose being on the machine, says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name, as records keep it.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// Somebody may not do this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} has the role {role}; {action} needs {needed}")]
pub struct NotAllowed {
    /// Who.
    pub name: String,
    /// The role they have.
    pub role: Role,
    /// What they wanted to do: `approving`.
    pub action: &'static str,
    /// The least role that may.
    pub needed: Role,
}

impl Person {
    /// Whoever may do everything.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            name: ADMIN.to_owned(),
            role: Role::Approve,
        }
    }

    /// Whether they may do what needs that role.
    ///
    /// # Errors
    /// [`NotAllowed`], by name.
    pub fn may(&self, needed: Role, action: &'static str) -> Result<(), NotAllowed> {
        if self.role >= needed {
            return Ok(());
        }
        Err(NotAllowed {
            name: self.name.clone(),
            role: self.role,
            action,
            needed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_do_what_those_before_it_may() {
        for role in Role::ALL {
            let person = Person {
                name: "ana".into(),
                role,
            };
            for needed in Role::ALL {
                assert_eq!(person.may(needed, "x").is_ok(), needed <= role);
            }
        }
    }

    #[test]
    fn a_refusal_names_who_and_what_is_missing() {
        let ana = Person {
            name: "ana".into(),
            role: Role::View,
        };
        let refused = ana.may(Role::Approve, "approving").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "ana has the role view; approving needs approve"
        );
        assert!(Person::admin().may(Role::Approve, "approving").is_ok());
    }
}
