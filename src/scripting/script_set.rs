//! A set of scripts, compiled and checked as a whole, and the execution of its handlers.
//!
//! All or nothing: a set with one mistake does not come into being, and all mistakes are reported
//! at once. Does not decide when a handler runs, what happens to its run afterwards, or on which
//! thread: `runner` calls [`ScriptSet::execute`] on a thread with an 8 MB stack.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhai::{AST, Dynamic, Engine, EvalAltResult, NativeCallContext};
use serde_json::Value;

use super::call_check::CallCheck;
use super::current::{self, End, Entered};
use super::effects::{Effects, Failure, Interrupt};
use super::registration::Registered;
use super::sources::Sources;
use super::{engine, errors, json, module_jail};
use crate::config::Limits;
use crate::domain::diagnostic::Diagnostic;
use crate::domain::exact::Exact;
use crate::domain::handler::Handler;
use crate::domain::id::{HandlerId, SetHash};

/// The most time that the top level of one script may take when it is loaded.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What else is configured and scripts refer to by name.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The names in `[secrets]`.
    pub secrets: BTreeSet<String>,
}

/// One script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Path below the scripts folder, with `.rhai`.
    pub path: String,
    /// Its `//!` comment, without the marks.
    pub doc: String,
    /// What it registers, in order.
    pub handlers: Vec<HandlerId>,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The handler returned this; null when its value has no JSON.
    Returned(Value),
    /// The handler failed.
    Failed(ScriptError),
    /// The execution was ended from outside.
    Interrupted(Interrupt),
}

/// Why a handler failed.
#[derive(Debug, Clone, PartialEq)]
pub struct ScriptError {
    /// The failure of a step that the script did not catch, or threw again. `None`: the mistake is
    /// the script's own.
    pub failure: Option<Failure>,
    /// Where and what.
    pub diagnostic: Diagnostic,
}

/// A compiled and checked set of scripts.
pub struct ScriptSet {
    hash: SetHash,
    sources: Sources,
    scripts: Vec<Script>,
    handlers: Vec<Handler>,
    by_id: BTreeMap<HandlerId, Compiled>,
    asts: BTreeMap<String, AST>,
    engine: Engine,
    max_operations: u64,
}

/// A handler's code, ready to be called.
struct Compiled {
    registered: Registered,
    /// Whether anything its code can reach is shared with closures of the top level. Then the top
    /// level is evaluated anew for each execution, so that nothing is carried from run to run.
    keeps_state: bool,
}

impl fmt::Debug for ScriptSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptSet")
            .field("hash", &self.hash)
            .field("scripts", &self.scripts)
            .finish_non_exhaustive()
    }
}

impl ScriptSet {
    /// Compiles a set, evaluates every top level to collect the registrations, and checks
    /// everything.
    ///
    /// # Errors
    /// All mistakes in all scripts. The caller goes on with the set it had.
    pub fn compile(
        sources: Sources,
        limits: &Limits,
        names: &Known,
    ) -> Result<Self, Vec<Diagnostic>> {
        let secrets = Arc::new(names.secrets.clone());
        let engine = engine::build(&sources, limits, secrets);
        let (asts, mut mistakes) = parse(&engine, &sources);
        let call_check = CallCheck::new(&engine, &sources, &names.secrets, &asts);
        for (file, ast) in &asts {
            mistakes.extend(call_check.check(file, ast));
        }
        let mut set = Self {
            hash: sources.hash(),
            scripts: Vec::new(),
            handlers: Vec::new(),
            by_id: BTreeMap::new(),
            asts: BTreeMap::new(),
            max_operations: limits.operations,
            engine,
            sources,
        };
        for (file, ast) in &asts {
            match set.load(file, ast) {
                Ok(()) => {}
                Err(found) => add_new(&mut mistakes, found),
            }
        }
        set.asts = asts;
        if mistakes.is_empty() {
            Ok(set)
        } else {
            Err(mistakes)
        }
    }

