//! `secret("NAME")`: an opaque value that stands for a secret until a request is sent.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rhai::{Engine, FuncRegistration, ImmutableString};

use crate::domain::diagnostic::closest;
use crate::scripting::current::{self, Called};
use crate::scripting::effects::SECRET_MARK;
use crate::scripting::reference::FunctionDoc;

/// A text with references to secrets. Holds no secret itself: the value is put in by whoever sends
/// the request. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::scripting) struct SecretText(String);

impl SecretText {
    /// The secret called `name`.
    pub(in crate::scripting) fn named(name: &str) -> Self {
        Self(format!("{SECRET_MARK}{name}{SECRET_MARK}"))
    }

    /// Any text with references in it.
    #[cfg(test)]
    pub(super) fn with_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text with its references.
    pub(in crate::scripting) fn with_references(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Refuses a text that already has the mark, or data from outside could name a secret.
pub(super) fn plain(text: &str) -> Called<&str> {
    if text.contains(SECRET_MARK) {
        return Err(current::invalid(
            "the text has a control character (U+0001)",
        ));
    }
    Ok(text)
}

/// Adds `secret` and what can be done with one.
pub(super) fn add_to(engine: &mut Engine, known: Arc<BTreeSet<String>>) {
    engine.register_type_with_name::<SecretText>("secret");
    FuncRegistration::new("secret").register_into_engine(
        engine,
        move |name: &str| -> Called<SecretText> {
            if known.contains(name) {
                return Ok(SecretText::named(name));
            }
            Err(current::invalid(unknown(name, &known)))
        },
    );
    for name in ["to_string", "to_debug"] {
        FuncRegistration::new(name).register_into_engine(engine, |_: SecretText| "***");
    }
    FuncRegistration::new("+").register_into_engine(
        engine,
        |left: &str, right: SecretText| -> Called<SecretText> {
            Ok(SecretText(format!("{}{}", plain(left)?, right.0)))
        },
    );
    FuncRegistration::new("+").register_into_engine(
        engine,
        |left: SecretText, right: ImmutableString| -> Called<SecretText> {
            Ok(SecretText(format!("{}{}", left.0, plain(&right)?)))
        },
    );
    FuncRegistration::new("+")
        .register_into_engine(engine, |left: SecretText, right: SecretText| {
            SecretText(format!("{}{}", left.0, right.0))
        });
}

/// What to say of a secret that nobody configured.
pub(in crate::scripting) fn unknown(name: &str, known: &BTreeSet<String>) -> String {
    let advice = match closest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("add `{name} = \"env:{name}\"` to [secrets] in daemon.toml"),
    };
    format!("there is no secret `{name}`; {advice}")
}

/// Its reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    vec![FunctionDoc {
        namespace: "",
        name: "secret",
        signature: "secret(name)",
        text: "A secret from [secrets] in daemon.toml, as an opaque value: it can be put together \
               with texts by `+` and stand in HTTP headers and in the user part of a URL, nowhere \
               else. Prints as ***, also in `${…}`.",
        example: r#"http::get("https://shop.example/orders", #{
    headers: #{ authorization: "Bearer " + secret("SHOP_TOKEN") },
});"#
            .to_owned(),
    }]
}
