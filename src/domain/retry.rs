//! How long to wait before trying again.

use std::time::Duration;

/// The delay before try number `tries + 1`, when `tries` have failed: `first`, doubled for each
/// further one up to `max`, less up to a quarter so that many that failed together do not come back
/// together. `seed` decides how much less; the same seed gives the same delay.
#[must_use]
pub fn delay(first: Duration, max: Duration, tries: u32, seed: &str) -> Duration {
    let doublings = tries.saturating_sub(1).min(30);
    let full = first
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(max);
    let hash = super::id::digest(&[seed, &tries.to_string()]);
    let spread = u32::from_str_radix(hash.get(..4).unwrap_or("0"), 16).unwrap_or(0);
    full.saturating_sub((full / 4).saturating_mul(spread) / 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_maximum_and_never_fall_below_three_quarters() {
        let (first, max) = (Duration::from_secs(10), Duration::from_mins(10));
        for (tries, full) in [(1, 10), (2, 20), (3, 40), (7, 600), (4_000_000, 600)] {
            let delay = delay(first, max, tries, "run");
            let full = Duration::from_secs(full);
            assert!(delay <= full && delay >= full * 3 / 4, "{tries}: {delay:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delay_and_others_spread() {
        let of = |seed| delay(Duration::from_secs(100), Duration::MAX, 1, seed);
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }
}
