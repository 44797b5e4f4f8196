//! Bursar runs a merchant's payment rules against the CryptoProcessing.com gateway.
//!
//! # Map
//!
//! | module | responsible for |
//! |---|---|
//! | [`domain`] | what is decided: pure types and functions, without I/O, clock or async |
//! | [`config`] | `daemon.toml` and its overrides, read once and checked as a whole |
//! | [`telemetry`] | log lines and metrics, one function per operational event |
//! | [`crash_point`] | the places where a test may kill the process |
//! | [`gateway`] | the client of the gateway's API: sign, send, classify |
//! | [`store`] | durable state: one writer, a guard journal, an index |
//! | [`scripting`] | compiling, registering and executing scripts |
//! | [`triggers`] | what starts handlers: slots of schedules, callbacks |
//! | [`outbound`] | what scripts may reach outside: HTTP and files |
//! | [`runner`] | runs and their steps, and the one path on which money moves |
//! | [`http`] | the listeners for callbacks and for people |
//! | [`simulator`] | the gateway in a box |
//! | [`daemon`] | building, running and stopping all of it |
//! | [`cli`] | the command line |
//!
//! Who may use whom is kept by the tests in `tests/it/tidy`.

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
