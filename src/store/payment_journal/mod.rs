//! The payment journal: every step of every payment, one JSON line each, for ever.
//!
//! ```text
//! payment-journal/N.jsonl   lines from number N on, oldest first; never changed once the next is there;
//!                           in the last one, while it is written, zeros behind them: room for more
//! payment-journal/head      number and hash of the last line that is certainly there
//! line  {"n": number, "seq": the commit's group, "prev": SHA-256 of the line before, …}
//! ```
//!
//! The writer's thread appends to it between the guard journal's sync and the answer, so a line is
//! on disk before anybody acts on its commit. What the lines say is their callers' affair. The
//! number and hash of the last line are a record in the index, written in the same group: neither
//! the store nor the journal can fall behind the other unnoticed.
//!
//! | file | is about |
//! |---|---|
//! | `append` | composing lines and writing them |
//! | `chain` | walking the lines and finding what does not follow |
//! | `recovery` | comparing journal and store at a start, completing an interrupted append |
//! | `rebuild` | the payments that the lines are, as an index |
//! | `reader` | verifying and reading it without the store: `bursar audit` |
//! | `rows` | what the index holds of a payment |
//!
//! # Design
//! The guard journal stays the point of durability: a group's lines are in its record too. It is
//! synced first, so the payment journal is never ahead of it, and what a crash keeps from the
//! payment journal is completed from there. Syncing both at the same time on two threads was
//! measured to take longer than one after the other. A group without lines costs no second sync.

mod append;
mod chain;
mod reader;
mod rebuild;
mod recovery;
mod rows;

use serde::{Deserialize, Serialize};

use super::Table;

pub(super) use append::{PaymentJournal, copy};
pub(super) use rebuild::{cut_torn, remake};
pub(super) use recovery::{Comparison, Pending};

pub use reader::{
    Audit, Entry, Finding, JournalError, read as read_payment_journal,
    verify as verify_payment_journal,
};
pub use rows::{Rows, awaited, put_payment, put_rows};

/// Where the payment journal stands, under an empty key.
pub(super) const HEAD: Table<String, Head> = Table::new("payment_journal/", 1);

/// The last line, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Head {
    /// Its number, from 1; 0 before the first line.
    pub(super) number: u64,
    /// Its SHA-256 in hex.
    pub(super) hash: String,
    /// The number of the first line in its file.
    pub(super) file: u64,
    /// Bytes of that file up to its end.
    pub(super) length: u64,
}

impl Head {
    /// The key under which the store keeps it.
    pub(super) fn stored_key() -> Vec<u8> {
        HEAD.stored_key(&String::new())
    }

    /// The head in its stored bytes.
    pub(super) fn decode(stored: &[u8]) -> Result<Self, super::ReadError> {
        HEAD.decode(&Self::stored_key(), stored)
    }
}

#[cfg(test)]
mod tests;
