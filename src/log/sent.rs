//! Publishes on their way to a broker: each is answered when all its publications are. Always empty
//! with a store that does not have the order given elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;

use super::commit::send_answer;
use super::event::Publication;
use super::history::event_bytes;
use super::message::{Counts, Refusal, Share, StreamAt};
use super::pending::{PENDING_BYTES_MAX, PendingAnswer};
use super::presence::NodeTold;
use super::publish::{Accepted, Admission};
use super::sequencer::{Outlet, Sequencer};
use super::store::Answered;
use crate::proto::stream;

/// Most publications on their way: what a broker takes in some ten milliseconds.
pub const SENT_MAX: usize = 16_384;

/// The channel of an event that has not come back.
const ELSEWHERE: u32 = u32::MAX;

/// A publication of a request.
#[derive(Debug)]
enum Part {
    /// `comes_back`: it is answered by what becomes of it in the log's order.
    Sent {
        bytes: u64,
        subscribers: u32,
        comes_back: bool,
    },
    Accepted(Accepted),
    Refused(Refusal),
    Lost,
}

/// Who is told what has become of publications.
#[derive(Debug)]
pub(super) enum Asker {
    Publisher(PendingAnswer),
    /// The log itself, which looks for what becomes of it.
    Log,
    /// The members of this channel.
    Presence(u32),
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
    /// The stream that it opens: of a producer that is not lost yet.
    opens: Option<Box<Opens>>,
    /// How far the stream of its last part has come.
    stream: Option<StreamAt>,
}

/// A stream by its names.
#[derive(Debug)]
struct Opens {
    channel: Box<str>,
    id: Arc<str>,
}

impl Opens {
    fn of(publication: &Publication) -> Option<Box<Self>> {
        let mark = publication.mark().filter(|mark| mark.part == stream::Part::Open)?;
        Some(Box::new(Self { channel: publication.channel.clone(), id: mark.id.clone() }))
    }
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

