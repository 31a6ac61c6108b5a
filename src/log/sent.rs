//! Publishes on their way to a broker: each is answered when all its publications are. Always empty
//! with a store that does not have the order given elsewhere.

use std::collections::VecDeque;

use super::commit::send_answer;
use super::event::Publication;
use super::history::event_bytes;
use super::message::{Counts, Refusal, Share};
use super::pending::{PENDING_BYTES_MAX, PendingAnswer};
use super::presence::NodeTold;
use super::publish::{Accepted, Admission};
use super::sequencer::{Outlet, Sequencer};
use super::store::Answered;

/// Most publications on their way: what a broker takes in some ten milliseconds.
pub const SENT_MAX: usize = 16_384;

/// The channel of an event that has not come back.
const ELSEWHERE: u32 = u32::MAX;

/// A publication of a request.
#[derive(Debug)]
enum Part {
    Sent { bytes: u64, subscribers: u32 },
    Accepted(Accepted),
    Lost,
}

/// Who is told what has become of publications.
#[derive(Debug)]
pub(super) enum Asker {
    Publisher(PendingAnswer),
    /// The roster of this channel.
    Roster(u32),
    /// This node, which told the others something.
    Node(NodeTold),
}

/// A request of which some publications are not answered.
#[derive(Debug)]
struct Outstanding {
    /// The number of its first part; those of the others follow.
    first: u64,
    parts: Vec<Part>,
    unanswered: usize,
    asker: Asker,
}

/// All publications on their way, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Sent {
    requests: VecDeque<Outstanding>,
    next: u64,
    unanswered: usize,
    bytes: u64,
    /// Some were handed to the store since it was last told that all of a request was.
    news: bool,
}

impl Sent {
    pub fn new() -> Self {
        Self { requests: VecDeque::new(), next: 1, unanswered: 0, bytes: 0, news: false }
    }

    /// Whether the store has been handed some that it was not told to send yet.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    fn is_full(&self) -> bool {
        self.unanswered >= SENT_MAX || self.bytes >= PENDING_BYTES_MAX
    }

    /// Notes an answer. Returns the request if that was the last one it waited for. A second answer is
    /// ignored.
    fn answer(&mut self, answered: Answered) -> Option<Outstanding> {
        let place = self.requests.partition_point(|request| request.first <= answered.number);
        let place = place.checked_sub(1)?;
        let request = &mut self.requests[place];
        let part = usize::try_from(answered.number - request.first).ok()?;
        let part = request.parts.get_mut(part)?;
        let &mut Part::Sent { bytes, subscribers } = part else { return None };
        *part = match answered.seq {
            Some(seq) => {
                let Answered { elsewhere, .. } = answered;
                Part::Accepted(Accepted { seq, channel: ELSEWHERE, subscribers, elsewhere })
            }
            None => Part::Lost,
        };
        request.unanswered -= 1;
        self.unanswered -= 1;
        self.bytes -= bytes;
        if request.unanswered == 0 { self.requests.remove(place) } else { None }
    }
}

impl Sequencer {
    /// Sends publications one after the other, until one is refused.
    pub(super) fn send_all(
        &mut self,
        publications: Vec<Publication>,
        share: Share,
        counts: Counts,
        mut answer: PendingAnswer,
        outlet: &mut impl Outlet,
    ) {
        let first = self.sent.next;
        let mut parts = Vec::with_capacity(publications.len());
        let mut publications = publications.into_iter();
        while let Some(publication) = publications.next() {
            match self.send(publication, share, counts, outlet) {
                Ok(part) => parts.push(part),
                Err((refusal, publication)) => {
                    self.counters.refused.count(refusal);
                    answer.refuse(refusal, publication, publications);
                    break;
                }
            }
        }
        let unanswered = parts.iter().filter(|part| matches!(part, Part::Sent { .. })).count();
        let request = Outstanding { first, parts, unanswered, asker: Asker::Publisher(answer) };
        match unanswered {
            0 => self.finish(request, outlet),
            _ => self.sent.requests.push_back(request),
        }
    }

    fn send(
        &mut self,
        publication: Publication,
        share: Share,
        counts: Counts,
        outlet: &mut impl Outlet,
    ) -> Result<Part, (Refusal, Publication)> {
        if !self.store_is_up {
            return Err((Refusal::Store, publication));
        }
        // A token stream has one producer at a time, and no node knows the producers at others.
        if publication.mark().is_some() {
            return Err((Refusal::StreamTaken, publication));
        }
        let hash = self.hasher.channel(&publication.channel);
        let found = self.channels.find(hash, &publication.channel);
        if let Some(accepted) = self.repeated(found, hash, &publication) {
            self.counters.repeated += 1;
            self.sent.next += 1;
            return Ok(Part::Accepted(accepted));
        }
        if self.sent.is_full() {
            return Err((Refusal::Busy, publication));
        }
        let Admission { found, rate, .. } =
            match self.admit(found, hash, &publication, share, outlet) {
                Ok(admission) => admission,
                Err(refusal) => return Err((refusal, publication)),
            };
        let subscribers = found.map_or(0, |index| {
            let channel = self.channels.at_mut(index);
            channel.rate = rate;
            channel.subscribers()
        });
        Ok(self.post(publication, counts, subscribers))
    }

    /// Whether there is room for a publication of this node's own.
    pub(super) fn can_send_own(&self) -> bool {
        self.store_is_up && !self.sent.is_full()
    }

    /// Sends a publication of this node's own, if there is room. Returns whether there was.
    pub(super) fn send_own(&mut self, publication: Publication, asker: Asker) -> bool {
        if !self.can_send_own() {
            return false;
        }
        let first = self.sent.next;
        let parts = vec![self.post(publication, Counts::Here, 0)];
        self.sent.requests.push_back(Outstanding { first, parts, unanswered: 1, asker });
        true
    }

    fn post(&mut self, publication: Publication, counts: Counts, subscribers: u32) -> Part {
        let Publication { channel, data, event_type, key, .. } = &publication;
        let bytes = event_bytes(channel, data, event_type.as_deref(), key.as_deref());
        let number = self.sent.next;
        self.sent.next += 1;
        self.sent.unanswered += 1;
        self.sent.bytes += bytes;
        self.sent.news = true;
        self.store.send(number, publication, counts);
        Part::Sent { bytes, subscribers }
    }

    /// Takes answers to publications.
    pub(super) fn answered(&mut self, answers: Vec<Answered>, outlet: &mut impl Outlet) {
        for answered in answers {
            if let Some(request) = self.sent.answer(answered) {
                self.finish(request, outlet);
            }
        }
    }

    fn finish(&mut self, request: Outstanding, outlet: &mut impl Outlet) {
        let Outstanding { parts, asker, .. } = request;
        let is_kept = parts.iter().all(|part| matches!(part, Part::Accepted(_)));
        let mut answer = match asker {
            Asker::Publisher(answer) => answer,
            Asker::Roster(channel) => return self.roster_answered(channel, is_kept),
            Asker::Node(told) => return self.node_answered(told, is_kept),
        };
        for part in parts {
            match part {
                Part::Accepted(accepted) => answer.accept(&accepted, false),
                Part::Lost | Part::Sent { .. } => {
                    self.counters.refused.count(Refusal::Store);
                    answer.lose_rest();
                    break;
                }
            }
        }
        send_answer(answer, outlet);
    }
}
