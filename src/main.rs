//! Arguments in, exit code out.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A huge page is touched as a whole for the first byte in it: with a heap per worker that
    // wastes megabytes. It does no harm if the kernel does not know this option.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    pushline::cli::run(std::env::args_os())
}
