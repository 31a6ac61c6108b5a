//! A socket to a broker's server, with TLS or without, and what was read from it. It blocks only while
//! it is opened.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long each step of connecting to a server may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// Most bytes read at once: they are handled before more is read.
const READ_BYTES_MAX: usize = 256 << 10;

/// How much one call reads: two records of TLS.
const PIECE_BYTES: usize = 32 << 10;

/// An open socket, and what came over it.
#[derive(Debug)]
pub struct Pipe {
    socket: Socket,
    input: Vec<u8>,
    /// Bytes at the front of `input` that are done with.
    taken: usize,
    /// What is read of the socket at once.
    piece: Box<[u8]>,
    /// The last read ended at its bound.
    was_full: bool,
}

impl Pipe {
    /// Connects to the first of the name's addresses that accepts. Blocks until
    /// [`Pipe::never_block`] is called.
    ///
    /// # Errors
    /// The server is not there.
    pub fn connect(host: &str, port: u16) -> io::Result<Self> {
        let tcp = reach(host, port)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(CONNECT_TIME_MAX))?;
        tcp.set_write_timeout(Some(CONNECT_TIME_MAX))?;
        Ok(Self {
            socket: Socket::Plain(tcp),
            input: Vec::new(),
            taken: 0,
            piece: vec![0; PIECE_BYTES].into(),
            was_full: false,
        })
    }

    /// Begins TLS. Bytes that came before it could be forged, and are an error.
    ///
    /// # Errors
    /// The server is not this host, or does not speak TLS.
    pub fn secured(self, tls: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        if !self.unread().is_empty() {
            return Err(refused("it said more than it may before TLS"));
        }
        Ok(Self { socket: self.socket.secured(tls, host)?, ..self })
    }

    /// No call blocks any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn never_block(&self) -> io::Result<()> {
        self.tcp().set_nonblocking(true)
    }

    /// The socket, to wait on.
    pub fn tcp(&self) -> &TcpStream {
        match &self.socket {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => tls.get_ref(),
        }
    }

    /// The same socket, for another thread to write to; none with TLS: its records have one writer.
    pub fn second_end(&self) -> Option<TcpStream> {
        match &self.socket {
            Socket::Plain(tcp) => tcp.try_clone().ok(),
            Socket::Tls(_) => None,
        }
    }

    /// Whether TLS still holds bytes that were sent.
    pub fn holds_back(&self) -> bool {
        self.socket.holds_back()
    }

    /// Whether there may be more to read although the socket does not become readable.
    pub fn may_hold_more(&self) -> bool {
        self.was_full
    }

    /// What came and has not been taken yet.
    pub fn unread(&self) -> &[u8] {
        &self.input[self.taken..]
    }

    /// Removes `count` bytes at the front of [`Self::unread`].
    pub fn take(&mut self, count: usize) {
        self.taken += count;
    }

    /// While it blocks: waits for more.
    ///
    /// # Errors
    /// Nothing comes in time, or the connection has ended.
    pub fn await_more(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        match self.socket.read(&mut piece)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.input.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }

    /// While it blocks: sends all of it.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)?;
        self.socket.flush()
    }

    /// Reads what has come. Returns whether anything has.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn fill(&mut self) -> io::Result<bool> {
        self.input.drain(..std::mem::take(&mut self.taken));
        let mut room = READ_BYTES_MAX;
        while room > 0 {
            match self.socket.read(&mut self.piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.extend_from_slice(&self.piece[..count]);
                    room = room.saturating_sub(count);
                    if count < self.piece.len() && self.socket.is_plain() {
                        // There is no more: what comes from now on wakes us.
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.was_full = room == 0;
        Ok(room < READ_BYTES_MAX)
    }

    /// Sends what the socket takes of `out`, and removes it there.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut sent = 0;
        while sent < out.len() {
            match self.socket.write(&out[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.drain(..sent);
        self.socket.push()
    }
}

fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = refused("the name has no address");
    for place in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, CONNECT_TIME_MAX) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The error for a server that refuses us.
pub fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::ConnectionRefused, why.to_owned())
}

#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Shakes hands with this host, while the socket still blocks.
    fn secured(self, config: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let Self::Plain(mut tcp) = self else { return Ok(self) };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| io::Error::other("TLS needs a name or an address"))?;
        let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, tcp))))
    }

    /// Whether what the kernel has is all there is.
    fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether TLS still holds bytes that were written.
    fn holds_back(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.conn.wants_write(),
        }
    }

    /// Sends what was held back, as far as the socket takes it.
    fn push(&mut self) -> io::Result<()> {
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
