//! Streams over many nodes, where the order is given elsewhere. A node sends a part along with what it
//! knows of the stream ([`Origin`]). It comes back to all of them in one order, and each comes to the
//! same verdict: a token is the next one of its stream and comes from the producer that goes on with
//! it, or it is void and no event on any node. Which producer that is, is told by the events themselves:
//! one that opens a stream that is open takes over.
//!
//! A node that starts when the broker has let go of a stream's beginning takes what its parts say of it,
//! once that is sure to be so: what was on its way when the node's log begins is lost to it, and its
//! readers are told of a gap. Only whether a channel has a stream of which nothing comes it can't know.
//!
//! A node that dies takes its producers with it: the others end their streams after its lease
//! ([`crate::log::presence`] has what nodes know of each other).

use std::time::Duration;

use bytes::Bytes;

use super::{Old, Stream, Streams, Verdict};
use crate::log::event::Publication;
use crate::log::message::Refusal;
use crate::log::publish::Accepted;
use crate::log::sent::Asker;
use crate::log::sequencer::{Outlet, Sequencer};
use crate::proto::identity::NodeId;
use crate::proto::stream::{End, Mark, Origin, Part, control_data};

/// How soon an end that this node has sent is sent again, if it has not come back: by then it was
/// refused, or given up.
const END_TIME_MAX: Duration = Duration::from_secs(10);

impl Streams {
    /// What is known begins behind this event: a stream that opened before it may go on here.
    pub fn begin_behind(&mut self, seq: u64) {
        self.begun_behind = seq;
    }

    /// What goes along with a part that was judged and is sent now; `origin` says from where.
    fn address(&mut self, channel: Option<u32>, mark: &mut Mark, origin: Origin) -> Origin {
        let stream = channel.and_then(|channel| self.by_channel.get_mut(&channel));
        let Some(of) = stream.filter(|of| of.ended.is_none()) else {
            mark.at = 0;
            return origin;
        };
        mark.id = of.id.clone();
        mark.at = match mark.part {
            Part::Open | Part::End(End::Cancelled | End::Lost) => of.tokens,
            // Behind what its producer has sent already.
            Part::Token | Part::End(_) => of.tokens + of.under_way,
        };
        of.under_way += u64::from(mark.part == Part::Token);
        Origin { opened: of.first_seq, attempt: of.attempt, ..origin }
    }

    /// Whether this node has seen all there was.
    fn knows_all(&self) -> bool {
        self.begun_behind == 0
    }

    /// Up to where this node does not know what the channel's stream has come to.
    fn unclear_to(&self, channel: u32) -> u64 {
        match self.old.get(&channel) {
            Some(Old::Unclear(to)) => *to,
            Some(Old::Known(_)) | None => self.begun_behind,
        }
    }

    /// Whether the part is of a stream whose beginning this node has not seen, or of one that may
    /// have been refused for the sake of that.
    fn is_unknown(&self, channel: u32, origin: &Origin) -> bool {
        let is_known = match self.old.get(&channel) {
            Some(Old::Known(opened)) => [0, *opened].contains(&origin.opened),
            Some(Old::Unclear(_)) | None => self.by_channel.contains_key(&channel),
        };
        !is_known && origin.opened <= self.unclear_to(channel)
    }

    /// Whether its sender had seen all that this node has not, so that what it says is so.
    fn is_clear(&self, channel: u32, origin: &Origin) -> bool {
        origin.seen >= self.unclear_to(channel)
    }

    fn adopt(&mut self, channel: u32, mark: &Mark, origin: &Origin) {
        let mut of = Stream::new(mark.id.clone(), origin.opened, None);
        of.attempt = origin.attempt;
        of.tokens = mark.at;
        of.cut_to = self.begun_behind;
        of.home = Some(origin.node);
        of.is_adopted = true;
        self.open += 1;
        self.by_channel.insert(channel, of);
        self.old.insert(channel, Old::Known(origin.opened));
    }

