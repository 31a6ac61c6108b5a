//! HTTP/2: one connection, many streams. Frames come in here, one a step. What a frame means for a
//! stream goes to the turn, which hands it to the stream's own session (`worker::h2_streams`).

mod floods;
mod heads;

use super::state::{Http2, Protocol, Session};
use super::step::{ForH2Streams, Step};
use super::{Cx, Shared};
use crate::limits::{HTTP2_OUT_BYTES_MAX, HTTP2_REQUESTS_PER_TURN_ALL};
use crate::metrics::Flood;
use crate::proto::h2::frame::{self, Frame};
use crate::proto::h2::{
    CREDIT_BYTES_MIN, ErrorCode, PREFACE, STREAM_ID_MAX, WINDOW_DEFAULT, WINDOW_MAX, settings,
};
use crate::proto::http::head::HEAD_BYTES_MAX;
use crate::reason::CloseReason;
use crate::worker::effect::{Effect, Ending};
use crate::worker::table::CarrierView;

pub use self::heads::HeadSpace;

impl Session {
    /// Whether a field block has begun on the connection and not ended.
    pub(super) fn has_block(&self) -> bool {
        let http2 = self.work().and_then(|work| work.http2.as_ref());
        http2.is_some_and(|http2| http2.has_block())
    }
}

impl Shared {
    /// Whether streams have begun as many requests in this turn as they may, on all connections
    /// together.
    pub fn has_begun_enough(&self) -> bool {
        self.http2_begun >= HTTP2_REQUESTS_PER_TURN_ALL
    }
}

// --- how it begins ---

/// Whether a connection whose first bytes are these may speak HTTP/2.
pub(super) fn may_begin(cx: &Cx<'_>, bytes: &[u8]) -> bool {
    let length = bytes.len().min(PREFACE.len());
    cx.shared.settings.http2
        && !cx.session.has_begun()
        && cx.world.carrier() == cx.token.slot
        && bytes[..length] == PREFACE[..length]
}

/// Takes the client's preface, once all of it has come (RFC 9113 section 3.4).
pub(super) fn preface_input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    if bytes.len() < PREFACE.len() {
        return Step::Wait(0);
    }
    cx.speak(Protocol::Http2);
    cx.session.requests += 1;
    cx.work().http2 = Some(Box::default());
    cx.push(Effect::Carry);
    let ours = [
        // An idle connection holds no table.
        (settings::TABLE_SIZE, 0),
        (settings::STREAMS_MAX, cx.shared.settings.http2_streams_max),
        (settings::HEAD_BYTES, HEAD_BYTES_MAX as u32),
        (settings::CONNECT_PROTOCOL, 1),
    ];
    frame::write_settings(cx.out(), &ours);
    Step::Used(PREFACE.len())
}

// --- frames ---

/// Takes a frame.
pub(super) fn input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    if cx.world.ends_after_output() {
        return Step::Used(bytes.len());
    }
    // A peer that does not read what it asks for gets no more of it.
    if cx.out_len() > HTTP2_OUT_BYTES_MAX {
        return Step::Wait(0);
    }
    let turn = cx.shared.turn;
    if cx.shared.has_begun_enough() || state(cx).has_had_its_turn(turn) {
        cx.read_on_later();
        return Step::Wait(0);
    }
    let read = match frame::read(bytes) {
        Ok(Some((frame, length))) => take_frame(cx, &frame, bytes).map(|what| (what, length)),
        Ok(None) => return Step::Wait(0),
        Err(code) => Err(code),
    };
    match read {
        Ok((None, length)) => Step::Used(length),
        Ok((Some(what), length)) => Step::H2(length, what),
        Err(code) => {
            end(cx, code, CloseReason::BadRequest);
            Step::Used(bytes.len())
        }
    }
}

fn state<'c>(cx: &'c mut Cx<'_>) -> &'c mut Http2 {
    cx.work().http2.get_or_insert_default()
}

