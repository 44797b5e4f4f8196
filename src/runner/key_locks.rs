//! One task at a time per key, within this process.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// The keys that are held, each with those who wait for it in the order they came.
type Held<K> = Mutex<HashMap<Arc<K>, VecDeque<oneshot::Sender<KeyGuard<K>>>>>;

/// Locks that exist while somebody holds or waits for them.
#[derive(Debug)]
pub(super) struct KeyLocks<K: Hash + Eq + Clone>(Arc<Held<K>>);

impl<K: Hash + Eq + Clone> Default for KeyLocks<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Holds a key until dropped.
#[derive(Debug)]
pub(super) struct KeyGuard<K: Hash + Eq + Clone> {
    /// The key, until it is handed on.
    key: Option<Arc<K>>,
    held: Arc<Held<K>>,
}

impl<K: Hash + Eq + Clone> KeyLocks<K> {
    /// Waits until nobody else holds `key`. First come, first served.
    pub(super) async fn lock(&self, key: &K) -> KeyGuard<K> {
        let key = Arc::new(key.clone());
        loop {
            let turn = {
                let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                match held.entry(Arc::clone(&key)) {
                    Entry::Vacant(free) => {
                        free.insert(VecDeque::new());
                        return KeyGuard {
                            key: Some(key),
                            held: Arc::clone(&self.0),
                        };
                    }
                    Entry::Occupied(mut waiters) => {
                        let (hand_over, turn) = oneshot::channel();
                        waiters.get_mut().push_back(hand_over);
                        turn
                    }
                }
            };
            // Whoever holds the key hands it over; nothing else ends a wait.
            if let Ok(guard) = turn.await {
                return guard;
            }
        }
    }
}

impl<K: Hash + Eq + Clone> Drop for KeyGuard<K> {
    /// Hands the key to whoever has waited longest.
    fn drop(&mut self) {
        while let Some(key) = self.key.take() {
            let next = {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                let Entry::Occupied(mut waiters) = held.entry(Arc::clone(&key)) else {
                    return;
                };
                let Some(next) = waiters.get_mut().pop_front() else {
                    waiters.remove();
                    return;
                };
                next
            };
            let guard = Self {
                key: Some(key),
                held: Arc::clone(&self.held),
            };
            // Whoever has gone away meanwhile gives it back. A guard that has arrived and is never
            // looked at is dropped like any other.
            if let Err(mut back) = next.send(guard) {
                self.key = back.key.take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Poll;

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

    /// What a future has come to, without waiting for it.
    async fn now<F: Future>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
        poll_fn(|context| {
            Poll::Ready(match future.as_mut().poll(context) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn a_key_goes_to_those_who_wait_in_turn_past_those_who_left() {
        let locks = KeyLocks::<u8>::default();
        let first = locks.lock(&1).await;
        let mut waiting = [1; 5].map(|_| Box::pin(locks.lock(&1)));
        for waiting in &mut waiting {
            assert!(now(waiting).await.is_none());
        }
        let [gone, unaware, mut next, also_gone, mut last] = waiting;
        drop(gone);
        drop(first);
        // It was given the key and goes away before it knows.
        drop(unaware);
        assert!(now(&mut last).await.is_none());
        let guard = now(&mut next).await.unwrap();
        drop(also_gone);
        assert!(now(&mut last).await.is_none());
        drop(guard);
        let guard = now(&mut last).await.unwrap();
        let mut late = Box::pin(locks.lock(&1));
        assert!(now(&mut late).await.is_none());
        drop(late);
        drop(guard);
        assert!(locks.0.lock().unwrap().is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_tasks_hold_a_key_one_after_the_other() {
        let locks = Arc::new(KeyLocks::<usize>::default());
        let busy = Arc::new([const { AtomicBool::new(false) }; 2]);
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..64_usize {
            let (locks, busy) = (Arc::clone(&locks), Arc::clone(&busy));
            tasks.spawn(async move {
                let key = task % 2;
                for _ in 0..50 {
                    let guard = locks.lock(&key).await;
                    assert!(!busy[key].swap(true, Ordering::SeqCst));
                    tokio::task::yield_now().await;
                    busy[key].store(false, Ordering::SeqCst);
                    drop(guard);
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
