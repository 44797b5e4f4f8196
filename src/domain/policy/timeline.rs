//! Amounts along time, and the sum of those from an instant on.
//!
//! A sum over a million amounts must not cost a million additions, and amounts come and go in any
//! order (a clock can be set back, any payment can be given back). So they are kept in chunks,
//! each with its sum, and a sum adds the chunks and the amounts of one of them.

/// The most amounts of one chunk.
const CHUNK: usize = 1024;

/// Amounts by their instants, in milliseconds. Amounts are whole numbers of the smallest unit.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    /// In ascending order, none of them empty.
    chunks: Vec<Chunk>,
}

#[derive(Debug, Clone)]
struct Chunk {
    /// In ascending order, each instant once.
    amounts: Vec<(i64, i128)>,
    sum: i128,
}

impl Chunk {
    fn last(&self) -> i64 {
        self.amounts.last().map_or(i64::MIN, |(at, _)| *at)
    }
}

impl Timeline {
    /// Adds an amount, or takes one away when it is negative.
    pub(super) fn add(&mut self, at: i64, amount: i128) {
        let behind = self.chunks.partition_point(|chunk| chunk.last() < at);
        let place = behind.min(self.chunks.len().saturating_sub(1));
        let Some(chunk) = self.chunks.get_mut(place) else {
            self.chunks.push(Chunk {
                amounts: vec![(at, amount)],
                sum: amount,
            });
            return;
        };
        chunk.sum = chunk.sum.saturating_add(amount);
        match chunk.amounts.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(found) => {
                if let Some((_, there)) = chunk.amounts.get_mut(found) {
                    *there = there.saturating_add(amount);
                }
                chunk
                    .amounts
                    .retain(|(when, left)| *when != at || *left != 0);
            }
            Err(free) => chunk.amounts.insert(free, (at, amount)),
        }
        if chunk.amounts.is_empty() {
            self.chunks.remove(place);
        } else if chunk.amounts.len() > CHUNK {
            let amounts = chunk.amounts.split_off(CHUNK / 2);
            let sum = amounts
                .iter()
                .fold(0_i128, |sum, (_, amount)| sum.saturating_add(*amount));
            chunk.sum = chunk.sum.saturating_sub(sum);
            self.chunks.insert(place + 1, Chunk { amounts, sum });
        }
    }

    /// The sum of the amounts at `start` and later.
    pub(super) fn since(&self, start: i64) -> i128 {
        let mut sum = 0_i128;
        for chunk in self.chunks.iter().rev() {
            let begins = chunk.amounts.first().map_or(i64::MIN, |(at, _)| *at);
            if begins >= start {
                sum = sum.saturating_add(chunk.sum);
                continue;
            }
            let first = chunk.amounts.partition_point(|(at, _)| *at < start);
            let later = chunk.amounts.iter().skip(first);
            return later.fold(sum, |sum, (_, amount)| sum.saturating_add(*amount));
        }
        sum
    }

    /// Forgets amounts before `start`, as far as that is cheap.
    pub(super) fn forget_before(&mut self, start: i64) {
        let old = self.chunks.partition_point(|chunk| chunk.last() < start);
        self.chunks.drain(..old);
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(i64, i128),
        TakeBack(prop::sample::Index),
        Sum(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3_000_i64, 1..100_i128).prop_map(|(at, amount)| Step::Add(at, amount)),
            2 => any::<prop::sample::Index>().prop_map(Step::TakeBack),
            2 => (-10..3_010_i64).prop_map(Step::Sum),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_sum_is_what_adding_up_gives(steps in prop::collection::vec(step(), 1..6_000)) {
            let mut timeline = Timeline::default();
            let mut there: Vec<(i64, i128)> = Vec::new();
            for step in steps {
                match step {
                    Step::Add(at, amount) => {
                        timeline.add(at, amount);
                        there.push((at, amount));
                    }
                    Step::TakeBack(which) if !there.is_empty() => {
                        let (at, amount) = there.swap_remove(which.index(there.len()));
                        timeline.add(at, -amount);
                    }
                    Step::TakeBack(_) => {}
                    Step::Sum(start) => {
                        let expected: i128 = there
                            .iter()
                            .filter(|(at, _)| *at >= start)
                            .map(|(_, amount)| amount)
                            .sum();
                        prop_assert_eq!(timeline.since(start), expected);
                    }
                }
            }
            for (at, amount) in there {
                timeline.add(at, -amount);
            }
            prop_assert!(timeline.is_empty());
        }
    }

    #[test]
    fn what_is_forgotten_is_only_what_is_older() {
        let mut timeline = Timeline::default();
        for at in 0..10_000 {
            timeline.add(at, 1);
        }
        timeline.forget_before(5_000);
        assert_eq!(timeline.since(5_000), 5_000);
        assert!(timeline.since(0) < 6_100, "old chunks are gone");
    }
}