    /// What is to become of a part that comes back in the log's order. It is the same on all nodes.
    fn judge_arrived(&self, channel: Option<u32>, mark: &Mark, origin: &Origin) -> Verdict {
        let stream = channel.and_then(|channel| self.by_channel.get(&channel));
        match (mark.part, stream) {
            (Part::Open, Some(of)) if of.ended.is_none() => match of.id == mark.id {
                true => Verdict::TakeOver,
                false => Verdict::Refuse(Refusal::StreamOpen),
            },
            (Part::Open, _) if origin.opened == 0 => Verdict::Order,
            // It has ended, here or so long ago that it is forgotten.
            (_, None) => Verdict::Refuse(Refusal::StreamEnded),
            (_, Some(of)) if of.ended.is_some() || of.first_seq != origin.opened => {
                Verdict::Refuse(Refusal::StreamEnded)
            }
            (Part::End(End::Cancelled), Some(_)) => Verdict::Order,
            (Part::End(End::Lost), Some(of)) if of.attempt == origin.attempt => Verdict::Order,
            (_, Some(of)) if of.goes_on_with(mark, origin) => Verdict::Order,
            (_, Some(_)) => Verdict::Refuse(Refusal::StreamTaken),
        }
    }

    /// A part is about to be ordered: an adopted stream is known from here on.
    fn note_arrived(&mut self, channel: Option<u32>, mark: &Mark, origin: &Origin) {
        let stream = channel.and_then(|channel| self.by_channel.get_mut(&channel));
        if let Some(of) = stream.filter(|of| of.is_adopted && mark.part != Part::Open) {
            (of.attempt, of.tokens) = (origin.attempt.max(of.attempt), mark.at.max(of.tokens));
            of.is_adopted = false;
        }
    }

    /// A part of a producer at this node has come back.
    fn note_own(&mut self, channel: u32, part: Part) {
        if let Some(of) = self.by_channel.get_mut(&channel).filter(|_| part == Part::Token) {
            of.under_way = of.under_way.saturating_sub(1);
        }
    }

    /// The producer is at this node from now on; `worker`: where, if that is here.
    fn move_home(&mut self, channel: u32, node: NodeId, worker: Option<u16>) {
        if let Some(of) = self.by_channel.get_mut(&channel) {
            (of.home, of.producer) = (Some(node), worker);
            (of.under_way, of.due_at) = (0, None);
        }
    }

    /// Whether a stream is open whose producer is at this node.
    pub fn has_home(&self, node: NodeId) -> bool {
        self.open > 0 && self.open_at(node).next().is_some()
    }

    fn open_at(&self, node: NodeId) -> impl Iterator<Item = u32> {
        let at = move |of: &Stream| of.ended.is_none() && of.home == Some(node);
        self.by_channel.iter().filter(move |(_, of)| at(of)).map(|(channel, _)| *channel)
    }
}

impl Stream {
    /// Whether the part is what comes next, from the producer that goes on with the stream.
    fn goes_on_with(&self, mark: &Mark, origin: &Origin) -> bool {
        match self.is_adopted {
            true => origin.attempt >= self.attempt && mark.at >= self.tokens,
            false => origin.attempt == self.attempt && mark.at == self.tokens,
        }
    }
}

impl Sequencer {
    pub(in crate::log) fn own_node(&self) -> NodeId {
        self.presence.nodes.as_ref().map_or(NodeId(0), |nodes| nodes.own)
    }

