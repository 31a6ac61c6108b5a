//! What a worker has at the log: requests that wait for room there, and tickets for answers.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use slab::Slab;

use super::effect::{AfterJoin, AfterList, AfterPublish, Listing};
use super::waiting::Waiting;
use crate::limits::{
    LANE_ANSWERS_MAX, LANE_PAGES_MAX, LEAVE_PIECES, LEAVES_AT_ONCE_MIN, PUBLISH_RETRY_PAUSE,
};
use crate::log::message::{Ask, LeaveChannel, Ticket, ToLog};
use crate::proto::identity::Identity;
use crate::ring::Token;

/// A worker's way to the log.
#[derive(Debug)]
pub struct Link {
    worker: u16,
    log: Sender<ToLog>,
    pending: Slab<Pending>,
    waiting: Waiting,
    /// Pages that wait for room; apart, as they may wait for a disk.
    pages: Waiting,
    /// Requests in the log's lane that are not answered yet.
    at_log: usize,
    /// Those of them that are for pages.
    pages_at_log: usize,
    /// The log is told of no more leaves before this time.
    leave_at: Duration,
}

/// A request under way.
#[derive(Debug)]
pub enum Pending {
    /// A connection joins channels.
    Join(PendingJoin),
    /// A connection publishes.
    Publish { token: Token, then: AfterPublish },
    /// A connection's next page of history. `carrier`: what carries it, if it is a stream of HTTP/2;
    /// otherwise itself.
    Read { token: Token, carrier: Token },
    /// `GET /channels/{channel}`.
    Describe { token: Token, channel: Box<str> },
    /// `GET /channels/{channel}/events`.
    List { token: Token, listing: Listing },
    /// Who is on a channel.
    ListMembers { token: Token, channel: Box<str>, then: AfterList },
}

/// A join under way. Its replicas are held until the log answers.
#[derive(Debug)]
pub struct PendingJoin {
    pub token: Token,
    /// The replicas, in the order of the request.
    pub replicas: Vec<u32>,
    /// The cursor as the client sent it, echoed if it cannot be honoured.
    pub after: Box<str>,
    /// Who the log was told it is.
    pub identity: Option<Arc<Identity>>,
    /// What happens after the join.
    pub then: AfterJoin,
}

impl Pending {
    /// The connection that waits.
    pub fn token(&self) -> Token {
        match self {
            Self::Join(join) => join.token,
            Self::Publish { token, .. }
            | Self::Read { token, .. }
            | Self::Describe { token, .. }
            | Self::List { token, .. }
            | Self::ListMembers { token, .. } => *token,
        }
    }
}

impl Link {
    /// A link that sends requests into `log`, the lane of this worker.
    pub fn new(worker: u16, log: Sender<ToLog>) -> Self {
        Self {
            worker,
            log,
            pending: Slab::new(),
            waiting: Waiting::default(),
            pages: Waiting::default(),
            at_log: 0,
            pages_at_log: 0,
            leave_at: Duration::ZERO,
        }
    }

    /// The ticket for a request whose answer this awaits.
    pub fn wait_for(&mut self, pending: Pending) -> Ticket {
        Ticket(self.pending.insert(pending) as u32)
    }

    /// Takes back a ticket with its answer; returns what awaited it.
    pub fn answered(&mut self, Ticket(ticket): Ticket) -> Pending {
        self.at_log -= 1;
        let answered = self.pending.remove(ticket as usize);
        let is_page = matches!(answered, Pending::Read { .. } | Pending::List { .. });
        self.pages_at_log -= usize::from(is_page);
        answered
    }

    /// Asks the log once there is room: after the `outstanding` requests of the same connection,
    /// and along with one of each other connection.
    pub fn ask(&mut self, body: Ask, outstanding: u16) {
        let line = match body {
            Ask::Read { .. } | Ask::List { .. } => &mut self.pages,
            _ => &mut self.waiting,
        };
        line.push(ToLog::Worker { worker: self.worker, body }, outstanding);
    }

