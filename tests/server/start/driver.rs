//! Which driver a server runs on, and what it says about that.

use std::process::Command;

use pushline::host::Host;
use pushline::ring::KernelVersion;

use super::program::Program;
use super::{ENOSYS, ENTER, EPERM, REGISTER, SETUP};
use super::{can_filter_calls, configured, pushline, refusal, without_call};
use crate::common::{Sse, fetch, publish, skip, skip_anywhere};

/// How sandboxes refuse io_uring.
const REFUSALS: [(&str, &str); 4] =
    [(EPERM, SETUP), (ENOSYS, SETUP), (EPERM, ENTER), (EPERM, REGISTER)];

pub fn has_io_uring() -> bool {
    let refusal = pushline::ring::try_io_uring(1).err();
    if let Some(refusal) = &refusal {
        skip("io_uring", &refusal.to_string());
    }
    refusal.is_none()
}

fn assert_serves(server: &Program) {
    let mut stream = Sse::open(server.addr, "channel=news");
    publish(server.addr, "news", "hello");
    assert_eq!(stream.event().data, "hello");
}

fn assert_runs_on(server: &Program, driver: &str) {
    server.await_line(&format!("({driver})"));
    let metrics = fetch(server.admin, "GET", "/metrics", &[], None).text();
    let info = format!("pushline_driver_info{{driver=\"{driver}\"}} 1");
    assert!(metrics.contains(&info), "{metrics}");
}

#[test]
fn in_a_sandbox_without_io_uring_the_server_runs_on_epoll_and_says_what_to_allow() {
    if !can_filter_calls() || !has_io_uring() {
        return;
    }
    for (errno, call) in REFUSALS {
        let server = Program::spawn(without_call(errno, call).args(["--driver", "auto"]));
        let why = server.await_line("running on epoll");
        assert!(why.contains("io_uring") && why.contains("seccomp profile"), "{call}: {why}");
        assert_runs_on(&server, "epoll");
        assert_serves(&server);
    }
}

#[test]
fn epoll_that_was_asked_for_needs_no_explanation() {
    let server = Program::spawn(pushline().args(["--driver", "epoll"]));
    assert_runs_on(&server, "epoll");
    server.await_line("capacity");
    assert_eq!(server.said("running on epoll"), None);
}

#[test]
fn a_server_that_must_have_io_uring_ends_where_it_is_refused() {
    if !can_filter_calls() || !has_io_uring() {
        return;
    }
    for (errno, call) in REFUSALS {
        let told = refusal(without_call(errno, call).args(["--driver", "io_uring"]));
        assert!(told.contains("io_uring") && told.contains("seccomp profile"), "{call}: {told}");
        assert!(told.contains("--driver auto"), "{told}");
    }
}

const SANDBOXED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/sandboxed");

fn can_sandbox() -> bool {
    let tried = Command::new(SANDBOXED).arg("true").output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        skip("setpriv, prlimit, python3 and libseccomp2", "for scripts/sandboxed");
    }
    can
}

#[test]
fn in_a_container_it_runs_as_it_is_and_with_the_profile_on_io_uring() {
    if !can_sandbox() {
        return;
    }
    let refused = "io_uring_setup,io_uring_enter,io_uring_register";
    for (without, driver) in [(refused, "epoll"), ("", "io_uring")] {
        if without.is_empty() && !has_io_uring() {
            return;
        }
        let mut command = configured(Command::new(SANDBOXED));
        command.env("PUSHLINE_FILTER_WITHOUT", without).env_remove("PUSHLINE_DRIVER");
        let server = Program::spawn(command.arg(env!("CARGO_BIN_EXE_pushline")));
        assert_runs_on(&server, driver);
        assert_serves(&server);
    }
}

#[test]
fn where_io_uring_is_switched_off_it_runs_on_epoll_and_names_the_switch() {
    let switch = "kernel.io_uring_disabled";
    if Host::live().sysctl(switch).ok().as_deref() != Some(&[2]) {
        return skip_anywhere("kernel.io_uring_disabled=2", "scripts/kernel-matrix boots with it");
    }
    let server = Program::spawn(pushline().args(["--driver", "auto"]));
    assert!(server.await_line("running on epoll").contains("kernel.io_uring_disabled=0"));
    assert_runs_on(&server, "epoll");
    assert_serves(&server);
    let told = refusal(pushline().args(["--driver", "io_uring"]));
    assert!(told.contains(switch), "{told}");
}

/// From this kernel on, rings are charged to the user's locked memory.
const CHARGES_LOCKED_MEMORY: KernelVersion = KernelVersion { major: 6, minor: 14 };

#[test]
fn where_locked_memory_is_too_little_for_all_rings_it_runs_on_epoll_and_says_so() {
    if !can_sandbox() || !has_io_uring() {
        return;
    }
    // Enough for the probe's rings, but not for those of workers; many hosts give no more.
    let mut command = configured(Command::new("prlimit"));
    command.args(["--memlock=65536:65536", SANDBOXED, env!("CARGO_BIN_EXE_pushline")]);
    command.env("PUSHLINE_FILTER_WITHOUT", "").env_remove("PUSHLINE_DRIVER");
    let server = Program::spawn(&mut command);
    if KernelVersion::running() >= CHARGES_LOCKED_MEMORY {
        assert!(server.await_line("running on epoll").contains("LimitMEMLOCK"));
        assert_runs_on(&server, "epoll");
    }
    assert_serves(&server);
}
