//! The `bursar` binary: arguments in, exit code out. Everything else is in the library.

fn main() -> std::process::ExitCode {
    bursar::cli::main(std::env::args_os())
}
