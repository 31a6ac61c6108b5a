//! Many clients on one thread: connect, read, answer pings, stall, reconnect.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use socket2::{Domain, Socket, Type};

use crate::member::{After, Member, Reading, Stage};
use crate::publisher::{Truth, now_us};

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;
/// Ports of clients: outside the kernel's own range, in which ports bound by others are avoided.
const PORTS: Range<u16> = 10_000..32_000;
/// Receive buffer of a client. By the kernel's choice it would be a megabyte for each that stalls;
/// with both ends on one machine, that would exhaust its memory for TCP.
const RECV_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes read from one member before it is the next one's turn.
const READ_BYTES_MAX: usize = 256 * 1024;

/// What a member does once its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    Never,
    /// After this long.
    After(Duration),
}

/// Clients.
pub struct Herd {
    pub members: Vec<Member>,
    pub back: Return,
    pub truth: Truth,
    addrs: Vec<SocketAddr>,
    /// Which of them each member is at, or goes to: to the next one each time it returns.
    at: Vec<usize>,
    source: Ipv4Addr,
    /// The port bound last.
    port: u16,
    poll: OwnedFd,
    /// When each member reconnects.
    due: Vec<(Instant, usize)>,
    buffer: Vec<u8>,
    reply: Vec<u8>,
    /// Ages of the events received since the last look, in microseconds.
    pub ages_us: Vec<u64>,
    old_ages_us: Vec<u64>,
    /// When each member's present connection was begun and opened.
    begun_us: Vec<u64>,
    /// How long each connection that opened since the last look took to open.
    pub openings_us: Vec<u64>,
    /// Connects that were refused or broke before the stream began.
    pub failed_connects: u64,
    /// When connections that had opened ended.
    pub ended_us: Vec<u64>,
}

impl Herd {
    pub fn new(addr: SocketAddr, members: Vec<Member>, truth: Truth) -> Self {
        Self::among(vec![addr], members, truth)
    }