    /// Requests that wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.pages.len()
    }

    /// Puts into the log's lane what there is room for; `leaves` last, as a client that leaves may
    /// be about to rejoin. Returns whether it put anything there.
    pub fn send(&mut self, now: Duration, leaves: &mut Vec<LeaveChannel>) -> bool {
        let mut has_sent = false;
        let Self { waiting, pages, log, at_log, pages_at_log, .. } = self;
        let send = |request: ToLog, at_log: &mut usize| {
            let unanswered = matches!(
                request,
                ToLog::Worker { body: Ask::Forward { .. } | Ask::StreamLost { .. }, .. }
            );
            log.try_send(request).map_err(TrySendError::into_inner)?;
            *at_log += usize::from(!unanswered);
            Ok(())
        };
        loop {
            let sent = *at_log < LANE_ANSWERS_MAX && waiting.send(|request| send(request, at_log));
            let may_read = *at_log < LANE_ANSWERS_MAX && *pages_at_log < LANE_PAGES_MAX;
            let read = may_read && pages.send(|request| send(request, at_log));
            *pages_at_log += usize::from(read);
            if !sent && !read {
                break;
            }
            has_sent = true;
        }
        if self.waiting.is_empty() && !leaves.is_empty() && now >= self.leave_at {
            has_sent |= self.send_leaves(now, leaves);
        }
        has_sent
    }

    /// Tells the log of subscribers that have left. If there are very many, as when thousands of
    /// connections with a hundred channels each are cut, it does so piece by piece: others have
    /// requests for the log, too. Returns whether there was room.
    fn send_leaves(&mut self, now: Duration, leaves: &mut Vec<LeaveChannel>) -> bool {
        let count = leaves.len();
        let piece = LEAVES_AT_ONCE_MIN.max(count / LEAVE_PIECES).min(count);
        let body = Ask::Leave(leaves.split_off(count - piece));
        let request = ToLog::Worker { worker: self.worker, body };
        match self.log.try_send(request) {
            Ok(()) if leaves.is_empty() => *leaves = Vec::new(),
            Ok(()) => self.leave_at = now + PUBLISH_RETRY_PAUSE,
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => {
                if let ToLog::Worker { body: Ask::Leave(piece), .. } = request {
                    leaves.extend(piece);
                }
                return false;
            }
        }
        true
    }

    /// Whether no answer is awaited.
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many answers to requests of this connection it awaits. Pages are not counted: only the
    /// subscriber awaits them.
    pub fn asked_by(&self, token: Token) -> usize {
        let is_own = |of: &Pending| of.token() == token && !matches!(of, Pending::Read { .. });
        self.pending.iter().filter(|(_, of)| is_own(of)).count()
    }

    /// Channels being joined.
    pub fn joins(&self) -> usize {
        let of_join = |pending: &Pending| match pending {
            Pending::Join(join) => join.replicas.len(),
            Pending::Publish { .. }
            | Pending::Read { .. }
            | Pending::Describe { .. }
            | Pending::List { .. }
            | Pending::ListMembers { .. } => 0,
        };
        self.pending.iter().map(|(_, pending)| of_join(pending)).sum()
    }

    /// Panics if tickets and requests contradict each other.
    pub fn check_invariants(&self) {
        let asked = self.at_log + self.waiting();
        assert_eq!(self.pending.len(), asked, "every ticket is at the log or waits for it");
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;
    use crate::log::ChannelName;

    #[test]
    fn pages_that_wait_for_a_disk_leave_room_for_all_other_requests() {
        let (ask, asked) = unbounded();
        let mut link = Link::new(0, ask);
        let token = Token { slot: 0, generation: 0 };
        for _ in 0..2 * LANE_ANSWERS_MAX {
            let ticket = link.wait_for(Pending::Read { token, carrier: token });
            link.ask(Ask::Read { ticket, channels: Vec::new(), bytes_max: 1 }, 0);
        }
        link.send(Duration::ZERO, &mut Vec::new());
        assert_eq!(asked.try_iter().count(), LANE_PAGES_MAX);
        let ticket = link.wait_for(Pending::Describe { token, channel: "c".into() });
        link.ask(Ask::Describe { ticket, channel: "c".into() }, 0);
        link.send(Duration::ZERO, &mut Vec::new());
        assert_eq!(asked.try_iter().count(), 1, "the description is not behind them");
        link.answered(Ticket(0));
        link.send(Duration::ZERO, &mut Vec::new());
        assert_eq!(asked.try_iter().count(), 1, "a page is answered, and another one asked for");
        link.check_invariants();
    }

    #[test]
    fn very_many_leaves_go_to_the_log_in_pieces_and_all_of_them_go() {
        const COUNT: usize = 500_000;
        let (ask, asked) = unbounded();
        let mut link = Link::new(0, ask);
        let name = Arc::new(ChannelName::new("c"));
        let mut leaves = Vec::new();
        leaves.resize_with(COUNT, || LeaveChannel {
            name: name.clone(),
            subscribers: 1,
            member: None,
        });
        let (mut now, mut left) = (Duration::from_secs(1), 0);
        while left < COUNT {
            link.send(now, &mut leaves);
            for request in asked.try_iter() {
                let ToLog::Worker { body: Ask::Leave(piece), .. } = request else {
                    panic!("{request:?}")
                };
                assert!(piece.len() <= COUNT / LEAVE_PIECES, "{} at once", piece.len());
                left += piece.len();
            }
            assert!(now < Duration::from_secs(11), "{left} have left");
            now += PUBLISH_RETRY_PAUSE;
        }
        assert_eq!((left, leaves.capacity()), (COUNT, 0));
    }
}
