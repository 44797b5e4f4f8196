//! What is durable in the guard journal but not yet in the index: layers of writes in memory.
//!
//! The writer lays every group into the active layer once its journal is synced; the thread of the
//! index freezes that layer, applies it, and takes it away only then. So a record is at every
//! moment in a layer, in the index, or in both, and whoever asks the layers first and the index
//! afterwards misses nothing. Knows nothing of files and threads; read through `view`.
//!
//! # Design
//! A layer keeps one value for each key: what is overwritten within it never costs the index a
//! write, and a record that is put and removed within it leaves no trace at all, unless something
//! beneath the layer must be removed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::journal_format::{Mark, Writes};
use super::scan::{Order, Span};

/// Bytes that a key costs in memory beside its own and its record's, about.
const ENTRY_BYTES: usize = 96;

/// A key and what a layer says about it: its stored bytes, or `None` if it was removed.
pub(super) type Laid = (Vec<u8>, Option<Vec<u8>>);

/// The layers over an index.
#[derive(Debug)]
pub(super) struct Overlay {
    layers: RwLock<Layers>,
}

#[derive(Debug)]
struct Layers {
    active: Layer,
    frozen: Option<Arc<Layer>>,
    /// The last group that was laid over the index, or is in it.
    last: Mark,
}

/// Writes of consecutive groups: the last of each key.
#[derive(Debug, Default)]
pub(super) struct Layer {
    writes: BTreeMap<Vec<u8>, Write>,
    bytes: usize,
    /// The last group in it; `None` before the first.
    mark: Option<Mark>,
}

#[derive(Debug)]
struct Write {
    value: Option<Vec<u8>>,
    /// Whether there was a record under the key before the layer.
    beneath: bool,
}

impl Layer {
    /// The writes in the order of their keys, `None` for a removal.
    pub(super) fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.writes
            .iter()
            .map(|(key, write)| (key.as_slice(), write.value.as_deref()))
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, before: bool) {
        let new = value.as_ref().map_or(0, Vec::len);
        match self.writes.entry(key) {
            Entry::Occupied(mut write) => {
                let old = write.get().value.as_ref().map_or(0, Vec::len);
                self.bytes = self.bytes.saturating_sub(old) + new;
                if value.is_none() && !write.get().beneath {
                    self.bytes = self.bytes.saturating_sub(write.key().len() + ENTRY_BYTES);
                    write.remove();
                } else {
                    write.get_mut().value = value;
                }
            }
            Entry::Vacant(unwritten) => {
                if value.is_some() || before {
                    self.bytes += unwritten.key().len() + ENTRY_BYTES + new;
                    let beneath = before;
                    unwritten.insert(Write { value, beneath });
                }
            }
        }
    }
}

impl Overlay {
    /// Nothing over an index that stands at `mark`.
    pub(super) fn new(mark: Mark) -> Self {
        Self {
            layers: RwLock::new(Layers {
                active: Layer::default(),
                frozen: None,
                last: mark,
            }),
        }
    }

    /// Lays a group over the index; `before` says for each of its keys, in order, whether there was
    /// a record. Gives the bytes of the active layer.
    pub(super) fn lay(&self, writes: Writes, before: &[bool], mark: Mark) -> usize {
        let mut layers = self.write();
        for ((key, value), before) in writes.into_iter().zip(before) {
            layers.active.set(key, value, *before);
        }
        layers.active.mark = Some(mark);
        layers.last = mark;
        layers.active.bytes
    }

    /// The last group that was laid over the index, or is in it.
    pub(super) fn last(&self) -> Mark {
        self.read().last
    }

    /// What `look` makes of what a layer says about a key: its stored bytes, or `None` if it was
    /// removed. Gives `None` if no layer says anything: then the index does.
    pub(super) fn look<T>(&self, key: &[u8], look: impl FnOnce(Option<&[u8]>) -> T) -> Option<T> {
        let layers = self.read();
        let write = layers.active.writes.get(key).or_else(|| {
            let frozen = layers.frozen.as_ref();
            frozen.and_then(|frozen| frozen.writes.get(key))
        });
        write.map(|write| look(write.value.as_deref()))
    }

