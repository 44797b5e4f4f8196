//! Policy: what may be paid, what may not, and what people must approve first.

mod decision;

pub use decision::{Decision, Proposal, Reason, Terms, Verdict};
