//! One client process: opens its share of the connections and counts what arrives.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    process::{Resource, Rlimit, Signal},
};
use rustls::{ClientConfig, ClientConnection};

use super::{
    connection::{self, Connection, End, Opener, State},
    error::BenchError,
    link::Link,
    messages::{ClientResult, ClientTask, Line, Order, Progress, Secure},
    monotonic_ns, observe,
    stream::Item,
    tally::{Tally, events_for},
};

use crate::tools::wire::tls;

/// The epoll token of standard input; connections use their index.
const ORDERS: u64 = u64::MAX;

/// Time between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// After this long without an answer to any connect, those still waiting are given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects started in one turn, so that answers are not left waiting.
const STARTS_PER_TURN_MAX: u32 = 64;

/// Bytes read at once, shared by all connections of the process.
const READ_BYTES: usize = 128 * 1024;

/// Readiness taken at once.
const EVENTS_PER_TURN: usize = 1024;

/// Runs a client process: its task and orders come on standard input, its results go to standard
/// output. Ends when the parent does.
pub fn run() -> Result<(), BenchError> {
    // A reader that is stopped, or whose parent is killed, must not stay behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| BenchError::Client(error.into()))?;
    raise_descriptor_limit();
    let mut input = LineInput::default();
    loop {
        if let Some(line) = input.next_line() {
            let task = serde_json::from_slice(&line).map_err(io::Error::from);
            return Client::new(task.map_err(BenchError::Client)?, input)
                .and_then(Client::run)
                .map_err(BenchError::Client);
        }
        if input.fill().map_err(BenchError::Client)? == 0 {
            return Ok(());
        }
    }
}

/// Raises the soft limit on descriptors to the hard one, and returns that.
pub(super) fn raise_descriptor_limit() -> u32 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If this fails the old limit holds, and connects beyond it are counted as failures.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    limit.maximum.and_then(|maximum| u32::try_from(maximum).ok()).unwrap_or(u32::MAX)
}

/// Standard input without a buffer that would hide bytes from epoll.
#[derive(Debug, Default)]
struct LineInput {
    bytes: Vec<u8>,
}

impl LineInput {
    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let length = rustix::io::read(io::stdin(), &mut piece)?;
        self.bytes.extend_from_slice(&piece[..length]);
        Ok(length)
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.bytes)?;
        Some(self.bytes.drain(..=end).collect())
    }
}

struct Client {
    task: ClientTask,
    input: LineInput,
    epoll: OwnedFd,
    opener: Opener,
    /// For `https`: how TLS is spoken, and to whom.
    tls: Option<(Arc<ClientConfig>, String)>,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    tally: Tally,
    failures: BTreeMap<String, u64>,
    endings: BTreeMap<String, u64>,
    progress: Progress,
    reported: Progress,
    reported_at: Instant,
    began_at: Instant,
    answered_at: Instant,
}

