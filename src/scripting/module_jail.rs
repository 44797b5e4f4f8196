//! `import`: modules come from the set's own sources in memory and from nowhere else.
//!
//! There is no file system here, so there is no way out of the scripts folder: a path is a key or
//! it is not.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rhai::{
    AST, Dynamic, Engine, EvalAltResult, FnPtr, Module, ModuleResolver, Position, Scope, Shared,
};

use super::current::{self, Called};
use super::sources::Sources;
use crate::domain::diagnostic::closest;

/// Resolves modules for one set of scripts.
pub(super) struct ModuleJail {
    sources: Sources,
    /// Modules that keep no state, by file: evaluated once for all executions.
    stateless: Mutex<BTreeMap<String, Shared<Module>>>,
}

impl ModuleJail {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            stateless: Mutex::default(),
        }
    }

    fn source(&self, path: &str, position: Position) -> Called<(String, &str)> {
        let file = format!("{path}.rhai");
        if let Some(source) = self.sources.get(&file) {
            return Ok((file, source));
        }
        let advice = advice(&self.sources, path);
        Err(refused(
            format!("there is no module `{path}`: {advice}"),
            position,
        ))
    }

    fn evaluate(engine: &Engine, file: &str, source: &str) -> Called<(Shared<Module>, bool)> {
        let mut ast = engine
            .compile(source)
            .map_err(|error| Box::new(EvalAltResult::ErrorParsing(*error.0, error.1)))?;
        ast.set_source(file);
        let keeps_state = keeps_state(&evaluate_top_level(engine, &ast)?);
        let module = Module::eval_ast_as_new(Scope::new(), &ast, engine)?;
        Ok((module.into(), keeps_state))
    }
}

/// Rhai has an error for modules that are not found, but drops what it says.
#[expect(
    clippy::unnecessary_box_returns,
    reason = "Rhai passes its errors on in boxes"
)]
fn refused(message: String, position: Position) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(message.into(), position).into()
}

/// What is wrong with the path of an import, as the end of a sentence.
fn advice(sources: &Sources, path: &str) -> String {
    let modules: Vec<&str> = sources
        .iter()
        .filter_map(|(file, _)| file.strip_suffix(".rhai"))
        .collect();
    if path.starts_with('/') || path.split('/').any(|part| part == ".." || part == ".") {
        "paths start at the scripts folder and do not leave it".to_owned()
    } else if let Some(module) = path.strip_suffix(".rhai") {
        format!("leave out the ending: `{module}`")
    } else if let Some(meant) = closest(path, modules) {
        format!("did you mean `{meant}`?")
    } else {
        format!("there is no {path}.rhai below the scripts folder")
    }
}

/// Evaluates a top level and answers the variables it leaves.
pub(super) fn evaluate_top_level(engine: &Engine, ast: &AST) -> Called<Scope<'static>> {
    let mut scope = Scope::new();
    engine.run_ast_with_scope(&mut scope, ast)?;
    Ok(scope)
}

/// Whether a closure captured any variable of this top level: what is captured is shared, and
/// could carry something from one run to the next.
pub(super) fn keeps_state(scope: &Scope) -> bool {
    scope.iter_raw().any(|(_, _, value)| holds_shared(value))
}

/// Whether anything in this value is shared with a closure.
pub(super) fn holds_shared(value: &Dynamic) -> bool {
    if value.is_shared() {
        return true;
    }
    if let Ok(items) = value.as_array_ref() {
        return items.iter().any(holds_shared);
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().any(holds_shared);
    }
    value
        .read_lock::<FnPtr>()
        .is_some_and(|function| function.iter_curry().any(holds_shared))
}

