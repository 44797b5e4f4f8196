//! What the store holds, for whoever reads: the index with the overlay's layers over it.
//!
//! The layers are always asked first: a layer is taken away only after the index has all of it.
//! Used by `Store` for reads, and by the writer for preconditions.

use std::sync::Arc;

use super::error::IndexError;
use super::index::{Index, Stored};
use super::journal_format::Mark;
use super::overlay::Overlay;
use super::scan::{Order, Span};

/// The least and the most that a scan asks of the layers and of the index at a time.
const LEAST_AT_ONCE: usize = 8;
const MOST_AT_ONCE: usize = 256;

/// An index and what is laid over it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) index: Index,
    pub(super) overlay: Arc<Overlay>,
}

impl View {
    /// An index that stands at `mark`, with nothing over it.
    pub(super) fn new(index: Index, mark: Mark) -> Self {
        Self {
            index,
            overlay: Arc::new(Overlay::new(mark)),
        }
    }

    /// The stored bytes under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let laid = self.overlay.look(key, |stored| stored.map(<[u8]>::to_vec));
        laid.map_or_else(|| self.index.get(key), Ok)
    }

    /// Up to `limit` keys of a span, with their stored bytes.
    pub(super) fn scan(
        &self,
        mut span: Span,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Stored>, IndexError> {
        let mut found = Vec::new();
        while found.len() < limit && !span.is_empty() {
            let at_once = (limit - found.len()).clamp(LEAST_AT_ONCE, MOST_AT_ONCE);
            let laid = self.overlay.scan(&span, order, at_once);
            let stored = self.index.scan(&span, order, at_once)?;
            // What is cut off by the limit says nothing about the keys behind its last one.
            let laid_end = (laid.len() == at_once).then(|| laid.last()).flatten();
            let stored_end = (stored.len() == at_once).then(|| stored.last()).flatten();
            let end = match (laid_end, stored_end) {
                (Some((laid, _)), Some((stored, _))) if order.precedes(stored, laid) => {
                    Some(stored)
                }
                (Some((laid, _)), _) => Some(laid),
                (None, Some((stored, _))) => Some(stored),
                (None, None) => None,
            }
            .cloned();
            let behind = |key: &Vec<u8>| end.as_ref().is_some_and(|end| order.precedes(end, key));
            let mut stored = stored.into_iter().peekable();
            for (key, value) in laid.into_iter().filter(|(key, _)| !behind(key)) {
                while let Some(older) = stored.next_if(|(older, _)| order.precedes(older, &key)) {
                    found.push(older);
                }
                stored.next_if(|(older, _)| *older == key);
                found.extend(value.map(|value| (key, value)));
            }
            found.extend(stored.filter(|(key, _)| !behind(key)));
            match end {
                Some(end) => span.go_on_after(end, order),
                None => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::store::journal_format::Writes;

    /// What happens to a store.
    #[derive(Debug, Clone)]
    enum Step {
        Group(Vec<(Vec<u8>, Option<Vec<u8>>)>),
        Freeze,
        ApplyFrozen,
        Scan(Vec<u8>, Option<Vec<u8>>, bool, usize),
    }

    /// A table, and one that grows at its end; the second has a neighbour on either side.
    const TABLES: [&[u8]; 2] = [b"t", b"step/\0"];

    fn key(table: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
        // Few keys, so that they meet in all layers, of which some are the start of others.
        (0..3_u8, option::of(0..6_u8)).prop_map(move |(first, second)| {
            let mut key = [table, &[b'a' + first]].concat();
            key.extend(second);
            key
        })
    }

    fn step(table: &'static [u8]) -> impl Strategy<Value = Step> {
        // Stored bytes begin with a version, which is small.
        let stored = vec(0..9_u8, 0..9);
        let write = (key(table), option::of(stored));
        let prefix = prop_oneof![
            Just(table.to_vec()),
            Just([table, b"b"].concat()),
            key(table)
        ];
        prop_oneof![
            4 => vec(write, 1..6).prop_map(Step::Group),
            1 => Just(Step::Freeze),
            1 => Just(Step::ApplyFrozen),
            4 => (prefix, option::of(key(table)), any::<bool>(), 0..24_usize)
                .prop_map(|(prefix, after, up, limit)| Step::Scan(prefix, after, up, limit)),
        ]
    }

    /// A view as the writer and the applier use it.
    struct Played {
        view: View,
        mark: Mark,
        frozen: Option<(Arc<crate::store::overlay::Layer>, Mark)>,
        model: BTreeMap<Vec<u8>, Vec<u8>>,
    }

    impl Played {
        fn lay(&mut self, group: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
            let writes: Writes = group.into_iter().collect();
            let keys = writes.keys();
            let before: Vec<bool> = keys
                .map(|key| self.view.get(key).unwrap().is_some())
                .collect();
            for (key, value) in &writes {
                match value {
                    Some(value) => self.model.insert(key.clone(), value.clone()),
                    None => self.model.remove(key),
                };
            }
            self.mark.sequence += 1;
            self.view.overlay.lay(writes, &before, self.mark);
        }

        fn apply_frozen(&mut self) {
            if let Some((layer, mark)) = self.frozen.take() {
                self.view.index.apply_many(layer.writes(), &mark).unwrap();
                self.view.overlay.take_away();
            }
        }

        fn scan(&self, prefix: &[u8], after: Option<&Vec<u8>>, order: Order, limit: usize) {
            let mut span = Span::of(prefix.to_vec());
            if let Some(after) = after {
                span.go_on_after(after.clone(), order);
            }
            let found = self.view.scan(span, order, limit).unwrap();
            let mut expected: Vec<_> = self
                .model
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .filter(|(key, _)| after.is_none_or(|after| order.precedes(after, key)))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if order == Order::Descending {
                expected.reverse();
            }
            expected.truncate(limit);
            assert_eq!(found, expected, "{prefix:?} {after:?} {order:?} {limit}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn layers_over_an_index_read_as_one_map(
            (table, steps) in (0..2_usize).prop_flat_map(|which| {
                let table = TABLES[which];
                (Just(table), vec(step(table), 1..80))
            }),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let index = Index::open(dir.path(), 1024 * 1024).unwrap();
            let neighbours = [&b"step.\0z"[..], b"step0"].map(|key| (key.to_vec(), Some(vec![1])));
            index.apply(&Writes::from(neighbours), &Mark::default()).unwrap();
            let mut played = Played {
                view: View::new(index, Mark::default()),
                mark: Mark::default(),
                frozen: None,
                model: BTreeMap::new(),
            };
            for step in steps {
                match step {
                    Step::Group(group) => played.lay(group),
                    Step::Freeze if played.frozen.is_none() => {
                        played.frozen = played.view.overlay.freeze();
                    }
                    Step::Freeze => {}
                    Step::ApplyFrozen => played.apply_frozen(),
                    Step::Scan(prefix, after, up, limit) => {
                        let order = if up { Order::Ascending } else { Order::Descending };
                        played.scan(&prefix, after.as_ref(), order, limit);
                    }
                }
            }
            for first in 0..3 {
                for second in 0..6 {
                    let key = [table, &[b'a' + first, second]].concat();
                    prop_assert_eq!(played.view.get(&key).unwrap(), played.model.get(&key).cloned());
                }
            }
            // The index alone holds all of it once everything is applied, and where it stands.
            played.apply_frozen();
            played.frozen = played.view.overlay.freeze();
            played.apply_frozen();
            played.scan(table, None, Order::Ascending, usize::MAX);
            let all = played.view.index.scan(&Span::of(table.to_vec()), Order::Ascending, usize::MAX);
            prop_assert_eq!(all.unwrap().into_iter().collect::<BTreeMap<_, _>>(), played.model);
            let noted = played.view.index.mark().unwrap().unwrap_or_default();
            prop_assert_eq!(noted, played.mark);
        }
    }

    #[test]
    fn a_long_scan_over_many_removals_finds_what_is_behind_them() {
        let dir = tempfile::tempdir().unwrap();
        let view = View::new(
            Index::open(dir.path(), 1024 * 1024).unwrap(),
            Mark::default(),
        );
        let key = |n: u32| [b"t".as_slice(), &n.to_be_bytes()].concat();
        let stored: Writes = (0..2000).map(|n| (key(n), Some(vec![1]))).collect();
        view.index.apply(&stored, &Mark::default()).unwrap();
        let removed: Writes = (0..1990).map(|n| (key(n), None)).collect();
        view.overlay.lay(removed, &[true; 1990], Mark::default());
        for limit in [1, 5, 9, 100] {
            let found = view
                .scan(Span::of(b"t".to_vec()), Order::Ascending, limit)
                .unwrap();
            let expected: Vec<_> = (1990..2000)
                .take(limit)
                .map(|n| (key(n), vec![1]))
                .collect();
            assert_eq!(found, expected);
        }
    }
}