fn take_frame(
    cx: &mut Cx<'_>,
    frame: &Frame<'_>,
    bytes: &[u8],
) -> Result<Option<ForH2Streams>, ErrorCode> {
    let http2 = state(cx);
    let is_settings = matches!(frame, Frame::Settings(_));
    if !http2.has_settings && !is_settings {
        return Err(ErrorCode::ProtocolError);
    }
    // Nothing comes between the pieces of a field block (RFC 9113 section 4.3).
    if http2.has_block() != matches!(frame, Frame::Continuation { .. }) {
        return Err(ErrorCode::ProtocolError);
    }
    match *frame {
        Frame::Data { stream, payload, length, ends } => {
            let from = payload.as_ptr().addr() - bytes.as_ptr().addr();
            let place = (from, from + payload.len());
            data(cx, stream, place, length, ends)
        }
        Frame::Headers { stream, fragment, ends, ends_block } => {
            heads::headers(cx, (stream, ends), fragment, ends_block)
        }
        Frame::Continuation { stream, fragment, ends_block } => {
            heads::continuation(cx, stream, fragment, ends_block)
        }
        Frame::Reset { stream } => reset(cx, stream),
        Frame::Settings(payload) => take_settings(cx, payload),
        Frame::SettingsAck => settings_acknowledged(cx).map(|()| None),
        Frame::Ping(payload) => {
            floods::note(cx, Flood::Ping)?;
            frame::write_ping_ack(cx.out(), &payload);
            Ok(None)
        }
        Frame::WindowUpdate { stream, by } => window(cx, stream, by),
        Frame::PingAck | Frame::GoAway | Frame::Ignored { .. } => {
            floods::note(cx, Flood::Ignored).map(|()| None)
        }
    }
}

fn data(
    cx: &mut Cx<'_>,
    id: u32,
    (from, to): (usize, usize),
    length: u32,
    ended: bool,
) -> Result<Option<ForH2Streams>, ErrorCode> {
    if state(cx).is_unused(id) {
        return Err(ErrorCode::ProtocolError);
    }
    if from == to && !ended {
        floods::note(cx, Flood::EmptyData)?;
    }
    let stream = cx.world.stream(id);
    count_data(cx, stream.map_or(0, |view| view.received), length)?;
    let Some(stream) = stream else { return late(cx, id) };
    if stream.has_ended {
        return fault(cx, id, ErrorCode::StreamClosed);
    }
    if !state(cx).count_body(id, to - from, ended) {
        return fault(cx, id, ErrorCode::ProtocolError);
    }
    Ok(Some(ForH2Streams::Data { index: stream.index, length, from, to, ended }))
}

/// Counts received bytes of DATA against the windows we gave: that of their stream, which has received
/// `before`, and the connection's. A stream whose session has paused is held up by its own window; the
/// others go on.
fn count_data(cx: &mut Cx<'_>, before: u16, length: u32) -> Result<(), ErrorCode> {
    let received = &mut state(cx).received;
    *received += length;
    if u32::from(before) + length > WINDOW_DEFAULT || *received > WINDOW_DEFAULT {
        return Err(ErrorCode::FlowControlError);
    }
    if *received >= CREDIT_BYTES_MIN {
        let by = std::mem::take(received);
        frame::write_window_update(cx.out(), 0, by);
    }
    Ok(())
}

/// A part of a request whose stream is gone. Its client could not know that when it sent it.
fn late(cx: &mut Cx<'_>, id: u32) -> Result<Option<ForH2Streams>, ErrorCode> {
    floods::note(cx, Flood::Late)?;
    frame::write_reset(cx.out(), id, ErrorCode::StreamClosed);
    Ok(None)
}

fn reset(cx: &mut Cx<'_>, id: u32) -> Result<Option<ForH2Streams>, ErrorCode> {
    if state(cx).is_unused(id) {
        return Err(ErrorCode::ProtocolError);
    }
    let stream = cx.world.stream(id);
    // The work for a request that is reset before it is answered was for nothing.
    let flood = match stream {
        Some(view) if !view.is_answered => Flood::RapidReset,
        _ => Flood::Reset,
    };
    floods::note(cx, flood)?;
    Ok(stream.map(|view| ForH2Streams::Reset { index: view.index }))
}