    /// Evaluates one top level and takes over what it registers.
    fn load(&mut self, file: &str, ast: &AST) -> Result<(), Vec<Diagnostic>> {
        let entered = current::enter(current::instant() + LOAD_TIMEOUT, self.max_operations);
        let (registered, keeps_state) = self.top_level(&entered, file, ast)?;
        drop(entered);
        let mut script = Script {
            path: file.to_owned(),
            doc: doc_text(ast.doc()),
            handlers: Vec::new(),
        };
        let mut mistakes = Vec::new();
        for registered in registered {
            if let Err(mistake) = self.check_registered(file, ast, &registered) {
                mistakes.push(mistake);
                continue;
            }
            let id = registered.handler.id.clone();
            script.handlers.push(id.clone());
            self.handlers.push(registered.handler.clone());
            let captures = registered
                .function
                .iter_curry()
                .any(module_jail::holds_shared);
            let compiled = Compiled {
                keeps_state: keeps_state || captures,
                registered,
            };
            self.by_id.insert(id, compiled);
        }
        self.scripts.push(script);
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes)
        }
    }

    /// Evaluates a top level; answers what it registers and whether it keeps state in captured
    /// variables.
    fn top_level(
        &self,
        entered: &Entered,
        file: &str,
        ast: &AST,
    ) -> Result<(Vec<Registered>, bool), Vec<Diagnostic>> {
        let evaluated = module_jail::evaluate_top_level(&self.engine, ast);
        if let Some(end) = entered.end() {
            return Err(vec![
                Diagnostic::new(format!(
                    "the top level of {file} {}",
                    match end {
                        End::TooManyOperations =>
                            "needs more operations than scripts.limits.operations",
                        End::Interrupt(_) => "does not come to its end",
                    }
                ))
                .help("the top level only registers; the work belongs into handlers"),
            ]);
        }
        let scope =
            evaluated.map_err(|error| vec![errors::of_execution(&self.sources, file, &error)])?;
        let (registered, imported_state) = entered.take_registered();
        Ok((
            registered,
            imported_state || module_jail::keeps_state(&scope),
        ))
    }

    fn check_registered(
        &self,
        file: &str,
        ast: &AST,
        registered: &Registered,
    ) -> Result<(), Diagnostic> {
        let at = || errors::place(&self.sources, file, registered.position);
        let id = &registered.handler.id;
        if file.starts_with("lib/") {
            return Err(Diagnostic::new("files in lib/ register no handlers")
                .at(at())
                .help("move this script out of lib/"));
        }
        if let Some(other) = self.by_id.get(id) {
            let line = other.registered.handler.line;
            return Err(Diagnostic::new(format!(
                "two handlers are called `{}`: the other one is at {file}:{line}",
                id.name
            ))
            .at(at())
            .help("give one of them another name; on(…) takes the option `name`"));
        }
        let function = &registered.function;
        let parameters = ast
            .iter_functions()
            .filter(|candidate| candidate.name == function.fn_name())
            .map(|candidate| candidate.params.len())
            .collect::<Vec<_>>();
        let expected = function.curry().len() + 1;
        if !parameters.is_empty() && !parameters.contains(&expected) {
            return Err(
                Diagnostic::new("the handler must take exactly one parameter")
                    .at(at())
                    .help("write it as |event| { … } or |tick| { … }"),
            );
        }
        Ok(())
    }

    /// The content hash of the sources.
    #[must_use]
    pub fn hash(&self) -> &SetHash {
        &self.hash
    }

    /// What it was compiled from.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// All handlers, in the order of scripts and registrations.
    #[must_use]
    pub fn handlers(&self) -> &[Handler] {
        &self.handlers
    }

    /// All scripts, sorted by path.
    #[must_use]
    pub fn scripts(&self) -> &[Script] {
        &self.scripts
    }

    /// Executes a handler from its top, on this thread and blocking it, until it ends or the
    /// deadline passes. The thread needs a stack of 8 MB.
    #[must_use]
    pub fn execute<'a>(
        &self,
        handler: &HandlerId,
        input: impl Into<Exact<'a>>,
        effects: Arc<dyn Effects>,
        deadline: Instant,
    ) -> Ended {
        let file = format!("{}.rhai", handler.script);
        let (Some(compiled), Some(ast)) = (self.by_id.get(handler), self.asts.get(&file)) else {
            return failed(Diagnostic::new(format!(
                "there is no handler {handler} in version {} of the scripts",
                self.hash
            )));
        };
        let input = match json::to_dynamic(input) {
            Ok(input) => input,
            Err(message) => return failed(Diagnostic::new(message)),
        };
        let entered = current::enter(deadline, self.max_operations);
        if !compiled.keeps_state {
            entered.run(effects);
            return self.call(&entered, &compiled.registered, input);
        }
        let fresh = match self.top_level(&entered, &file, ast) {
            Ok((registered, _)) => registered,
            Err(_) if entered.end().is_some() => return self.over(&entered, None),
            Err(mut mistakes) => {
                let unknown = || Diagnostic::new(format!("{file} cannot be evaluated"));
                return failed(mistakes.pop().unwrap_or_else(unknown));
            }
        };
        match fresh.into_iter().find(|one| one.handler.id == *handler) {
            Some(registered) => {
                entered.run(effects);
                self.call(&entered, &registered, input)
            }
            None => failed(
                Diagnostic::new(format!("{file} did not register {} again", handler.name))
                    .help("the top level must register the same handlers every time"),
            ),
        }
    }

    fn call(&self, entered: &Entered, registered: &Registered, input: Dynamic) -> Ended {
        let surroundings = &registered.surroundings;
        let context = NativeCallContext::new_with_all_fields(
            &self.engine,
            registered.function.fn_name(),
            surroundings.source(),
            surroundings,
            registered.position,
        );
        let result = registered.function.call_raw(&context, None, [input]);
        let file = surroundings.source().unwrap_or_default();
        self.ended(entered, file, result)
    }

    fn ended(
        &self,
        entered: &Entered,
        file: &str,
        result: Result<Dynamic, Box<EvalAltResult>>,
    ) -> Ended {
        if entered.end().is_some() {
            let at = result.err().map(|error| {
                let diagnostic = errors::of_execution(&self.sources, file, &error);
                diagnostic.place
            });
            return self.over(entered, at.flatten());
        }
        match result {
            Ok(value) => Ended::Returned(json::from_dynamic(&value).unwrap_or_default()),
            Err(error) => Ended::Failed(ScriptError {
                failure: errors::uncaught_failure(&error),
                diagnostic: errors::of_execution(&self.sources, file, &error),
            }),
        }
    }

    /// The end of an execution that was ended from outside.
    #[expect(clippy::unused_self, reason = "reads as part of the execution")]
    fn over(&self, entered: &Entered, at: Option<crate::domain::diagnostic::Place>) -> Ended {
        match entered.end() {
            Some(End::Interrupt(interrupt)) => Ended::Interrupted(interrupt),
            Some(End::TooManyOperations) | None => {
                let mut diagnostic = Diagnostic::new(
                    "the handler needs more operations than `scripts.limits.operations` allows",
                )
                .help("is there a loop without an end?");
                diagnostic.place = at;
                failed(diagnostic)
            }
        }
    }
}

