//! What is being executed on this thread: the way from a function that a script calls to the
//! effects, the deadline and the registrations of that execution.
//!
//! Rhai hands none of this to its progress callback, hence a thread-local. Executions nest (a
//! simulated world may execute a handler inside a step), so entering returns a guard that puts
//! back what was there.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use rhai::{Dynamic, EvalAltResult, Map, NativeCallContext, Position};
use serde_json::Value;

use super::effects::{Code, Effects, Failure, Interrupt, Request, Site, Stop};
use super::json;
use super::registration::Registered;

/// How many operations pass between two looks at the clock: looking at each costs 60 % more.
const OPERATIONS_BETWEEN_LOOKS: u64 = 256;

/// Result of a function that a script calls.
pub(super) type Called<T> = Result<T, Box<EvalAltResult>>;

/// Why an execution ended without the script having a say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    /// See there.
    Interrupt(Interrupt),
    /// `scripts.limits.operations` are used up.
    TooManyOperations,
}

/// One execution: of a top level, or of a handler.
pub(super) struct Current {
    /// `None` while a top level is evaluated.
    effects: Option<Arc<dyn Effects>>,
    deadline: Instant,
    operations: u64,
    max_operations: u64,
    end: Option<End>,
    registered: Vec<Registered>,
    importing: Vec<String>,
    imported_state: bool,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Puts back, when dropped, what was being executed before.
pub(super) struct Entered {
    previous: Option<Current>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let previous = self.previous.take();
        CURRENT.with_borrow_mut(|current| *current = previous);
    }
}

impl Entered {
    /// Gives the execution its effects: from here on, the handler runs.
    #[expect(
        clippy::unused_self,
        reason = "only who has entered an execution may change it"
    )]
    pub(super) fn run(&self, effects: Arc<dyn Effects>) {
        with(|current| current.effects = Some(effects));
    }

    /// What the top level has registered so far, and whether it imported a module that keeps
    /// state in captured variables.
    #[expect(
        clippy::unused_self,
        reason = "only who has entered an execution may change it"
    )]
    pub(super) fn take_registered(&self) -> (Vec<Registered>, bool) {
        with(|current| {
            (
                std::mem::take(&mut current.registered),
                current.imported_state,
            )
        })
        .unwrap_or_default()
    }

    /// Why the execution is over, if it is. The deadline is looked at once more, since the last
    /// operations may have passed without a look.
    #[expect(
        clippy::unused_self,
        reason = "only who has entered an execution may change it"
    )]
    pub(super) fn end(&self) -> Option<End> {
        with(Current::look_at_the_clock).flatten()
    }
}

/// Starts the execution of a top level on this thread.
pub(super) fn enter(deadline: Instant, max_operations: u64) -> Entered {
    let current = Current {
        effects: None,
        deadline,
        operations: 0,
        max_operations,
        end: None,
        registered: Vec::new(),
        importing: Vec::new(),
        imported_state: false,
    };
    Entered {
        previous: CURRENT.with_borrow_mut(|slot| slot.replace(current)),
    }
}

/// The instant used for deadlines.
#[expect(
    clippy::disallowed_methods,
    reason = "a deadline on a thread of its own, outside of tokio's time"
)]
pub(super) fn instant() -> Instant {
    Instant::now()
}

impl Current {
    fn look_at_the_clock(&mut self) -> Option<End> {
        if self.end.is_none() && instant() >= self.deadline {
            self.end = Some(End::Interrupt(Interrupt::Deadline));
        }
        self.end.clone()
    }
}

fn with<T>(f: impl FnOnce(&mut Current) -> T) -> Option<T> {
    CURRENT.with_borrow_mut(|current| current.as_mut().map(f))
}

/// Called for every operation. Counts on its own: Rhai's number starts again in every closure, so
/// a closure called from a native loop would never come by a multiple of anything.
pub(super) fn on_operation() -> Option<Dynamic> {
    with(|current| {
        current.operations += 1;
        if current.max_operations > 0 && current.operations > current.max_operations {
            current.end.get_or_insert(End::TooManyOperations);
        } else if current.operations.is_multiple_of(OPERATIONS_BETWEEN_LOOKS) {
            current.look_at_the_clock();
        }
        current.end.is_some().then_some(Dynamic::UNIT)
    })
    .flatten()
}

#[expect(
    clippy::unnecessary_box_returns,
    reason = "Rhai passes its errors on in boxes"
)]
fn terminated(position: Position) -> Box<EvalAltResult> {
    EvalAltResult::ErrorTerminated(Dynamic::UNIT, position).into()
}

/// Where in a script the function was called.
pub(super) fn site(context: &NativeCallContext) -> Site {
    Site {
        file: context.call_source().unwrap_or_default().to_owned(),
        line: context.call_position().line().unwrap_or(1),
    }
}

