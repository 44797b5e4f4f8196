//! Where people, instead of a script or a callback, move a payment on.

use super::{PayError, Payments};
use crate::domain::id::ForeignId;
use crate::domain::payment::State;

impl Payments {
    /// Sends a payment that is decided, if it still is and may be sent. What keeps it from being
    /// sent now is tried again by the sweep.
    pub(in crate::runner) async fn carry_on(&self, foreign_id: &ForeignId) {
        let _one_at_a_time = self.0.locks.lock(foreign_id).await;
        let payment = match self.find(foreign_id) {
            Ok(Some(payment)) if payment.state == State::Intended => payment,
            Ok(_) => return,
            Err(error) => {
                let telemetry = &self.0.telemetry;
                return telemetry.payment_stuck(foreign_id, &error.to_string());
            }
        };
        match self.resume_locked(payment.clone()).await {
            Ok(_) => {}
            Err(PayError::Unavailable(_) | PayError::Unauthorised(_)) => self.watch(&payment),
            Err(error) => {
                let telemetry = &self.0.telemetry;
                telemetry.payment_stuck(foreign_id, &error.to_string());
            }
        }
    }
}
