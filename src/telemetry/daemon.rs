//! Starting, stopping and reloading.

use std::fmt::Display;
use std::net::SocketAddr;

use super::Telemetry;

impl Telemetry {
    /// The daemon answers.
    pub fn started(&self, callbacks: SocketAddr, admin: SocketAddr) {
        tracing::info!(%callbacks, %admin, "bursar is running");
    }

    /// The daemon was asked to stop, or has to.
    pub fn stopping(&self) {
        tracing::info!("stopping: nothing new is taken in");
    }

    /// The store is closed. `drained` says whether every execution ended by itself.
    pub fn stopped(&self, drained: bool) {
        if drained {
            tracing::info!("stopped");
        } else {
            tracing::warn!("stopped; some runs were interrupted and go on after the next start");
        }
    }

    /// The store could not be closed properly; the next start recovers.
    pub fn store_not_closed(&self, error: &dyn Display) {
        tracing::warn!(%error, "the store was not closed properly; the next start recovers it");
    }

    /// A script set could not be kept; the one before goes on.
    pub fn reload_not_stored(&self, error: &dyn Display) {
        tracing::error!(%error, "the new scripts could not be stored; the ones before go on");
    }

    /// The scripts in the folder are broken at the start; the last ones that worked are used.
    pub fn last_scripts_used(&self, set: &dyn Display) {
        tracing::error!(%set, "the scripts in the folder have mistakes; the last ones that worked go on");
    }
}
