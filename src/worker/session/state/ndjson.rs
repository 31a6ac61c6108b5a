//! The body of `POST /publish`: lines, and the publications in them.

use bytes::Bytes;
use memchr::memchr;

use super::super::publish_head::{NO_SENDER, too_large};
use crate::auth::Denied;
use crate::limits::{JSON_GROWTH_MAX, LINE_OVERHEAD_BYTES_MAX, PUBLISH_BATCH_EVENTS_MAX};
use crate::log::event::{Kind, Publication};
use crate::log::message::Published;
use crate::proto::cursor::{Epoch, EventId};
use crate::proto::envelope::{self, Payload};
use crate::proto::http::body::BodyDecoder;
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::proto::sender::Sender;

/// The body of a `POST /publish` as it arrives.
#[derive(Debug)]
pub struct Ndjson {
    pub decoder: BodyDecoder,
    /// The connection that the request's head names as the sender, if it names one.
    pub sender: Option<Sender>,
    /// The beginning of a line whose end has not come yet; lines before it, while the batch is full.
    pub line: Vec<u8>,
    /// Lines begun so far, so the number of the present line, counted from 1.
    pub line_no: u64,
    /// Events ordered so far.
    pub published: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Events parsed and not yet at the log (or refused by it for the moment).
    pub batch: Vec<Publication>,
    /// The line number of each event of the batch, kept until the log has answered.
    pub batch_line_nos: Vec<u64>,
    /// Why no further line is read.
    pub failed: Option<Reject>,
}

/// The publisher of a line or an operation.
pub struct Publisher<'a> {
    /// Whether it may publish to a channel.
    pub allowed: &'a dyn Fn(&str) -> bool,
    /// The connection that is left out of events for others.
    pub sender: Option<Sender>,
}

impl Ndjson {
    pub fn new(decoder: BodyDecoder, sender: Option<Sender>) -> Self {
        Self {
            decoder,
            sender,
            line: Vec::new(),
            line_no: 0,
            published: 0,
            first_seq: 0,
            last_seq: 0,
            batch: Vec::new(),
            batch_line_nos: Vec::new(),
            failed: None,
        }
    }

    /// Memory held for the line that has begun.
    pub fn held_bytes(&self) -> usize {
        self.line.capacity()
    }

    /// Whether a line has begun.
    pub fn is_within_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether the peer has to send more. While a batch waits, the server has to do something.
    pub fn awaits_peer(&self) -> bool {
        self.batch.is_empty()
    }

    /// Takes the lines that end in `bytes` and keeps the beginning of the next one.
    pub fn take(&mut self, mut bytes: &[u8], bytes_max: usize, allowed: &dyn Fn(&str) -> bool) {
        while self.failed.is_none()
            && self.batch.len() < PUBLISH_BATCH_EVENTS_MAX
            && let Some(end) = memchr(b'\n', bytes)
        {
            if self.line.is_empty() {
                self.parse(&bytes[..end], bytes_max, allowed);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.parse(&line, bytes_max, allowed);
                line.clear();
                self.line = line;
            }
            bytes = &bytes[end + 1..];
        }
        if self.failed.is_none() {
            self.line.extend_from_slice(bytes);
            let is_full = self.batch.len() >= PUBLISH_BATCH_EVENTS_MAX;
            if !is_full && self.line.len() > line_bytes_max(bytes_max) {
                self.line_no += 1;
                self.failed = Some(too_large(bytes_max));
            }
        }
    }

