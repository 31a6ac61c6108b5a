//! `/v1/channels`: the log's channels, in pages.

use std::time::Instant;

use serde::Serialize;

use super::ask::within;
use super::page::{PageQuery, bad_query};
use super::reply::Reply;
use super::{STALL_TIME, State};
use crate::log::message::{Description, KeptOfStream, StreamAt};
use crate::proto::cursor::EventId;
use crate::proto::http::response::Status;
use crate::proto::stream::End;
use crate::server::clerk::LogCommand;

/// One channel as the operator sees it.
#[derive(Debug, Serialize)]
struct Entry {
    channel: String,
    /// Newest event ever; null if there was none.
    last_id: Option<String>,
    /// Oldest event history holds; null if it holds none.
    first_id: Option<String>,
    events: u32,
    subscribers: u32,
    /// The token stream that is open or kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamEntry>,
}

/// A channel's token stream as the operator sees it.
#[derive(Debug, Serialize)]
struct StreamEntry {
    id: String,
    state: &'static str,
    /// Its tokens.
    events: u64,
    /// Events kept beside history, and their bytes.
    kept_events: u32,
    kept_bytes: u64,
    /// Events lost from its beginning, for want of room.
    cut_events: u64,
}

#[derive(Debug, Default, Serialize)]
struct Page {
    channels: Vec<Entry>,
    /// The value of `from` for the next page; null after the last one.
    next: Option<u32>,
}

impl State {
    /// `GET /v1/channels`, in no particular order.
    pub(super) fn channels(&self, query: &str, deadline: Instant) -> Reply {
        let (mut from, limit) = match parse_query(query) {
            Ok(parsed) => parsed,
            Err(refusal) => return refusal,
        };
        // Where many channels were freed, few are found in time: then the page is short.
        let look_until = within(STALL_TIME, deadline);
        let mut page = Page::default();
        loop {
            let wanted = limit - page.channels.len();
            let asked = self.ask_log(|reply| LogCommand::Channels { from, limit: wanted, reply });
            let answer_by = within(STALL_TIME, deadline);
            let Some(part) = asked.ok().and_then(|answer| answer.recv_deadline(answer_by).ok())
            else {
                let (status, code) = (Status::ServiceUnavailable, "log_stalled");
                return Reply::error(status, code, "the log does not answer");
            };
            let entries = part.channels.into_iter();
            page.channels.extend(entries.map(|(channel, of)| self.entry(&channel, &of)));
            page.next = part.next;
            match part.next {
                Some(next) if page.channels.len() < limit && Instant::now() < look_until => {
                    from = next;
                }
                _ => return Reply::json(&page),
            }
        }
    }

    fn entry(&self, channel: &str, of: &Description) -> Entry {
        let id = |seq| EventId { epoch: self.shared.epoch, seq }.to_string();
        Entry {
            channel: channel.to_owned(),
            last_id: of.last_seq.map(id),
            first_id: of.first_seq.map(id),
            events: of.events,
            subscribers: of.subscribers,
            stream: of.stream.as_ref().map(|at| stream_entry(at, of.kept)),
        }
    }
}

fn stream_entry(at: &StreamAt, kept: KeptOfStream) -> StreamEntry {
    StreamEntry {
        id: at.id.to_string(),
        state: at.ended.map_or("open", End::state),
        events: at.tokens,
        kept_events: kept.events,
        kept_bytes: kept.bytes,
        cut_events: kept.cut,
    }
}

fn parse_query(query: &str) -> Result<(u32, usize), Reply> {
    let query = PageQuery::parse(query, "from", &[])?;
    let from = match query.place {
        None => 0,
        Some(text) => {
            text.parse().map_err(|_| bad_query("from must be the next of the page before"))?
        }
    };
    Ok((from, query.limit))
}
