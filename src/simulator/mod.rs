//! The gateway in a box, over real HTTP.
