//! The `zerostate` binary.

/// A quarter of the time of a busy server went into the system's allocator, where threads wait for one another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    zerostate::cli::run()
}
