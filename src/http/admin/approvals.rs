//! What people decide about money: approve, reject, resolve; and who edited a script. Who asks is
//! on record with it.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::Admin;
use super::api::{Shown, read_json};
use super::failure::Failure;
use crate::domain::person::Person;
use crate::runner::NotDecided;

/// What is approved, and its hash as the person saw it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    payment: Option<String>,
    batch: Option<String>,
    hash: String,
}

/// A payment or a batch, by its key.
#[derive(Debug)]
enum What {
    Payment(String),
    Batch(String),
}

impl What {
    fn of(payment: Option<String>, batch: Option<String>) -> Result<Self, Failure> {
        match (payment, batch) {
            (Some(id), None) => Ok(Self::Payment(id)),
            (None, Some(id)) => Ok(Self::Batch(id)),
            (Some(_), Some(_)) | (None, None) => Err(Failure::bad_request(
                "the body must name either a `payment` or a `batch`",
            )),
        }
    }
}

/// Approves of a payment or a batch. On disk when this answers `{"status", "changed", "note"}`.
pub(super) async fn approve(
    State(admin): State<Admin>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Shown {
    let shape = r#"{"payment" or "batch", "hash"}"#;
    let Approve {
        payment,
        batch,
        hash,
    } = read_json(request, shape).await?;
    let what = What::of(payment, batch)?;
    let handle = admin.handle.clone();
    // A task of its own: what has begun must come to its end, also when the caller goes away.
    let by = person.name;
    let task = async move {
        match what {
            What::Payment(id) => handle.approve_payment(&id, &by, &hash).await,
            What::Batch(id) => handle.approve_batch(&id, &by, &hash).await,
        }
    };
    decided(&admin, tokio::spawn(task)).await
}

/// What is rejected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reject {
    payment: Option<String>,
    batch: Option<String>,
    reason: Option<String>,
}

/// Rejects a payment or a batch. On disk when this answers, as [`approve`].
pub(super) async fn reject(
    State(admin): State<Admin>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Shown {
    let shape = r#"{"payment" or "batch", "reason"?}"#;
    let Reject {
        payment,
        batch,
        reason,
    } = read_json(request, shape).await?;
    let what = What::of(payment, batch)?;
    let handle = admin.handle.clone();
    let task = async move {
        let (by, reason) = (&person.name, reason.as_deref());
        match what {
            What::Payment(id) => handle.reject_payment(&id, by, reason).await,
            What::Batch(id) => handle.reject_batch(&id, by, reason).await,
        }
    };
    decided(&admin, tokio::spawn(task)).await
}

/// What became of a payment whose fate nobody knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    payment: String,
    sent: bool,
    reason: Option<String>,
}

/// Takes a person's word for it. On disk when this answers, as [`approve`].
pub(super) async fn resolve(
    State(admin): State<Admin>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Shown {
    let shape = r#"{"payment", "sent", "reason"?}"#;
    let resolve: Resolve = read_json(request, shape).await?;
    let handle = admin.handle.clone();
    let task = async move {
        let reason = resolve.reason.as_deref();
        handle
            .resolve_payment(&resolve.payment, &person.name, resolve.sent, reason)
            .await
    };
    decided(&admin, tokio::spawn(task)).await
}

/// Which script was edited.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    script: String,
}

/// Notes that whoever asks edited the script last, in the version in use. On disk when this
/// answers `{"script", "version", "by", "at"}`.
pub(super) async fn edited(
    State(admin): State<Admin>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Shown {
    let Edited { script } = read_json(request, r#"{"script"}"#).await?;
    let handle = admin.handle.clone();
    let task = async move { handle.note_editor(&script, &person.name).await };
    decided(&admin, tokio::spawn(task)).await
}

async fn decided(admin: &Admin, task: JoinHandle<Result<Value, NotDecided>>) -> Shown {
    let error = match task.await {
        Ok(Ok(answer)) => return Ok(Json(answer)),
        Ok(Err(error)) => error,
        Err(error) => {
            admin.telemetry.admin_request_failed(&error);
            return Err(Failure::internal());
        }
    };
    let message = error.to_string();
    Err(match error {
        NotDecided::NotFound { .. } => Failure::not_found(message),
        NotDecided::TooLate { .. } => Failure::conflict("too_late", message),
        NotDecided::OtherHash { .. } => Failure::conflict("other_hash", message),
        NotDecided::ByEditor { .. } => Failure::conflict("by_editor", message),
        NotDecided::NoEditor { .. } => Failure::conflict("no_editor", message),
        NotDecided::Damaged(_) => Failure::conflict("damaged", message),
        NotDecided::Commit(error) => {
            admin.telemetry.admin_request_failed(&error);
            Failure::not_ready("store", message)
        }
        NotDecided::Read(error) => {
            admin.telemetry.admin_request_failed(&error);
            Failure::internal()
        }
    })
}
