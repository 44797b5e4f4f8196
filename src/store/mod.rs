//! The durable store: a guard journal that is the point of durability, and sled as its index.
