//! Sessions: protocol machines. A session takes its connection's bytes and returns `Effects`, and a
//! [`Step`] that says how far it has read; it knows neither slots of the ring nor replicas, and asks a
//! [`World`] what it must know about them. It changes nothing but itself and what sessions share.
//!
//! [`Sessions`] is the table of them. To do something for one, the worker takes it [`Sessions::at`]
//! its index and hands that to a function here: [`input`], [`published`], [`due`] and so on. Each
//! protocol and each kind of request has a module of such functions. They see one session
//! ([`Session`], in `state`) and what all share (`shared`), and no other session.
//!
//! What comes in goes through [`input`], which finds the protocol and the route; what the log
//! answers comes back through `from_log`, and what is due through `waits`. These three know the
//! modules of requests, `answer` knows none of them, and no two modules need each other.

mod access;
mod answer;
mod backend;
mod checks;
mod client;
mod closing;
mod connection_id;
mod credentials;
mod describe;
mod from_log;
mod grant;
mod history;
mod http;
mod http2;
mod log_line;
mod ndjson;
mod presence;
mod produce;
mod producing;
mod publish;
mod publish_head;
mod redirect;
mod refresh;
mod route;
mod shared;
mod state;
mod step;
mod subscribe;
mod unfinished;
mod vetting;
mod view;
mod waits;
mod websocket;
mod world;
mod ws_streams;

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use self::shared::Shared;
use self::state::{Flags, Work};
use super::effect::Effects;
use super::setup::Setup;
use super::table::Table;
use crate::config::Settings;
use crate::metrics::WorkerMetrics;
use crate::proto::sender::Home;
use crate::ring::Token;

pub use self::client::refuse_later;
pub use self::closing::{disconnect, leave_unanswered, say_farewell, ws_close};
pub use self::connection_id::ConnectionId;
pub use self::describe::described;
pub use self::from_log::{join_refused, joined, published, token_stream_ended};
pub use self::history::listed;
pub use self::http::{input, peer_ended};
pub use self::http2::{announce_drain, h2_window_set, ping};
pub use self::log_line::{LogLine, log_closed};
pub use self::presence::members_listed;
pub use self::refresh::{RefreshLetter, RefreshOutcome, refreshed, take_grant};
pub use self::state::{LoggedRequest, Protocol, Session};
pub use self::step::{ForH2Streams, Step};
pub use self::unfinished::refuse_unfinished;
pub use self::waits::{Look, due};
pub use self::websocket::{closing_input, go_on_with_kept};
pub use self::world::{Cx, World};

/// A worker's sessions, by index.
#[derive(Debug)]
pub struct Sessions {
    of: Table<Session>,
    shared: Shared,
    /// The slot up to which sessions have been checked against changed access rules; `None` if all
    /// were.
    vetted_to: Option<u32>,
    /// Memory held for unfinished input, all sessions together.
    unfinished_bytes: usize,
}

impl Index<u32> for Sessions {
    type Output = Session;

    #[inline]
    fn index(&self, index: u32) -> &Session {
        &self.of[index]
    }
}

impl IndexMut<u32> for Sessions {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Session {
        &mut self.of[index]
    }
}