fn failed(diagnostic: Diagnostic) -> Ended {
    Ended::Failed(ScriptError {
        failure: None,
        diagnostic,
    })
}

/// Parses what can be parsed.
fn parse(engine: &Engine, sources: &Sources) -> (BTreeMap<String, AST>, Vec<Diagnostic>) {
    let mut asts = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (file, source) in sources.iter() {
        match engine.compile(source) {
            Ok(mut ast) => {
                ast.set_source(file);
                asts.insert(file.to_owned(), ast);
            }
            Err(error) => mistakes.push(errors::of_parsing(sources, file, &error)),
        }
    }
    (asts, mistakes)
}

/// Adds mistakes found by evaluating, without those whose line has one already: what the call
/// check has said, evaluation says again.
fn add_new(mistakes: &mut Vec<Diagnostic>, found: Vec<Diagnostic>) {
    let line = |mistake: &Diagnostic| {
        mistake
            .place
            .as_ref()
            .map(|place| (place.file.clone(), place.line))
    };
    for mistake in found {
        if line(&mistake).is_none() || !mistakes.iter().any(|known| line(known) == line(&mistake)) {
            mistakes.push(mistake);
        }
    }
}

/// The text of `//!` comments.
fn doc_text(doc: &str) -> String {
    doc.lines()
        .map(|line| {
            let line = line.trim_start().trim_start_matches("//!");
            line.strip_prefix(' ').unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scripting::effects::Code;
    use crate::scripting::effects::Request;
    use crate::scripting::fake_world::{
        FakeWorld, compile, execute_with, id, limits, mistakes, returned, soon,
    };

    fn failed_with(ended: Ended) -> ScriptError {
        match ended {
            Ended::Failed(error) => error,
            Ended::Returned(_) | Ended::Interrupted(_) => panic!("{ended:?}"),
        }
    }

    #[test]
    fn handlers_and_scripts_are_listed_in_order() {
        let set = compile(&[(
            "pay/weekly.rhai",
            "//! Pays.\n//! Weekly.\n\nschedule(\"pay\", \"0 9 * * 1\", |tick| { });\non(\"a.b\", |event| { });",
        )]);
        assert_eq!(set.scripts()[0].doc, "Pays.\nWeekly.");
        assert_eq!(
            set.scripts()[0].handlers,
            [id("pay/weekly", "pay"), id("pay/weekly", "a.b")]
        );
        let lines: Vec<usize> = set.handlers().iter().map(|handler| handler.line).collect();
        assert_eq!(lines, [4, 5]);
    }

    #[test]
    fn money_is_exact() {
        let world = FakeWorld::new();
        assert_eq!(returned(&world, "0.1 + 0.2 == 0.3"), json!(true));
        assert_eq!(returned(&world, "1.10").to_string(), "1.10");
        assert_eq!(
            returned(
                &world,
                "state::add(\"a\", 0.1); state::add(\"a\", \"0.20\")"
            )
            .to_string(),
            "0.30"
        );
    }

    #[test]
    fn a_loop_without_an_end_is_interrupted_at_its_deadline_and_cannot_catch_that() {
        for body in [
            "while true {}",
            "while true { try { while true {} } catch { } }",
            "let a = []; a.pad(9000, 1); let b = a; let c = a; a.map(|x| { b.map(|y| { c.map(|z| 0); 0 }); 0 });",
        ] {
            let script = format!("on(\"e\", |event| {{ {body} }});");
            let mut unlimited = limits();
            unlimited.operations = 0;
            let sources = Sources::from_iter([("t.rhai".to_owned(), script)]);
            let set = ScriptSet::compile(sources, &unlimited, &Known::default()).unwrap();
            let deadline = current::instant() + Duration::from_millis(30);
            let ended = set.execute(&id("t", "e"), json!({}), FakeWorld::new(), deadline);
            assert_eq!(ended, Ended::Interrupted(Interrupt::Deadline), "{body}");
        }
    }

    #[test]
    fn operations_are_counted_across_closures() {
        let body = "let a = []; a.pad(9000, 1); let b = a; a.map(|x| { b.map(|y| 0); 0 }); 1";
        let error = failed_with(execute_with(&FakeWorld::new(), body, &json!({})));
        let text = error.diagnostic.to_string();
        assert!(text.contains("scripts.limits.operations"), "{text}");
        assert_eq!(error.failure, None);
    }

    #[test]
    fn a_handler_that_ends_after_its_deadline_is_interrupted() {
        let set = compile(&[("t.rhai", "on(\"e\", |event| { 1 });")]);
        let past = current::instant();
        let ended = set.execute(&id("t", "e"), json!({}), FakeWorld::new(), past);
        assert_eq!(ended, Ended::Interrupted(Interrupt::Deadline));
    }

    #[test]
    fn a_failure_can_be_caught_and_an_interrupt_cannot() {
        let world = FakeWorld::new();
        let caught = returned(
            &world,
            "let caught = (); try { gateway::withdraw(#{ foreign_id: \"rejected\" }) }
             catch (error) { caught = [error.code, error.errors.amount, error.message] } caught",
        );
        assert_eq!(
            caught,
            json!([
                "gateway_rejected",
                "too small",
                "the gateway refused the withdrawal"
            ])
        );
        let body = "try { gateway::withdraw(#{ foreign_id: \"diverged\" }); } catch { }
                    log::info(\"after\");";
        let ended = execute_with(&world, body, &json!({}));
        assert!(matches!(
            ended,
            Ended::Interrupted(Interrupt::Diverged { .. })
        ));
        assert_eq!(world.logged(), Vec::<String>::new());
    }

    #[test]
    fn an_uncaught_failure_keeps_its_code_details_and_place() {
        let body = "let x = 1;\nhttp::get(\"https://down.example/\");";
        let error = failed_with(execute_with(&FakeWorld::new(), body, &json!({})));
        assert_eq!(error.failure.unwrap().code, Code::HttpUnavailable);
        assert_eq!(error.diagnostic.location().unwrap(), "t.rhai:3:7");
        let body =
            "try { gateway::withdraw(#{ foreign_id: \"rejected\" }) } catch (e) { throw e; }";
        let error = failed_with(execute_with(&FakeWorld::new(), body, &json!({})));
        let failure = error.failure.unwrap();
        assert_eq!(failure.code, Code::GatewayRejected);
        assert_eq!(failure.details, json!({"errors": {"amount": "too small"}}));
    }

    #[test]
    fn an_error_in_a_called_function_is_shown_where_it_is() {
        let set = compile(&[
            (
                "lib/x.rhai",
                "fn half(n) {\n    let zero = 0;\n    n / zero\n}",
            ),
            (
                "t.rhai",
                "import \"lib/x\" as x;\n\non(\"e\", |event| {\n    x::half(3)\n});",
            ),
        ]);
        let error = failed_with(set.execute(&id("t", "e"), json!({}), FakeWorld::new(), soon()));
        assert_eq!(error.diagnostic.location().unwrap(), "lib/x.rhai:3:7");
        assert!(
            error.diagnostic.to_string().contains("n / zero"),
            "{}",
            error.diagnostic
        );
    }

    #[test]
    fn captured_variables_carry_nothing_from_run_to_run() {
        let counting = "let n = 0; on(\"e\", |event| { n += 1; n });";
        let in_a_block = "{ let n = 0; on(\"e\", |event| { n += 1; n }); }";
        let in_a_constant =
            "let n = 0; const F = || { n += 1; n }; on(\"e\", |event| call(global::F));";
        let in_a_module = "import \"lib/m\" as m; on(\"e\", |event| m::count());";
        for script in [counting, in_a_block, in_a_constant, in_a_module] {
            let set = compile(&[
                (
                    "lib/m.rhai",
                    "let n = 0; const F = || { n += 1; n }; fn count() { call(global::F) }",
                ),
                ("t.rhai", script),
            ]);
            for _ in 0..3 {
                let ended = set.execute(&id("t", "e"), json!({}), FakeWorld::new(), soon());
                assert_eq!(ended, Ended::Returned(json!(1)), "{script}");
            }
        }
    }

    #[test]
    fn runs_on_several_threads_do_not_see_each_other() {
        let set = compile(&[(
            "t.rhai",
            "let n = 0; on(\"e\", |event| { for i in range(0, 50) { n += event.by; } n });",
        )]);
        std::thread::scope(|scope| {
            for by in 1..=4 {
                let set = &set;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let input = json!({ "by": by });
                        let ended = set.execute(&id("t", "e"), input, FakeWorld::new(), soon());
                        assert_eq!(ended, Ended::Returned(json!(50 * by)));
                    }
                });
            }
        });
    }

    #[test]
    fn handlers_see_constants_functions_and_imports_of_their_script() {
        let set = compile(&[
            ("lib/x.rhai", "const RATE = 2; fn twice(n) { n * global::RATE }"),
            (
                "t.rhai",
                "import \"lib/x\" as x; const FEE = 0.5; fn with_fee(n) { x::twice(n) + global::FEE }
                 on(\"e\", |event| [event.n].map(|n| with_fee(n))[0] + x::twice(1));",
            ),
        ]);
        let ended = set.execute(&id("t", "e"), json!({"n": 3}), FakeWorld::new(), soon());
        assert_eq!(ended, Ended::Returned(serde_json::from_str("8.5").unwrap()));
    }

    #[test]
    fn a_step_knows_its_file_and_line() {
        let world = FakeWorld::new();
        let set = compile(&[
            ("lib/x.rhai", "\n\nfn say(text) { log::info(text); }"),
            (
                "t.rhai",
                "import \"lib/x\" as x;\non(\"e\", |event| {\n  x::say(\"a\");\n  [1].for_each(|| \n log::info(this));\n print(2);\n});",
            ),
        ]);
        let ended = set.execute(
            &id("t", "e"),
            json!({}),
            Arc::<FakeWorld>::clone(&world),
            soon(),
        );
        assert!(matches!(ended, Ended::Returned(_)), "{ended:?}");
        assert_eq!(world.sites(), ["lib/x.rhai:3", "t.rhai:5", "t.rhai:6"]);
    }

    #[test]
    fn recursion_ends_at_the_limit_and_harms_nobody() {
        let set = compile(&[("t.rhai", "fn f(n) { f(n + 1) } on(\"e\", |event| f(0));")]);
        let error = failed_with(set.execute(&id("t", "e"), json!({}), FakeWorld::new(), soon()));
        assert!(
            error
                .diagnostic
                .to_string()
                .contains("scripts.limits.call_depth")
        );
    }

    #[test]
    fn once_runs_its_closure_once_and_not_again() {
        let world = FakeWorld::new();
        let body = "once(\"k\", || { log::info(\"ran\"); #{ paid: 1.50 } }).paid";
        assert_eq!(returned(&world, body).to_string(), "1.50");
        assert_eq!(returned(&world, body).to_string(), "1.50");
        assert_eq!(world.logged(), ["ran"]);
        let failing = "once(\"f\", || throw \"no\")";
        failed_with(execute_with(&world, failing, &json!({})));
        assert!(
            !world
                .asked()
                .iter()
                .any(|r| matches!(r, Request::OnceEnd { key, .. } if key == "f"))
        );
    }

    #[test]
    fn one_mistake_anywhere_refuses_the_whole_set() {
        let text = mistakes(&[
            ("a.rhai", "on(\"e\", |event| { });"),
            ("b.rhai", "on(\"e\", |event| { missing(1); });"),
            ("c.rhai", "on(\"e\", |event| { gateway::withdrw(#{}); });"),
            ("d.rhai", "import \"lib/broken\" as x;"),
            ("lib/broken.rhai", "fn f( {"),
        ]);
        assert_eq!(text.matches("error: ").count(), 3, "{text}");
        assert!(
            text.contains("b.rhai:1:19") && text.contains("c.rhai:1:"),
            "{text}"
        );
    }

    const PAYROLL: &str = r#"//! Pays every row of payouts.csv at 09:00 Berlin time on working days.

schedule("payroll", "0 9 * * MON-FRI", #{ timezone: "Europe/Berlin" }, |tick| {
    let rows = csv::read("payouts.csv");
    let payments = gateway::withdraw_all(rows.map(|row| #{
        foreign_id: `payroll-${tick.date}-${row.id}`,
        currency: row.currency,
        amount: row.amount,
        address: row.address,
        end_user_reference: row.customer,
        receiver_type: "natural",
        receiver_data: #{ first_name: row.first_name, last_name: row.last_name, date_of_birth: row.born },
    }));
    log::info(`${payments.len()} sent`);
});"#;

    const HOOKS: &str = r#"on("withdrawal.cancelled", |event| {
    log::error(`payout ${event.foreign_id} was cancelled: ${event.error}`);
});

