//! Starting the program: what it cannot do without is said in one line with its cure, and a server
//! that was killed can be followed by another at once.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};

/// A server on free ports that would start, but for what is in its way.
fn pushline() -> Command {
    configured(Command::new(env!("CARGO_BIN_EXE_pushline")))
}

/// Options win over these.
fn configured(mut command: Command) -> Command {
    command.envs([("PUSHLINE_LISTEN", "127.0.0.1:0"), ("PUSHLINE_ADMIN", "127.0.0.1:0")]);
    command.envs([("PUSHLINE_WORKERS", "1"), ("PUSHLINE_CPUS", "none")]);
    command
}

/// The one line on standard error of a start that failed.
fn refusal(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let told = String::from_utf8(stderr).expect("text");
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(stdout.is_empty() && told.lines().count() == 1, "{told}");
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

/// The three calls of io_uring; the same numbers on all of its architectures.
const SETUP: &str = "425";
const ENTER: &str = "426";
const REGISTER: &str = "427";

const EPERM: &str = "1";
const ENOSYS: &str = "38";

#[test]
fn a_sandbox_without_io_uring_is_named_with_what_to_allow() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success()) {
        // Not captured by the test harness: a skip is to be seen.
        let line = "SKIPPED: needs python3 to set up a seccomp filter\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
        assert!(std::env::var_os("PUSHLINE_NO_SKIP").is_none_or(|value| value != "1"), "{line}");
        return;
    }
    for (errno, call) in [(EPERM, SETUP), (ENOSYS, SETUP), (EPERM, ENTER), (EPERM, REGISTER)] {
        let told = refusal(&mut without_call(errno, call));
        assert!(told.contains("io_uring") && told.contains("seccomp profile"), "{call}: {told}");
    }
    // No thread either: the same call starts all of them.
    let told = refusal(&mut without_call("11", "435"));
    assert!(told.contains("TasksMax"), "{told}");
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
    let (mut server, address) = started("127.0.0.1:0");
    for _ in 0..10 {
        server.kill().expect("it is there");
        server.wait().expect("it ends");
        (server, _) = started(&address.to_string());
    }
    server.kill().expect("it is there");
    server.wait().expect("it ends");
}

fn started(listen: &str) -> (Child, SocketAddr) {
    let mut child = pushline()
        .args(["--listen", listen])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut banner = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut banner).expect("a banner");
    let address = banner.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
    (child, address.and_then(|text| text.parse().ok()).expect("it listens"))
}
