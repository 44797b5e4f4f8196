//! Looks, before anything runs, at every call in a script: does the function exist, and can it
//! take that many arguments? Rhai itself notices only when the call is made.
//!
//! What cannot be decided is left alone: a method may be a closure in a map, so of methods only
//! the name is looked for.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Dynamic, Engine, Expr, FnCallExpr, Position, Stmt};

use super::api::secret;
use super::errors;
use super::reference::doc_of;
use super::sources::Sources;
use crate::domain::diagnostic::{Diagnostic, closest};

/// Functions that are part of the language rather than registered, with what they take. Scripts
/// cannot write `curry`, but closures that capture variables are compiled to it.
const KEYWORDS: [(&str, &[usize]); 7] = [
    ("Fn", &[1]),
    ("type_of", &[1]),
    ("is_def_fn", &[2, 3]),
    ("is_def_var", &[1]),
    ("is_shared", &[1]),
    ("call", &[]),
    ("curry", &[]),
];

/// Functions by name, with the numbers of arguments they take.
type Functions = BTreeMap<String, BTreeSet<usize>>;

/// Modules by the name they are imported as.
type Imports = BTreeMap<String, Option<String>>;

/// What can be called in a set of scripts.
pub(super) struct CallCheck<'s> {
    sources: &'s Sources,
    secrets: &'s BTreeSet<String>,
    /// Per namespace; the empty one holds what is called without.
    registered: BTreeMap<String, Functions>,
    /// What each file defines, by its path.
    defined: BTreeMap<String, Functions>,
    /// Keys of map literals: each may hold a closure that is called as a method.
    map_keys: BTreeSet<String>,
}

/// Whether a function is called by its name, or on a value.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    Function,
    Method,
}

impl<'s> CallCheck<'s> {
    /// Collects what can be called.
    pub(super) fn new(
        engine: &Engine,
        sources: &'s Sources,
        secrets: &'s BTreeSet<String>,
        scripts: &BTreeMap<String, AST>,
    ) -> Self {
        let mut registered: BTreeMap<String, Functions> = BTreeMap::new();
        let all = engine.collect_fn_metadata(
            None,
            |info| {
                let metadata = info.metadata;
                Some((
                    info.namespace.to_string(),
                    metadata.name.to_string(),
                    metadata.num_params,
                ))
            },
            true,
        );
        for (namespace, name, parameters) in all {
            let functions = registered.entry(namespace).or_default();
            functions.entry(name).or_default().insert(parameters);
        }
        let mut check = Self {
            sources,
            secrets,
            registered,
            defined: BTreeMap::new(),
            map_keys: BTreeSet::new(),
        };
        for (file, ast) in scripts {
            let functions = check.defined.entry(file.clone()).or_default();
            for function in ast.iter_functions() {
                let arities = functions.entry(function.name.to_owned()).or_default();
                arities.insert(function.params.len());
            }
            let keys = &mut check.map_keys;
            ast.walk(&mut |path| {
                if let Some(ASTNode::Expr(Expr::Map(map, _))) = path.last() {
                    keys.extend(map.0.iter().map(|(key, _)| key.name.to_string()));
                } else if let Some(ASTNode::Expr(Expr::DynamicConstant(value, _))) = path.last() {
                    collect_keys(value, keys);
                }
                true
            });
        }
        check
    }

    /// Checks every call in one script.
    pub(super) fn check(&self, file: &str, ast: &AST) -> Vec<Diagnostic> {
        let imports = imports(ast);
        let mut mistakes: Vec<(Position, String, Option<String>)> = Vec::new();
        ast.walk(&mut |path| {
            let found = match path.last() {
                Some(
                    ASTNode::Expr(Expr::FnCall(call, position))
                    | ASTNode::Stmt(Stmt::FnCall(call, position)),
                ) => self
                    .mistake(file, &imports, call, Style::Function)
                    .map(|m| (*position, m)),
                Some(ASTNode::Expr(Expr::MethodCall(call, position))) => self
                    .mistake(file, &imports, call, Style::Method)
                    .map(|m| (*position, m)),
                _ => None,
            };
            if let Some((position, (message, help))) = found {
                mistakes.push((position, message, help));
            }
            true
        });
        mistakes.sort_by_key(|(position, ..)| (position.line(), position.position()));
        mistakes.dedup();
        mistakes
            .into_iter()
            .map(|(position, message, help)| {
                let at = errors::place(self.sources, file, position);
                let diagnostic = Diagnostic::new(message).at(at);
                match help {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic,
                }
            })
            .collect()
    }

