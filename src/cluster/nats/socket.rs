//! The way of bytes to a server: a socket, with TLS or without.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// An open socket.
#[derive(Debug)]
pub enum Socket {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Shakes hands with this host, while the socket still blocks.
    ///
    /// # Errors
    /// It is not the host, or does not speak TLS.
    pub fn secured(self, config: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let Self::Plain(mut tcp) = self else { return Ok(self) };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| io::Error::other("TLS needs a name or an address"))?;
        let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, tcp))))
    }

    /// To wait on.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }

    /// Whether what was written is still here.
    pub fn holds_back(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.conn.wants_write(),
        }
    }

    /// Sends what was held back, as far as the socket takes it.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn push(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) if tls.conn.wants_write() => match tls.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(piece),
            Self::Tls(tls) => tls.read(piece),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
