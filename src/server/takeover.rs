//! A restart without a refused connection. The new process asks the running one for its listening
//! sockets, so that the queues of waiting connections live on, and is ready before the old one lets
//! go. They meet on a Unix socket whose abstract name is the server's address: it is not a file,
//! and is gone with its process. Each end checks that the other runs as the same user.
//!
//! | successor | predecessor |
//! |---|---|
//! | asks to take over | sends each listener, the operator's too |
//! | starts all but the accepting, says `ready` | accepts no more, serves those it has accepted |
//! | | closes its journal, if it has one, and says `released` |
//! | opens it, and accepts | drains |
//!
//! Until it is told `ready`, the predecessor serves as usual: a successor that fails changes
//! nothing.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with,
};
use rustix::process::geteuid;
use tracing::{info, warn};

use super::ServerError;
use super::door::{self, Knock};
use super::inherited::{Inheritance, Inherited, Source};
use super::listeners::{Listeners, Ports};

/// What a successor sends first. The number changes when the protocol does.
const REQUEST: &[u8] = b"pushline take-over 1";
/// Sent with a listener for clients.
const CLIENTS: &[u8] = b"clients";
/// Sent with a listener for clients that speak TLS.
const TLS: &[u8] = b"tls";
/// Sent with the operator's listener.
const ADMIN: &[u8] = b"admin";
/// Sent after the last listener.
const ALL: &[u8] = b"all";
/// The successor can begin.
const READY: &[u8] = b"ready";
/// The predecessor has let go of everything that only one process may have.
const RELEASED: &[u8] = b"released";

/// Bytes of the longest packet.
const PACKET_BYTES_MAX: usize = 64;

/// How long one end waits for a packet of the other. The slowest step is a start that makes a ring
/// for each of many cores.
const STEP_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a running server could not be taken over.
#[derive(Debug)]
pub enum TakeOverError {
    /// It runs as another user.
    Foreign {
        /// That user's id.
        uid: u32,
    },
    /// It did not answer as expected.
    Io(io::Error),
}

impl From<Errno> for TakeOverError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl fmt::Display for TakeOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { uid } => write!(
                f,
                "it runs as user {uid} and this process as user {}; start this one as that user",
                geteuid().as_raw()
            ),
            Self::Io(error) => write!(
                f,
                "{error}; it may be of another version or hang: end it, and start without \
                 --take-over"
            ),
        }
    }
}

// --- the successor ---

/// The server that ran before this one.
#[derive(Debug)]
pub(super) struct Predecessor(OwnedFd);

