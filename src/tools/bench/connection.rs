//! Connections: how they are opened, what is asked for on them, and how they are read.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
};

use super::{args::Transport, link::Link, messages::ClientTask, plan, stream::Fault};
use crate::proto::ws::frame::{self, Fin, Opcode};

/// Opens sockets towards the server, from a loopback address of its own if it has one.
#[derive(Debug)]
pub(super) struct Opener {
    target: SocketAddr,
    source: Option<Ipv4Addr>,
    next_port: u32,
}

impl Opener {
    /// The opener of a client process.
    pub fn new(task: &ClientTask) -> Self {
        Self { target: task.target, source: task.source, next_port: task.port_offset }
    }

    /// Starts a connect; on loopback it is usually complete when this returns.
    pub fn open(&mut self) -> io::Result<OwnedFd> {
        let family = match self.target {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        if let Some(source) = self.source {
            self.bind(&socket, source)?;
        }
        match rustix::net::connect(&socket, &self.target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    /// Binds the next free port. Other runs on this machine use the same addresses and may hold
    /// long ranges of ports, so the whole range is tried.
    fn bind(&mut self, socket: &OwnedFd, source: Ipv4Addr) -> io::Result<()> {
        let ports = plan::PORTS.len() as u32;
        for _ in 0..ports {
            let port = plan::PORTS.start + self.next_port % ports;
            self.next_port = self.next_port.wrapping_add(1);
            match rustix::net::bind(socket, &SocketAddrV4::new(source, port as u16)) {
                Err(Errno::ADDRINUSE) => {}
                bound => return Ok(bound?),
            }
        }
        Err(Errno::ADDRNOTAVAIL.into())
    }
}

/// The request that subscribes to `channel`.
pub(super) fn request(task: &ClientTask, channel: &str) -> Vec<u8> {
    let path = escaped(&task.path.replace("{channel}", channel));
    let upgrade = match task.transport {
        Transport::Sse => "Accept: text/event-stream\r\n",
        // Any 16 bytes will do as a key here (RFC 6455 section 4.1): there is no proxy to protect.
        Transport::Ws => {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: cHVzaGxpbmUgYmVuY2ghIQ==\r\n"
        }
    };
    let (authority, lines) = (&task.authority, &task.header_lines);
    format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n{upgrade}{lines}\r\n").into_bytes()
}

/// Percent-encodes what a URL may not contain, so that a template can have JSON in its query. What
/// is encoded already is left alone.
pub(super) fn escaped(target: &str) -> String {
    let mut escaped = String::with_capacity(target.len());
    for character in target.chars() {
        match character {
            '!' | '#'..=';' | '=' | '?'..='[' | ']' | '_' | 'a'..='z' | '~' => {
                escaped.push(character)
            }
            other => {
                let mut bytes = [0; 4];
                for byte in other.encode_utf8(&mut bytes).bytes() {
                    escaped.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    escaped
}

/// The answer to a ping (RFC 6455 section 5.5.3). A constant key is enough where nothing between the ends
/// could be attacked with chosen bytes.
pub(super) fn pong(data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::write_masked(&mut frame, Opcode::Pong, Fin::Last, [0x37, 0xfa, 0x21, 0x3d], data);
    frame
}

/// Why reading from a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The bytes made no sense, or reported an error themselves.
    Fault(Fault),
    Closed,
    /// The socket failed.
    Io(io::Error),
}

impl End {
    /// The kind it is counted under.
    pub fn kind(&self) -> String {
        match self {
            Self::Fault(fault) => fault.to_string(),
            Self::Closed => "closed by the server".to_owned(),
            Self::Io(error) => io_kind(error),
        }
    }
}

/// The kind an IO error is counted under.
pub(super) fn io_kind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".to_owned(),
        io::ErrorKind::TimedOut => "timed out".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no free source port".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads all there is; `on` gets it piece by piece.
pub(super) fn read_all(
    link: &mut Link,
    buffer: &mut [u8],
    mut on: impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), End> {
    loop {
        let Some(length) = link.read(buffer)? else { return Ok(()) };
        on(&buffer[..length]).map_err(End::Fault)?;
        // With edge triggering, a short read means that nothing is left (epoll(7)); TLS hands out what it has opened.
        if length < buffer.len() && !link.has_tls() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_may_hold_json_and_keeps_what_is_encoded() {
        let json = "/sse?connect={\"subs\":{\"a:b\":{}}}&x=%7B";
        assert_eq!(escaped(json), "/sse?connect=%7B%22subs%22:%7B%22a:b%22:%7B%7D%7D%7D&x=%7B");
        assert_eq!(escaped("/a b\r\n"), "/a%20b%0D%0A");
    }
}
