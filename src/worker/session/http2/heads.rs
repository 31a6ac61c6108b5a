//! Field blocks: requests, and trailers.

use super::super::Cx;
use super::super::state::Block;
use super::super::step::ForH2Streams;
use super::{fault, floods, late, state};
use crate::limits::{FIELD_BLOCK_BYTES_MAX, FIELD_BLOCK_PIECES_MAX, STREAMS_OUT_BYTES_MAX};
use crate::metrics::Flood;
use crate::proto::h2::hpack::Scratch;
use crate::proto::h2::request::{BlockError, Body, RequestHead};
use crate::proto::h2::{ErrorCode, frame};
use crate::worker::clock::Why;

/// Room for one head: one per worker, used again for every request.
#[derive(Debug, Default)]
pub struct HeadSpace {
    scratch: Scratch,
    head: RequestHead,
    /// The head in the form of HTTP/1.1.
    text: Vec<u8>,
}

impl HeadSpace {
    /// Takes the head out, in the form of HTTP/1.1.
    pub fn take_text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// Takes the head's memory back.
    pub fn put_text(&mut self, text: Vec<u8>) {
        self.text = text;
    }
}

pub(super) fn headers(
    cx: &mut Cx<'_>,
    (stream, ends): (u32, bool),
    fragment: &[u8],
    ends_block: bool,
) -> Result<Option<ForH2Streams>, ErrorCode> {
    if stream.is_multiple_of(2) {
        return Err(ErrorCode::ProtocolError);
    }
    if ends_block {
        return whole_block(cx, stream, ends, fragment);
    }
    let requests = &mut cx.session.requests;
    *requests = requests.wrapping_add(1);
    let block = Block { stream, ends, bytes: fragment.into(), pieces: 1 };
    state(cx).block = Some(Box::new(block));
    cx.wait(Why::Head);
    Ok(None)
}

/// More of a field block. One without end would cost us memory and decoding for nothing
/// (CVE-2024-27316).
pub(super) fn continuation(
    cx: &mut Cx<'_>,
    stream: u32,
    fragment: &[u8],
    ends_block: bool,
) -> Result<Option<ForH2Streams>, ErrorCode> {
    let Some(mut block) = state(cx).block.take().filter(|block| block.stream == stream) else {
        return Err(ErrorCode::ProtocolError);
    };
    block.bytes.extend_from_slice(fragment);
    block.pieces += 1;
    if block.pieces > FIELD_BLOCK_PIECES_MAX || block.bytes.len() > FIELD_BLOCK_BYTES_MAX {
        return Err(floods::flooded(cx, Flood::Head));
    }
    if ends_block {
        return whole_block(cx, stream, block.ends, &block.bytes);
    }
    state(cx).block = Some(block);
    Ok(None)
}

/// A whole field block. It is decoded even if its stream is gone, because otherwise the tables of
/// both sides would differ from then on.
fn whole_block(
    cx: &mut Cx<'_>,
    stream: u32,
    ended: bool,
    block: &[u8],
) -> Result<Option<ForH2Streams>, ErrorCode> {
    let mut space = cx.shared.head_space.take().unwrap_or_default();
    let decoded = decode(cx, &mut space, block);
    let found = match decoded {
        Ok(()) => head(cx, stream, ended, &mut space),
        Err(code) => Err(code),
    };
    cx.shared.head_space = Some(space);
    found
}

fn decode(cx: &mut Cx<'_>, space: &mut HeadSpace, block: &[u8]) -> Result<(), ErrorCode> {
    let HeadSpace { scratch, head, text } = space;
    head.clear();
    text.clear();
    let decoder = &mut state(cx).decoder;
    match decoder.decode(block, scratch, |name, value| head.field(name, value)) {
        Ok(()) => Ok(()),
        Err(BlockError::Hpack(_)) => Err(ErrorCode::CompressionError),
        Err(BlockError::TooLarge) => Err(floods::flooded(cx, Flood::Head)),
    }
}

fn head(
    cx: &mut Cx<'_>,
    id: u32,
    ended: bool,
    space: &mut HeadSpace,
) -> Result<Option<ForH2Streams>, ErrorCode> {
    if let Some(open) = cx.world.stream(id) {
        return match (open.has_ended, ended && space.head.is_trailer()) {
            (true, _) => fault(cx, id, ErrorCode::StreamClosed),
            (false, false) => fault(cx, id, ErrorCode::ProtocolError),
            (false, true) => body_end(cx, id, open.index),
        };
    }
    if id <= state(cx).last_id {
        return head_of_old(cx, id, ended && space.head.is_trailer());
    }
    begin(cx, id);
    if !has_room(cx) {
        floods::note(cx, Flood::MadeReset)?;
        frame::write_reset(cx.out(), id, ErrorCode::RefusedStream);
        return Ok(None);
    }
    match space.head.write(ended, &mut space.text) {
        None => fault(cx, id, ErrorCode::ProtocolError),
        Some(body) => {
            await_body(cx, id, body);
            Ok(Some(ForH2Streams::Opens { id, ended, body }))
        }
    }
}

/// A field block for a stream that is gone. Trailers may have been on their way when we reset it (RFC
/// 9113 section 5.1).
fn head_of_old(
    cx: &mut Cx<'_>,
    id: u32,
    is_trailer: bool,
) -> Result<Option<ForH2Streams>, ErrorCode> {
    match state(cx).has_skipped {
        _ if is_trailer => late(cx, id),
        true => Err(ErrorCode::ProtocolError),
        false => Err(ErrorCode::StreamClosed),
    }
}

/// Counts one more request.
fn begin(cx: &mut Cx<'_>, id: u32) {
    let http2 = state(cx);
    http2.has_skipped |= id > http2.last_id + 2;
    http2.begun += 1;
    http2.last_id = id;
    cx.shared.http2_begun += 1;
}

/// Whether the connection may have one more stream. The client decides about streams and their windows,
/// but what waits for them is our memory (CVE-2026-49975).
fn has_room(cx: &Cx<'_>) -> bool {
    if cx.world.held_for_streams() >= STREAMS_OUT_BYTES_MAX {
        floods::count(cx, Flood::HeldAnswers);
        return false;
    }
    cx.world.may_open_stream()
        && cx.world.stream_count() < cx.shared.settings.http2_streams_max as usize
}

/// Trailers end a body. Their fields are not used.
fn body_end(cx: &mut Cx<'_>, id: u32, index: u32) -> Result<Option<ForH2Streams>, ErrorCode> {
    match state(cx).count_body(id, 0, true) {
        true => Ok(Some(ForH2Streams::Data { index, length: 0, from: 0, to: 0, ended: true })),
        false => fault(cx, id, ErrorCode::ProtocolError),
    }
}

/// Notes the length of a body, to check what comes against it (RFC 9113 section 8.1.1).
fn await_body(cx: &mut Cx<'_>, id: u32, body: Body) {
    let Body::Length(length) = body else { return };
    let streams_max = cx.shared.settings.http2_streams_max as usize;
    let http2 = cx.session.begin_work(&mut cx.shared.pool).http2.get_or_insert_default();
    // Some streams were answered, and ended, before their body had come.
    if http2.bodies.len() >= 2 * streams_max {
        http2.bodies.retain(|id, _| cx.world.stream(*id).is_some());
    }
    http2.bodies.insert(id, length);
}
