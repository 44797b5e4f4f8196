//! The one integration binary: the daemon and its parts through their real boundaries.

mod tidy;
#[cfg(test)]
mod damage;
