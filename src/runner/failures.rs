//! What went wrong outside, as the errors that scripts can catch.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::payments::PayError;
use super::world::World;
use crate::domain::operation::Operation;
use crate::domain::payment::{Payment, State};
use crate::gateway::{ArgumentError, Rejection};
use crate::outbound::{FileError, HttpError};
use crate::scripting::effects::{Code, Failure, Interrupt, Stop};

/// What a script gets for a single payment: the payment, or the gateway's no as an error.
pub(super) fn paid(payment: &Payment) -> Result<Value, Stop> {
    if payment.state == State::Rejected {
        let details = json!({ "errors": payment.errors, "foreign_id": payment.foreign_id });
        return Err(Failure {
            code: Code::GatewayRejected,
            message: payment
                .error
                .clone()
                .unwrap_or_else(|| "the gateway refused the payment".into()),
            details,
        }
        .into());
    }
    Ok(payment.view())
}

/// How a payment that could not be taken on shows in the script.
pub(super) fn pay_stop(world: &World, error: PayError) -> Stop {
    match error {
        PayError::Conflict { ref difference, .. } => Failure {
            code: Code::Conflict,
            message: error.to_string(),
            details: json!({ "field": difference.field }),
        }
        .into(),
        PayError::Refused { ref by, .. } => Failure {
            code: Code::PolicyRefused,
            message: error.to_string(),
            details: json!({ "by": by }),
        }
        .into(),
        PayError::Unavailable(_) => {
            Failure::new(Code::GatewayUnavailable, error.to_string()).into()
        }
        PayError::Unauthorised(_) => {
            Failure::new(Code::GatewayUnavailable, error.to_string()).into()
        }
        PayError::Read(error) => world.unreadable(&error),
        PayError::Damaged(_) => {
            world.context.telemetry.payment_damaged(&error.to_string());
            Stop::Interrupt(Interrupt::Poisoned)
        }
        PayError::TooLarge(_) => Failure::new(Code::InvalidArgument, error.to_string()).into(),
        PayError::Poisoned => Stop::Interrupt(Interrupt::Poisoned),
    }
}

/// All mistakes in the arguments of one call.
pub(super) fn invalid(errors: &[ArgumentError]) -> Failure {
    let by_field: BTreeMap<&str, &str> = errors
        .iter()
        .map(|error| (error.field.as_str(), error.message.as_str()))
        .collect();
    let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
    Failure {
        code: Code::InvalidArgument,
        message: text.join("; "),
        details: json!({ "errors": by_field }),
    }
}

pub(super) fn rejected(rejection: &Rejection) -> Failure {
    Failure {
        code: Code::GatewayRejected,
        message: rejection.message.clone(),
        details: json!({ "errors": rejection.errors, "status": rejection.status }),
    }
}

pub(super) fn unavailable(operation: Operation, reason: &str) -> Failure {
    Failure::new(
        Code::GatewayUnavailable,
        format!("`{operation}` got no usable answer: {reason}"),
    )
}

pub(super) fn file_failure(error: &FileError) -> Failure {
    let code = match error {
        FileError::NotAllowed(_) => Code::NotAllowed,
        FileError::NotFound(_) => Code::NotFound,
        FileError::NotUtf8(_) => Code::InvalidData,
        FileError::TooLarge { .. } | FileError::Io { .. } => Code::FileError,
    };
    Failure::new(code, error.to_string())
}

pub(super) fn http_failure(error: &HttpError) -> Failure {
    let code = match error {
        HttpError::NotAllowed(_) => Code::NotAllowed,
        HttpError::Invalid(_) | HttpError::UnknownSecret(_) => Code::InvalidArgument,
        HttpError::Timeout(_) => Code::Timeout,
        HttpError::TooLarge(_) => Code::InvalidData,
        HttpError::Unavailable { .. } => Code::HttpUnavailable,
    };
    Failure::new(code, error.to_string())
}
