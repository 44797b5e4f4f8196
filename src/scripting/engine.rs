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
use rhai::{Engine, OptimizationLevel};

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
/// A map's missing property is an error, since a misspelt one would otherwise be sent as null.
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
        .on_progress(|_| current::on_operation());
    engine.set_module_resolver(ModuleJail::new(sources.clone()));
    api::add_to(&mut engine, secrets);
    engine
}
