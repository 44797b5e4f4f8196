//! Scripts.

pub mod effects;
