//! Publishes at an even pace over one connection, and remembers each event's place in the log, by
//! channel.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{Conn, request, seq_of};

/// The time on the clock that all processes of the machine share.
pub fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

pub fn channel_name(channel: usize) -> String {
    format!("c{channel}")
}

/// What was published: for each channel, the `seq` of its events in order.
#[derive(Clone, Default)]
pub struct Truth(Arc<Mutex<Vec<Vec<u64>>>>);

impl Truth {
    pub fn new(channels: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![Vec::new(); channels])))
    }

    /// How many events a channel has had.
    pub fn count(&self, channel: usize) -> usize {
        self.0.lock().expect("no panic")[channel].len()
    }

    /// The event of the channel with this `seq`, counted from 0. An event may reach its reader
    /// before the answer to its publisher reaches us.
    pub fn place_of(&self, channel: usize, seq: u64) -> Option<usize> {
        self.0.lock().expect("no panic")[channel].binary_search(&seq).ok()
    }

    pub fn seq_at(&self, channel: usize, place: usize) -> Option<u64> {
        self.0.lock().expect("no panic")[channel].get(place).copied()
    }

    pub fn push(&self, channel: usize, seq: u64) {
        self.0.lock().expect("no panic")[channel].push(seq);
    }

    /// A new log begins: what was published belongs to another epoch.
    pub fn clear(&self) {
        self.0.lock().expect("no panic").iter_mut().for_each(Vec::clear);
    }
}

/// Events at this rate per second.
#[derive(Clone, Copy)]
pub struct Pace {
    pub events: usize,
    pub per_s: f64,
    pub bytes: usize,
}

/// Publishes, event `n` to the channel that `channel_of` says.
pub fn publish(
    addr: SocketAddr,
    truth: &Truth,
    pace: Pace,
    channel_of: impl Fn(usize) -> usize + Send + 'static,
) -> JoinHandle<()> {
    let truth = truth.clone();
    std::thread::spawn(move || {
        let mut conn = Conn::open(addr);
        let began = Instant::now();
        for n in 0..pace.events {
            let due = began + Duration::from_secs_f64(n as f64 / pace.per_s);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let channel = channel_of(n);
            let place = truth.count(channel);
            let target = format!("/channels/{}", channel_name(channel));
            let data = payload(place, pace.bytes);
            let answer = loop {
                conn.send(request("POST", &target, &[], Some(data.as_bytes())));
                let answer = conn.response();
                if answer.status == 200 || answer.error_code() != "too_many_connections" {
                    break answer;
                }
                // This worker is full; another need not be.
                conn = Conn::open(addr);
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
            let seq = seq_of(answer.json()["id"].as_str().expect("an id"));
            truth.push(channel, seq);
        }
    })
}

/// An event's data: its place in the channel, the time it was made, and padding.
pub fn payload(place: usize, bytes: usize) -> String {
    let mut text = format!("{place:08} {:020} ", now_us());
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
    text
}

/// The place, and the age in microseconds, according to an event's data.
pub fn read_payload(data: &str) -> (usize, u64) {
    let mut words = data.split(' ');
    let place = words.next().and_then(|word| word.parse().ok());
    let made_us = words.next().and_then(|word| word.parse::<u64>().ok());
    let age_us = now_us().saturating_sub(made_us.expect("a time"));
    (place.expect("a place"), age_us)
}
