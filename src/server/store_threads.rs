//! The threads of a store. With a journal, one commits, and one reads events that memory no longer holds,
//! so that neither waits for the other's disk. With a broker, one follows its stream.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use super::node::ForNodes;
use super::store::Opened;
use super::vital::{Lost, vital};
use super::{ServerError, node};
use crate::journal::disk::Folder;
use crate::journal::keeper::{Keeper, ToKeeper};
use crate::journal::metrics::JournalMetrics;
use crate::journal::reader::{Reader, ToReader};
use crate::journal::{FarEnds, Lock};
use crate::limits::COMMIT_EVENTS_MAX;
use crate::log::Sequencer;
use crate::log::message::ToLog;
use crate::mesh::LogEnds;
use crate::mesh::combine::Left;
use crate::mesh::hand::{Hand, LogHand, SharedLog};
use crate::ring::{Bell, Ringer, monotonic_now};

/// How often the store's thread looks after the disk when nothing is published.
const KEEPING_PAUSE: Duration = Duration::from_secs(1);

/// One thread, or two.
#[derive(Debug)]
pub(super) struct StoreThreads {
    /// None: it was told to end.
    keeper: Option<JoinHandle<()>>,
    /// Where there is a journal, with the lane that ends it.
    reader: Option<(JoinHandle<()>, Sender<ToReader>)>,
}

impl StoreThreads {
    pub fn start(
        opened: Opened,
        metrics: Arc<JournalMetrics>,
        [of_keeper, of_reader]: [Reports; 2],
        tell_lost: Sender<Lost>,
    ) -> Result<Self, ServerError> {
        let Opened { lock, keeper, reader, ends } = opened;
        let FarEnds { keeper: to_keeper, reader: to_reader, end_reader, .. } = ends;
        let keeper = start("store", tell_lost.clone(), move || {
            keep(keeper, &to_keeper, of_keeper, lock);
            Ok(())
        })?;
        let reader = start("reader", tell_lost, move || {
            read(reader, &to_reader, of_reader, &metrics);
            Ok(())
        })?;
        Ok(Self { keeper: Some(keeper), reader: Some((reader, end_reader)) })
    }

    /// Of a node.
    pub fn follow(
        node: node::Opened,
        to_log: Reports,
        server: ForNodes,
        tell_lost: Sender<Lost>,
    ) -> Result<Self, ServerError> {
        let follower = start("store", tell_lost, move || node.follow(to_log, server))?;
        Ok(Self { keeper: Some(follower), reader: None })
    }

    /// Waits until all events are safe; the log was told to close. What is on the disk can still be
    /// read.
    pub fn join_keeper(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            // `lost` tells of one that panicked.
            let _ = keeper.join();
        }
    }

    /// Ends all there are.
    pub fn end(mut self) {
        self.join_keeper();
        if let Some((reader, end)) = self.reader {
            let _ = end.send(ToReader::End);
            let _ = reader.join();
        }
    }
}

fn start(
    name: &str,
    tell_lost: Sender<Lost>,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<JoinHandle<()>, ServerError> {
    thread::Builder::new()
        .name(name.into())
        .spawn(move || vital(tell_lost, body))
        .map_err(|error| ServerError::io("starting the store's threads", error))
}

fn keep(mut keeper: Keeper<Folder>, inbox: &Receiver<ToKeeper>, mut to_log: Reports, lock: Lock) {
    let mut report = |stored| to_log.tell(ToLog::Store(stored));
    while !keeper.is_closed() {
        match inbox.recv_timeout(KEEPING_PAUSE) {
            Ok(message) => keeper.take(message, &mut report),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        while keeper.waiting() < COMMIT_EVENTS_MAX
            && let Ok(message) = inbox.try_recv()
        {
            keeper.take(message, &mut report);
        }
        keeper.work(&mut report);
    }
    // Another process may have the journal from here on.
    drop(lock);
}

fn read(
    mut reader: Reader<Folder>,
    inbox: &Receiver<ToReader>,
    mut to_log: Reports,
    metrics: &JournalMetrics,
) {
    while let Ok(ToReader::Read(asked)) = inbox.recv() {
        metrics.pages.add(1);
        to_log.tell(ToLog::Older(reader.read(asked)));
    }
}

/// A thread's way to the log.
pub(super) struct Reports {
    requests: Sender<ToLog>,
    hand: LogHand,
    bell: Ringer,
    rings: Vec<u16>,
}

impl Reports {
    pub fn new(
        requests: Sender<ToLog>,
        log: &Arc<SharedLog>,
        ends: &LogEnds,
        bell: Ringer,
    ) -> Self {
        Self { requests, hand: LogHand::new(log.clone(), ends), bell, rings: Vec::new() }
    }

    /// Tells the log, and does what it then has to do, unless another thread is at it.
    fn tell(&mut self, mut request: ToLog) {
        while let Err(TrySendError::Full(unsent)) = self.requests.try_send(request) {
            request = unsent;
            self.run_hand();
            thread::yield_now();
        }
        self.run_hand();
    }

    /// Tells the log at once, ahead of its lane. Returns whether it has no room for events for now.
    pub fn tell_first(&mut self, told: ToLog) -> bool {
        self.hand.tell(told, monotonic_now(), &mut self.rings);
        let held_up = self.hand.with(monotonic_now(), &mut self.rings, |log| log.is_held_up());
        self.ring();
        held_up
    }

    /// Subscribers of a channel.
    pub fn subscribers(&mut self, channel: &str) -> u32 {
        let count = |log: &mut Sequencer| log.subscribers(channel);
        let subscribers = self.hand.with(monotonic_now(), &mut self.rings, count);
        self.ring();
        subscribers
    }

    fn run_hand(&mut self) {
        while self.hand.run(monotonic_now(), &mut self.rings) == Left::Work {}
        self.ring();
    }

    fn ring(&mut self) {
        for worker in self.rings.drain(..) {
            self.bell.ring(worker);
        }
        self.bell.flush();
    }
}