on("deposit.confirmed", |event| {
    let credited = event.currency_received.amount_minus_fee;       // an exact decimal
    state::add(`balance/${event.crypto_address.foreign_id}`, credited);
    http::post("https://shop.example/credit", #{ customer: event.crypto_address.foreign_id, amount: credited });
});"#;

    #[test]
    fn a_batch_from_a_table_pays_every_row_exactly() {
        let table = "id,currency,amount,address,customer,first_name,last_name,born\n\
                     7,BTC,0.10000000,tb1q,c-7,Ann,Müller,1990-01-02\n\
                     8,EUR,12.5,x,c-8,Bob,Roe,1991-01-02\n";
        let world = FakeWorld::new().with_file("payouts.csv", table);
        let set = compile(&[("payouts.rhai", PAYROLL)]);
        let effects = Arc::<FakeWorld>::clone(&world);
        let tick = json!({"date": "2026-11-23"});
        let ended = set.execute(&id("payouts", "payroll"), tick, effects, soon());
        assert!(matches!(ended, Ended::Returned(_)), "{ended:?}");
        let asked = world.asked();
        let Some(Request::PayAll {
            payments,
            concurrency: None,
            approve: false,
        }) = asked.get(1)
        else {
            panic!("{asked:?}");
        };
        assert_eq!(payments[0]["foreign_id"], "payroll-2026-11-23-7");
        assert_eq!(payments[0]["amount"], "0.10000000");
        assert_eq!(payments[1]["receiver_data"]["first_name"], "Bob");
        assert_eq!(world.logged(), ["2 sent"]);
    }

    #[test]
    fn a_callback_hook_credits_the_exact_amount_and_tells_the_shop() {
        let world = FakeWorld::new();
        let set = compile(&[("hooks.rhai", HOOKS)]);
        let event: Value = serde_json::from_str(
            r#"{"crypto_address": {"foreign_id": "c-7"}, "currency_received": {"amount_minus_fee": 0.10}}"#,
        )
        .unwrap();
        for _ in 0..3 {
            let effects = Arc::<FakeWorld>::clone(&world);
            let ended = set.execute(
                &id("hooks", "deposit.confirmed"),
                event.clone(),
                effects,
                soon(),
            );
            assert!(matches!(ended, Ended::Returned(_)), "{ended:?}");
        }
        assert_eq!(world.state("balance/c-7").unwrap().to_string(), "0.30");
        let asked = world.asked();
        let Some(Request::Http(request)) = asked.get(1) else {
            panic!("{asked:?}");
        };
        assert_eq!(
            request.body.as_ref().unwrap().to_string(),
            r#"{"amount":0.10,"customer":"c-7"}"#
        );
    }
}
