//! This server's job, and nothing more, on other event loops: accept subscribers, answer a fixed
//! SSE head, hold them, and deliver each published event to all of them.
//!
//! `rivals LOOP PORT WORKERS` serves until it is killed; `scripts/bench-loops` measures it with
//! `pushline bench`, like our own server. A rival that beats us is a finding.
//!
//! What they have in common: one thread per worker, pinned as ours are, each with its own
//! `SO_REUSEPORT` listener of the same options; the same allocator; the same bytes on the wire; a
//! subscriber that does not take an event whole is cut off. `rustls` is no loop, and delivers nothing: it
//! only shakes hands, for `scripts/bench-tls`.
#![allow(unsafe_code)]

mod bare_uring;
mod driver;
mod epoll_send;
mod hub;
mod job;
mod on_monoio;
mod on_rustls;
mod on_tokio_uring;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::{io, thread};

use pushline::ring::uring::slots_max;
use pushline::ring::{ListenOptions, listen};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use job::{Post, Seat};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: rivals bare-uring|driver|epoll-send|monoio|rustls|tokio-uring PORT WORKERS\n\
                     (scripts/bench-loops and scripts/bench-tls put them into tables)";

fn main() -> ExitCode {
    // As in our own server, so that memory compares.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // `cargo bench` adds an option of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    let Some((serve, port, workers)) = parse(&arguments) else {
        println!("{USAGE}");
        return if arguments.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    match run(serve, port, workers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Serve = fn(Seat) -> io::Result<()>;

fn parse(arguments: &[String]) -> Option<(Serve, u16, usize)> {
    let [name, port, workers] = arguments else { return None };
    let serve: Serve = match name.as_str() {
        "bare-uring" => bare_uring::serve,
        "driver" => driver::serve,
        "epoll-send" => epoll_send::serve,
        "monoio" => on_monoio::serve,
        "rustls" => on_rustls::serve,
        "tokio-uring" => on_tokio_uring::serve,
        _ => return None,
    };
    let workers = workers.parse().ok().filter(|&workers| workers > 0)?;
    Some((serve, port.parse().ok()?, workers))
}

fn run(serve: Serve, port: u16, workers: usize) -> io::Result<()> {
    slots_max().map_err(io::Error::other)?;
    let mut threads = Vec::new();
    for (worker, seat) in seats(port, workers)?.into_iter().enumerate() {
        threads.push(thread::spawn(move || {
            pin(worker)?;
            own_descriptors()?;
            serve(seat)
        }));
    }
    for thread in threads {
        thread.join().expect("a worker panicked")?;
    }
    Ok(())
}

fn seats(port: u16, workers: usize) -> io::Result<Vec<Seat>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let options = ListenOptions { backlog: i32::MAX, ..ListenOptions::default() };
    let (mut ringers, mut bells) = (Vec::new(), Vec::new());
    for _ in 0..workers {
        let (ringer, bell) = UnixStream::pair()?;
        ringer.set_nonblocking(true)?;
        ringers.push(ringer);
        bells.push(bell);
    }
    let post = Post::new(ringers);
    let seat = |(me, bell)| {
        let listener = listen(address, &options)?.into();
        Ok(Seat { listener, bell, post: post.for_worker(me) })
    };
    bells.into_iter().enumerate().map(seat).collect()
}

fn pin(worker: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let mut one = CpuSet::new();
    one.set(cpus[worker % cpus.len()]);
    Ok(sched_setaffinity(None, &one)?)
}

/// A descriptor table for this thread alone: `RLIMIT_NOFILE` counts per table, and the loops that
/// hold a descriptor per connection would otherwise end at one limit for all workers.
fn own_descriptors() -> io::Result<()> {
    // SAFETY: the descriptors this thread uses from here on are in the copy as well, and no other
    // thread hands it one afterwards.
    match unsafe { libc::unshare(libc::CLONE_FILES) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