/// An error that the script can catch.
#[expect(
    clippy::unnecessary_box_returns,
    reason = "Rhai passes its errors on in boxes"
)]
pub(super) fn failure(failure: Failure) -> Box<EvalAltResult> {
    let mut map = match json::to_dynamic(failure.details).map(Dynamic::try_cast::<Map>) {
        Ok(Some(details)) => details,
        Ok(None) | Err(_) => Map::new(),
    };
    map.insert("code".into(), failure.code.as_str().into());
    map.insert("message".into(), failure.message.into());
    EvalAltResult::ErrorRuntime(Dynamic::from_map(map), Position::NONE).into()
}

/// The catchable error for arguments that cannot be meant.
#[expect(
    clippy::unnecessary_box_returns,
    reason = "Rhai passes its errors on in boxes"
)]
pub(super) fn invalid(message: impl Into<String>) -> Box<EvalAltResult> {
    failure(Failure::new(Code::InvalidArgument, message))
}

/// Says where a function was called, for an error that does not say so yet. Rhai does this for
/// functions without a namespace only.
pub(super) fn placed<T>(context: &NativeCallContext, called: Called<T>) -> Called<T> {
    called.map_err(|mut error| {
        if error.position().is_none() {
            error.set_position(context.call_position());
        }
        error
    })
}

/// Refuses whatever only a handler may do while a top level is evaluated.
fn effects(name: &str) -> Called<Arc<dyn Effects>> {
    let state = with(
        |current| match (&current.effects, current.importing.last()) {
            (Some(effects), None) => Ok(Arc::clone(effects)),
            (_, Some(module)) => Err(format!(
                "`{name}` cannot be called at the top level of {module}; call it in a function"
            )),
            (None, None) => Err(format!(
                "`{name}` cannot be called at the top level, which only registers; call it in a handler"
            )),
        },
    );
    match state {
        Some(Ok(effects)) => Ok(effects),
        Some(Err(message)) => Err(message.into()),
        None => Err(format!("`{name}` was called outside of an execution").into()),
    }
}

/// Asks for one step. `name` is the function as the script calls it.
pub(super) fn step(context: &NativeCallContext, name: &str, request: Request) -> Called<Value> {
    let effects = effects(name)?;
    let position = context.call_position();
    let over = || with(Current::look_at_the_clock).flatten().is_some();
    if over() {
        return Err(terminated(position));
    }
    let outcome = effects.perform(request, &site(context));
    if let Err(Stop::Interrupt(interrupt)) = outcome {
        with(|current| current.end.get_or_insert(End::Interrupt(interrupt)).clone());
        return Err(terminated(position));
    }
    if over() {
        return Err(terminated(position));
    }
    match outcome {
        Ok(value) => Ok(value),
        Err(Stop::Failure(reason)) => Err(failure(reason)),
        Err(Stop::Interrupt(_)) => Err(terminated(position)),
    }
}

/// Says that the closure of the innermost `once` has failed.
pub(super) fn once_failed() {
    if let Some(effects) = with(|current| current.effects.clone()).flatten() {
        effects.once_failed();
    }
}

/// Asks for one step and makes a script's value of the answer.
pub(super) fn step_value(
    context: &NativeCallContext,
    name: &str,
    request: Request,
) -> Called<Dynamic> {
    let value = step(context, name, request)?;
    json::to_dynamic(value).map_err(|message| {
        failure(Failure::new(
            Code::InvalidData,
            format!("{name}: {message}"),
        ))
    })
}

/// Makes JSON of an argument.
pub(super) fn argument(name: &str, value: &Dynamic) -> Called<Value> {
    json::from_dynamic(value).map_err(|message| invalid(format!("{name}: {message}")))
}

/// Keeps a registration, or says why none is possible here.
pub(super) fn register(registered: Registered, name: &str) -> Called<()> {
    with(|current| {
        if let Some(module) = current.importing.last() {
            return Err(format!(
                "`{name}` cannot be called in {module}, which is imported: only scripts that nobody \
                 imports register handlers"
            ));
        }
        if current.effects.is_some() {
            return Err(format!(
                "`{name}` can only be called at the top level of a script, not in a handler"
            ));
        }
        current.registered.push(registered);
        Ok(())
    })
    .unwrap_or_else(|| Err(format!("`{name}` was called outside of an execution")))
    .map_err(Into::into)
}

/// Notes that the top level of a module is being evaluated; answers `false` when it already is,
/// that is, when modules import each other in a circle.
pub(super) fn begin_import(file: &str) -> bool {
    with(|current| {
        let fresh = !current.importing.iter().any(|importing| importing == file);
        if fresh {
            current.importing.push(file.to_owned());
        }
        fresh
    })
    .unwrap_or(true)
}

/// Notes that a module is evaluated, and whether it keeps state in captured variables.
pub(super) fn end_import(keeps_state: bool) {
    with(|current| {
        current.importing.pop();
        current.imported_state |= keeps_state;
    });
}
