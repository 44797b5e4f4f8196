//! Reads the body of a request: the exact bytes, up to a size, within a time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is, or says it will be, above the limit; the rest was not read.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// The connection broke, or it is no HTTP.
    Broken,
}

impl BodyError {
    /// How to answer.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// The whole body, of at most `most` bytes, if it comes within `patience`.
pub(super) async fn read(body: Body, most: u64, patience: Duration) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > most {
        return Err(BodyError::TooLarge);
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut reading = pin!(whole(body, most));
    // Most bodies come together with their head and need no clock.
    match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(read) => read,
        Poll::Pending => tokio::time::timeout(patience, reading)
            .await
            .unwrap_or(Err(BodyError::TooSlow)),
    }
}

async fn whole(body: Body, most: usize) -> Result<Bytes, BodyError> {
    let mut body = Limited::new(body, most);
    let Some(first) = piece(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = Vec::from(first);
    while let Some(more) = piece(&mut body).await? {
        whole.extend_from_slice(&more);
    }
    Ok(whole.into())
}

/// The next piece of a body; `None` at its end.
async fn piece(body: &mut Limited<Body>) -> Result<Option<Bytes>, BodyError> {
    match body.frame().await {
        None => Ok(None),
        // Trailers are no part of it.
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Some(Err(_)) => Err(BodyError::Broken),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::pin::Pin;
    use std::task::Context;

    use hyper::body::Frame;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    /// How a body goes on after its pieces.
    #[derive(Clone, Copy)]
    enum Then {
        Ends,
        Breaks,
        Stalls,
    }

    /// A body that comes piece by piece and says nothing of its length.
    struct Pieces(VecDeque<&'static str>, Then);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            match (self.0.pop_front(), self.1) {
                (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                (None, Then::Ends) => Poll::Ready(None),
                (None, Then::Breaks) => {
                    Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
                }
                (None, Then::Stalls) => Poll::Pending,
            }
        }
    }

    async fn read_pieces(pieces: &[&'static str], then: Then) -> Result<Bytes, BodyError> {
        let pieces = Pieces(pieces.iter().copied().collect(), then);
        read(Body::new(pieces), 5, PATIENCE).await
    }

    #[tokio::test]
    async fn a_body_within_the_limit_comes_back_whole() {
        for text in ["", "abcde"] {
            assert_eq!(read(Body::from(text), 5, PATIENCE).await.unwrap(), text);
        }
        for pieces in [&[][..], &["abcde"], &["ab", "", "cde"]] {
            let read = read_pieces(pieces, Then::Ends).await.unwrap();
            assert_eq!(read, pieces.concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_large_broken_or_too_slow_is_refused() {
        let too_large = Err(BodyError::TooLarge);
        assert_eq!(read(Body::from("abcdef"), 5, PATIENCE).await, too_large);
        for (pieces, then, expected) in [
            (&["abcdef"][..], Then::Ends, BodyError::TooLarge),
            (&["abc", "def"], Then::Stalls, BodyError::TooLarge),
            (&["abc"], Then::Breaks, BodyError::Broken),
            (&["abc"], Then::Stalls, BodyError::TooSlow),
            (&[], Then::Stalls, BodyError::TooSlow),
        ] {
            assert_eq!(read_pieces(pieces, then).await, Err(expected));
        }
    }
}
