//! A start with a journal: after an orderly end, after `kill -9`, after another process. To clients
//! it is a reconnect like any other. `scripts/crash` kills it more often.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pushline::tools::wire::head::Head;
use rustix::process::Signal;

use super::program::Program;
use super::pushline;
use crate::common::http::is_timeout;
use crate::common::sse::{Events, SseEvent};
use crate::common::{PATIENCE, Sse, await_that, fetch, metric, publish, request, seq_of};

/// Publishers, each with a channel and a subscriber of its own.
const CHANNELS: usize = 4;
/// Lines of one request.
const LINES: u64 = 250;
/// Events a second that all publishers together send while the server runs, unless
/// `PUSHLINE_CRASH_RATE` says otherwise.
const RATE: u64 = 50_000;
/// More than a subscriber misses while it reconnects.
const HISTORY: [&str; 6] = [
    "--history-count",
    "1000000",
    "--history-bytes",
    "64MiB",
    // A part of it is read from the disk.
    "--history-memory-bytes",
    "4MiB",
];

fn number(variable: &str, default: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

fn start(dir: &Path, options: &[&str]) -> Program {
    let dir = dir.to_str().expect("text");
    Program::start(&[&["--data-dir", dir], &HISTORY[..], options].concat())
}

/// The data of all events, read page by page.
fn listed(addr: SocketAddr, channel: &str) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), "earliest".to_owned());
    loop {
        let target = format!("/channels/{channel}/events?limit=1000&after={after}");
        let page = fetch(addr, "GET", &target, &[], None).json();
        let events = page["events"].as_array().expect("events");
        all.extend(events.iter().map(|event| event["data"].as_str().expect("text").to_owned()));
        assert!(page["gap"].is_null(), "{page}");
        after = page["next"].as_str().expect("an id").to_owned();
        if page["more"] == false {
            return all;
        }
    }
}

fn publish_keyed(addr: SocketAddr, channel: &str, key: &str) -> String {
    let target = format!("/channels/{channel}");
    let answer = fetch(addr, "POST", &target, &[("Idempotency-Key", key)], Some(b"keyed"));
    answer.json()["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_restart_keeps_the_epoch_the_events_and_the_keys() {
    let dir = tempfile::tempdir().expect("a folder");
    for ends in [Signal::TERM, Signal::KILL] {
        let mut server = start(dir.path(), &[]);
        let first = publish(server.addr, "news", "one");
        let keyed = publish_keyed(server.addr, "news", &format!("key {ends:?}"));
        let quiet = publish(server.addr, "quiet", "seen");
        server.signal(ends);
        server.ended();
        let server = start(dir.path(), &[]);
        let mut resumed = Sse::resume(server.addr, "channel=news&envelope=json", &first);
        let event = resumed.event().json();
        assert_eq!((&event["id"], &event["data"]), (&keyed.clone().into(), &"keyed".into()));
        assert_eq!(publish_keyed(server.addr, "news", &format!("key {ends:?}")), keyed);
        let next = publish(server.addr, "quiet", "next");
        assert_eq!(next.split('-').next(), first.split('-').next(), "the epoch stays");
        assert!(seq_of(&next) > seq_of(&quiet));
        let mut resumed = Sse::resume(server.addr, "channel=quiet&envelope=json", &quiet);
        assert_eq!(resumed.event().json()["id"], next.as_str(), "no gap, and nothing twice");
        assert_eq!(metric(server.admin, "pushline_log_up"), 1);
        assert!(metric(server.admin, "pushline_journal_bytes") > 0);
    }
}

#[test]
fn history_that_memory_has_no_room_for_is_read_from_the_disk_after_a_restart_too() {
    const COUNT: usize = 3_000;
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().to_str().expect("text");
    let options = ["--data-dir", folder, "--history-count", "5000"];
    let options = [&options[..], &["--history-memory-bytes", "64KiB"]].concat();
    let mut server = Program::start(&options);
    let quiet = publish(server.addr, "quiet", "long ago");
    let line = |number| format!("{{\"channel\":\"busy\",\"data\":\"{number}\"}}\n");
    let lines: String = (0..COUNT).map(line).collect();
    let answer = fetch(server.addr, "POST", "/publish", &[], Some(lines.as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    for life in 0..2 {
        let mut busy = Sse::open(server.addr, "channel=busy&last_event_id=earliest");
        let mut both = Sse::resume(server.addr, "channel=quiet&channel=busy", &quiet);
        for number in 0..COUNT {
            assert_eq!(busy.event().data, number.to_string(), "life {life}");
            assert_eq!(both.event().json()["data"], number.to_string(), "life {life}");
        }
        let mut first = Sse::open(server.addr, "channel=quiet&last_event_id=earliest");
        assert_eq!(first.event().data, "long ago");
        assert!(metric(server.admin, "pushline_journal_pages_total") > 10);
        assert_eq!(listed(server.addr, "busy").len(), COUNT, "life {life}");
        publish(server.addr, "quiet", "now");
        assert_eq!(first.event().data, "now", "from the disk to live");
        server.signal(Signal::KILL);
        server.ended();
        server = Program::start(&options);
    }
}

#[test]
fn a_journal_has_one_process_and_another_is_told_which() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let told = super::refusal_among(pushline().arg("--data-dir").arg(dir.path()));
    assert!(told.contains("in use by process") && told.contains("--take-over"), "{told}");
    publish(server.addr, "news", "as before");
    for path in [dir.path().join("head"), segment_in(dir.path())] {
        let mode = std::fs::metadata(path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "no other user reads events");
    }
}

#[test]
fn a_damaged_journal_is_refused_by_place_until_the_loss_is_accepted() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = start(dir.path(), &[]);
    let before = publish(server.addr, "news", "to be damaged");
    publish(server.addr, "news", "behind it");
    server.signal(Signal::TERM);
    assert!(server.ended().success());
    let segment = segment_in(dir.path());
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let at = bytes.windows(5).position(|text| text == b"to be").expect("the first event");
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).expect("it can be written");
    let told = super::refusal_among(pushline().arg("--data-dir").arg(dir.path()));
    let name = segment.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(
        told.contains(name) && told.contains("byte 48") && told.contains("--accept-loss"),
        "{told}"
    );
    let server = start(dir.path(), &["--accept-loss"]);
    let mut resumed = Sse::resume(server.addr, "channel=news", &before);
    assert_eq!(resumed.event().json()["reason"], "epoch", "every client is told");
    assert_eq!(resumed.event().data, "behind it");
}