/// Asks the server that listens on `address` for its sockets; `None` if there is no such server.
pub(super) fn ask(address: SocketAddr) -> Result<Option<Inherited>, TakeOverError> {
    match ask_once(address) {
        // A server that let go of the name left this connection in its queue. The next one finds
        // who has the name now, or nobody.
        Err(TakeOverError::Io(error)) if is_cut(&error) => ask_once(address),
        answer => answer,
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn ask_once(address: SocketAddr) -> Result<Option<Inherited>, TakeOverError> {
    let socket = unix_socket()?;
    match connect(&socket, &name_of(address)?) {
        Err(Errno::CONNREFUSED) => return Ok(None),
        connected => connected?,
    }
    check_peer(&socket)?;
    send(&socket, REQUEST, None)?;
    let mut sockets = Inheritance::default();
    loop {
        let (packet, descriptor) = receive(&socket)?;
        match (packet.as_slice(), descriptor) {
            (CLIENTS, Some(listener)) => sockets.plain.push(listener.into()),
            (TLS, Some(listener)) => sockets.tls.push(listener.into()),
            (ADMIN, Some(listener)) => sockets.admin = Some(listener.into()),
            (ALL, None) if !sockets.plain.is_empty() => break,
            _ => return Err(Errno::PROTO.into()),
        }
    }
    Ok(Some(Inherited { sockets, source: Source::Predecessor(Predecessor(socket)) }))
}

impl Predecessor {
    /// Tells it that its successor can begin, and waits until it has let go.
    pub fn relieve(self) -> Result<(), TakeOverError> {
        send(&self.0, READY, None)?;
        match receive(&self.0)?.0.as_slice() {
            RELEASED => Ok(()),
            _ => Err(Errno::PROTO.into()),
        }
    }
}

// --- the predecessor ---

/// A process that is ready to take over from this one.
#[derive(Debug)]
pub struct Successor(OwnedFd);

impl Successor {
    /// Tells it to begin.
    pub(super) fn release(&self) {
        if let Err(error) = send(&self.0, RELEASED, None) {
            warn!("the server that was to take over is gone: {error}");
        }
    }
}

/// What a successor receives.
#[derive(Debug)]
pub(super) struct Estate {
    pub clients: Vec<OwnedFd>,
    pub tls: Vec<OwnedFd>,
    pub admin: OwnedFd,
}

impl Estate {
    /// Copies of the sockets.
    pub fn copy(ports: &Ports, admin: &TcpListener) -> Result<Self, ServerError> {
        let admin = admin.try_clone();
        let admin = admin.map_err(|error| ServerError::io("sharing a listener", error))?;
        let tls = ports.tls.as_ref().map_or(Ok(Vec::new()), Listeners::copies)?;
        Ok(Self { clients: ports.plain.copies()?, tls, admin: admin.into() })
    }
}

/// Waits for a successor on a thread of its own.
#[derive(Debug)]
pub(super) struct Succession {
    waiting: Option<Waiting>,
    successors: Receiver<Successor>,
    /// Kept so that a caller who waits for a successor does not take the thread's end for one.
    _tell: Sender<Successor>,
}

#[derive(Debug)]
struct Waiting {
    /// Closing it ends the thread.
    end: PipeWriter,
    thread: JoinHandle<()>,
}

impl Succession {
    /// Waits under the name of `address`. A server that cannot be taken over still serves.
    pub fn start(address: SocketAddr, estate: Estate) -> Self {
        let (tell, successors) = bounded(1);
        let waiting = Waiting::start(address, estate, tell.clone());
        if let Err(error) = &waiting {
            info!("this server can't be taken over: {error}");
        }
        Self { waiting: waiting.ok(), successors, _tell: tell }
    }

    pub fn successors(&self) -> &Receiver<Successor> {
        &self.successors
    }

    /// Stops waiting: no process can take over from here on, and the name is free.
    pub fn end(&mut self) {
        if let Some(Waiting { end, thread }) = self.waiting.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}

impl Waiting {
    fn start(address: SocketAddr, estate: Estate, tell: Sender<Successor>) -> io::Result<Self> {
        let socket = wait_at(address)?;
        let (ended, end) = io::pipe()?;
        let thread = thread::Builder::new()
            .name("take-over".into())
            .spawn(move || serve(socket, &ended, &estate, &tell))?;
        Ok(Self { end, thread })
    }
}

/// Gives the sockets to each process that asks, until one says it is ready. The name is freed
/// before that process is told to begin.
fn serve(socket: OwnedFd, ended: &PipeReader, estate: &Estate, tell: &Sender<Successor>) {
    while door::wait(&socket, ended) == Knock::Somebody {
        let Ok(peer) = accept_with(&socket, SocketFlags::CLOEXEC) else { continue };
        match hand_over(&peer, estate) {
            Ok(()) => {
                drop(socket);
                // The receiver is gone: the server is ending anyway.
                let _ = tell.try_send(Successor(peer));
                return;
            }
            Err(TakeOverError::Foreign { uid }) => {
                warn!(uid, "another user was refused to take this server over");
            }
            Err(TakeOverError::Io(error)) => {
                warn!("a server that was to take over did not get ready: {error}");
            }
        }
    }
}

fn hand_over(peer: &OwnedFd, estate: &Estate) -> Result<(), TakeOverError> {
    check_peer(peer)?;
    if receive(peer)?.0 != REQUEST {
        return Err(Errno::PROTO.into());
    }
    for listener in &estate.clients {
        send(peer, CLIENTS, Some(listener.as_fd()))?;
    }
    for listener in &estate.tls {
        send(peer, TLS, Some(listener.as_fd()))?;
    }
    send(peer, ADMIN, Some(estate.admin.as_fd()))?;
    send(peer, ALL, None)?;
    match receive(peer)?.0.as_slice() {
        READY => Ok(()),
        _ => Err(Errno::PROTO.into()),
    }
}

// --- both ---

fn name_of(address: SocketAddr) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new_abstract_name(format!("pushline/{address}").as_bytes())
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::SEQPACKET);
    socket_with(AddressFamily::UNIX, kind, flags, None)
}

fn wait_at(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = unix_socket()?;
    bind(&socket, &name_of(address)?)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// Abstract names have no owner, so each end checks the user of the other.
fn check_peer(peer: &OwnedFd) -> Result<(), TakeOverError> {
    for time in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(peer, time, Some(STEP_TIME_MAX))?;
    }
    match socket_peercred(peer)?.uid {
        uid if uid == geteuid() => Ok(()),
        uid => Err(TakeOverError::Foreign { uid: uid.as_raw() }),
    }
}

fn send(to: &OwnedFd, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let descriptors = [descriptor.unwrap_or(to.as_fd())];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptor.is_some() {
        let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "there is room for one descriptor");
    }
    let parts = [IoSlice::new(packet)];
    retry_on_intr(|| sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// A packet, and the descriptor that came with it. An empty packet means that the other end has
/// closed.
fn receive(from: &OwnedFd) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut bytes = [0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let count =
        retry_on_intr(|| recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))?
            .bytes;
    if count == 0 {
        return Err(Errno::CONNRESET);
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((bytes[..count].to_vec(), descriptor))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn listener() -> TcpListener {
        TcpListener::bind(loopback(0)).expect("a port")
    }

    fn estate(clients: usize) -> Estate {
        let [clients, tls] =
            [clients, 2].map(|count| (0..count).map(|_| listener().into()).collect());
        Estate { clients, tls, admin: listener().into() }
    }

    /// One that cannot be bound: only the name matters here, and is this process's own.
    fn unbound(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], std::process::id() as u16))
    }

    #[test]
    fn a_successor_gets_every_listener_and_begins_when_the_predecessor_has_let_go() {
        let address = unbound(1);
        let estate = estate(300);
        let admin = estate.admin.try_clone().map(TcpListener::from).expect("a copy");
        let mut succession = Succession::start(address, estate);
        let inherited = ask(address).expect("it answers").expect("it is there");
        let Inherited { sockets, source } = inherited;
        assert_eq!((sockets.plain.len(), sockets.tls.len()), (300, 2));
        let its = |listener: &TcpListener| listener.local_addr().expect("bound");
        assert_eq!(sockets.admin.as_ref().map(its), Some(its(&admin)));
        let Source::Predecessor(predecessor) = source else { panic!("from a server") };
        let relieved = thread::spawn(move || predecessor.relieve());
        let successor = succession.successors().recv_timeout(STEP_TIME_MAX).expect("ready");
        assert!(ask(address).expect("the name is free").is_none());
        successor.release();
        assert!(relieved.join().expect("it ends").is_ok());
        succession.end();
    }

    /// Two successors at once, or a process that was forked while the name was held: the second
    /// connection waits at a listener that nobody will accept from.
    #[test]
    fn whoever_asks_as_the_name_becomes_free_is_told_that_nobody_is_there() {
        let address = unbound(3);
        let name = wait_at(address).expect("it is free");
        let asked = thread::spawn(move || ask(address));
        let mut knock = [PollFd::new(&name, PollFlags::IN)];
        poll(&mut knock, None).expect("it asks");
        drop(name);
        assert!(asked.join().expect("it ends").expect("nobody is there").is_none());
    }

    #[test]
    fn a_successor_that_gives_up_leaves_everything_as_it_was() {
        let address = unbound(2);
        let mut succession = Succession::start(address, estate(1));
        for _ in 0..3 {
            assert!(ask(address).expect("it answers").is_some());
        }
        assert!(succession.successors().is_empty());
        succession.end();
        assert!(ask(address).expect("nobody is there").is_none());
    }
}