impl Sessions {
    /// No session yet.
    pub fn new(setup: &Setup, metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            of: Table::with_room(setup.slots),
            shared: Shared::new(setup, metrics),
            vetted_to: None,
            unfinished_bytes: 0,
        }
    }

    /// A session, ready for one of this module's functions.
    pub fn at<'a>(
        &'a mut self,
        token: Token,
        world: &'a dyn World,
        effects: &'a mut Effects,
    ) -> Cx<'a> {
        let Self { of, shared, .. } = self;
        Cx { token, session: &mut of[token.slot], shared, world, effects }
    }

    /// This worker, as senders are told apart by it.
    pub fn home(&self) -> Home {
        self.shared.home
    }

    pub fn begin_turn(&mut self, now: Duration, unix_s: u64) {
        self.shared.begin_turn(now, unix_s);
    }

    pub fn apply_settings(&mut self, settings: Arc<Settings>) {
        self.shared.settings = settings;
    }

    /// Refuses requests from now on.
    pub fn begin_drain(&mut self) {
        self.shared.is_draining = true;
    }

    /// Sends log lines into this lane from now on.
    pub fn log_to(&mut self, lane: Sender<LogLine>) {
        self.shared.lines = Some(lane);
    }

    // --- one session's life ---

    /// Takes up a connection that was accepted.
    pub fn opened(&mut self, index: u32) {
        self.of.reach(index, Session::new);
        self.shared.metrics.open[Protocol::Http.index()].add(1);
    }

    /// A stream has opened on a connection.
    pub fn opened_h2_stream(&mut self, index: u32, carrier: u32) {
        self.opened(index);
        // What is known of the connection is known of its streams.
        let of_connection = self.of[carrier].flags & Flags::OF_CONNECTION;
        self.of[index].flags.insert(of_connection);
        if let Some(refused) = self.of[carrier].work().and_then(|work| work.refused) {
            self.work(index).refused = Some(refused);
        }
    }

    /// The head of the stream that opens now, in the form of HTTP/1.1.
    pub fn take_h2_head(&mut self) -> Vec<u8> {
        self.shared.head_space.as_mut().map(|space| space.take_text()).unwrap_or_default()
    }

    /// Takes the head's memory back.
    pub fn put_h2_head(&mut self, text: Vec<u8>) {
        if let Some(space) = &mut self.shared.head_space {
            space.put_text(text);
        }
    }

    /// Drops all but a connection that only waits for its peer to close.
    pub fn lingers(&mut self, index: u32) {
        self.of[index].speak(Protocol::Http, &self.shared.metrics);
        let outstanding = self.of[index].outstanding();
        self.drop_work(index);
        // The log may still answer it.
        if outstanding > 0 {
            self.work(index).outstanding = outstanding;
        }
    }

    /// Forgets a connection that is closed.
    pub fn closed(&mut self, index: u32) {
        let kind = self.of[index].protocol;
        self.shared.metrics.open[kind.index()].sub(1);
        self.drop_work(index);
        self.of[index] = Session::new();
        self.shared.forget_rate(index);
    }

    // --- work ---

    fn work(&mut self, index: u32) -> &mut Work {
        self.of[index].begin_work(&mut self.shared.pool)
    }

    /// Returns what an idle session does not need to the pool.
    pub fn free_idle(&mut self, index: u32) {
        if self.of[index].work().is_some_and(Work::is_spare) {
            self.drop_work(index);
        }
    }

    fn drop_work(&mut self, index: u32) {
        if let Some(mut work) = self.of[index].work.take() {
            self.unfinished_bytes -= std::mem::take(&mut work.unfinished);
            self.shared.pool.give(work);
        }
    }

    /// Counts one more request of the session at the log; returns how many there were before.
    pub fn begin_asking(&mut self, index: u32) -> u16 {
        let work = self.work(index);
        work.outstanding += 1;
        work.outstanding - 1
    }

    /// Counts one of them as answered.
    pub fn end_asking(&mut self, index: u32) {
        self.work(index).outstanding -= 1;
    }

    // --- input not parsed yet ---

    /// Keeps bytes, after those kept already.
    pub fn carry(&mut self, index: u32, bytes: &[u8]) {
        self.work(index).carry.extend_from_slice(bytes);
    }

    /// Takes the kept bytes out; `None` if the session is idle.
    pub fn take_carry(&mut self, index: u32) -> Option<Vec<u8>> {
        let work = self.of[index].work.as_mut()?;
        Some(std::mem::take(&mut work.carry))
    }

    /// Puts back the buffer with the bytes that are left in it. A connection of HTTP/2 has its work
    /// for good, and is not to keep an empty buffer with it.
    pub fn put_carry(&mut self, index: u32, carry: Vec<u8>) {
        let keeps = self.of[index].work().is_some_and(|work| work.http2.is_none());
        if !carry.is_empty() || keeps {
            self.work(index).carry = carry;
        }
    }

    /// Reads the session's unread input when the next turn begins.
    pub fn read_on_later(&mut self, token: Token) {
        self.of[token.slot].read_on_later(token, &mut self.shared.unread);
    }

    /// Sessions whose input is to be read on; see [`Session::read_on`].
    pub fn take_unread(&mut self) -> VecDeque<Token> {
        std::mem::take(&mut self.shared.unread)
    }

    /// Puts connections first in the next turn, because this one had no time for them.
    pub fn read_on_first(&mut self, mut unread: VecDeque<Token>) {
        unread.append(&mut self.shared.unread);
        self.shared.unread = unread;
    }

    /// Whether any session's input is to be read on.
    pub fn has_unread(&self) -> bool {
        !self.shared.unread.is_empty()
    }

    /// Whether streams have begun as many requests in this turn as they may, on all connections
    /// together.
    pub fn has_begun_enough(&self) -> bool {
        self.shared.has_begun_enough()
    }

    // --- invariants ---

    /// Whether nothing is left to read or to check.
    pub fn is_quiet(&self) -> bool {
        let Shared { unread, checks, answers, .. } = &self.shared;
        unread.is_empty() && checks.is_idle() && answers.is_idle()
    }

    /// Panics if the sessions contradict themselves. `open`: the connections that exist; `asked`:
    /// how many requests each has at the log.
    pub fn check_invariants(
        &self,
        open: impl Fn(u32) -> bool,
        token: impl Fn(u32) -> Token,
        asked: impl Fn(u32) -> usize,
    ) {
        let Shared { metrics, unread: unread_on, checks, answers, .. } = &self.shared;
        let unfinished: usize =
            self.of.iter().filter_map(|of| of.work.as_ref()).map(|work| work.unfinished).sum();
        assert_eq!(self.unfinished_bytes, unfinished, "bytes of unfinished input");
        let indices = || self.of.indices().filter(|&index| open(index));
        for kind in 0..metrics.open.len() {
            let count =
                indices().filter(|&index| self.of[index].protocol.index() == kind).count() as u64;
            assert_eq!(metrics.open[kind].value(), count, "open connections of kind {kind}");
        }
        for (index, session) in self.of.indices().zip(self.of.iter()) {
            if !open(index) {
                assert!(session.work.is_none() && session.grant.is_none(), "slot {index} is free");
                continue;
            }
            let token = token(index);
            let unread = unread_on.contains(&token) || checks.has(token);
            let unread = unread || answers.has(token);
            assert_eq!(unread, session.flags.contains(Flags::UNREAD), "slot {index}: {session:?}");
            let outstanding = usize::from(session.outstanding());
            assert_eq!(outstanding, asked(index), "slot {index} waits: {session:?}");
        }
    }
}
