//! The gateway client: checks arguments, signs, sends and classifies what came back.
//!
//! ```text
//! arguments ── prepare ──> Prepared (the exact bytes) ── Client::send ──> Disposition
//!                              ▲ from_stored (a payment's intent, read back)
//! ```
//!
//! It does not retry, does not remember and knows no policy: the runner does all of that with the
//! [`Disposition`] it gets. What is documented about the wire stands in `operations`, one file per
//! family; what an answer means stands in `classify`, as one pure function.

mod amounts;
mod classify;
mod client;
mod fields;
mod limiter;
mod operations;
mod prepare;

pub use classify::{Disposition, Rejection, classify};
pub use client::{Admission, BuildError, Client, NotAdmitted, Turn};
pub use fields::ArgumentError;
pub use prepare::{Prepared, StoredError, prepare};
