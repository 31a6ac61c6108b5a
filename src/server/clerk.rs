//! The log's clerk: a thread that ages the log's history and does what main and the admin listener
//! ask of the log. Workers' requests are their own business (see [`crate::mesh::hand`]); the clerk
//! only handles those that came while it held the log.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::ServerError;
use super::vital::{Lost, vital};
use crate::log::{ChannelPage, LogSettings, LogStats, Sequencer};
use crate::mesh::LogEnds;
use crate::mesh::hand::{LogHand, SharedLog};
use crate::ring::{Bell, Ringer, monotonic_now};

/// What main and the admin listener ask of the log.
#[derive(Debug)]
pub(super) enum LogCommand {
    Stats(Sender<LogReport>),
    /// Report a page of its channels, from this index on.
    Channels {
        from: u32,
        limit: usize,
        reply: Sender<ChannelPage>,
    },
    Apply(Box<LogSettings>),
    /// Take no more events, and end the store.
    Close,
    Stop,
}

/// The log's figures at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogReport {
    pub stats: LogStats,
    /// Requests waiting in its lane.
    pub waiting: u64,
}

pub(super) struct Clerk {
    log: Arc<SharedLog>,
    hand: LogHand,
    bell: Ringer,
    rings: Vec<u16>,
}

impl Clerk {
    pub fn new(log: Arc<SharedLog>, ends: &LogEnds, bell: Ringer) -> Self {
        Self { hand: LogHand::new(log.clone(), ends), log, bell, rings: Vec::new() }
    }

    pub fn start(
        mut self,
        commands: Receiver<LogCommand>,
        tell_lost: Sender<Lost>,
    ) -> Result<JoinHandle<()>, ServerError> {
        let body = move || {
            self.run(&commands);
            Ok(())
        };
        thread::Builder::new()
            .name("clerk".into())
            .spawn(move || vital(tell_lost, body))
            .map_err(|error| ServerError::io("starting the log's clerk", error))
    }

    fn run(&mut self, commands: &Receiver<LogCommand>) {
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue() {
            let wake_at = self.age();
            flow = match commands.recv_timeout(wake_at.saturating_sub(monotonic_now())) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
                Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
            };
        }
    }

    fn age(&mut self) -> Duration {
        let wake_at = self.hand.age(monotonic_now(), &mut self.rings);
        self.ring();
        wake_at
    }

    fn obey(&mut self, command: LogCommand) -> ControlFlow<()> {
        match command {
            // The asker may have given up waiting.
            LogCommand::Stats(reply) => {
                let waiting = self.log.waiting() as u64;
                let stats = self.with(|log| log.stats());
                let _ = reply.try_send(LogReport { stats, waiting });
            }
            LogCommand::Channels { from, limit, reply } => {
                drop(reply.try_send(self.with(|log| log.channels(from, limit))));
            }
            LogCommand::Apply(settings) => self.with(|log| log.apply(*settings)),
            LogCommand::Close => self.with(Sequencer::close),
            LogCommand::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Sequencer) -> T) -> T {
        let done = self.hand.with(monotonic_now(), &mut self.rings, act);
        self.ring();
        done
    }

    fn ring(&mut self) {
        for worker in self.rings.drain(..) {
            self.bell.ring(worker);
        }
        self.bell.flush();
    }
}
