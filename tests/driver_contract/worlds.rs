//! The worlds in which the contract holds: how peers connect, and what the far end sees.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pushline::ring::epoll::EpollDriver;
use pushline::ring::sim::{Faults, SimBell, SimClient, SimDriver, SimNet, SimSettings};
use pushline::ring::uring::{UringDriver, UringSettings, probe};
use pushline::ring::{
    Bell, BellTarget, Driver, DriverSettings, KernelVersion, ListenOptions, PeerAddresses, Ringer,
    listen,
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::rig::PATIENCE;
use crate::skip::skip_named;
use crate::sockets::{await_established, await_reset, await_unread};
use crate::{CLIENT_RECV_BYTES, RECV_BUFFER_BYTES, RECV_BUFFERS, SLOTS};

/// How a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Eof,
    Reset,
}

pub trait Client {
    fn write(&mut self, bytes: &[u8]);
    /// Returns when they have arrived, where nothing receives them yet.
    fn write_unread(&mut self, bytes: &[u8]);
    /// Returns when this many bytes have arrived that were not read.
    fn await_unread(&mut self, count: usize);
    /// At least one byte, or how the stream ended.
    fn read(&mut self) -> Result<Vec<u8>, End>;
    fn finish(&mut self);
    /// Returns when it has arrived.
    fn reset(self);

    fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(self.read().expect("the stream goes on"));
        }
        assert_eq!(bytes.len(), count, "more than was to come");
        bytes
    }
}

/// What a world has room for.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub slots: u32,
    pub recv_buffers: u16,
    /// Bytes a connection takes before its client reads (the kernel's sockets: some more), if that
    /// matters.
    pub room_to_send: Option<u32>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { slots: SLOTS, recv_buffers: RECV_BUFFERS, room_to_send: None }
    }
}

pub trait World: Sized {
    type Driver: Driver;
    type Client: Client;
    type Bell: Bell + 'static;

    fn of(sizes: Sizes) -> Self;
    /// Two workers of one server; each can ring the other.
    fn neighbours() -> [Self; 2];
    /// Whether a turn keeps its thread asleep.
    fn sleeps() -> bool {
        true
    }
    /// Whether a close first shuts the socket down, and frees the slot in a later turn. A client
    /// may then see a FIN even where a reset follows.
    fn closes_in_two_steps() -> bool;
    fn driver(&mut self) -> &mut Self::Driver;
    fn connect(&mut self) -> Self::Client;
    /// Whether a connection is refused.
    fn is_refused(&mut self) -> bool;
    /// Rings worker 0, whose driver this is.
    fn bell(&self) -> Self::Bell;
}

pub struct SimWorld {
    net: SimNet,
    driver: SimDriver,
}

impl World for SimWorld {
    type Driver = SimDriver;
    type Client = SimClient;
    type Bell = SimBell;

    fn of(sizes: Sizes) -> Self {
        let net = sim_net(1, sizes);
        let driver = net.driver(0);
        Self { net, driver }
    }

    fn neighbours() -> [Self; 2] {
        let net = sim_net(2, Sizes::default());
        [0, 1].map(|worker| Self { driver: net.driver(worker), net: net.clone() })
    }

    fn sleeps() -> bool {
        false
    }

    fn closes_in_two_steps() -> bool {
        false
    }

    fn driver(&mut self) -> &mut SimDriver {
        self.net.advance(Duration::from_millis(1));
        self.net.check_conservation();
        &mut self.driver
    }

    fn connect(&mut self) -> SimClient {
        self.net.connect()
    }

    fn is_refused(&mut self) -> bool {
        self.net.connect().reset_seen()
    }

    fn bell(&self) -> SimBell {
        self.net.bell()
    }
}

fn sim_net(workers: u16, sizes: Sizes) -> SimNet {
    let settings = SimSettings {
        workers,
        slots_per_worker: sizes.slots,
        recv_buffers: sizes.recv_buffers,
        recv_buffer_bytes: RECV_BUFFER_BYTES,
        socket_buffer_bytes: sizes.room_to_send.unwrap_or(1024 * 1024) as usize,
    };
    SimNet::new(settings, Faults::none(), 0)
}

impl Client for SimClient {
    fn write(&mut self, bytes: &[u8]) {
        assert_eq!(SimClient::write(self, bytes), bytes.len());
    }

    fn write_unread(&mut self, bytes: &[u8]) {
        Client::write(self, bytes);
    }

    fn await_unread(&mut self, _count: usize) {}

    fn read(&mut self) -> Result<Vec<u8>, End> {
        let mut bytes = Vec::new();
        if SimClient::read(self, &mut bytes) > 0 {
            return Ok(bytes);
        }
        if self.reset_seen() {
            return Err(End::Reset);
        }
        assert!(self.eof_seen(), "neither bytes nor an end");
        Err(End::Eof)
    }

    fn finish(&mut self) {
        SimClient::finish(self);
    }

    fn reset(mut self) {
        SimClient::reset(&mut self);
    }
}

/// Whether io_uring may be used here; if not, its behaviours are skipped, which is said once.
pub fn has_io_uring() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let refusal = probe().err();
        if let Some(refusal) = &refusal {
            skip_named("uring*", "io_uring", &refusal.to_string());
        }
        refusal.is_none()
    })
}

