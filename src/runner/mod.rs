//! Runs handlers and moves money: everything that performs what the domain decides.