impl Client {
    fn new(task: ClientTask, input: LineInput) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let orders = EventData::new_u64(ORDERS);
        epoll::add(&epoll, io::stdin(), orders, EventFlags::IN)?;
        let secure = match &task.secure {
            Some(Secure { host, trust }) => {
                Some((trust.config().map_err(io::Error::other)?, host.clone()))
            }
            None => None,
        };
        let now = Instant::now();
        Ok(Self {
            opener: Opener::new(&task),
            tls: secure,
            connections: Vec::with_capacity(task.count as usize),
            tally: Tally::new(task.run),
            task,
            input,
            epoll,
            buffer: vec![0; READ_BYTES],
            failures: BTreeMap::new(),
            endings: BTreeMap::new(),
            progress: Progress::default(),
            reported: Progress::default(),
            reported_at: now,
            began_at: now,
            answered_at: now,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_PER_TURN);
        loop {
            self.start_due()?;
            self.give_up_late();
            self.report()?;
            let timeout = self.timeout().map(|wait| Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    ORDERS => {
                        if self.take_orders()? == Next::End {
                            return Ok(());
                        }
                    }
                    index => self.on_ready(index as usize, event.flags)?,
                }
            }
        }
    }

    fn started(&self) -> u32 {
        self.connections.len() as u32
    }

    fn waiting(&self) -> u64 {
        u64::from(self.started()) - self.progress.connected - self.progress.failed
    }

    /// How many connects the ramp allows by now.
    fn due(&self) -> u32 {
        let ramped = self.began_at.elapsed().as_secs_f64() * self.task.ramp_per_s;
        (ramped as u32).saturating_add(1).min(self.task.count)
    }

    fn start_due(&mut self) -> io::Result<()> {
        let room = u64::from(self.task.connecting_max).saturating_sub(self.waiting()) as u32;
        let due = self.due().saturating_sub(self.started());
        for _ in 0..due.min(room).min(STARTS_PER_TURN_MAX) {
            self.start()?;
        }
        Ok(())
    }

    fn channel(&self, index: usize) -> u32 {
        let channels = self.task.channels.count(self.task.connections);
        (self.task.first + index as u32) % channels
    }

    fn request(&self, index: usize) -> Vec<u8> {
        connection::request(&self.task, &self.task.channels.name(self.channel(index)))
    }

    /// Starts the next connection. Only our own epoll failing is an error.
    fn start(&mut self) -> io::Result<()> {
        let index = self.connections.len();
        if self.waiting() == 0 {
            self.answered_at = Instant::now();
        }
        let opened = self.opener.open().and_then(|socket| {
            let mut link = Link::new(socket, self.begin_tls()?);
            let asked = link.send(&self.request(index))?;
            Ok((link, asked))
        });
        let (link, state) = match opened {
            Ok((link, true)) => (link, State::Asked),
            Ok((link, false)) => (link, State::Connecting),
            Err(error) => {
                self.connections.push(Connection::failed());
                self.count_failure(connection::io_kind(&error));
                return Ok(());
            }
        };
        let mut interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if state == State::Connecting {
            interest |= EventFlags::OUT;
        }
        epoll::add(&self.epoll, &link.socket, EventData::new_u64(index as u64), interest)?;
        self.connections.push(Connection::new(link, state));
        Ok(())
    }

    fn begin_tls(&self) -> io::Result<Option<ClientConnection>> {
        let begin = |(config, host): &(Arc<ClientConfig>, String)| tls::connection(config, host);
        self.tls.as_ref().map(begin).transpose().map_err(io::Error::other)
    }

    fn count_failure(&mut self, kind: String) {
        *self.failures.entry(kind).or_default() += 1;
        self.progress.failed += 1;
        self.answered();
    }

    fn answered(&mut self) {
        self.answered_at = Instant::now();
        self.progress.answered_ns = monotonic_ns();
    }

    fn on_ready(&mut self, index: usize, flags: EventFlags) -> io::Result<()> {
        if self.connections[index].state == State::Connecting {
            let request = self.request(index);
            let connection = &mut self.connections[index];
            let Some(link) = &mut connection.link else { return Ok(()) };
            let asked = match rustix::net::sockopt::socket_error(&link.socket)? {
                Ok(()) => link.send(&request),
                Err(errno) => Err(errno.into()),
            };
            match asked {
                Ok(true) => connection.state = State::Asked,
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.close(index, &End::Io(error));
                    return Ok(());
                }
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            self.read(index);
        }
        Ok(())
    }

    fn read(&mut self, index: usize) {
        let channel = self.channel(index);
        let Connection { link, sequence, stream, state, is_beating } = &mut self.connections[index];
        let Some(link) = link else { return };
        let now_ns = monotonic_ns();
        let (tally, progress) = (&mut self.tally, &mut self.progress);
        let mut beat = |is_beating: &mut bool| {
            progress.heartbeats += 1;
            progress.beating += u64::from(!*is_beating);
            *is_beating = true;
        };
        let (mut subscribed, mut pongs) = (0, Vec::new());
        let read =
            connection::read_all(link, stream, self.task.transport, &mut self.buffer, |item| {
                match item {
                    Item::Subscribed => {
                        *state = State::Subscribed;
                        subscribed += 1;
                    }
                    Item::Data(data) => tally.record(channel, sequence, data, now_ns),
                    Item::Comment => beat(is_beating),
                    Item::Ping(data) => {
                        pongs.extend(connection::pong(data));
                        beat(is_beating);
                    }
                }
            });
        if !pongs.is_empty() {
            // A socket too full for a pong will be found dead by its server, as it should be.
            let _ = link.send(&pongs);
        }
        if subscribed > 0 {
            self.progress.connected += subscribed;
            self.answered();
        }
        if let Err(end) = read {
            self.close(index, &end);
        }
    }

    fn close(&mut self, index: usize, end: &End) {
        let connection = &mut self.connections[index];
        connection.link = None;
        match connection.state {
            State::Connecting | State::Asked => {
                connection.state = State::Failed;
                self.count_failure(end.kind());
            }
            State::Subscribed => {
                connection.state = State::Ended;
                *self.endings.entry(end.kind()).or_default() += 1;
                self.progress.ended += 1;
            }
            State::Ended | State::Failed => {}
        }
    }

    fn give_up_late(&mut self) {
        if self.waiting() == 0 || self.answered_at.elapsed() < PATIENCE {
            return;
        }
        for index in 0..self.connections.len() {
            if matches!(self.connections[index].state, State::Connecting | State::Asked) {
                self.close(index, &End::Io(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    fn report(&mut self) -> io::Result<()> {
        self.progress.deliveries = self.tally.counts.received;
        if self.progress == self.reported || self.reported_at.elapsed() < REPORT_EVERY {
            return Ok(());
        }
        self.reported = self.progress;
        self.reported_at = Instant::now();
        say(&Line::Progress(self.progress))
    }

    /// How long there is nothing to do; `None`: until something arrives.
    fn timeout(&self) -> Option<Duration> {
        let report_in = (self.progress != self.reported)
            .then(|| REPORT_EVERY.saturating_sub(self.reported_at.elapsed()));
        let has_room = self.waiting() < u64::from(self.task.connecting_max);
        let start_in = (self.started() < self.task.count && has_room).then(|| {
            let at = f64::from(self.started()) / self.task.ramp_per_s;
            Duration::from_secs_f64(at).saturating_sub(self.began_at.elapsed())
        });
        let give_up_in =
            (self.waiting() > 0).then(|| PATIENCE.saturating_sub(self.answered_at.elapsed()));
        [report_in, start_in, give_up_in].into_iter().flatten().min()
    }

    fn take_orders(&mut self) -> io::Result<Next> {
        if self.input.fill()? == 0 {
            return Ok(Next::End);
        }
        while let Some(line) = self.input.next_line() {
            match serde_json::from_slice(&line)? {
                Order::Watch => {
                    self.connections.iter_mut().for_each(|one| one.is_beating = false);
                    (self.progress.beating, self.progress.heartbeats) = (0, 0);
                }
                Order::Finish { published } => {
                    say(&Line::Result(Box::new(self.result(published))))?;
                    self.reset_connections();
                    return Ok(Next::End);
                }
            }
        }
        Ok(Next::GoOn)
    }

    fn result(&mut self, published: u64) -> ClientResult {
        let channels = self.task.channels.count(self.task.connections);
        let was_subscribed = |index: &usize| {
            matches!(self.connections[*index].state, State::Subscribed | State::Ended)
        };
        let expected = (0..self.connections.len())
            .filter(was_subscribed)
            .map(|index| events_for(self.channel(index), channels, published))
            .sum();
        let latencies = self.tally.latencies.iter_recorded();
        ClientResult {
            failures: std::mem::take(&mut self.failures),
            endings: std::mem::take(&mut self.endings),
            expected,
            counts: self.tally.counts,
            last_delivery_ns: self.tally.last_delivery_ns,
            latencies: latencies
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
            timeline: self.tally.timeline.iter().map(|(slot, count)| (*slot, *count)).collect(),
            rss_bytes: observe::rss_bytes(std::process::id()).unwrap_or(0),
        }
    }

    /// Closes with a reset: a million sockets in TIME-WAIT would get in the way of the next run.
    fn reset_connections(&mut self) {
        for link in self.connections.iter_mut().filter_map(|one| one.link.take()) {
            let _ =
                rustix::net::sockopt::set_socket_linger(link.socket.as_fd(), Some(Duration::ZERO));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

fn say(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    io::stdout().lock().write_all(&text)?;
    io::stdout().lock().flush()
}
