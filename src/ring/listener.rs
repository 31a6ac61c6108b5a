//! Listening sockets. On Linux, accepted sockets inherit what is set here (buffer sizes, no delay,
//! user timeout), which saves a system call per connection and option.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::Layer;
use super::uring::set_defer_accept;
pub use super::uring::{steer_by_cpu, stop_steering};

/// A listening socket, and what is spoken on its connections.
#[derive(Debug)]
pub struct Listener {
    /// Bound, and listening already.
    pub socket: OwnedFd,
    /// What its connections begin with.
    pub layer: Layer,
    /// Other drivers accept from it, too.
    pub is_shared: bool,
}

impl From<OwnedFd> for Listener {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, layer: Layer::Plain, is_shared: false }
    }
}

impl From<Socket> for Listener {
    fn from(socket: Socket) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        OwnedFd::from(socket).into()
    }
}

/// Settings of a listener and of the sockets accepted from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Several listeners share the port, one per worker (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// `SO_SNDBUF` in bytes; the kernel doubles it for its own book-keeping. `None`: the kernel
    /// sizes buffers itself, up to megabytes for one slow consumer.
    pub send_buffer_bytes: Option<u32>,
    /// `TCP_NOTSENT_LOWAT`: bytes the kernel accepts beyond those in flight. It bounds how much a
    /// reader that has stopped makes the kernel hold; unlike `SO_SNDBUF` it leaves the whole window
    /// to a distant reader that keeps up. `None`: as much as the send buffer holds.
    pub unsent_bytes: Option<u32>,
    /// `SO_RCVBUF` in bytes, as `send_buffer_bytes`.
    pub recv_buffer_bytes: Option<u32>,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged before the connection is
    /// given up. `None`: the kernel's 15 minutes or so.
    pub user_timeout: Option<Duration>,
    /// `TCP_NODELAY`: small events leave at once.
    pub nodelay: bool,
    /// `TCP_DEFER_ACCEPT` in whole seconds: how long the kernel holds a connection whose peer has
    /// not sent anything. It is accepted with its first bytes, or when this time is over, so that
    /// the worker wakes up once for both. `None`: accepted at once.
    pub defer_accept: Option<Duration>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            reuse_port: true,
            backlog: 4096,
            send_buffer_bytes: None,
            unsent_bytes: None,
            recv_buffer_bytes: None,
            user_timeout: None,
            nodelay: true,
            defer_accept: None,
        }
    }
}

/// Opens a listening TCP socket on `address`.
///
/// # Errors
/// As for `socket`, `setsockopt`, `bind` and `listen`, most often `AddrInUse`.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for connections in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if options.reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `[::]` means every address, whatever net.ipv6.bindv6only says.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(&address.into())?;
    listen_again(&socket, options)?;
    Ok(socket)
}

/// Sets a bound socket, which may be listening already, to `options`, and lets it listen. If
/// another process made it, what the options leave to the kernel stays unchanged.
///
/// # Errors
/// As for `setsockopt` and `listen`.
pub fn listen_again(socket: &Socket, options: &ListenOptions) -> io::Result<()> {
    if let Some(bytes) = options.send_buffer_bytes {
        sockopt::set_socket_send_buffer_size(socket, bytes as usize)?;
    }
    if let Some(bytes) = options.unsent_bytes {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        sockopt::set_socket_recv_buffer_size(socket, bytes as usize)?;
    }
    if let Some(timeout) = options.user_timeout {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(socket, milliseconds)?;
    }
    sockopt::set_tcp_nodelay(socket, options.nodelay)?;
    if let Some(time) = options.defer_accept {
        set_defer_accept(socket, time)?;
    }
    socket.listen(options.backlog)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpStream};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    fn address(listener: &Socket) -> SocketAddr {
        listener.local_addr().unwrap().as_socket().unwrap()
    }

    #[test]
    fn accepted_sockets_inherit_what_the_listener_was_set_to() {
        let options = ListenOptions {
            send_buffer_bytes: Some(20_000),
            unsent_bytes: Some(9_000),
            recv_buffer_bytes: Some(10_000),
            user_timeout: Some(Duration::from_secs(17)),
            ..ListenOptions::default()
        };
        let listener = listen(loopback(), &options).unwrap();
        let _peer = TcpStream::connect(address(&listener)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(sockopt::socket_send_buffer_size(&accepted).unwrap(), 2 * 20_000);
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 9_000);
        assert_eq!(sockopt::socket_recv_buffer_size(&accepted).unwrap(), 2 * 10_000);
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), 17_000);
        assert!(sockopt::tcp_nodelay(&accepted).unwrap());
    }

    #[test]
    fn without_reuse_port_a_taken_address_is_an_error() {
        let alone = ListenOptions { reuse_port: false, ..ListenOptions::default() };
        let first = listen(loopback(), &alone).unwrap();
        let taken = listen(address(&first), &alone).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    /// How long the kernel may take: on a busy machine it leaves what came over the loopback to
    /// another thread.
    const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

    /// Waits until one of them has a connection; returns which, and the connection.
    fn accept_one(listeners: &[&Socket]) -> (usize, Socket) {
        let of = |listener| PollFd::new(listener, PollFlags::IN);
        let mut polled: Vec<PollFd<'_>> = listeners.iter().copied().map(of).collect();
        poll(&mut polled, Some(&PATIENCE)).unwrap();
        let place = polled.iter().position(|one| !one.revents().is_empty());
        let place = place.expect("a connection");
        (place, listeners[place].accept().unwrap().0)
    }

    fn deferring(time: Duration) -> Socket {
        listen(loopback(), &ListenOptions { defer_accept: Some(time), ..ListenOptions::default() })
            .unwrap()
    }

    #[test]
    fn a_deferred_connection_is_accepted_with_its_first_bytes_or_after_a_while() {
        let listener = deferring(Duration::from_secs(60));
        let _silent = TcpStream::connect(address(&listener)).unwrap();
        let mut talks = TcpStream::connect(address(&listener)).unwrap();
        talks.write_all(b"GET").unwrap();
        let (_, accepted) = accept_one(&[&listener]);
        assert_eq!(rustix::io::ioctl_fionread(&accepted).unwrap(), 3);
        let listener = deferring(Duration::from_secs(1));
        let _silent = TcpStream::connect(address(&listener)).unwrap();
        accept_one(&[&listener]);
    }

    #[test]
    fn a_connection_goes_to_the_listener_of_the_cpu_that_took_its_syn() {
        let cpus = sched_getaffinity(None).unwrap();
        let first = listen(loopback(), &ListenOptions::default()).unwrap();
        let second = listen(address(&first), &ListenOptions::default()).unwrap();
        steer_by_cpu(&first, 2).unwrap();
        for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| cpus.is_set(cpu)).take(4) {
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(None, &only).unwrap();
            // On the loopback, the sender's CPU handles the SYN.
            for _ in 0..20 {
                let _peer = TcpStream::connect(address(&first)).unwrap();
                assert_eq!(accept_one(&[&first, &second]).0, cpu % 2, "cpu {cpu}");
            }
        }
        stop_steering(&first).unwrap();
        let _peers: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(address(&first)).unwrap()).collect();
        let there: usize = (0..100).map(|_| accept_one(&[&first, &second]).0).sum();
        assert!((1..100).contains(&there), "spread again: {there} of 100");
        sched_setaffinity(None, &cpus).unwrap();
    }
}