    /// Of servers that have one log.
    pub fn among(addrs: Vec<SocketAddr>, members: Vec<Member>, truth: Truth) -> Self {
        // Ports of former runs may still be in TIME_WAIT, so each run has an address of its own.
        let source = Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), 1);
        Self {
            begun_us: vec![0; members.len()],
            at: (0..members.len()).collect(),
            members,
            back: Return::Never,
            truth,
            addrs,
            source,
            port: fastrand::u16(PORTS),
            poll: epoll::create(CreateFlags::CLOEXEC).expect("epoll"),
            due: Vec::new(),
            buffer: vec![0; 64 * 1024],
            reply: Vec::new(),
            ages_us: Vec::new(),
            old_ages_us: Vec::new(),
            openings_us: Vec::new(),
            failed_connects: 0,
            ended_us: Vec::new(),
        }
    }

    pub fn open(&self) -> usize {
        self.members.iter().filter(|member| member.is_open()).count()
    }

    /// Opens every member's connection, at most this many at a time.
    pub fn gather(&mut self, at_a_time: usize, time_max: Duration) {
        let deadline = Instant::now() + time_max;
        let mut begun = 0;
        loop {
            let open = self.open();
            if open == self.members.len() {
                return;
            }
            let refused = self.members.iter().find_map(|member| member.refused);
            assert!(self.failed_connects == 0, "with {open} open one was refused: {refused:?}");
            assert!(Instant::now() < deadline, "{open} of {} are open", self.members.len());
            while begun < self.members.len() && begun < open + at_a_time {
                self.begin(begun);
                begun += 1;
            }
            self.step(Duration::from_millis(20));
        }
    }

    /// Goes on for this long, or until `done`, which is asked 20 times a second.
    pub fn live(&mut self, time_max: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + time_max;
        let mut look_at = Instant::now();
        loop {
            if Instant::now() >= look_at {
                if done(self) {
                    return true;
                }
                look_at = Instant::now() + Duration::from_millis(50);
            }
            if Instant::now() >= deadline {
                return false;
            }
            self.step(Duration::from_millis(20));
        }
    }

    /// Reads again, beginning with what has come meanwhile.
    pub fn wake(&mut self, index: usize) {
        self.members[index].reading = Reading::On;
        self.members[index].has_slept = true;
        if self.members[index].socket.is_some() {
            self.read(index);
        }
    }

    fn step(&mut self, time_max: Duration) {
        self.come_back();
        let timeout = Timespec { tv_sec: 0, tv_nsec: time_max.as_nanos() as i64 };
        let mut events =
            [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS_MAX];
        let count = match epoll::wait(&self.poll, &mut events[..], Some(&timeout)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => panic!("epoll: {error}"),
        };
        for event in &events[..count] {
            self.ready(event.data.u64() as usize);
        }
    }

    fn come_back(&mut self) {
        let now = Instant::now();
        let due = std::mem::take(&mut self.due);
        for (at, index) in due {
            if at > now {
                self.due.push((at, index));
            } else {
                self.begin(index);
            }
        }
    }

    fn begin(&mut self, index: usize) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
        socket.set_recv_buffer_size(RECV_BUFFER_BYTES).expect("a receive buffer");
        self.bind(&socket);
        let addr = self.addrs[self.at[index] % self.addrs.len()];
        let connecting = socket.connect(&addr.into());
        let stream = TcpStream::from(socket);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.poll, &stream, EventData::new_u64(index as u64), flags).expect("epoll");
        let member = &mut self.members[index];
        member.socket = Some(stream);
        member.stage = Stage::Connecting;
        self.begun_us[index] = now_us();
        if let Err(error) = connecting
            && error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        {
            self.gone(index);
        }
    }

    /// The kernel's own choice of a port takes milliseconds once half of its range is in use.
    fn bind(&mut self, socket: &Socket) {
        loop {
            self.port = if self.port < PORTS.end { self.port + 1 } else { PORTS.start };
            match socket.bind(&SocketAddr::from((self.source, self.port)).into()) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                bound => return bound.expect("a loopback address"),
            }
        }
    }

    fn ready(&mut self, index: usize) {
        if matches!(self.members[index].stage, Stage::Connecting) {
            let member = &mut self.members[index];
            let request = member.request();
            let Some(socket) = &mut member.socket else { return };
            let sent = match socket.take_error().expect("a socket") {
                None => socket.write(request.as_bytes()),
                Some(error) => Err(error),
            };
            match sent {
                Ok(sent) => {
                    assert_eq!(sent, request.len());
                    self.members[index].stage = Stage::Asked;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::NotConnected => return,
                Err(_) => return self.gone(index),
            }
        }
        // A member that is being served has not stalled yet.
        let member = &self.members[index];
        if member.reading == Reading::On || !member.is_open() {
            self.read(index);
        }
    }

    fn read(&mut self, index: usize) {
        let mut read = 0;
        loop {
            let member = &mut self.members[index];
            let Some(socket) = &mut member.socket else { return };
            match socket.read(&mut self.buffer) {
                Ok(0) => return self.gone(index),
                Ok(count) => {
                    let was_open = member.is_open();
                    self.reply.clear();
                    let bytes = &self.buffer[..count];
                    // A member that has slept reads old events.
                    let ages = match member.has_slept {
                        true => &mut self.old_ages_us,
                        false => &mut self.ages_us,
                    };
                    let after = member.feed(bytes, &self.truth, &mut self.reply, ages);
                    if member.is_open() && !was_open {
                        self.openings_us.push(now_us() - self.begun_us[index]);
                    }
                    if after == After::Close {
                        return self.leave(index);
                    }
                    let reply = std::mem::take(&mut self.reply);
                    if !reply.is_empty() {
                        let socket = self.members[index].socket.as_mut().expect("it is read");
                        // The server will soon send another ping if a pong finds no room.
                        let _ = socket.write(&reply);
                    }
                    self.reply = reply;
                    read += count;
                    if read > READ_BYTES_MAX {
                        let socket = self.members[index].socket.as_ref().expect("it is read");
                        return self.arm_again(socket, index);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.gone(index),
            }
        }
    }

    /// Edge-triggered: what was left unread is only reported again after re-arming.
    fn arm_again(&self, socket: &TcpStream, index: usize) {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(index as u64);
        epoll::modify(&self.poll, socket, data, flags).expect("epoll");
    }

    /// The connection ended without a close.
    fn gone(&mut self, index: usize) {
        let member = &mut self.members[index];
        match member.stage {
            Stage::Open => member.told.cuts += 1,
            Stage::Out | Stage::Connecting | Stage::Asked => self.failed_connects += 1,
        }
        self.leave(index);
    }

    fn leave(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.is_open() {
            self.ended_us.push(now_us());
        }
        member.forget_connection();
        self.at[index] += 1;
        let pause = match self.back {
            Return::Never => return,
            Return::After(pause) => pause,
        };
        self.due.push((Instant::now() + pause, index));
    }
}
