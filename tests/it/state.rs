//! Stand in.