    fn mistake(
        &self,
        file: &str,
        imports: &Imports,
        call: &FnCallExpr,
        style: Style,
    ) -> Option<(String, Option<String>)> {
        if call.is_operator_call() {
            return None;
        }
        let name = call.name.as_str();
        if call.is_qualified() {
            let namespace: Vec<&str> = call
                .namespace
                .path
                .iter()
                .map(|part| part.name.as_str())
                .collect();
            return self.namespaced(imports, &namespace, name, call.args.len());
        }
        if style == Style::Method {
            return self.method(name);
        }
        if name == "secret"
            && let [Expr::StringConstant(secret, _)] = call.args.as_slice()
            && !self.secrets.contains(secret.as_str())
        {
            return Some((secret::unknown(secret, self.secrets), None));
        }
        self.plain(file, name, call.args.len())
    }

    fn plain(&self, file: &str, name: &str, given: usize) -> Option<(String, Option<String>)> {
        let mut arities: BTreeSet<usize> = BTreeSet::new();
        for functions in [self.defined.get(file), self.registered.get("")] {
            arities.extend(
                functions
                    .and_then(|all| all.get(name))
                    .into_iter()
                    .flatten(),
            );
        }
        if let Some((_, takes)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == name) {
            if takes.is_empty() {
                return None;
            }
            arities.extend(*takes);
        }
        if arities.contains(&given) {
            return None;
        }
        if !arities.is_empty() {
            return Some(wrong_arity(name, &arities, given));
        }
        let known = self
            .defined
            .get(file)
            .into_iter()
            .chain(self.registered.get(""));
        let candidates = known.flat_map(Functions::keys).map(String::as_str);
        let help = self.elsewhere(name).or_else(|| {
            closest(name, candidates.filter(|name| is_word(name)))
                .map(|meant| format!("did you mean `{meant}`?"))
        });
        Some((format!("there is no function `{name}`"), help))
    }

    fn method(&self, name: &str) -> Option<(String, Option<String>)> {
        let functions = || {
            self.registered
                .get("")
                .into_iter()
                .chain(self.defined.values())
        };
        let known = functions().any(|functions| functions.contains_key(name))
            || self.map_keys.contains(name)
            || KEYWORDS.iter().any(|(keyword, _)| *keyword == name);
        if known {
            return None;
        }
        let candidates = functions().flat_map(Functions::keys).map(String::as_str);
        let help = closest(name, candidates.filter(|name| is_word(name)))
            .map(|meant| format!("did you mean `{meant}`?"));
        Some((format!("there is no function `{name}`"), help))
    }

    fn namespaced(
        &self,
        imports: &Imports,
        namespace: &[&str],
        name: &str,
        given: usize,
    ) -> Option<(String, Option<String>)> {
        let [namespace] = namespace else {
            return None;
        };
        let functions = match imports.get(*namespace) {
            Some(module) => self.defined.get(&format!("{}.rhai", module.as_ref()?))?,
            None => match self.registered.get(*namespace) {
                Some(functions) => functions,
                None if *namespace == "global" => return None,
                None => {
                    let known = self.registered.keys().chain(imports.keys());
                    let help = closest(namespace, known.map(String::as_str))
                        .map(|meant| format!("did you mean `{meant}::`?"));
                    return Some((format!("there is no namespace `{namespace}`"), help));
                }
            },
        };
        let full_name = format!("{namespace}::{name}");
        match functions.get(name) {
            Some(arities) if arities.contains(&given) => None,
            Some(arities) => Some(wrong_arity(&full_name, arities, given)),
            None => {
                let help = closest(name, functions.keys().map(String::as_str))
                    .map(|meant| format!("did you mean `{namespace}::{meant}`?"));
                Some((format!("there is no function `{full_name}`"), help))
            }
        }
    }

    /// The namespace that has a function of this name, when it was left out.
    fn elsewhere(&self, name: &str) -> Option<String> {
        self.registered
            .iter()
            .filter(|(namespace, _)| !namespace.is_empty())
            .find(|(_, functions)| functions.contains_key(name))
            .map(|(namespace, _)| format!("did you mean `{namespace}::{name}`?"))
    }
}

