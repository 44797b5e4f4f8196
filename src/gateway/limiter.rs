//! When a request may leave: the gateway's rate limits, kept before the gateway has to.
//!
//! Pure: the time comes in as an argument, waiting is the client's business.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::operation::Operation;

/// Quotes per minute and address that the gateway answers; the only limit it publishes.
const QUOTES: usize = 30;

/// A minute, and a little more because requests do not all travel equally fast.
const QUOTE_WINDOW: Duration = Duration::from_secs(61);

/// How long nothing is sent after a 429 that names no time of its own; documented for quotes.
pub(super) const HOLD: Duration = Duration::from_mins(1);

/// Remembers what left when, and until when nothing may leave.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    quotes: VecDeque<Instant>,
    quotes_held_until: Option<Instant>,
    all_held_until: Option<Instant>,
}

impl Limiter {
    /// Lets a request of `operation` leave now, and counts it.
    ///
    /// # Errors
    /// The earliest instant at which asking again can succeed.
    pub(super) fn depart(&mut self, operation: Operation, now: Instant) -> Result<(), Instant> {
        let is_quote = operation == Operation::CalculateExchange;
        let mut free_at = self.all_held_until;
        if is_quote {
            while let Some(oldest) = self.quotes.front()
                && *oldest + QUOTE_WINDOW <= now
            {
                self.quotes.pop_front();
            }
            let window = self.quotes.front().filter(|_| self.quotes.len() >= QUOTES);
            free_at = free_at
                .max(self.quotes_held_until)
                .max(window.map(|oldest| *oldest + QUOTE_WINDOW));
        }
        match free_at {
            Some(free_at) if free_at > now => Err(free_at),
            Some(_) | None => {
                if is_quote {
                    self.quotes.push_back(now);
                }
                Ok(())
            }
        }
    }

    /// Takes note that a request of `operation` was answered 429. Quotes have a limit of their
    /// own; any other 429 is about everything that comes from here.
    pub(super) fn hold(&mut self, operation: Operation, now: Instant, length: Duration) {
        let held = if operation == Operation::CalculateExchange {
            &mut self.quotes_held_until
        } else {
            &mut self.all_held_until
        };
        *held = (*held).max(Some(now + length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_quotes_leave_in_a_minute_and_the_next_one_when_the_first_is_a_minute_old() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        for second in 0..30 {
            let now = start + Duration::from_secs(second);
            assert_eq!(limiter.depart(Operation::CalculateExchange, now), Ok(()));
        }
        let free_at = start + QUOTE_WINDOW;
        let now = start + Duration::from_secs(40);
        assert_eq!(
            limiter.depart(Operation::CalculateExchange, now),
            Err(free_at)
        );
        assert_eq!(limiter.depart(Operation::Withdraw, now), Ok(()));
        assert_eq!(
            limiter.depart(Operation::CalculateExchange, free_at),
            Ok(())
        );
        assert_eq!(
            limiter.depart(Operation::CalculateExchange, free_at),
            Err(free_at + Duration::from_secs(1))
        );
    }

    #[test]
    fn in_no_window_do_more_quotes_leave_than_the_gateway_allows() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let mut left = Vec::new();
        for step in 0..3000 {
            let now = start + Duration::from_millis(100 * step);
            if limiter.depart(Operation::CalculateExchange, now).is_ok() {
                left.push(now);
            }
        }
        assert!(left.len() > 2 * QUOTES);
        for window in left.windows(QUOTES + 1) {
            assert!(window[QUOTES] - window[0] > Duration::from_mins(1));
        }
    }

    #[test]
    fn a_429_to_a_quote_holds_quotes_and_any_other_holds_everything() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        limiter.hold(Operation::CalculateExchange, now, HOLD);
        assert_eq!(limiter.depart(Operation::Withdraw, now), Ok(()));
        assert_eq!(
            limiter.depart(Operation::CalculateExchange, now),
            Err(now + HOLD)
        );

        limiter.hold(Operation::Withdraw, now, HOLD * 2);
        limiter.hold(Operation::Withdraw, now, HOLD);
        for operation in Operation::ALL {
            assert_eq!(limiter.depart(operation, now), Err(now + HOLD * 2));
            assert_eq!(limiter.depart(operation, now + HOLD * 2), Ok(()));
        }
    }
}
