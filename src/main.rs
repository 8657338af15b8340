//! The `zerostate` binary.

fn main() -> std::process::ExitCode {
    zerostate::cli::run()
}
