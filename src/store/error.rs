//! What can go wrong with the store, told apart by what the caller does next.

use std::io;
use std::path::{Path, PathBuf};

use super::blobs::BlobHash;

/// Why the store cannot be opened. Nothing was lost by trying.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns the folder: stop that one, or use another folder.
    #[error("another bursar uses `{}`; stop it, or give this one another `store.path`", .0.display())]
    Locked(PathBuf),
    /// Written by a newer release: start that one.
    #[error("`{}` has format {found}, this release of bursar reads up to {known}; start the newer release", .file.display())]
    Newer {
        /// The file that says so.
        file: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version this release reads.
        known: u16,
    },
    /// Stored data are damaged or missing: a person decides. The store refuses to start rather
    /// than start with less than it had.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The operating system refused; the message says what and where.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err` on whatever was tried with `path`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// One thing that is wrong with stored data, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: {finding}. The store does not start, so that nothing is lost. `bursar store verify` shows everything that is wrong; {remedy}", .file.display())]
pub struct Damage {
    /// The damaged or missing file or folder.
    pub file: PathBuf,
    /// What is wrong with it.
    pub finding: String,
    /// What helps.
    pub remedy: Remedy,
}

impl Damage {
    pub(super) fn new(file: &Path, remedy: Remedy, finding: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            finding: finding.into(),
            remedy,
        }
    }
}

/// What helps with a [`Damage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// What is left may be enough to make the store whole: `bursar store rebuild`.
    Rebuild,
    /// Something is gone that only a backup has: `bursar restore DIR`.
    Restore,
    /// The store is gone, but its payment journal is whole: `bursar store rebuild --payments-only`.
    RebuildPayments,
    /// Files of the payment journal are damaged or missing: copies of them from a backup help.
    CopyLines,
    /// The folder is no store yet: make the backup or restore again, into an empty folder.
    CopyAgain,
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rebuild => {
                "`bursar store rebuild` repairs the store if what is left of it is provably \
                 everything, and changes nothing if it is not"
            }
            Self::Restore => {
                "what is left of the store is not enough: move its folder away, then \
                 `bursar restore DIR` brings back the backup in DIR"
            }
            Self::RebuildPayments => {
                "`bursar restore DIR` brings back the backup in DIR once the folder is moved away; \
                 without a backup, `bursar store rebuild --payments-only` makes the payments anew \
                 from the payment journal, so that none is made twice, and says what is lost"
            }
            Self::CopyLines => {
                "a file of the payment journal never changes once the next one is begun, so copy \
                 this one from a backup that has it whole; otherwise move the store's folder away \
                 and bring a whole backup back with `bursar restore DIR`"
            }
            Self::CopyAgain => {
                "remove the folder, then run `bursar backup DIR` or `bursar restore DIR` again"
            }
        })
    }
}

/// Why changes were not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold, and nothing of these changes was written: read again and
    /// decide again.
    #[error("what the decision was based on has changed")]
    Refused,
    /// A record cannot be stored as it is, and nothing was written. Trying again is useless;
    /// large contents belong into a blob.
    #[error("a record of `{table}` cannot be stored: {reason}")]
    Unstorable {
        /// The table.
        table: &'static str,
        /// Why not.
        reason: String,
    },
    /// The store failed, now or before, or is closed. Whether these changes are on disk is known
    /// after the next start. Nothing that needs the store may go on.
    #[error("the store refuses writes until the next start")]
    Poisoned,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Written by a newer release.
    #[error(
        "record `{key}` in `{table}` has version {found}, this release of bursar reads up to {known}; start the newer release"
    )]
    Newer {
        /// The table.
        table: &'static str,
        /// The key, printable.
        key: String,
        /// The record's version.
        found: u16,
        /// The newest version this release reads.
        known: u16,
    },
    /// The stored bytes are not such a record. They stay where they are.
    #[error("record `{key}` in `{table}` is unreadable: {reason}")]
    Undecodable {
        /// The table.
        table: &'static str,
        /// The key, printable.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob is missing, or its content is not what its hash says.
    #[error("blob {hash} cannot be read")]
    Blob {
        /// Which one.
        hash: BlobHash,
        /// Why not.
        source: io::Error,
    },
    /// The index failed.
    #[error("the index cannot be read")]
    Index(#[from] IndexError),
}

/// A failure of sled.
#[derive(Debug, thiserror::Error)]
#[error("the index failed")]
pub struct IndexError(#[from] pub(super) sled::Error);
