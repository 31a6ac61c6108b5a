//! The log's thread: takes requests in batches, rings each sleeping worker once per batch.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};

use super::vital::{Lost, vital};
use super::{ServerError, Shared};
use crate::log::message::Request;
use crate::log::{ChannelPage, LogSettings, LogStats, Sequencer};
use crate::mesh::{LogEnds, LogOutlet};
use crate::ring::{Ringer, monotonic_now};

/// Requests handled before workers are rung.
const BATCH_MAX: usize = 256;

/// Times the log gives way to the workers before it sleeps: those that share its core then put
/// more into its lane, and neither side pays for a wake-up.
const YIELDS_BEFORE_SLEEP: u32 = 4;

/// Longest sleep: history ages at least this often.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What main and the admin listener ask of the log.
#[derive(Debug)]
pub(super) enum LogOrder {
    /// How it is.
    Stats(Sender<LogReport>),
    /// A page of its channels, from this index on.
    Channels { from: u32, limit: usize, reply: Sender<ChannelPage> },
    /// New settings.
    Apply(Box<LogSettings>),
    /// End.
    Stop,
}

/// The log as its thread sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogReport {
    pub stats: LogStats,
    /// Requests waiting in its lane.
    pub waiting: u64,
}

/// The log on its thread.
pub(super) struct LogThread {
    sequencer: Sequencer,
    requests: Receiver<Request>,
    outlet: LogOutlet<Ringer>,
    expire_at: Duration,
}

impl LogThread {
    pub fn new(shared: &Shared, ends: &LogEnds, bell: Ringer) -> Self {
        let workers = ends.notices.len() as u16;
        let settings = shared.settings.log_settings();
        Self {
            sequencer: Sequencer::new(settings, shared.epoch, workers, shared.hasher.clone()),
            requests: ends.requests.clone(),
            outlet: LogOutlet::new(ends, bell),
            expire_at: monotonic_now() + SLEEP_MAX,
        }
    }

    pub fn start(
        mut self,
        orders: Receiver<LogOrder>,
        tell_lost: Sender<Lost>,
    ) -> Result<JoinHandle<()>, ServerError> {
        let body = move || {
            self.run(&orders);
            Ok(())
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || vital(tell_lost, body))
            .map_err(|error| ServerError::io("starting the log's thread", error))
    }

    fn run(&mut self, orders: &Receiver<LogOrder>) {
        let mut yields = 0;
        loop {
            let mut handled = 0;
            while handled < BATCH_MAX {
                match self.requests.try_recv() {
                    Ok(request) => self.handle(request),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
                handled += 1;
            }
            self.outlet.flush();
            if let Ok(order) = orders.try_recv() {
                if self.obey(order) == Obeyed::Stop {
                    return;
                }
            } else if handled > 0 {
                yields = 0;
            } else if yields < YIELDS_BEFORE_SLEEP {
                yields += 1;
                thread::yield_now();
            } else if self.sleep(orders) == Obeyed::Stop {
                return;
            }
            self.expire();
        }
    }

    fn handle(&mut self, request: Request) {
        // The workers' clock, so that they can tell how old an event is.
        self.sequencer.handle(request, monotonic_now(), &mut self.outlet);
    }

    /// Waits for whatever comes first, and does it.
    fn sleep(&mut self, orders: &Receiver<LogOrder>) -> Obeyed {
        let timeout = self.expire_at.saturating_sub(monotonic_now());
        select! {
            recv(self.requests) -> request => match request {
                Ok(request) => self.handle(request),
                Err(_) => return Obeyed::Stop,
            },
            recv(orders) -> order => match order {
                Ok(order) => return self.obey(order),
                Err(_) => return Obeyed::Stop,
            },
            default(timeout) => {}
        }
        Obeyed::GoOn
    }

    fn obey(&mut self, order: LogOrder) -> Obeyed {
        match order {
            // Who asked may have given up waiting.
            LogOrder::Stats(reply) => {
                let stats = self.sequencer.stats();
                let waiting = self.requests.len() as u64;
                let _ = reply.try_send(LogReport { stats, waiting });
            }
            LogOrder::Channels { from, limit, reply } => {
                drop(reply.try_send(self.sequencer.channels(from, limit)));
            }
            LogOrder::Apply(settings) => self.sequencer.apply(*settings),
            LogOrder::Stop => return Obeyed::Stop,
        }
        Obeyed::GoOn
    }

    fn expire(&mut self) {
        let now = monotonic_now();
        if now >= self.expire_at {
            let wanted = self.sequencer.expire(now).unwrap_or(now + SLEEP_MAX);
            self.expire_at = wanted.min(now + SLEEP_MAX);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obeyed {
    GoOn,
    Stop,
}
