//! The one integration binary: the daemon and its parts through their real boundaries.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets the unexpected fails by panicking"
)]

#[cfg(test)]
mod approvals;
#[cfg(test)]
mod callbacks;
mod damage;
mod dev;
mod docs;
mod examples;
mod fates;
mod history;
mod kit;
#[cfg(test)]
mod ledger;
mod limits;
mod lost;
mod outage;
mod pairs;
mod pause;
mod payments;
mod payouts;
#[cfg(test)]
mod plans;
mod policy;
mod refunds;
mod reload;
mod schedules;
mod scripts;
mod simulation;
mod stage;
mod start;
mod state;
mod tidy;
mod waits;

// The lints for tests hold in the helpers of a module only where it says so.
#[cfg(test)]
mod audit;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod crash;