/// Keys of a literal without variables, which Rhai turns into a value.
fn collect_keys(value: &Dynamic, keys: &mut BTreeSet<String>) {
    if let Ok(map) = value.as_map_ref() {
        for (key, value) in map.iter() {
            keys.insert(key.to_string());
            collect_keys(value, keys);
        }
    } else if let Ok(items) = value.as_array_ref() {
        for item in items.iter() {
            collect_keys(item, keys);
        }
    }
}

/// Modules by the name they are imported as; `None` where the path is computed.
fn imports(ast: &AST) -> Imports {
    let mut imports = BTreeMap::new();
    ast.walk(&mut |path| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last() {
            let (path, alias) = import.as_ref();
            let module = path.get_literal_value(None).map(|path| path.to_string());
            imports.insert(alias.name.to_string(), module);
        }
        true
    });
    imports
}

fn wrong_arity(name: &str, arities: &BTreeSet<usize>, given: usize) -> (String, Option<String>) {
    let takes: Vec<String> = arities.iter().map(ToString::to_string).collect();
    let message = format!(
        "`{name}` takes {} arguments, not {given}",
        takes.join(" or ")
    );
    let help = doc_of(name).map(|doc| format!("it is {}", doc.full_signature()));
    (message, help)
}

/// Leaves out operators and Rhai's own names with a `$` in them.
fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use crate::scripting::fake_world::{compile, mistakes};

    const LIB: (&str, &str) = ("lib/x.rhai", "fn twice(n) { n * 2 }");

    #[test]
    fn calls_of_what_is_not_there_are_found_without_running_them() {
        for (body, expected) in [
            ("payot(1)", "there is no function `payot`"),
            ("gateway::withdrw(#{})", "did you mean `gateway::withdraw`?"),
            ("gatway::withdraw(#{})", "did you mean `gateway::`?"),
            ("withdraw(#{})", "did you mean `gateway::withdraw`?"),
            ("x::twic(1)", "did you mean `x::twice`?"),
            ("x::twice(1, 2)", "`x::twice` takes 1 arguments, not 2"),
            ("own()", "`own` takes 1 arguments, not 0"),
            ("state::get()", "it is state::get(key, [default])"),
            ("emit(\"e\")", "`emit` takes 2 or 3 arguments, not 1"),
            (
                "gateway::withdraw_all([]).waits(\"12h\")",
                "did you mean `wait`?",
            ),
            ("sleep()", "`sleep` takes 1 arguments, not 0"),
            ("notify(\"ops\", \"x\")", "there is no function `notify`"),
            ("secret(\"SHOP_TOKN\")", "did you mean `SHOP_TOKEN`?"),
            (
                "if false { [1].map(|x| payot(x)); }",
                "there is no function `payot`",
            ),
        ] {
            let script = format!(
                "import \"lib/x\" as x; fn own(a) {{ a }}\non(\"e\", |event| {{\n{body}\n}});"
            );
            let text = mistakes(&[LIB, ("t.rhai", &script)]);
            assert!(text.contains(expected), "{body}\n{text}");
            assert!(text.contains("t.rhai:3:"), "{body}\n{text}");
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = mistakes(&[(
            "t.rhai",
            "on(\"e\", |event| {\n  one(1);\n  two(2);\n  three(3);\n});",
        )]);
        assert_eq!(text.matches("there is no function").count(), 3, "{text}");
    }

    #[test]
    fn what_can_be_called_is_left_alone() {
        compile(&[
            LIB,
            (
                "t.rhai",
                r#"import "lib/x" as x;
                const C = 1;
                fn own(a) { a + global::C }
                fn with_this() { this + 1 }
                on("e", |event| {
                    let a = [3, 1].map(|n| own(n)).filter(|n| n > 1);
                    a.sort(|l, r| l - r);
                    a.sort();
                    let f = Fn("own"); f.call(1); call(f, 1);
                    let object = #{ run: |n| n }; object.run(1);
                    let n = 1; n.with_this();
                    "x".to_upper(); "x".len(); a.len; type_of(1); x::twice(2);
                    for i in range(0, 3) { print(i); debug(i); }
                    switch 1 { 1 => own(1), _ => -own(2) }
                    is_def_var("q"); 1.5.round(2); parse_int("1"); "1.5".to_decimal();
                });"#,
            ),
        ]);
    }
}
