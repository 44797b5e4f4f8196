//! `file::`: files below the data folder.

use rhai::Module;

use crate::scripting::current;
use crate::scripting::effects::{FileAccess, Request};
use crate::scripting::reference::FunctionDoc;

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    function!(module, "read", |context, path: &str| {
        let path = path.to_owned();
        current::step_value(
            &context,
            "file::read",
            Request::File(FileAccess::Read { path }),
        )
    });
    function!(module, "list", |context| {
        let path = String::new();
        current::step_value(
            &context,
            "file::list",
            Request::File(FileAccess::List { path }),
        )
    });
    function!(module, "list", |context, path: &str| {
        let path = path.to_owned();
        current::step_value(
            &context,
            "file::list",
            Request::File(FileAccess::List { path }),
        )
    });
    function!(module, "move", |context, from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        current::step_value(
            &context,
            "file::move",
            Request::File(FileAccess::Move { from, to }),
        )
    });
    module
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    let doc = |name, signature, text, example: &str| FunctionDoc {
        namespace: "file",
        name,
        signature,
        text,
        example: example.to_owned(),
    };
    vec![
        doc(
            "read",
            "read(path)",
            "The text of a file below `scripts.data_dir`.",
            r#"let text = file::read("notes.txt");"#,
        ),
        doc(
            "list",
            "list([path])",
            "The names in a folder below `scripts.data_dir`, sorted: a list of \
             `#{ name, size, is_dir }`.",
            r#"for entry in file::list("inbox") { log::info(entry.name); }"#,
        ),
        doc(
            "move",
            "move(from, to)",
            "Moves a file below `scripts.data_dir`; the target must not exist.",
            r#"file::move("inbox/payouts.csv", "done/payouts.csv");"#,
        ),
    ]
}
