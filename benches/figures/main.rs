//! Measures what `docs/performance.md` states, each figure beside what it is compared with, in one
//! run: `cargo bench --bench figures`, or with the name of one measurement.
//!
//! These are figures, not tests: nothing here fails because a machine is slow.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a measurement prints, reads the clock, and may panic"
)]

mod batch;
mod callbacks;
mod handlers;
mod load;
mod policy;
mod rebuild;
mod runs;
mod start;
mod world;

/// A measurement's name and what runs it.
type Measurement = (&'static str, fn());

fn main() {
    let measurements: [Measurement; 7] = [
        ("callbacks", callbacks::measure),
        ("handlers", handlers::measure),
        ("batch", batch::measure),
        ("start", start::measure),
        ("runs", runs::measure),
        ("rebuild", rebuild::measure),
        ("policy", policy::measure),
    ];
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    for (name, measure) in measurements {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            println!("\n== {name}");
            measure();
        }
    }
}
