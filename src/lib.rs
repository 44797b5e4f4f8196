//! Bursar runs a merchant's payment rules against the CryptoProcessing.com gateway.
//!
//! # Map
//!
//! | module | responsible for |
//! |---|---|
//! | [`domain`] | what is decided: pure types and functions, without I/O, clock or async |
//! | [`config`] | `daemon.toml` and its overrides, read once and checked as a whole |
//! | [`telemetry`] | log lines and metrics, one function per operational event |
//! | [`memory`] | the allocator |
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
//!
//! # What always holds
//!
//! - **No payment is sent twice.** One function sends ([`runner`]'s money path); before the first
//!   byte leaves, the intent with the exact bytes and the mark that they are being sent are on
//!   disk, and what has that mark is looked up, not sent again, unless it certainly never left. Only
//!   where the operator allows it is it sent once more, under the same key, which the gateway is taken to refuse twice.
//! - **Nothing answered with 200 is lost.** A callback and the runs it starts are one commit, and
//!   the answer comes after it. What was taken once is known for ever.
//! - **A run goes on where it stopped.** What a script asks of the world is answered from the
//!   run's journal when it is there, and is there before the script sees it. A run keeps the
//!   script set it began with.
//! - **A slot fires once.** Its record and its run are one commit, and its instant has one record
//!   for ever.
//! - **People decide by name.** An approval binds the hash of the very content; the last one that is
//!   needed and what it moves are one commit. After a pause is answered, nothing is marked as sent.
//! - **Decisions are pure.** Every state change is a function in [`domain`]; live work and recovery
//!   call the same ones.
//! - **The store never shrinks silently.** It opens whole or not at all.
//!
//! # A callback
//!
//! [`http::callbacks`] takes the bytes; [`triggers::intake`] verifies them;
//! [`domain::callback::Callback`] understands them and derives the event's key; the runner looks
//! the key up, finds the payment the event is about and the handlers it starts, and commits event,
//! payment and runs together through [`store::Store::commit`]. Only then 200 is answered and the
//! runs are queued. A script thread executes each with [`scripting::ScriptSet::execute`]; its steps
//! come back through [`scripting::effects::Effects`], and one commit ends the run.
//!
//! # A payment
//!
//! `gateway::withdraw(#{…})` in a script becomes an [`effects`](scripting::effects) request. The
//! runner derives the key if the script gave none, [`gateway::prepare`] checks the fields and makes
//! the bytes, and the money path goes through [`domain::payment::next_step`]: decide and commit the
//! intent, commit the mark, wait for a place, note the departure, [`gateway::Client::send_admitted`],
//! commit what the [`Disposition`](gateway::Disposition) means. A lost answer makes it `unknown`: the sweep looks it
//! up with growing delays while callbacks may settle it any moment. What the gateway shows is ours
//! only when [`domain::payment::likeness()`] finds nothing else in it, and patience with not knowing
//! ends where [`domain::payment::Patience`] says. The outcome is a step in the
//! run's journal, so the script sees the same payment when it is run again.

pub mod cli;
pub mod config;
pub mod crash_point;
pub mod daemon;
pub mod domain;
pub mod gateway;
pub mod http;
pub mod memory;
pub mod outbound;
pub mod runner;
pub mod scripting;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod triggers;
