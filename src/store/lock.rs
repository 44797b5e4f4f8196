//! The lock that makes one process the owner of a store's folder. Held while the store is open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;

use super::error::OpenError;
use super::layout::Layout;

/// The held lock; released when dropped, or by the system when the process ends in any way.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a folder that exists.
    pub(super) fn take(layout: &Layout) -> Result<Self, OpenError> {
        let path = layout.lock();
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        Self::hold(file, layout)
    }

    /// Keeps others out of a folder that is only read, if it has a lock to hold.
    pub(super) fn respect(layout: &Layout) -> Result<Option<Self>, OpenError> {
        let path = layout.lock();
        match File::open(&path) {
            Ok(file) => Self::hold(file, layout).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpenError::io("open", &path)(error)),
        }
    }

    fn hold(file: File, layout: &Layout) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked(layout.dir.clone())),
            Err(TryLockError::Error(error)) => Err(OpenError::io("lock", &layout.lock())(error)),
        }
    }
}
