//! Policy: what may be paid, what may not, and what people must approve first.
//!
//! `rules` is the policy as it was written, `decide` what it says about one payment, `sums` what
//! its limits have counted so far, `rates` what currencies are worth, `doubts` what makes no sense
//! in it. Everything is a function of what is passed in; the runner keeps sums, rates and the times
//! at which addresses were first paid, `config` reads the policy.

mod decide;
mod decision;
mod doubts;
mod matching;
mod period;
mod proposed;
mod rates;
mod rules;
mod sums;
#[cfg(test)]
mod tests;
mod timeline;

pub use decide::{Facts, MAX_BATCH, OTHERWISE, decide};
pub use decision::{Decision, Proposal, Reason, Terms, Verdict};
pub use doubts::{Doubt, Subject, doubts};
pub use proposed::{explained, proposed};
pub use rates::{NoRate, Rates};
pub use rules::{
    Addresses, By, Cap, Hours, Limit, Matchers, Per, Policy, Rule, Weekdays, canonical,
};
pub use sums::{Spent, Sums};
