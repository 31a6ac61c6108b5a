//! Under a service manager: what it is told, and the sockets it passes on.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::program::Program;
use super::{configured, pushline};
use crate::common::{Conn, PATIENCE, await_that, fetch, metric, request};

/// What systemd would hear.
struct Manager {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, _directory: directory, path }
    }

    /// The next message, passing over signs of life unless one is wanted.
    fn next(&self, ignored: &str) -> String {
        let mut bytes = [0; 256];
        loop {
            let count = self.socket.recv(&mut bytes).expect("it is told something");
            let told = String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned();
            if told != ignored {
                return told;
            }
        }
    }
}

#[test]
fn the_service_manager_is_told_how_the_server_is() {
    let manager = Manager::new();
    let mut command = pushline();
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000");
    let mut server = Program::spawn(&mut command);
    assert_eq!(manager.next(""), "READY=1");
    assert_eq!(manager.next(""), "WATCHDOG=1", "the workers turn");
    assert_eq!(manager.next(""), "WATCHDOG=1", "and go on to");
    server.signal(Signal::HUP);
    let reloading = manager.next("WATCHDOG=1");
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.next("WATCHDOG=1"), "READY=1");
    server.signal(Signal::TERM);
    assert_eq!(manager.next("WATCHDOG=1"), "STOPPING=1");
    assert!(server.ended().success());
}

/// The program with these sockets, as systemd starts it (`sd_listen_fds(3)`).
fn activated(clients: &TcpListener, admin: &TcpListener) -> Command {
    let passed = |listener: &TcpListener| {
        Stdio::from(OwnedFd::from(listener.try_clone().expect("a descriptor")))
    };
    let script = "exec 3<&0 4>&1 </dev/null >/dev/null; \
                  LISTEN_FDS=2 LISTEN_FDNAMES=pushline.socket:admin LISTEN_PID=$$ exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_pushline"), "--workers=3"]);
    command.stdin(passed(clients)).stdout(passed(admin));
    configured(command)
}

#[test]
fn sockets_of_the_service_manager_outlive_a_server() {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let (clients, admin) = (bind(), bind());
    let address = |listener: &TcpListener| listener.local_addr().expect("bound");
    let [addr, operators]: [SocketAddr; 2] = [address(&clients), address(&admin)];
    for _ in 0..3 {
        // There is no server: clients wait, and are not refused.
        let mut early: Vec<Conn> = (0..20).map(|_| Conn::open(addr)).collect();
        for conn in &mut early {
            conn.send(request("GET", "/", &[], None));
        }
        let mut server = Program::listening(&mut activated(&clients, &admin));
        assert_eq!([server.addr, server.admin], [addr, operators]);
        for conn in &mut early {
            assert_eq!(conn.response().status, 200);
        }
        assert_eq!(fetch(operators, "GET", "/readyz", &[], None).status, 200);
        await_that("each worker gets its share of one socket", || {
            fetch(addr, "GET", "/", &[], None);
            (0..3).all(|worker| {
                metric(operators, &format!("pushline_accepts_total{{worker=\"{worker}\"}}")) > 5
            })
        });
        server.signal(Signal::TERM);
        assert!(server.ended().success());
    }
}

/// The manager's socket counts, not the settings: what is let in without keys depends on it.
#[test]
fn a_socket_of_the_service_manager_that_is_open_to_the_world_needs_keys() {
    let bind = |address| TcpListener::bind(address).expect("a port");
    let (clients, admin) = (bind("0.0.0.0:0"), bind("127.0.0.1:0"));
    let told = super::refusal_among(&mut activated(&clients, &admin));
    assert!(told.contains("without keys"), "{told}");
}
