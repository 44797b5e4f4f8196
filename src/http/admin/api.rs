//! The JSON API below `/api/v1`: the runner's views, firing a schedule by hand, letting runs go on
//! and ending them, and backups.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Admin;
use super::failure::Failure;
use super::filters::{self, List};
use crate::domain::clock::Timestamp;
use crate::domain::run::Run;
use crate::http::body;
use crate::runner::{Handle, NotChanged, NotFired, ViewError};

/// The largest body of a request.
const LARGEST_BODY: u64 = 64 * 1024;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) type Shown = Result<Json<Value>, Failure>;

/// The rest of the path, decoded; keys may have slashes, encoded or not.
type Named = Result<Path<String>, PathRejection>;

pub(super) async fn overview(State(admin): State<Admin>) -> Shown {
    view(admin, |handle| Ok(handle.overview())).await
}

pub(super) async fn runs(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Shown {
    let filter = filters::read(List::Runs, query.as_deref(), admin.handle.now())?;
    view(admin, move |handle| handle.runs(&filter)).await
}

pub(super) async fn run(State(admin): State<Admin>, id: Named) -> Shown {
    let Path(id) = id?;
    view(admin, move |handle| handle.run(&id)).await
}

pub(super) async fn run_logs(State(admin): State<Admin>, id: Named) -> Shown {
    let Path(id) = id?;
    view(admin, move |handle| handle.run_logs(&id)).await
}

pub(super) async fn payments(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Shown {
    let filter = filters::read(List::Payments, query.as_deref(), admin.handle.now())?;
    view(admin, move |handle| handle.payments(&filter)).await
}

pub(super) async fn payment(State(admin): State<Admin>, id: Named) -> Shown {
    let Path(id) = id?;
    view(admin, move |handle| handle.payment(&id)).await
}

pub(super) async fn batches(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Shown {
    let filter = filters::read(List::Batches, query.as_deref(), admin.handle.now())?;
    view(admin, move |handle| handle.batches(&filter)).await
}

pub(super) async fn batch(State(admin): State<Admin>, id: Named) -> Shown {
    let Path(id) = id?;
    view(admin, move |handle| handle.batch(&id)).await
}

pub(super) async fn why(State(admin): State<Admin>, id: Named) -> Shown {
    let Path(id) = id?;
    view(admin, move |handle| handle.why(&id)).await
}

pub(super) async fn callbacks(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Shown {
    let filter = filters::read(List::Callbacks, query.as_deref(), admin.handle.now())?;
    view(admin, move |handle| handle.callbacks(&filter)).await
}

pub(super) async fn callback(State(admin): State<Admin>, id: Named) -> Shown {
    let Path(id) = id?;
    view(admin, move |handle| handle.callback(&id)).await
}

pub(super) async fn schedules(State(admin): State<Admin>) -> Shown {
    view(admin, Handle::schedules).await
}

pub(super) async fn slot_history(
    State(admin): State<Admin>,
    name: Named,
    RawQuery(query): RawQuery,
) -> Shown {
    let Path(name) = name?;
    let filter = filters::read(List::Slots, query.as_deref(), admin.handle.now())?;
    view(admin, move |handle| {
        handle.slot_history(&name, filter.limit)
    })
    .await
}

pub(super) async fn scripts(State(admin): State<Admin>) -> Shown {
    view(admin, |handle| Ok(handle.scripts())).await
}

/// Asks the runner for a view, on a thread that may wait for the disk.
pub(super) async fn view<F>(admin: Admin, ask: F) -> Shown
where
    F: FnOnce(&Handle) -> Result<Value, ViewError> + Send + 'static,
{
    let Admin { handle, telemetry } = admin;
    match tokio::task::spawn_blocking(move || ask(&handle)).await {
        Ok(Ok(value)) => Ok(Json(value)),
        Ok(Err(
            error @ (ViewError::NotFound { .. }
            | ViewError::Unknown { .. }
            | ViewError::Schedule(_)),
        )) => Err(Failure::not_found(error.to_string())),
        Ok(Err(ViewError::Read(error))) => {
            telemetry.admin_request_failed(&error);
            Err(Failure::internal())
        }
        Err(error) => {
            telemetry.admin_request_failed(&error);
            Err(Failure::internal())
        }
    }
}

/// Which schedule to fire.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    script: String,
    name: String,
    at: Option<Timestamp>,
}

/// Fires a schedule. The run is on disk when this answers `{"run": ID}`.
pub(super) async fn trigger(State(admin): State<Admin>, request: Request) -> Shown {
    let wanted: Wanted = read_json(request, r#"{"script", "name", "at"?}"#).await?;
    // A task of its own, as for callbacks: what has begun must come to its end.
    let handle = admin.handle;
    let fired = tokio::spawn(async move {
        let Wanted { script, name, at } = wanted;
        handle.trigger(&script, &name, at).await
    });
    match fired.await {
        Ok(Ok(run)) => Ok(Json(json!({"run": run}))),
        Ok(Err(error @ NotFired::Unknown { .. })) => Err(Failure::not_found(error.to_string())),
        Ok(Err(NotFired::Commit(error))) => {
            admin.telemetry.admin_request_failed(&error);
            Err(Failure::not_ready("store", error.to_string()))
        }
        Err(error) => {
            admin.telemetry.admin_request_failed(&error);
            Err(Failure::internal())
        }
    }
}

/// How to go on with a parked run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    #[serde(default)]
    latest: bool,
}

/// Lets a parked run go on. That is on disk when this answers `{"run", "state", "set"}`.
pub(super) async fn retry(State(admin): State<Admin>, id: Named, request: Request) -> Shown {
    let Path(id) = id?;
    let Retry { latest } = read_json(request, r#"{"latest"?}"#).await?;
    let handle = admin.handle.clone();
    let run = changed(
        &admin,
        tokio::spawn(async move { handle.retry(&id, latest).await }),
    )
    .await?;
    Ok(Json(
        json!({"run": run.id, "state": run.state, "set": run.set.short()}),
    ))
}

/// What ending a run takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {}

/// Ends a run. Answers `{"run", "state", "note"}`: `cancelled` is on disk; `running` ends at its
/// next step.
pub(super) async fn cancel(State(admin): State<Admin>, id: Named, request: Request) -> Shown {
    let Path(id) = id?;
    let Cancel {} = read_json(request, "{}").await?;
    let handle = admin.handle.clone();
    let run = changed(
        &admin,
        tokio::spawn(async move { handle.cancel(&id).await }),
    )
    .await?;
    let note = "payments that the run has made are not called off";
    Ok(Json(
        json!({"run": run.id, "state": run.state, "note": note}),
    ))
}

/// Waits for a change that was asked for. It is a task of its own: what has begun must come to its
/// end, also when the caller goes away.
async fn changed(
    admin: &Admin,
    task: tokio::task::JoinHandle<Result<Run, NotChanged>>,
) -> Result<Run, Failure> {
    let error = match task.await {
        Ok(Ok(run)) => return Ok(run),
        Ok(Err(error)) => error,
        Err(error) => {
            admin.telemetry.admin_request_failed(&error);
            return Err(Failure::internal());
        }
    };
    let message = error.to_string();
    Err(match error {
        NotChanged::NotFound(_) => Failure::not_found(message),
        NotChanged::NotParked { .. } => Failure::conflict("not_parked", message),
        NotChanged::NoHandler { .. } => Failure::conflict("no_handler", message),
        NotChanged::Ended { .. } => Failure::conflict("ended", message),
        NotChanged::Stopping => Failure::not_ready("stopping", message),
        NotChanged::Commit(error) => {
            admin.telemetry.admin_request_failed(&error);
            Failure::not_ready("store", message)
        }
        NotChanged::Read(error) => {
            admin.telemetry.admin_request_failed(&error);
            Failure::internal()
        }
    })
}

/// Where to put a backup.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    dir: PathBuf,
}

/// Copies the store to a folder on the daemon's machine, absolute and empty or missing. The copy
/// is on disk and was read back when this answers; it goes on if the caller goes away.
pub(super) async fn backup(State(admin): State<Admin>, request: Request) -> Shown {
    let Target { dir } = read_json(request, r#"{"dir"}"#).await?;
    if !dir.is_absolute() {
        return Err(Failure::bad_request("`dir` must be an absolute path"));
    }
    let handle = admin.handle;
    match tokio::spawn(async move { handle.backup(&dir).await }).await {
        Ok(Ok(copied)) => Ok(Json(json!(copied))),
        Ok(Err(error)) => {
            // Whoever may make backups has to know what kept them from it.
            let cause = error.source().map(|cause| format!(": {cause}"));
            let message = format!("{error}{}", cause.unwrap_or_default());
            admin.telemetry.store_not_backed_up(&message);
            Err(Failure::no_backup(message))
        }
        Err(error) => {
            admin.telemetry.admin_request_failed(&error);
            Err(Failure::internal())
        }
    }
}

/// The body of a request that changes something; `shape` says what it must look like.
pub(super) async fn read_json<T: DeserializeOwned>(
    request: Request,
    shape: &str,
) -> Result<T, Failure> {
    let (head, body) = request.into_parts();
    if !is_json(&head.headers) {
        return Err(Failure::not_json());
    }
    let body = body::read(body, LARGEST_BODY, PATIENCE)
        .await
        .map_err(|error| Failure::bad_body(error.status()))?;
    serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request(format!("the body must be {shape}: {error}")))
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media = value.and_then(|value| value.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}
