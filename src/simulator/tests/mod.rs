//! The simulator over real HTTP, as a client and a callback receiver see it.

mod callbacks;
mod contract;
mod customers;
mod faults;
mod kit;
mod withdrawals;
