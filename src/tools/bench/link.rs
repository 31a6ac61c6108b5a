//! A subscriber's socket, with TLS or not.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustls::ClientConnection;

use super::connection::End;
use super::sealed::Sealed;

/// Sealed bytes read at once.
const SEALED_BYTES: usize = 16 * 1024;

/// A socket that does not block.
#[derive(Debug)]
pub(super) struct Link {
    pub socket: OwnedFd,
    tls: Option<Box<Sealed>>,
}

impl Link {
    /// Over a socket whose connect may not be complete.
    pub fn new(socket: OwnedFd, tls: Option<ClientConnection>) -> Self {
        Self { socket, tls: tls.map(|tls| Box::new(Sealed::new(tls))) }
    }

    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends; `false` if the connect is not complete yet, and nothing was sent. What TLS has to say
    /// first goes first, and `bytes` follow by themselves.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return send(&self.socket, bytes) };
        if !is_connected(&self.socket)? {
            return Ok(false);
        }
        tls.write_all(bytes)?;
        send_sealed(&self.socket, tls)?;
        Ok(true)
    }

    /// Reads what there is, at most as much as fits; none: nothing is there.
    pub fn read(&mut self, to: &mut [u8]) -> Result<Option<usize>, End> {
        let Self { socket, tls } = self;
        let Some(tls) = tls else { return recv(socket, to) };
        loop {
            match tls.read(to)? {
                0 => {}
                count => return Ok(Some(count)),
            }
            let mut sealed = [0; SEALED_BYTES];
            let Some(count) = recv(socket, &mut sealed)? else {
                tls.rest()?;
                return Ok(None);
            };
            tls.received(&sealed[..count])?;
            send_sealed(socket, tls).map_err(End::Io)?;
        }
    }
}

fn is_connected(socket: &OwnedFd) -> io::Result<bool> {
    match rustix::net::getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A handshake and a request fit an empty socket.
fn send_sealed(socket: &OwnedFd, tls: &mut Sealed) -> io::Result<()> {
    let sealed = tls.take_sealed()?;
    if !sealed.is_empty() && !send(socket, &sealed)? {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<bool> {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) if sent == bytes.len() => Ok(true),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(Errno::AGAIN | Errno::NOTCONN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn recv(socket: &OwnedFd, to: &mut [u8]) -> Result<Option<usize>, End> {
    loop {
        return match rustix::net::recv(socket, &mut *to, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(End::Closed),
            Ok((_, count)) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => Err(End::Io(error.into())),
        };
    }
}