    /// Takes the lines for which the last batch had no room; and once the body has ended, what is
    /// left of it: the last line need not end in a newline.
    pub fn take_left(&mut self, bytes_max: usize, allowed: &dyn Fn(&str) -> bool) {
        if self.batch.is_empty() && memchr(b'\n', &self.line).is_some() {
            let left = std::mem::take(&mut self.line);
            self.take(&left, bytes_max, allowed);
        }
        let is_last = self.decoder.is_done() && memchr(b'\n', &self.line).is_none();
        if is_last && self.failed.is_none() && !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.parse(&line, bytes_max, allowed);
        }
    }

    pub fn parse(&mut self, line: &[u8], bytes_max: usize, allowed: &dyn Fn(&str) -> bool) {
        self.line_no += 1;
        if line.trim_ascii().is_empty() {
            return;
        }
        let by = Publisher { allowed, sender: self.sender };
        match add_line(line, bytes_max, &by, &mut self.batch) {
            Ok(()) => self.batch_line_nos.resize(self.batch.len(), self.line_no),
            Err(reject) => self.failed = Some(reject),
        }
    }

    pub fn note(&mut self, outcome: &Published) {
        self.batch_line_nos.drain(..outcome.accepted as usize);
        if outcome.accepted == 0 {
            return;
        }
        if self.published == 0 {
            self.first_seq = outcome.first_seq;
        }
        self.published += u64::from(outcome.accepted);
        self.last_seq = outcome.last_seq;
    }

    pub fn write_summary(&self, out: &mut Vec<u8>, epoch: Epoch) {
        out.extend_from_slice(b"\"published\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.published).as_bytes());
        for (name, seq) in [("first_id", self.first_seq), ("last_id", self.last_seq)] {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            if self.published == 0 {
                out.extend_from_slice(b"null");
                continue;
            }
            out.push(b'"');
            EventId { epoch, seq }.write(out);
            out.push(b'"');
        }
    }
}

/// The longest line, or WebSocket operation, that publishes an event.
pub fn line_bytes_max(event_bytes_max: usize) -> usize {
    event_bytes_max.saturating_mul(JSON_GROWTH_MAX).saturating_add(LINE_OVERHEAD_BYTES_MAX)
}

fn add_line(
    line: &[u8],
    event_bytes_max: usize,
    by: &Publisher<'_>,
    batch: &mut Vec<Publication>,
) -> Result<(), Reject> {
    if line.len() > line_bytes_max(event_bytes_max) {
        return Err(too_large(event_bytes_max));
    }
    add_publications(envelope::parse_publication(line)?, event_bytes_max, by, batch)
}

/// Appends what a line or an operation publishes: an event for each of its channels, if its sender is
/// allowed to publish to all of them.
pub fn add_publications(
    mut from: envelope::Publication<'_>,
    event_bytes_max: usize,
    by: &Publisher<'_>,
    batch: &mut Vec<Publication>,
) -> Result<(), Reject> {
    let also = std::mem::take(&mut from.also);
    for channel in std::iter::once(&from.channel).chain(&also) {
        channel_name(channel.as_bytes())?;
        if !(by.allowed)(channel) {
            return Err(Denied::PublishForbidden.into());
        }
    }
    let to_others = from.to_others;
    let mut publication = to_publication(from, event_bytes_max)?;
    if to_others {
        publication.attributes.get_or_insert_default().sender = Some(by.sender.ok_or(NO_SENDER)?);
    }
    let first = batch.len();
    batch.push(publication);
    for channel in also {
        let same = batch[first].clone();
        batch.push(Publication { channel: channel.into(), ..same });
    }
    Ok(())
}

/// A client's publication in the form the log takes.
fn to_publication(
    from: envelope::Publication<'_>,
    event_bytes_max: usize,
) -> Result<Publication, Reject> {
    let (kind, data) = match from.payload {
        Payload::Text(text) => (Kind::Text, Bytes::from(text.into_owned())),
        Payload::Json(json) => (Kind::Json, Bytes::copy_from_slice(json.as_bytes())),
        Payload::Binary(bytes) => (Kind::Binary, Bytes::from(bytes)),
    };
    if data.len() > event_bytes_max {
        return Err(too_large(event_bytes_max));
    }
    Ok(Publication {
        channel: from.channel.into(),
        kind,
        data,
        event_type: from.event_type.map(Into::into),
        key: from.key.map(Into::into),
        attributes: from.attributes,
    })
}