impl ModuleResolver for ModuleJail {
    fn resolve(
        &self,
        engine: &Engine,
        _importer: Option<&str>,
        path: &str,
        position: Position,
    ) -> Called<Shared<Module>> {
        let (file, source) = self.source(path, position)?;
        let cached = self
            .stateless
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&file)
            .cloned();
        if let Some(module) = cached {
            return Ok(module);
        }
        if !current::begin_import(&file) {
            let message = format!("`{path}` is imported in a circle");
            return Err(refused(message, position));
        }
        let evaluated = Self::evaluate(engine, &file, source);
        current::end_import(evaluated.as_ref().is_ok_and(|(_, keeps)| *keeps));
        let (module, keeps_state) = evaluated.map_err(|error| {
            Box::new(EvalAltResult::ErrorInModule(file.clone(), error, position))
        })?;
        if !keeps_state {
            self.stateless
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(file, Shared::clone(&module));
        }
        Ok(module)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::scripting::Ended;
    use crate::scripting::fake_world::{FakeWorld, compile, id, mistakes, soon};

    const LIB: (&str, &str) = ("lib/x.rhai", "fn f() { 1 }");

    #[test]
    fn nothing_but_the_sources_of_the_set_can_be_imported() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret.rhai"), "fn f() { 2 }").unwrap();
        let absolute = outside.path().join("secret");
        for path in [
            "../x",
            "../../etc/passwd",
            "/etc/passwd",
            absolute.to_str().unwrap(),
            "lib/../lib/x",
            "./lib/x",
            "lib//x",
            "lib/x.rhai",
            "LIB/X",
            "",
            "lib",
            "http://shop.example/x",
        ] {
            let script = format!("import {path:?} as x;");
            let text = mistakes(&[LIB, ("t.rhai", &script)]);
            assert!(text.contains("there is no module"), "{path}: {text}");
            assert!(text.contains("t.rhai:1:"), "{path}: {text}");
        }
    }

    #[test]
    fn a_module_that_is_computed_in_a_handler_is_confined_too() {
        let set = compile(&[(
            "t.rhai",
            "on(\"e\", |event| { import event.path as x; x::f() });",
        )]);
        let event = json!({"path": "/etc/passwd"});
        let ended = set.execute(&id("t", "e"), event, FakeWorld::new(), soon());
        assert!(matches!(ended, Ended::Failed(_)), "{ended:?}");
    }

    #[test]
    fn a_wrong_path_is_answered_with_the_right_one() {
        for (path, help) in [
            ("lib/y", "did you mean `lib/x`?"),
            ("lib/x.rhai", "leave out the ending: `lib/x`"),
            ("../lib/x", "do not leave it"),
        ] {
            let text = mistakes(&[LIB, ("t.rhai", &format!("import {path:?} as x;"))]);
            assert!(text.contains(help), "{text}");
        }
    }

    #[test]
    fn modules_that_import_each_other_in_a_circle_are_refused() {
        let text = mistakes(&[
            ("lib/a.rhai", "import \"lib/b\" as b;"),
            ("lib/b.rhai", "import \"lib/a\" as a;"),
        ]);
        assert!(text.contains("in a circle"), "{text}");
    }

    #[test]
    fn modules_register_nothing_and_ask_nothing_at_their_top_level() {
        let text = mistakes(&[("lib/x.rhai", "on(\"e\", |event| { });")]);
        assert!(
            text.contains("files in lib/ register no handlers"),
            "{text}"
        );
        let text = mistakes(&[
            ("a.rhai", "on(\"e\", |event| { });"),
            ("b.rhai", "import \"a\" as a;"),
        ]);
        assert!(
            text.contains("cannot be called in a.rhai, which is imported"),
            "{text}"
        );
        let set = compile(&[
            ("m.rhai", "fn f() { 1 }"),
            (
                "t.rhai",
                "on(\"e\", |event| { import \"m\" as m; m::f() });",
            ),
        ]);
        let ended = set.execute(&id("t", "e"), json!({}), FakeWorld::new(), soon());
        assert_eq!(ended, Ended::Returned(json!(1)));
        let text = mistakes(&[("lib/x.rhai", "let now = time::now();")]);
        assert!(text.contains("lib/x.rhai:1:17"), "{text}");
    }
}