fn segment_in(dir: &Path) -> std::path::PathBuf {
    let paths =
        std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("a file").path());
    paths
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "log"))
        .expect("a segment")
}

/// Publishers that repeat what was not answered, with the same keys, and subscribers that come back
/// with the last id they saw.
struct Load {
    over: Arc<AtomicBool>,
    /// Subscribers have everything.
    done: Arc<AtomicBool>,
    published: Vec<Arc<AtomicU64>>,
    publishers: Vec<JoinHandle<()>>,
    subscribers: Vec<JoinHandle<Vec<String>>>,
    received: Vec<Arc<AtomicU64>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Self {
        let counts = || (0..CHANNELS).map(|_| Arc::<AtomicU64>::default()).collect::<Vec<_>>();
        let (over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (published, received) = (counts(), counts());
        let publishers = published.iter().enumerate().map(|(channel, count)| {
            let (over, count) = (over.clone(), count.clone());
            std::thread::spawn(move || publish_on(addr, channel, &over, &count))
        });
        let subscribers = received.iter().enumerate().map(|(channel, count)| {
            let (done, count) = (done.clone(), count.clone());
            std::thread::spawn(move || subscribe_on(addr, channel, &done, &count))
        });
        let (publishers, subscribers) = (publishers.collect(), subscribers.collect());
        Self { over, done, published, publishers, subscribers, received }
    }

    fn published(&self) -> u64 {
        self.published.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn await_more(&self, count: u64) {
        let wanted = self.published() + count;
        await_that("events are published", || self.published() >= wanted);
    }

    /// Every subscriber gets to the last event; returns the epochs they saw.
    fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.publishers.into_iter().for_each(|publisher| publisher.join().expect("it ends"));
        let behind = || {
            let both = self.published.iter().zip(&self.received);
            both.filter(|(all, got)| got.load(Ordering::Relaxed) < all.load(Ordering::Relaxed))
                .count()
        };
        await_that("all is received", || {
            behind() == 0 || self.subscribers.iter().any(JoinHandle::is_finished)
        });
        self.done.store(true, Ordering::Relaxed);
        let ended = self.subscribers.into_iter().map(|one| one.join().expect("nothing is wrong"));
        let mut epochs: Vec<String> = ended.flatten().collect();
        epochs.dedup();
        epochs
    }
}

fn publish_on(addr: SocketAddr, channel: usize, over: &AtomicBool, count: &AtomicU64) {
    let rate = number("PUSHLINE_CRASH_RATE", RATE);
    let pause = Duration::from_secs(1) * (CHANNELS as u32) * (LINES as u32) / rate as u32;
    let mut publisher = Publisher { addr, conn: None, channel, next: 0 };
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match publisher.publish() {
            Ok(()) => {
                count.store(publisher.next, Ordering::Relaxed);
                due += pause;
            }
            // It is started again; what was not answered is sent again. The time without a server is
            // not made up for.
            Err(_) => {
                publisher.conn = None;
                due = Instant::now();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Publishes lines over a connection that it keeps.
struct Publisher {
    addr: SocketAddr,
    conn: Option<BufReader<TcpStream>>,
    channel: usize,
    next: u64,
}

impl Publisher {
    fn publish(&mut self) -> std::io::Result<()> {
        let Self { addr, channel, next, .. } = *self;
        let body: String = (next..next + LINES)
            .map(|n| format!("{{\"channel\":\"c{channel}\",\"key\":\"{n}\",\"data\":\"{n}\"}}\n"))
            .collect();
        let media = [("Content-Type", "application/x-ndjson")];
        let request = request("POST", "/publish", &media, Some(body.as_bytes()));
        let conn = match &mut self.conn {
            Some(conn) => conn,
            none => none.insert(BufReader::new(TcpStream::connect(addr)?)),
        };
        conn.get_ref().set_read_timeout(Some(PATIENCE))?;
        conn.get_mut().write_all(&request)?;
        match status_of_next(conn)? {
            200 => self.next += LINES,
            _ => return Err(ErrorKind::ConnectionRefused.into()),
        }
        Ok(())
    }
}

/// The head of the next answer; what follows stays in `conn`.
fn read_head(conn: &mut BufReader<TcpStream>) -> std::io::Result<Head> {
    let mut bytes = Vec::new();
    loop {
        if let Some((head, _)) = Head::parse(&bytes).map_err(|_| ErrorKind::InvalidData)? {
            return Ok(head);
        }
        if conn.read_until(b'\n', &mut bytes)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads an answer; returns its status.
fn status_of_next(conn: &mut BufReader<TcpStream>) -> std::io::Result<u16> {
    let head = read_head(conn)?;
    let length = head.field("content-length").and_then(|length| length.parse().ok());
    conn.read_exact(&mut vec![0; length.unwrap_or(0)])?;
    Ok(head.status)
}

/// Reads until everything has ended and nothing is missing; every event comes once and in order.
fn subscribe_on(
    addr: SocketAddr,
    channel: usize,
    done: &AtomicBool,
    count: &AtomicU64,
) -> Vec<String> {
    let mut reader = Reader { channel, next: 0, last_id: String::new(), epochs: Vec::new() };
    while !done.load(Ordering::Relaxed) {
        // However it ends, the next one continues.
        let _ = reader.read(addr, done, count);
        std::thread::sleep(Duration::from_millis(5));
    }
    reader.epochs
}

struct Reader {
    channel: usize,
    next: u64,
    last_id: String,
    epochs: Vec<String>,
}

impl Reader {
    fn read(
        &mut self,
        addr: SocketAddr,
        done: &AtomicBool,
        count: &AtomicU64,
    ) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let cursor = if self.last_id.is_empty() { "earliest" } else { &self.last_id };
        let target = format!("/sse?channel=c{}&last_event_id={cursor}", self.channel);
        stream.write_all(&request("GET", &target, &[], None))?;
        let mut stream = BufReader::new(stream);
        if read_head(&mut stream)?.status != 200 {
            return Ok(());
        }
        let mut events = Events::default();
        loop {
            let came = match stream.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(bytes) => {
                    events.feed(bytes);
                    bytes.len()
                }
                Err(error) if is_timeout(&error) && done.load(Ordering::Relaxed) => return Ok(()),
                Err(error) if is_timeout(&error) => 0,
                Err(error) => return Err(error),
            };
            stream.consume(came);
            std::iter::from_fn(|| events.take()).for_each(|event| self.note(event));
            count.store(self.next, Ordering::Relaxed);
        }
    }

    fn note(&mut self, SseEvent { id, event, data }: SseEvent) {
        let place = (event.as_str(), data.as_str());
        assert_eq!(place, ("message", &*self.next.to_string()), "{id} after {}", self.last_id);
        self.next += 1;
        let epoch = id.split('-').next().unwrap_or_default().to_owned();
        if self.epochs.last() != Some(&epoch) {
            self.epochs.push(epoch);
        }
        self.last_id = id;
    }
}

#[test]
fn killed_at_any_moment_under_load_it_loses_nothing_and_says_nothing_twice() {
    let crashes = number("PUSHLINE_CRASHES", 4);
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = start(dir.path(), &[]);
    let [listen, admin] = [server.addr, server.admin].map(|address| address.to_string());
    let load = Load::start(server.addr);
    let mut random = fastrand::Rng::with_seed(number("PUSHLINE_CRASH_SEED", 1));
    let (mut began, mut ran) = (Instant::now(), Duration::ZERO);
    for _ in 0..crashes {
        load.await_more(random.u64(1..20_000));
        server.kill();
        ran += began.elapsed();
        server = start(dir.path(), &["--listen", &listen, "--admin", &admin]);
        began = Instant::now();
    }
    load.await_more(1000);
    let published = load.published();
    let rate = published as f64 / (ran + began.elapsed()).as_secs_f64();
    let epochs = load.end();
    println!(
        "{crashes} kills, {published} events answered, {rate:.0} a second while the server ran, \
         epochs {epochs:?}"
    );
    assert_eq!(epochs.len(), 1, "{epochs:?}");
}

#[test]
fn a_successor_goes_on_with_the_journal_where_its_predecessor_stopped() {
    let restarts = number("PUSHLINE_RESTARTS", 3);
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = start(dir.path(), &["--drain", "1s"]);
    let load = Load::start(server.addr);
    for _ in 0..restarts {
        load.await_more(2000);
        let dir = dir.path().to_str().expect("text");
        let options = [&["--data-dir", dir, "--drain", "1s"], &HISTORY[..]].concat();
        let next = server.followed_by(&options);
        assert!(server.ended().success());
        server = next;
    }
    load.await_more(1000);
    let epochs = load.end();
    assert_eq!(epochs.len(), 1, "{epochs:?}");
}

#[test]
fn a_journal_can_be_looked_at_and_its_events_published_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let id = publish(server.addr, "news", "one \"line\"");
    let last = publish(server.addr, "news", "another");
    let journal = |command: &str| {
        let out = pushline().args(["journal", command]).arg(dir.path()).output().expect("it runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    };
    let said = journal("check");
    assert!(said.starts_with("2 events in 1 segments"), "{said}");
    assert!(said.contains(&format!("first {id}, last {last}")), "{said}");
    let rows = journal("dump");
    let row = rows.lines().next().expect("a row");
    assert!(row.starts_with(&id) && row.contains("  news  text, 10 bytes: "), "{rows}");
    assert!(row.ends_with(r#""one \"line\"""#), "{rows}");
    let lines = journal("export");
    let copy = Program::start(&[]);
    let answer = fetch(copy.addr, "POST", "/publish", &[], Some(lines.as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut copied = Sse::open(copy.addr, "channel=news&last_event_id=earliest");
    assert_eq!(copied.event().data, "one \"line\"");
    assert_eq!(copied.event().data, "another");
    publish(server.addr, "news", "and it goes on");
}

#[test]
fn a_stream_that_is_exported_is_published_again_as_what_it_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = start(dir.path(), &[]);
    let body = b"data: Hel\n\ndata: lo\n\n";
    let media = [("Content-Type", "text/event-stream")];
    let produced = fetch(server.addr, "POST", "/channels/chat/stream", &media, Some(body));
    assert_eq!(produced.json()["state"], "done");
    let out = pushline().args(["journal", "export"]).arg(dir.path()).output().expect("it runs");
    let copy = Program::start(&[]);
    let answer = fetch(copy.addr, "POST", "/publish", &[], Some(&out.stdout));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["published"], 2);
    let copied = fetch(copy.addr, "GET", "/channels/chat/events", &[], None).json();
    let data = |number: usize| copied["events"][number]["data"].clone();
    assert_eq!((data(0), data(1)), ("Hel".into(), "lo".into()));
}
