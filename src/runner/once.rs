//! `once`: which run may execute a closure, and which steps belong to it.
//!
//! Within this process a lock keeps other runs out of a closure that is being executed. A claim,
//! written together with the first step in it that is durable, keeps them out while the run that
//! began it is going to go on with it: after a restart, or when it is tried again. The claim ends
//! with the closure, or with the run.

use serde_json::Value;

use super::buffer::OnceKey;
use super::key_locks::KeyGuard;
use super::unwritten::find;
use super::world::{Progress, World};
use crate::domain::id::RunId;
use crate::domain::run::Outcome;
use crate::scripting::effects::{Code, Failure, Interrupt, Request, Stop};
use crate::store::ReadError;
use crate::store::schema::{ONCE, ONCE_CLAIMS};

/// A `once` closure that is being executed.
pub(super) struct OnceScope {
    pub(super) key: String,
    /// The step that follows its beginning.
    pub(super) first_step: u64,
    /// Why nothing new may be done in it, when its beginning was answered from the journal and it
    /// is not this run's any more.
    lost: Option<String>,
    /// Keeps other runs out of it.
    _guard: KeyGuard<OnceKey>,
}

impl World {
    /// Begins a closure; answers the recorded value in a list when there is one.
    pub(super) fn begin_once(
        &self,
        progress: &mut Progress,
        step: u64,
        key: String,
    ) -> Result<Value, Stop> {
        if progress.once.iter().any(|scope| scope.key == key) {
            let text = format!("`once(\"{key}\")` is called inside of itself");
            return Err(Failure::new(Code::InvalidArgument, text).into());
        }
        let scope = (self.run.handler.script.clone(), key);
        let guard = self.wait(self.context.once_locks.lock(&scope))?;
        let store = &self.context.store;
        let found = store.get(&ONCE, &scope);
        if let Some(value) = found.map_err(|error| self.unreadable(&error))? {
            return Ok(Value::Array(vec![value]));
        }
        let claim = store
            .get_versioned(&ONCE_CLAIMS, &scope)
            .map_err(|error| self.unreadable(&error))?;
        if let Some(claim) = &claim
            && self
                .will_go_on(claim.value)
                .map_err(|error| self.unreadable(&error))?
        {
            let text = format!(
                "`once(\"{}\")` was begun by the run {}, which has not ended yet",
                scope.1, claim.value
            );
            return Err(Failure::new(Code::Timeout, text).into());
        }
        progress.buffer.claim_once(scope.clone(), claim);
        enter(progress, step, scope.1, None, guard);
        Ok(Value::Null)
    }

    /// A closure that this execution is inside of keeps other runs out, also when its beginning was
    /// answered from the journal.
    pub(super) fn reenter_once(
        &self,
        progress: &mut Progress,
        step: u64,
        request: &Request,
        outcome: &Outcome,
    ) -> Result<(), Stop> {
        if let Request::OnceBegin { key } = request
            && *outcome == Outcome::Value(Value::Null)
        {
            let scope = (self.run.handler.script.clone(), key.clone());
            let guard = self.wait(self.context.once_locks.lock(&scope))?;
            let lost = self.lost(&scope).map_err(|error| self.unreadable(&error))?;
            enter(progress, step, scope.1, lost, guard);
        }
        if matches!(request, Request::OnceEnd { .. }) {
            progress.once.pop();
        }
        Ok(())
    }

    /// Whether a closure that this run has begun is not its own any more: a run's claim ends when
    /// it is parked, and others may have begun or finished the closure before a person let this
    /// one go on.
    fn lost(&self, scope: &OnceKey) -> Result<Option<String>, ReadError> {
        let store = &self.context.store;
        let (key, what) = (&scope.1, "this run had begun");
        let advice = "cancel this run, or put right by hand what is left of it";
        if store.get(&ONCE, scope)?.is_some() {
            return Ok(Some(format!(
                "`once(\"{key}\")`, which {what}, has meanwhile been finished by another run, and must not be executed twice: {advice}"
            )));
        }
        let claim = store.get(&ONCE_CLAIMS, scope)?;
        Ok(match claim {
            Some(run) if run == self.run.id => None,
            Some(run) => Some(format!(
                "`once(\"{key}\")`, which {what}, has meanwhile been begun by the run {run}, and must not be executed twice: {advice}"
            )),
            None => Some(format!(
                "`once(\"{key}\")`, which {what}, is claimed by no run any more, and must not be executed twice: {advice}"
            )),
        })
    }

    /// Refuses a new step inside of a closure that is not this run's any more. Recorded steps are
    /// answered there as everywhere.
    pub(super) fn check_once(progress: &Progress) -> Result<(), Stop> {
        let lost = progress.once.iter().find_map(|scope| scope.lost.clone());
        lost.map_or(Ok(()), |reason| {
            Err(Stop::Interrupt(Interrupt::OnceLost(reason)))
        })
    }

    /// The innermost closure has failed: what follows is not part of it.
    pub(super) fn leave_once(&self) {
        self.progress().once.pop();
    }

    /// Whether another run is still open.
    fn will_go_on(&self, run: RunId) -> Result<bool, ReadError> {
        if run == self.run.id {
            return Ok(false);
        }
        let found = find(&self.context, run)?;
        Ok(found.is_some_and(|found| !found.run.state.is_closed()))
    }
}

fn enter(
    progress: &mut Progress,
    step: u64,
    key: String,
    lost: Option<String>,
    guard: KeyGuard<OnceKey>,
) {
    progress.once.push(OnceScope {
        key,
        first_step: step.saturating_add(1),
        lost,
        _guard: guard,
    });
}
