//! Arguments in, exit code out.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A huge page is touched whole for the first byte in it: with a heap per worker that is
    // megabytes for nothing. If the kernel does not know the wish, nothing is lost.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    pushline::cli::run(std::env::args_os())
}