/// The client broke the rules of one stream, which ends. That costs us a request's work and makes
/// room for another stream, as a reset by the client would.
fn fault(cx: &mut Cx<'_>, id: u32, code: ErrorCode) -> Result<Option<ForH2Streams>, ErrorCode> {
    floods::note(cx, Flood::MadeReset)?;
    match cx.world.stream(id) {
        Some(view) => Ok(Some(ForH2Streams::Fault { index: view.index, code })),
        None => {
            frame::write_reset(cx.out(), id, code);
            Ok(None)
        }
    }
}

fn take_settings(cx: &mut Cx<'_>, payload: &[u8]) -> Result<Option<ForH2Streams>, ErrorCode> {
    floods::note(cx, Flood::Settings)?;
    let window = settings::initial_window(payload)?;
    state(cx).has_settings = true;
    if window.is_none() {
        frame::write_settings_ack(cx.out());
    }
    Ok(window.map(ForH2Streams::InitialWindow))
}

/// Our settings are in force, which say that the client compresses without a table.
fn settings_acknowledged(cx: &mut Cx<'_>) -> Result<(), ErrorCode> {
    floods::note(cx, Flood::Ignored)?;
    let http2 = state(cx);
    if !std::mem::replace(&mut http2.is_acknowledged, true) {
        http2.decoder.drop_table();
    }
    Ok(())
}

/// The windows of streams are as the client's settings have it, unless one would be wider than a window
/// can be.
pub fn h2_window_set(cx: &mut Cx<'_>, fits: bool) {
    match fits {
        true => frame::write_settings_ack(cx.out()),
        false => end(cx, ErrorCode::FlowControlError, CloseReason::BadRequest),
    }
}

/// The client takes more, of one stream or of all together.
fn window(cx: &mut Cx<'_>, id: u32, by: u32) -> Result<Option<ForH2Streams>, ErrorCode> {
    let CarrierView { window, exchanges } = cx.world.carrier_view();
    if !state(cx).updates.take(exchanges) {
        return Err(floods::flooded(cx, Flood::WindowUpdate));
    }
    if id == 0 {
        let error = widen_error(window.into(), by);
        return error.map_or(Ok(Some(ForH2Streams::Widen { index: None, by })), Err);
    }
    if state(cx).is_unused(id) {
        return Err(ErrorCode::ProtocolError);
    }
    let Some(stream) = cx.world.stream(id) else { return Ok(None) };
    match widen_error(stream.window.into(), by) {
        None => Ok(Some(ForH2Streams::Widen { index: Some(stream.index), by })),
        Some(code) => fault(cx, id, code),
    }
}

/// Why a window can't be made wider by this much (RFC 9113 sections 6.9 and 6.9.1).
fn widen_error(window: i64, by: u32) -> Option<ErrorCode> {
    match window + i64::from(by) {
        _ if by == 0 => Some(ErrorCode::ProtocolError),
        wider if wider > i64::from(WINDOW_MAX) => Some(ErrorCode::FlowControlError),
        _ => None,
    }
}

// --- how it ends ---

/// Sends a goaway, and ends the connection (RFC 9113 section 6.8).
pub(super) fn end(cx: &mut Cx<'_>, code: ErrorCode, reason: CloseReason) {
    let last = state(cx).last_id;
    frame::write_goaway(cx.out(), last, code);
    let reason = if code == ErrorCode::EnhanceYourCalm { CloseReason::Flood } else { reason };
    cx.end(Ending::AfterOutput(Some(reason)));
}

/// Tells the client to open no more streams. One that is already on its way is still served.
pub fn announce_drain(cx: &mut Cx<'_>) {
    frame::write_goaway(cx.out(), STREAM_ID_MAX, ErrorCode::NoError);
}

/// Pings the peer, to find out whether it is still there.
pub fn ping(cx: &mut Cx<'_>) {
    cx.session.pinged();
    frame::write_ping(cx.out());
}
