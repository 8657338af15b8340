//! The `zerostate` binary.

/// Many short-lived values of many sizes from several threads are what this program allocates, and what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    zerostate::cli::run()
}
