//! The lock that makes one process the owner of a store's folder. Held while the store is open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::time::Duration;

use super::error::OpenError;
use super::layout::Layout;

/// How often, and after which pause, a lock is tried: a process that is just ending, or one that
/// it has just started, may hold it a moment longer.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

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
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(PAUSE),
                Err(TryLockError::Error(error)) => {
                    return Err(OpenError::io("lock", &layout.lock())(error));
                }
            }
        }
        Err(OpenError::Locked(layout.dir.clone()))
    }
}