/// With this many multishot receives to share.
pub struct UringWorld<const MULTISHOTS: u16> {
    driver: UringDriver,
    target: BellTarget,
    address: SocketAddr,
}

impl<const MULTISHOTS: u16> World for UringWorld<MULTISHOTS> {
    type Driver = UringDriver;
    type Client = TcpStream;
    type Bell = Ringer;

    fn of(sizes: Sizes) -> Self {
        let settings = UringSettings {
            slots: sizes.slots,
            entries: 64,
            cq_entries: 128,
            recv_buffers: sizes.recv_buffers,
            recv_buffer_bytes: RECV_BUFFER_BYTES as u32,
            multishots: MULTISHOTS,
            ..UringSettings::default()
        };
        let (listener, address) = listener(sizes);
        let (driver, target) =
            UringDriver::new(&settings, [listener]).expect("this kernel will do");
        Self { driver, target, address }
    }

    fn neighbours() -> [Self; 2] {
        let mut both = [(); 2].map(|()| Self::of(Sizes::default()));
        let bells: Arc<[BellTarget]> = both.iter().map(|world| world.target.clone()).collect();
        both.iter_mut().for_each(|world| world.driver.set_bells(bells.clone()));
        both
    }

    /// Before Linux 6.13: see the driver's `release`.
    fn closes_in_two_steps() -> bool {
        KernelVersion::running() < KernelVersion { major: 6, minor: 13 }
    }

    fn driver(&mut self) -> &mut UringDriver {
        &mut self.driver
    }

    fn connect(&mut self) -> TcpStream {
        connect(self.address)
    }

    fn is_refused(&mut self) -> bool {
        is_refused(self.address)
    }

    fn bell(&self) -> Ringer {
        Ringer::new(vec![self.target.clone()]).expect("a ring at most")
    }
}

pub struct EpollWorld {
    driver: EpollDriver,
    target: BellTarget,
    address: SocketAddr,
}

impl World for EpollWorld {
    type Driver = EpollDriver;
    type Client = TcpStream;
    type Bell = Ringer;

    fn of(sizes: Sizes) -> Self {
        let settings = DriverSettings {
            slots: sizes.slots,
            recv_buffers: sizes.recv_buffers,
            recv_buffer_bytes: RECV_BUFFER_BYTES as u32,
            peers: PeerAddresses::Unknown,
        };
        let (listener, address) = listener(sizes);
        let (driver, target) = EpollDriver::new(&settings, [listener]).expect("any kernel will do");
        Self { driver, target, address }
    }

    fn neighbours() -> [Self; 2] {
        let mut both = [(); 2].map(|()| Self::of(Sizes::default()));
        let bells: Arc<[BellTarget]> = both.iter().map(|world| world.target.clone()).collect();
        both.iter_mut().for_each(|world| world.driver.set_bells(bells.clone()));
        both
    }

    fn closes_in_two_steps() -> bool {
        false
    }

    fn driver(&mut self) -> &mut EpollDriver {
        &mut self.driver
    }

    fn connect(&mut self) -> TcpStream {
        connect(self.address)
    }

    fn is_refused(&mut self) -> bool {
        is_refused(self.address)
    }

    fn bell(&self) -> Ringer {
        Ringer::new(vec![self.target.clone()]).expect("a ring at most")
    }
}

pub fn listener(sizes: Sizes) -> (Socket, SocketAddr) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options =
        ListenOptions { send_buffer_bytes: sizes.room_to_send, ..ListenOptions::default() };
    let listener = listen(any, &options).expect("loopback is there");
    let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
    (listener, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(CLIENT_RECV_BYTES).expect("a small buffer");
    socket.connect(&address.into()).expect("the backlog has room");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    await_established(address, stream.local_addr().expect("bound"));
    stream
}

/// Not at once, perhaps: for a moment, a process that another test starts has a copy of the listener.
fn is_refused(address: SocketAddr) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let refused = || {
        let refused = TcpStream::connect(address).map(drop);
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    std::iter::repeat_with(refused).any(|is| is || Instant::now() > deadline) && refused()
}

impl Client for TcpStream {
    fn write(&mut self, bytes: &[u8]) {
        self.write_all(bytes).expect("room for a few bytes");
    }

    fn write_unread(&mut self, bytes: &[u8]) {
        Client::write(self, bytes);
        await_unread(self.peer_addr().expect("connected"), bytes.len());
    }

    fn await_unread(&mut self, count: usize) {
        let mut bytes = vec![0; count];
        while self.peek(&mut bytes).is_ok_and(|seen| (1..count).contains(&seen)) {}
    }

    fn read(&mut self) -> Result<Vec<u8>, End> {
        let mut bytes = vec![0; 1024 * 1024];
        match Read::read(self, &mut bytes) {
            Ok(0) => Err(End::Eof),
            Ok(count) => {
                bytes.truncate(count);
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(End::Reset),
            // This thread's ring needed a kernel thread.
            Err(error) if error.kind() == ErrorKind::Interrupted => Client::read(self),
            Err(error) => panic!("neither bytes nor an end: {error}"),
        }
    }

    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).expect("connected");
    }

    fn reset(self) {
        let ends = [self.peer_addr(), self.local_addr()].map(|end| end.expect("connected"));
        SockRef::from(&self).set_linger(Some(Duration::ZERO)).expect("a reset on close");
        drop(self);
        await_reset(ends[0], ends[1]);
    }
}
