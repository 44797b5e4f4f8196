//! Numbers that look random and can be had again.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A sequence of numbers that depends on its seed alone (SplitMix64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another seed every time, unless `BURSAR_TEST_SEED` asks for one.
    pub fn seed() -> u64 {
        match std::env::var("BURSAR_TEST_SEED") {
            Ok(text) => text.parse().expect("`BURSAR_TEST_SEED` is a number"),
            Err(_) => RandomState::new().build_hasher().finish(),
        }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
