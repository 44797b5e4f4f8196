//! The checksums of what was written last, so that the writer need not read them of the index.
//!
//! Much of what is written replaces something that was written a moment before: a run that ends was
//! begun just now. What is here is what the index or the layers over it hold. Owned by the writer.

use std::collections::HashMap;

/// Keys of a generation, at most; there are two.
const MOST: usize = 16 * 1024;

/// The checksum of the record that was written, or `None` if there is none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written(pub(super) Option<u32>);

/// What was written last under each of some keys.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<Vec<u8>, Written>,
    old: HashMap<Vec<u8>, Written>,
}

impl Recent {
    /// What was written last under a key; `None` if that is not known.
    pub(super) fn get(&self, key: &[u8]) -> Option<Written> {
        let known = self.young.get(key).or_else(|| self.old.get(key));
        known.copied()
    }

    /// Says what is written under a key.
    pub(super) fn set(&mut self, key: &[u8], checksum: Option<u32>) {
        if self.young.len() >= MOST && !self.young.contains_key(key) {
            std::mem::swap(&mut self.old, &mut self.young);
            // Its room stays: making it anew, by and by, took as long as all the rest.
            self.young.clear();
        }
        self.young.insert(key.to_vec(), Written(checksum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_counts_and_the_oldest_are_forgotten() {
        let mut recent = Recent::default();
        let key = |at: usize| at.to_be_bytes().to_vec();
        for at in 0..3 * MOST {
            recent.set(&key(at), Some(1));
            recent.set(&key(at), if at % 2 == 0 { Some(2) } else { None });
        }
        assert_eq!(recent.get(&key(0)), None);
        assert_eq!(recent.get(&key(3 * MOST - 1)), Some(Written(None)));
        assert_eq!(recent.get(&key(2 * MOST)), Some(Written(Some(2))));
        assert!(recent.young.len() + recent.old.len() <= 2 * MOST);
        // A newer generation hides the older one.
        recent.set(&key(2 * MOST), None);
        assert_eq!(recent.get(&key(2 * MOST)), Some(Written(None)));
    }
}