    /// The first `limit` keys of a span of which a layer says anything.
    pub(super) fn scan(&self, span: &Span, order: Order, limit: usize) -> Vec<Laid> {
        if span.is_empty() {
            return Vec::new();
        }
        let layering = self.read();
        let mut active = layering.active.within(span, order).peekable();
        let beneath = layering.frozen.as_ref();
        let beneath = beneath.map(|frozen| frozen.within(span, order));
        let mut frozen = beneath.into_iter().flatten().peekable();
        let mut laid = Vec::new();
        while laid.len() < limit {
            let next = match (active.peek(), frozen.peek()) {
                (Some((upper, _)), Some((lower, _))) if upper == lower => {
                    frozen.next();
                    active.next()
                }
                (Some((upper, _)), Some((lower, _))) if order.precedes(lower, upper) => {
                    frozen.next()
                }
                (Some(_), Some(_) | None) => active.next(),
                (None, Some(_)) => frozen.next(),
                (None, None) => None,
            };
            let Some((key, write)) = next else {
                break;
            };
            laid.push((key.clone(), write.value.clone()));
        }
        laid
    }

    /// Freezes the active layer: it stays as it is, and visible, until [`Overlay::take_away`].
    /// `None` if nothing was laid since the last time. There must be no frozen layer.
    pub(super) fn freeze(&self) -> Option<(Arc<Layer>, Mark)> {
        let mut layers = self.write();
        let mark = layers.active.mark?;
        let layer = Arc::new(std::mem::take(&mut layers.active));
        layers.frozen = Some(Arc::clone(&layer));
        Some((layer, mark))
    }

    /// Takes the frozen layer away, because all of it is in the index.
    pub(super) fn take_away(&self) {
        let frozen = self.write().frozen.take();
        // Freeing a layer takes a while, and nobody should wait for that.
        drop(frozen);
    }

    // A panic under the lock leaves nothing half done that could be read: it poisons the store.
    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer {
    fn within(
        &self,
        span: &Span,
        order: Order,
    ) -> Box<dyn Iterator<Item = (&Vec<u8>, &Write)> + '_> {
        let writes = self.writes.range::<[u8], _>(span.bounds());
        match order {
            Order::Ascending => Box::new(writes),
            Order::Descending => Box::new(writes.rev()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(overlay: &Overlay, key: &str, value: Option<&str>, before: bool) -> usize {
        let write = (key.into(), value.map(|value| value.as_bytes().to_vec()));
        overlay.lay(Writes::from([write]), &[before], Mark::default())
    }

    fn writes(layer: &Layer) -> Vec<(&str, Option<&str>)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        layer
            .writes()
            .map(|(key, value)| (text(key), value.map(text)))
            .collect()
    }

    #[test]
    fn what_is_written_twice_reaches_the_index_once_and_what_came_and_went_never() {
        let overlay = Overlay::new(Mark::default());
        lay(&overlay, "twice", Some("a"), false);
        lay(&overlay, "twice", Some("b"), true);
        lay(&overlay, "brief", Some("a"), false);
        lay(&overlay, "brief", Some("b"), true);
        lay(&overlay, "brief", None, true);
        lay(&overlay, "older", Some("a"), true);
        lay(&overlay, "older", None, true);
        lay(&overlay, "nothing", None, false);
        let (layer, _) = overlay.freeze().unwrap();
        assert_eq!(writes(&layer), [("older", None), ("twice", Some("b"))]);
        // What a frozen layer holds must still be removed from beneath.
        lay(&overlay, "twice", Some("c"), true);
        lay(&overlay, "twice", None, true);
        assert_eq!(
            overlay.look(b"twice", |stored| stored.is_none()),
            Some(true)
        );
        overlay.take_away();
        let (layer, _) = overlay.freeze().unwrap();
        assert_eq!(writes(&layer), [("twice", None)]);
    }

    #[test]
    fn the_bytes_of_a_layer_are_those_of_what_is_in_it() {
        let overlay = Overlay::new(Mark::default());
        let one = lay(&overlay, "a", Some("12345"), false);
        assert_eq!(one, ENTRY_BYTES + 6);
        assert_eq!(lay(&overlay, "a", Some("1"), true), ENTRY_BYTES + 2);
        assert_eq!(lay(&overlay, "b", Some("1"), false), 2 * ENTRY_BYTES + 4);
        assert_eq!(lay(&overlay, "b", None, true), ENTRY_BYTES + 2);
        assert_eq!(lay(&overlay, "a", None, true), 0);
        // The group is noted in the index although it leaves nothing there.
        assert!(overlay.freeze().is_some());
        overlay.take_away();
        assert!(overlay.freeze().is_none());
    }
}