    /// Whether a part may be sent on its way.
    pub(in crate::log) fn may_send_part(
        &self,
        found: Option<u32>,
        publication: &Publication,
    ) -> Result<(), Refusal> {
        match publication.mark().map(|mark| self.streams.judge(found, mark)) {
            Some(Verdict::Refuse(refusal)) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Says on a part who sends it.
    pub(in crate::log) fn address_part(&mut self, publication: &mut Publication) {
        let (node, number) = (self.own_node(), self.sent.next_number());
        let origin = Origin { node, number, opened: 0, attempt: 0, seen: self.order.assigned() };
        let found =
            self.channels.find(self.hasher.channel(&publication.channel), &publication.channel);
        let Some(attributes) = &mut publication.attributes else { return };
        if let Some(mark) = &mut attributes.stream {
            let origin = self.streams.address(found, mark, origin);
            attributes.origin = Some(Box::new(origin));
        }
    }

    /// A part comes back with its place. Whether it is an event; else it is dealt with.
    pub(in crate::log) fn admit_arrived(
        &mut self,
        found: &mut Option<u32>,
        seq: u64,
        publication: &mut Publication,
        origin: &Origin,
        outlet: &mut impl Outlet,
    ) -> bool {
        let Some(mark) = publication.mark().cloned() else { return true };
        if !self.know_stream(found, seq, publication, origin) {
            return false;
        }
        match (self.streams.judge_arrived(*found, &mark, origin), *found) {
            (Verdict::Order, _) => {
                self.streams.note_arrived(*found, &mark, origin);
                self.write_arrived(*found, publication);
                return true;
            }
            (Verdict::TakeOver, Some(channel)) => {
                self.streams.take_over(channel);
                self.settle_part(channel, seq, mark.part, origin, outlet);
            }
            (Verdict::TakeOver, None) => {}
            (Verdict::Refuse(refusal), _) => {
                self.refuse_arrived(*found, seq, &mark, origin, refusal, outlet)
            }
        }
        false
    }

    /// Takes what a part says of a stream whose beginning this node has not seen. If that may not be
    /// so any more, the part is lost here, as all before it: readers are told of a gap.
    fn know_stream(
        &mut self,
        found: &mut Option<u32>,
        seq: u64,
        publication: &Publication,
        origin: &Origin,
    ) -> bool {
        if self.streams.knows_all() {
            return true;
        }
        let (name, hash) = (&publication.channel, self.hasher.channel(&publication.channel));
        let channel = found.unwrap_or_else(|| self.create_in_room(hash, name));
        *found = Some(channel);
        if !self.streams.is_unknown(channel, origin) {
            return true;
        }
        let is_clear = self.streams.is_clear(channel, origin);
        if !is_clear {
            self.streams.old.insert(channel, Old::Unclear(seq));
            self.lose_to(channel, seq);
        } else if let Some(mark) = publication.mark().filter(|_| origin.opened > 0) {
            self.streams.adopt(channel, mark, origin);
            self.note_home(origin.node);
        }
        is_clear
    }

    /// What opens or ends a stream says how far it is, which its sender may not have known.
    fn write_arrived(&self, found: Option<u32>, publication: &mut Publication) {
        let mark = publication.attributes.as_mut().and_then(|of| of.stream.as_mut());
        let Some(mark) = mark else { return };
        let of = found.filter(|_| mark.part != Part::Open);
        if let Some(id) = of.and_then(|channel| self.streams.id(channel)) {
            mark.id = id.clone(); // One name for all tokens.
        }
        if mark.part != Part::Token {
            mark.at = of.map_or(0, |channel| self.streams.number(channel));
            publication.data = Bytes::from(control_data(&mark.id, mark.part, mark.at));
        }
    }

    /// A part is ordered, or a producer has taken over: what that is to the node it comes from.
    pub(in crate::log) fn settle_part(
        &mut self,
        channel: u32,
        seq: u64,
        part: Part,
        origin: &Origin,
        outlet: &mut impl Outlet,
    ) {
        let is_own = origin.node == self.own_node();
        let worker = self.sent.publisher(origin.number).filter(|_| is_own);
        if part == Part::Open {
            self.streams.move_home(channel, origin.node, worker);
            self.note_home(origin.node);
            if is_own && worker.is_none() {
                // It was given up, or its producer is gone meanwhile.
                self.streams.put_off(channel, self.now + self.settings.streams.grace);
            }
        }
        if is_own {
            self.streams.note_own(channel, part);
            let accepted = Accepted { seq, channel, subscribers: 0, elsewhere: None };
            self.part_arrived(origin.number, Ok(accepted), Some(channel), outlet);
        }
    }

    /// A part is void. Its stream has ended or was taken over, and the producer is told that by
    /// other ways than a token that comes to nothing.
    fn refuse_arrived(
        &mut self,
        found: Option<u32>,
        seq: u64,
        mark: &Mark,
        origin: &Origin,
        refusal: Refusal,
        outlet: &mut impl Outlet,
    ) {
        if origin.node != self.own_node() {
            return;
        }
        let accepted =
            Accepted { seq, channel: found.unwrap_or(0), subscribers: 0, elsewhere: None };
        let verdict = if mark.part == Part::Token { Ok(accepted) } else { Err(refusal) };
        self.part_arrived(origin.number, verdict, found, outlet);
    }

    /// Ends a stream whose producer is lost, on all nodes.
    pub(in crate::log) fn send_end(&mut self, channel: u32, end: Publication) {
        self.send_own(end, Asker::Log);
        self.streams.put_off(channel, self.now + END_TIME_MAX);
    }

    /// A node has ended, and this one has to say so: its producers are lost.
    pub(in crate::log) fn lose_home(&mut self, node: NodeId) {
        let channels: Vec<u32> = self.streams.open_at(node).collect();
        channels.into_iter().for_each(|channel| self.streams.put_off(channel, self.now));
    }
}
