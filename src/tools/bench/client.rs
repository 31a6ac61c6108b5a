//! One client process: opens its share of the connections and counts what arrives.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::Range,
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
    connection::{self, End, Opener},
    error::BenchError,
    handshakes,
    http2::{self, Frames},
    link::Link,
    messages::{ClientResult, ClientTask, Command, Line, Progress},
    monotonic_ns, observe,
    reading::Reading,
    subscriber::{State, Subscriber},
    tally::{Tally, events_for},
};

use crate::tools::wire::tls;

/// The epoll token of standard input; connections use their index.
const COMMANDS: u64 = u64::MAX;

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

/// Runs a client process: its task and commands come on standard input, its results go to standard
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
    /// By connection; `None` once closed.
    links: Vec<Option<Link>>,
    /// By connection, of HTTP/2; otherwise empty.
    frames: Vec<Frames>,
    /// Those of the first connection, those of the second, and so on.
    subscribers: Vec<Subscriber>,
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
        let commands = EventData::new_u64(COMMANDS);
        epoll::add(&epoll, io::stdin(), commands, EventFlags::IN)?;
        let secure = match &task.secure {
            Some(secure) => Some((handshakes::config(secure, task.streams)?, secure.host.clone())),
            None => None,
        };
        let now = Instant::now();
        Ok(Self {
            opener: Opener::new(&task),
            tls: secure,
            links: Vec::with_capacity(task.count.div_ceil(task.per_connection()) as usize),
            frames: Vec::new(),
            subscribers: Vec::with_capacity(task.count as usize),
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
                    COMMANDS => {
                        if self.take_commands()? == Next::End {
                            return Ok(());
                        }
                    }
                    index => self.on_ready(index as usize, event.flags)?,
                }
            }
        }
    }

    fn started(&self) -> u32 {
        self.subscribers.len() as u32
    }

    fn waiting(&self) -> u64 {
        u64::from(self.started()) - self.progress.connected - self.progress.failed
    }

    /// Whether another connection may wait for its answer, too.
    fn has_room(&self) -> bool {
        let waiting = self.waiting().div_ceil(self.task.per_connection().into());
        waiting < u64::from(self.task.connecting_max)
    }

    /// How many subscribers the ramp allows by now.
    fn due(&self) -> u32 {
        let ramped = self.began_at.elapsed().as_secs_f64() * self.task.ramp_per_s;
        (ramped as u32).saturating_add(1).min(self.task.count)
    }

    fn start_due(&mut self) -> io::Result<()> {
        let due = self.due();
        for _ in 0..STARTS_PER_TURN_MAX {
            if self.started() >= due || !self.has_room() {
                break;
            }
            self.start()?;
        }
        Ok(())
    }

    /// The subscribers of the connection with this index.
    fn carried_by(&self, index: usize) -> Range<usize> {
        let each = self.task.per_connection() as usize;
        index * each..((index + 1) * each).min(self.task.count as usize)
    }

    /// What the connection with this index asks for.
    fn request(&self, index: usize) -> Vec<u8> {
        let name = |of: usize| self.task.channels.name(self.task.channel(of));
        let carried = self.carried_by(index);
        if self.task.streams.is_none() {
            return connection::request(&self.task, &name(carried.start));
        }
        let mut request = Vec::new();
        http2::write_preface(&mut request);
        for (number, of) in (0..).zip(carried) {
            http2::write_request(&mut request, &self.task, number, &name(of));
        }
        request
    }

    /// Starts the next connection. Only our own epoll failing is an error.
    fn start(&mut self) -> io::Result<()> {
        let index = self.links.len();
        let carried = self.carried_by(index).len();
        if self.waiting() == 0 {
            self.answered_at = Instant::now();
        }
        let opened = self.opener.open().and_then(|socket| {
            let mut link = Link::new(socket, self.begin_tls()?);
            let asked = link.send(&self.request(index))?;
            Ok((link, asked))
        });
        let state = match &opened {
            Ok((_, true)) => State::Asked,
            Ok((_, false)) => State::Connecting,
            Err(_) => State::Failed,
        };
        self.subscribers.extend((0..carried).map(|_| Subscriber::new(state)));
        if self.task.streams.is_some() {
            self.frames.push(Frames::default());
        }
        match &opened {
            Ok((link, _)) => self.listen_to(index, link, state)?,
            Err(error) => {
                let kind = connection::io_kind(error);
                (0..carried).for_each(|_| self.count_over(State::Failed, &kind));
            }
        }
        self.links.push(opened.ok().map(|(link, _)| link));
        Ok(())
    }

    fn listen_to(&self, index: usize, link: &Link, state: State) -> io::Result<()> {
        let mut interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        if state == State::Connecting {
            interest |= EventFlags::OUT;
        }
        let token = EventData::new_u64(index as u64);
        Ok(epoll::add(&self.epoll, &link.socket, token, interest)?)
    }

    fn begin_tls(&self) -> io::Result<Option<ClientConnection>> {
        let begin = |(config, host): &(Arc<ClientConfig>, String)| tls::connection(config, host);
        self.tls.as_ref().map(begin).transpose().map_err(io::Error::other)
    }

    /// A subscription has failed or ended.
    fn count_over(&mut self, how: State, kind: &str) {
        if how == State::Failed {
            *self.failures.entry(kind.to_owned()).or_default() += 1;
            self.progress.failed += 1;
            self.answered();
        } else {
            *self.endings.entry(kind.to_owned()).or_default() += 1;
            self.progress.ended += 1;
        }
    }

    fn answered(&mut self) {
        self.answered_at = Instant::now();
        self.progress.answered_ns = monotonic_ns();
    }

    fn on_ready(&mut self, index: usize, flags: EventFlags) -> io::Result<()> {
        let carried = self.carried_by(index);
        if self.subscribers[carried.start].state == State::Connecting {
            let request = self.request(index);
            let Some(link) = &mut self.links[index] else { return Ok(()) };
            let asked = match rustix::net::sockopt::socket_error(&link.socket)? {
                Ok(()) => link.send(&request),
                Err(errno) => Err(errno.into()),
            };
            match asked {
                Ok(true) => {
                    self.subscribers[carried].iter_mut().for_each(|one| one.state = State::Asked);
                }
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
        let carried = self.carried_by(index);
        let Self { task, links, frames, subscribers, buffer, tally, progress, .. } = self;
        let (frames, subscribers) = (frames.get_mut(index), &mut subscribers[carried.clone()]);
        let Some(link) = &mut links[index] else { return };
        let mut reading = Reading::new(task, carried.start, tally, progress);
        let read = match frames {
            None => connection::read_all(link, buffer, |bytes| {
                reading.feed(0, &mut subscribers[0], bytes)
            }),
            Some(frames) => {
                let read = connection::read_all(link, buffer, |bytes| {
                    frames.feed(bytes, |frame| reading.frame(subscribers, frame))
                });
                frames.write_credit(&mut reading.answers);
                read
            }
        };
        let Reading { answers, accepted, over, .. } = reading;
        if !answers.is_empty() {
            // A socket too full for an answer will be found dead by its server, as it should be.
            let _ = link.send(&answers);
        }
        if accepted > 0 {
            self.progress.connected += accepted;
            self.answered();
        }
        for (how, fault) in over {
            self.count_over(how, &fault.to_string());
        }
        if let Err(end) = read {
            self.close(index, &end);
        }
    }

    fn close(&mut self, index: usize, end: &End) {
        self.links[index] = None;
        for of in self.carried_by(index) {
            if let Some(how) = self.subscribers[of].end() {
                self.count_over(how, &end.kind());
            }
        }
    }

    fn give_up_late(&mut self) {
        if self.waiting() == 0 || self.answered_at.elapsed() < PATIENCE {
            return;
        }
        for index in 0..self.links.len() {
            if self.subscribers[self.carried_by(index)].iter().any(Subscriber::is_waiting) {
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
        let start_in = (self.started() < self.task.count && self.has_room()).then(|| {
            let at = f64::from(self.started()) / self.task.ramp_per_s;
            Duration::from_secs_f64(at).saturating_sub(self.began_at.elapsed())
        });
        let give_up_in =
            (self.waiting() > 0).then(|| PATIENCE.saturating_sub(self.answered_at.elapsed()));
        [report_in, start_in, give_up_in].into_iter().flatten().min()
    }

    fn take_commands(&mut self) -> io::Result<Next> {
        if self.input.fill()? == 0 {
            return Ok(Next::End);
        }
        while let Some(line) = self.input.next_line() {
            match serde_json::from_slice(&line)? {
                Command::Watch => {
                    self.subscribers.iter_mut().for_each(|one| one.is_beating = false);
                    (self.progress.beating, self.progress.heartbeats) = (0, 0);
                }
                Command::Finish { published } => {
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
        let accepted = (0..).zip(&self.subscribers).filter(|(_, one)| one.was_accepted());
        let expected = accepted
            .map(|(index, _)| events_for(self.task.channel(index), channels, published))
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
        for link in self.links.iter_mut().filter_map(Option::take) {
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
