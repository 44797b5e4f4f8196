//! The listeners: callbacks from the gateway, and the admin API for people and monitoring.
//!
//! Translates between HTTP and [`runner::Handle`](crate::runner::Handle) and decides nothing: what
//! a callback is worth is the runner's answer, what people see are the runner's views. Built and
//! served by `daemon`; the only user of axum besides the simulator.

mod admin;
mod bind;
mod body;
mod callbacks;
mod finish;
mod serve;

#[cfg(test)]
mod tests;

pub use admin::admin;
pub use axum::Router;
pub use bind::{BindError, bind};
pub use callbacks::callbacks;
pub use serve::serve;
