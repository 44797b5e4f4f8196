//! One task at a time per key, within this process.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Cell = Arc<tokio::sync::Mutex<()>>;

/// Locks that exist while somebody holds or waits for them.
#[derive(Debug)]
pub(super) struct KeyLocks<K: Hash + Eq + Clone>(Arc<Mutex<HashMap<K, Cell>>>);

impl<K: Hash + Eq + Clone> Default for KeyLocks<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Holds a key until dropped.
#[derive(Debug)]
pub(super) struct KeyGuard<K: Hash + Eq + Clone> {
    key: K,
    cells: Arc<Mutex<HashMap<K, Cell>>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Hash + Eq + Clone> KeyLocks<K> {
    /// Waits until nobody else holds `key`. First come, first served.
    pub(super) async fn lock(&self, key: &K) -> KeyGuard<K> {
        let cell = {
            let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry(key.clone()).or_default())
        };
        let held = cell.lock_owned().await;
        KeyGuard {
            key: key.clone(),
            cells: Arc::clone(&self.0),
            held: Some(held),
        }
    }
}

impl<K: Hash + Eq + Clone> Drop for KeyGuard<K> {
    fn drop(&mut self) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        self.held = None;
        // The map's own reference is the last one: nobody waits.
        if cells
            .get(&self.key)
            .is_some_and(|cell| Arc::strong_count(cell) == 1)
        {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_held_by_one_and_forgotten_after_the_last() {
        let locks = KeyLocks::<u8>::default();
        let guard = locks.lock(&1).await;
        let other = locks.lock(&2).await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), locks.lock(&1));
        assert!(second.await.is_err());
        drop(guard);
        drop(locks.lock(&1).await);
        drop(other);
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
