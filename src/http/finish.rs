//! Lets what has begun come to its end when whoever waited for it goes away.
//!
//! Used by the callback listener: a client that hangs up takes its connection's task with it, and
//! what the task was doing must still be done. Cheaper than a task of its own for every request,
//! which nearly none needs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that is carried on by the runtime when it is dropped in its midst.
pub(super) struct Finish<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Finish<F> {
    pub(super) fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Finish<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = self.0.as_mut() else {
            return Poll::Pending;
        };
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Finish<F> {
    fn drop(&mut self) {
        // A panic in it is not carried on, and with the runtime everything ends.
        if !std::thread::panicking()
            && let Some(future) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(future));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_was_begun_and_dropped_comes_to_its_end() {
        let (go, going) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut begun = Box::pin(Finish::new(async move {
            going.await.unwrap();
            end.send(7).unwrap();
        }));
        tokio::select! {
            biased;
            () = &mut begun => panic!("it must wait"),
            () = std::future::ready(()) => {}
        }
        drop(begun);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn what_is_waited_for_is_answered() {
        assert_eq!(Finish::new(async { 7 }).await, 7);
    }
}
