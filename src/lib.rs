//! Bursar runs a merchant's payment rules against the CryptoProcessing.com gateway.

pub mod cli;
pub mod config;
pub mod crash_point;
pub mod daemon;
pub mod domain;
pub mod gateway;
pub mod http;
pub mod outbound;
pub mod runner;
pub mod scripting;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod triggers;
