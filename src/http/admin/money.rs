//! Stopping money and letting it go on. Who asks is on record with it.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::api::{Shown, read_json};
use super::failure::Failure;
use crate::domain::person::Person;
use crate::runner::Paused;

/// The pauses in force.
pub(super) async fn pauses(State(admin): State<Admin>) -> Shown {
    Ok(Json(json!({"pauses": admin.handle.pauses()})))
}

/// What to stop.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    script: Option<String>,
    reason: Option<String>,
}

/// Stops money. When this answers, no payment is marked as being sent any more, and that is on
/// disk. Answers `{"changed", "note", "pauses"}`.
pub(super) async fn pause(
    State(admin): State<Admin>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Shown {
    let Stop { script, reason } = read_json(request, r#"{"script"?, "reason"?}"#).await?;
    let handle = admin.handle.clone();
    // A task of its own: what has begun must come to its end, also when the caller goes away.
    let paused =
        tokio::spawn(async move { handle.pause(script.as_deref(), &person.name, reason).await });
    done(&admin, paused.await)
}

/// What to let go on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GoOn {
    script: Option<String>,
}

/// Lets money go on; on disk when this answers `{"changed", "note", "pauses"}`. What was stopped
/// is being sent then.
pub(super) async fn resume(
    State(admin): State<Admin>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Shown {
    let GoOn { script } = read_json(request, r#"{"script"?}"#).await?;
    let handle = admin.handle.clone();
    let resumed = tokio::spawn(async move { handle.resume(script.as_deref(), &person.name).await });
    done(&admin, resumed.await)
}

fn done<E: std::fmt::Display>(
    admin: &Admin,
    outcome: Result<Result<Paused, E>, tokio::task::JoinError>,
) -> Shown {
    match outcome {
        Ok(Ok(Paused { changed, note })) => {
            let pauses: Vec<Value> = admin.handle.pauses();
            Ok(Json(
                json!({"changed": changed, "note": note, "pauses": pauses}),
            ))
        }
        Ok(Err(error)) => {
            admin.telemetry.admin_request_failed(&error);
            Err(Failure::not_ready("store", error.to_string()))
        }
        Err(error) => {
            admin.telemetry.admin_request_failed(&error);
            Err(Failure::internal())
        }
    }
}
