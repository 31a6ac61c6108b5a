//! Starting the program: what it cannot do without is reported in one line with its cure, what it
//! can do without is reported and done without, a killed server can be followed by another at once,
//! and a running one by one that takes it over.

pub mod driver;
mod journal;
mod manager;
mod program;
mod takeover;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

pub use program::Program;

/// A server on free ports that would start, were it not for one obstacle.
fn pushline() -> Command {
    configured(Command::new(env!("CARGO_BIN_EXE_pushline")))
}

/// Options that override these.
fn configured(mut command: Command) -> Command {
    command.envs([("PUSHLINE_LISTEN", "127.0.0.1:0"), ("PUSHLINE_ADMIN", "127.0.0.1:0")]);
    command.envs([("PUSHLINE_WORKERS", "1"), ("PUSHLINE_CPUS", "none")]);
    command
}

/// The one line on standard error of a failed start.
fn refusal(command: &mut Command) -> String {
    let told = refusal_among(command);
    assert!(told.lines().count() == 1, "{told}");
    told
}

/// All that a failed start has written to standard error.
fn refusal_among(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let told = String::from_utf8(stderr).expect("text");
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(stdout.is_empty(), "{told}");
    told
}

/// A server under a limit of the shell.
fn limited(limit: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit {limit} && exec \"$@\"");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_pushline")]);
    configured(command)
}

#[test]
fn a_port_that_is_taken_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for option in ["--listen", "--admin"] {
        let told = refusal(pushline().args([option, &address]));
        assert!(told.contains(&address) && told.contains("another program"), "{told}");
    }
}

#[test]
fn too_few_descriptors_are_no_half_working_server() {
    for limit in ["-n 16", "-n 64"] {
        let told = refusal(&mut limited(limit));
        assert!(told.contains("no room for a connection"), "{told}");
        assert!(told.contains("LimitNOFILE"), "{told}");
    }
}

/// The three calls of io_uring, whose numbers are the same on all of its architectures.
const SETUP: &str = "425";
const ENTER: &str = "426";
const REGISTER: &str = "427";

const EPERM: &str = "1";
const ENOSYS: &str = "38";

#[test]
fn threads_that_cannot_be_started_are_named_with_the_limit_to_raise() {
    if !can_filter_calls() {
        return;
    }
    let told = refusal(&mut without_call("11", "435"));
    assert!(told.contains("TasksMax"), "{told}");
}

fn can_filter_calls() -> bool {
    if Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success()) {
        return true;
    }
    crate::common::skip("python3, to set up a seccomp filter", "install python3");
    false
}

/// A batch of more operations than this breaks the ring: one event for that many subscribers is
/// such a batch.
const BATCH_MAX: usize = 32;

#[test]
fn a_server_whose_worker_ends_does_not_live_on_without_it() {
    if !can_filter_calls() || !driver::has_io_uring() {
        return;
    }
    let mut command = without_call(EPERM, &format!("{ENTER}:1:{BATCH_MAX}"));
    let mut server = Program::spawn(command.args(["--driver", "io_uring"]));
    let subscribers: Vec<TcpStream> = (0..2 * BATCH_MAX).map(|_| subscribed(server.addr)).collect();
    let mut publisher = TcpStream::connect(server.addr).expect("the server accepts");
    let request = b"POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    publisher.write_all(request).expect("the server takes a request");
    server.await_line("thread worker-0 has ended");
    assert_eq!(server.ended().code(), Some(1));
    drop(subscribers);
}

fn subscribed(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    let request = b"GET /sse?channel=c HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("the server takes a request");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("an answer");
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    stream
}

/// A server that gets this error from that system call.
fn without_call(errno: &str, call: &str) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/without_calls.py");
    let mut command = Command::new("python3");
    command.args([script, errno, call, env!("CARGO_BIN_EXE_pushline")]);
    configured(command)
}

#[test]
fn a_core_that_is_not_there_is_named() {
    let told = refusal(pushline().arg("--cpus=1023"));
    assert!(told.contains("core 1023") && told.contains("--cpus none"), "{told}");
}

#[test]
fn a_killed_server_can_be_followed_by_another_at_once() {
    let mut server = Program::start(&[]);
    let address = server.addr.to_string();
    for _ in 0..10 {
        server.kill();
        server = Program::start(&["--listen", &address]);
    }
}