    /// The number of what is sent next.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    fn place_of(&self, number: u64) -> Option<usize> {
        self.requests.partition_point(|request| request.first <= number).checked_sub(1)
    }

    /// Notes an answer. Returns the request if that was the last one it waited for. A second answer is
    /// ignored, and so is one that a part of a stream was stored: that is answered when it comes back.
    fn answer(&mut self, answered: Answered) -> Option<Outstanding> {
        let Answered { number, seq, elsewhere } = answered;
        self.settle(number, |sent| match (sent, seq) {
            (&Part::Sent { comes_back: true, .. }, Some(_)) => None,
            (&Part::Sent { subscribers, .. }, Some(seq)) => {
                Some(Part::Accepted(Accepted { seq, channel: ELSEWHERE, subscribers, elsewhere }))
            }
            _ => Some(Part::Lost),
        })
    }

    /// A part of a stream has come back.
    fn come_back(
        &mut self,
        number: u64,
        verdict: Result<Accepted, Refusal>,
        stream: Option<StreamAt>,
    ) -> Option<Outstanding> {
        let place = self.place_of(number)?;
        self.requests[place].stream = stream;
        self.settle(number, |_| Some(verdict.map_or_else(Part::Refused, Part::Accepted)))
    }

    /// What has become of a part; the request, if that was the last it waited for.
    fn settle(
        &mut self,
        number: u64,
        becomes: impl FnOnce(&Part) -> Option<Part>,
    ) -> Option<Outstanding> {
        let place = self.place_of(number)?;
        let request = &mut self.requests[place];
        let part = request.parts.get_mut(usize::try_from(number - request.first).ok()?)?;
        let &mut Part::Sent { bytes, .. } = part else { return None };
        *part = becomes(part)?;
        request.unanswered -= 1;
        self.unanswered -= 1;
        self.bytes -= bytes;
        if request.unanswered == 0 { self.requests.remove(place) } else { None }
    }

    /// The worker whose publication this is, while it waits for it and its producer is not lost.
    pub fn publisher(&self, number: u64) -> Option<u16> {
        let request = &self.requests[self.place_of(number)?];
        let is_of_it = number - request.first < request.parts.len() as u64;
        match &request.asker {
            Asker::Publisher(answer) if is_of_it && request.opens.is_some() => Some(answer.worker),
            _ => None,
        }
    }

    /// A producer is gone while what opens its stream is on its way. Whether it is.
    pub fn lose_opener(&mut self, channel: &str, id: &str) -> bool {
        let is_it = |of: &Opens| *of.channel == *channel && *of.id == *id;
        let opener = |of: &&mut Outstanding| of.opens.as_deref().is_some_and(is_it);
        self.requests.iter_mut().find(opener).is_some_and(|of| of.opens.take().is_some())
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
        let opens = publications.last().and_then(Opens::of);
        let mut parts = Vec::with_capacity(publications.len());
        let (mut publications, mut stream) = (publications.into_iter(), None);
        while let Some(publication) = publications.next() {
            match self.send(publication, share, counts, outlet) {
                Ok(part) => parts.push(part),
                Err((refusal, publication)) => {
                    self.counters.refused.count(refusal);
                    stream = publication.mark().and_then(|_| self.stream_at(&publication.channel));
                    answer.refuse(refusal, publication, publications);
                    break;
                }
            }
        }
        let unanswered = parts.iter().filter(|part| matches!(part, Part::Sent { .. })).count();
        let asker = Asker::Publisher(answer);
        let request = Outstanding { first, parts, unanswered, asker, opens, stream };
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
        let hash = self.hasher.channel(&publication.channel);
        let found = self.channels.find(hash, &publication.channel);
        if let Some(accepted) = self.repeated(found, hash, &publication) {
            self.counters.repeated += 1;
            self.sent.next += 1;
            return Ok(Part::Accepted(accepted));
        }
        if let Err(refusal) = self.may_send_part(found, &publication) {
            return Err((refusal, publication));
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
        let request = Outstanding { first, parts, unanswered: 1, asker, opens: None, stream: None };
        self.sent.requests.push_back(request);
        true
    }

    fn post(&mut self, mut publication: Publication, counts: Counts, subscribers: u32) -> Part {
        let comes_back = publication.mark().is_some();
        if comes_back {
            self.address_part(&mut publication);
        }
        let Publication { channel, data, event_type, key, .. } = &publication;
        let bytes = event_bytes(channel, data, event_type.as_deref(), key.as_deref());
        let number = self.sent.next;
        self.sent.next += 1;
        self.sent.unanswered += 1;
        self.sent.bytes += bytes;
        self.sent.news = true;
        self.store.send(number, publication, counts);
        Part::Sent { bytes, subscribers, comes_back }
    }

    /// A part of a stream that this node has sent has come back.
    pub(super) fn part_arrived(
        &mut self,
        number: u64,
        verdict: Result<Accepted, Refusal>,
        channel: Option<u32>,
        outlet: &mut impl Outlet,
    ) {
        let at = channel.and_then(|channel| self.streams.at(channel));
        if let Some(request) = self.sent.come_back(number, verdict, at) {
            self.finish(request, outlet);
        }
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
        let Outstanding { parts, asker, stream, .. } = request;
        let is_kept = parts.iter().all(|part| matches!(part, Part::Accepted(_)));
        let mut answer = match asker {
            Asker::Publisher(answer) => answer,
            Asker::Log => return,
            Asker::Presence(channel) => return self.presence_answered(channel, is_kept),
            Asker::Node(told) => return self.node_answered(told, is_kept),
        };
        answer.outcome.stream = stream;
        for part in parts {
            match part {
                Part::Accepted(accepted) => answer.accept(&accepted, false),
                Part::Refused(refusal) => {
                    self.counters.refused.count(refusal);
                    answer.lose_rest();
                    answer.outcome.refusal = Some(refusal);
                    break;
                }
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
