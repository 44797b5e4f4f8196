//! The Rhai engine of one set of scripts: what the language offers, and its limits.
//!
//! One engine serves all executions of a set on all threads.

use std::collections::BTreeSet;
use std::sync::Arc;

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage,
    BasicMathPackage, BasicStringPackage, BitFieldPackage, LogicPackage, MoreStringPackage,
    Package,
};
use rhai::{Engine, LexError, OptimizationLevel, Token};
use rust_decimal::Decimal;

use super::api;
use super::current;
use super::module_jail::ModuleJail;
use super::sources::Sources;
use crate::config::Limits;

/// Expressions within each other: at the top level, and in functions. Together with
/// `scripts.limits.call_depth` this keeps an execution well below the 8 MB of its thread's stack;
/// overflowing it would abort the process.
const MAX_EXPRESSION_DEPTH: usize = 64;
const MAX_EXPRESSION_DEPTH_IN_FUNCTIONS: usize = 32;

/// The most variables in scope, functions in a script and modules imported in one execution.
const MAX_VARIABLES: usize = 1_000;
const MAX_FUNCTIONS: usize = 1_000;
const MAX_MODULES: usize = 200;

/// Builds the engine.
///
/// # Design
/// Rhai's packages are added one by one, to leave out what would make a run differ from its
/// replay or hold its thread: `sleep`, `timestamp`, and Rhai's own `parse_json`, which is less
/// exact than ours. String interning is off, since the interner is a lock that all threads take.
/// `curry` is off, since it doubles a value with every call without any limit noticing. A map's
/// missing property is an error, since a misspelt one would otherwise be sent as null.
pub(super) fn build(sources: &Sources, limits: &Limits, secrets: Arc<BTreeSet<String>>) -> Engine {
    let mut engine = Engine::new_raw();
    ArithmeticPackage::new().register_into_engine(&mut engine);
    LogicPackage::new().register_into_engine(&mut engine);
    BasicFnPackage::new().register_into_engine(&mut engine);
    BasicStringPackage::new().register_into_engine(&mut engine);
    BasicIteratorPackage::new().register_into_engine(&mut engine);
    BasicMathPackage::new().register_into_engine(&mut engine);
    BasicArrayPackage::new().register_into_engine(&mut engine);
    BasicMapPackage::new().register_into_engine(&mut engine);
    BitFieldPackage::new().register_into_engine(&mut engine);
    MoreStringPackage::new().register_into_engine(&mut engine);
    engine
        .set_max_strings_interned(0)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        .set_optimization_level(OptimizationLevel::Simple)
        .set_max_call_levels(limits.call_depth)
        .set_max_expr_depths(MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_DEPTH_IN_FUNCTIONS)
        .set_max_string_size(limits.string_size)
        .set_max_array_size(limits.array_size)
        .set_max_map_size(limits.map_size)
        .set_max_variables(MAX_VARIABLES)
        .set_max_functions(MAX_FUNCTIONS)
        .set_max_modules(MAX_MODULES)
        .disable_symbol("eval")
        .disable_symbol("curry")
        .on_progress(|_| current::on_operation());
    refuse_rounded_literals(&mut engine);
    engine.set_module_resolver(ModuleJail::new(sources.clone()));
    api::add_to(&mut engine, secrets);
    engine
}

/// Rhai rounds a literal with more decimals than it can hold; here it is a mistake.
#[expect(
    deprecated,
    reason = "not deprecated but volatile, says Rhai; there is no other way to see a literal's text"
)]
fn refuse_rounded_literals(engine: &mut Engine) {
    engine.on_parse_token(|token, _, _| {
        if let Token::DecimalConstant(literal) = &token
            && Decimal::from_str_exact(&literal.1).is_err()
        {
            let error = LexError::MalformedNumber(literal.1.to_string());
            return Token::LexError(error.into());
        }
        token
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripting::fake_world::{FakeWorld, limits, mistakes, returned};

    #[test]
    fn threads_do_not_share_the_lock_of_a_string_interner() {
        let engine = build(&Sources::default(), &limits(), Arc::default());
        assert_eq!(engine.max_strings_interned(), 0);
    }

    #[test]
    fn the_language_has_no_floats_clocks_or_eval() {
        for (body, expected) in [
            ("timestamp()", "there is no function `timestamp`"),
            ("parse_json(\"1\")", "there is no function `parse_json`"),
            ("1.to_float()", "there is no function `to_float`"),
            ("eval(\"1\")", "'eval' is disabled"),
            ("let f = || 1; f.curry(f)", "reserved word"),
        ] {
            let text = mistakes(&[("t.rhai", &format!("on(\"e\", |event| {{ {body}; }});"))]);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn decimals_behave_as_money_should() {
        let world = FakeWorld::new();
        for (expression, expected) in [
            ("0.1 + 0.2", "0.3"),
            ("1.10", "1.10"),
            ("5 / 2.0", "2.5"),
            ("1.00 == 1", "true"),
            ("#{ a: 1.10 }.to_json()", r#""{\"a\":1.10}""#),
            ("json::stringify([1.0, 1])", r#""[1.0,1]""#),
            ("json::parse(\"1e-8\")", "0.00000001"),
        ] {
            assert_eq!(returned(&world, expression).to_string(), expected);
        }
    }
}
