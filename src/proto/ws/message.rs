//! Messages (RFC 6455 section 5.4): takes frames in arbitrary pieces, returns whole messages.

use bytes::Bytes;

use super::close::{CloseCode, Violation};
use super::frame::{self, Fin, HEADER_BYTES_MAX, Header, Opcode, Parsed, Sender};
use super::mask;

/// How much of our memory a peer may use.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// Longest message. A longer one is refused with the header that announces it (1009).
    pub message_bytes_max: usize,
    /// Most fragments of one message, at least 1. Empty ones count: they cost time, if not memory.
    /// More are refused (1008).
    pub fragments_max: u32,
}

/// What a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A text message: valid UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// Must be answered with a pong of the same payload, at most 125 bytes.
    Ping(Bytes),
    /// The peer is alive.
    Pong,
    /// The last thing a peer says: whatever follows must be ignored.
    Close {
        /// `None` if the frame was empty (what section 7.1.5 calls 1005).
        code: Option<CloseCode>,
        /// Valid UTF-8, for logs.
        reason: Bytes,
    },
}

/// The receiving half of one connection. Between messages it is idle and need not be kept: a
/// default one continues just as well.
#[derive(Debug, Default)]
pub struct Receiver {
    sender: Sender,
    header_len: u8,
    /// The beginning of a header that is not complete yet.
    header: [u8; HEADER_BYTES_MAX],
    frame: Option<Frame>,
    message: Option<Message>,
    /// Payload of a control frame that is not complete yet.
    control: Vec<u8>,
    /// Messages are thrown away; only control frames matter.
    discards: bool,
}

// Both are made on the stack and passed on: a receiver for every read of an idle connection, and
// what was received through every layer above. A control payload held in place cost more in moving
// messages than an allocation costs the rare ping that has one.
const _: () = assert!(size_of::<Received>() <= 48);
const _: () = assert!(size_of::<Receiver>() <= 128);

/// The frame whose payload is coming.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: Fin,
    /// The key as of the next byte.
    key: [u8; 4],
    remaining: u64,
}

/// The message whose fragments are coming.
#[derive(Debug)]
struct Message {
    kind: Kind,
    bytes: Vec<u8>,
    /// For text: everything before this is known to be UTF-8, and at most 3 bytes follow.
    checked: usize,
    fragments: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

impl Receiver {
    /// A receiver of bytes sent by `sender`. The default is a server's: they come from a client.
    pub fn new(sender: Sender) -> Self {
        Self { sender, ..Self::default() }
    }

    /// Whether nothing is pending, so that this receiver can be dropped until more bytes come.
    pub fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Memory held for what has not ended.
    pub(crate) fn held_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.bytes.capacity())
    }

    /// Grows with the bytes of the present message and with nothing else: neither empty fragments
    /// nor control frames bring it nearer to its end.
    pub fn progress(&self) -> u32 {
        let bytes = self.message.as_ref().map_or(0, |message| message.bytes.len());
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// Only follows frames from now on: messages come out empty, if at all, and take no memory.
    pub(crate) fn discard(&mut self) {
        self.discards = true;
        if let Some(message) = &mut self.message {
            (message.bytes, message.checked) = (Vec::new(), 0);
        }
    }

    /// Takes bytes up to the end of the next message or control frame, and says how many it took;
    /// without a `Received` it took all. After an error or a `Close` the connection is over, and
    /// the receiver must not be used again.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        limits: &MessageLimits,
    ) -> Result<(usize, Option<Received>), Violation> {
        if self.is_idle()
            && let Some((taken, opcode, plain)) = take_whole(bytes, self.sender, limits)
        {
            return Ok((taken, Some(whole_message(opcode, plain)?)));
        }
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let (frame, header_taken) = match self.frame.take() {
                Some(frame) => (frame, 0),
                None => match self.take_header(rest, limits)? {
                    (Some(frame), header_taken) => (frame, header_taken),
                    (None, header_taken) => return Ok((taken + header_taken, None)),
                },
            };
            taken += header_taken;
            let (received, payload_taken) = self.take_payload(frame, &bytes[taken..])?;
            taken += payload_taken;
            if received.is_some() || self.frame.is_some() {
                return Ok((taken, received));
            }
        }
    }

    /// A frame's header, from `bytes` alone or with what came before.
    fn take_header(
        &mut self,
        bytes: &[u8],
        limits: &MessageLimits,
    ) -> Result<(Option<Frame>, usize), Violation> {
        let kept = usize::from(self.header_len);
        let more = bytes.len().min(HEADER_BYTES_MAX - kept);
        let parsed = if kept == 0 {
            frame::parse(bytes, self.sender)
        } else {
            self.header[kept..kept + more].copy_from_slice(&bytes[..more]);
            frame::parse(&self.header[..kept + more], self.sender)
        };
        match parsed {
            Parsed::Complete(header, header_bytes) => {
                self.header_len = 0;
                Ok((Some(self.open(header, limits)?), header_bytes - kept))
            }
            Parsed::Partial => {
                // A header is only partial if all bytes belong to it.
                debug_assert_eq!(more, bytes.len());
                self.header[kept..kept + more].copy_from_slice(&bytes[..more]);
                self.header_len = (kept + more) as u8;
                Ok((None, more))
            }
            Parsed::Reject(violation) => Err(violation),
        }
    }

    /// Checks a header against the message it belongs to and the limits, before reserving memory.
    fn open(&mut self, header: Header, limits: &MessageLimits) -> Result<Frame, Violation> {
        let Header { opcode, fin, key, payload_bytes } = header;
        let frame = Frame { opcode, fin, key, remaining: payload_bytes };
        if opcode.is_control() {
            return Ok(frame);
        }
        let message = match (&mut self.message, opcode) {
            (Some(message), Opcode::Continuation) => message,
            (None, Opcode::Continuation) => return Err(Violation::StrayContinuation),
            (Some(_), _) => return Err(Violation::InterruptedMessage),
            (empty, Opcode::Text) => empty.insert(Message::new(Kind::Text)),
            (empty, _) => empty.insert(Message::new(Kind::Binary)),
        };
        message.fragments += 1;
        if message.fragments > limits.fragments_max {
            return Err(Violation::TooManyFragments);
        }
        let room = limits.message_bytes_max.saturating_sub(message.bytes.len());
        if payload_bytes > room as u64 {
            return Err(Violation::MessageTooBig);
        }
        Ok(frame)
    }

    /// Takes payload bytes of `frame`; puts the frame back if more are to come.
    fn take_payload(
        &mut self,
        mut frame: Frame,
        bytes: &[u8],
    ) -> Result<(Option<Received>, usize), Violation> {
        let taken = usize::try_from(frame.remaining).map_or(bytes.len(), |n| n.min(bytes.len()));
        let masked = &bytes[..taken];
        let remaining = frame.remaining - taken as u64;
        let received = if frame.opcode.is_control() {
            self.take_control(&frame, masked, remaining)?
        } else {
            self.take_data(&frame, masked, remaining)?
        };
        if remaining > 0 {
            frame.key = mask::advance(frame.key, taken);
            frame.remaining = remaining;
            self.frame = Some(frame);
        }
        Ok((received, taken))
    }

    fn take_control(
        &mut self,
        frame: &Frame,
        masked: &[u8],
        remaining: u64,
    ) -> Result<Option<Received>, Violation> {
        mask::unmask_into(&mut self.control, masked, frame.key);
        if remaining > 0 {
            return Ok(None);
        }
        let payload = Bytes::from(std::mem::take(&mut self.control));
        match frame.opcode {
            Opcode::Close => parse_close(payload).map(Some),
            Opcode::Ping => Ok(Some(Received::Ping(payload))),
            _ => Ok(Some(Received::Pong)),
        }
    }

    fn take_data(
        &mut self,
        frame: &Frame,
        masked: &[u8],
        remaining: u64,
    ) -> Result<Option<Received>, Violation> {
        let Some(message) = &mut self.message else { return Err(Violation::StrayContinuation) };
        if !self.discards {
            message.append(masked, frame, remaining)?;
        }
        if remaining > 0 || frame.fin == Fin::More {
            return Ok(None);
        }
        match self.message.take() {
            Some(message) => message.finish().map(Some),
            None => Ok(None),
        }
    }
}

/// The payload of a message that has arrived complete and in one frame: the common case, for which
/// no state is kept. Whatever is different, or wrong, is left to the careful way.
#[inline]
fn take_whole(
    bytes: &[u8],
    sender: Sender,
    limits: &MessageLimits,
) -> Option<(usize, Opcode, Vec<u8>)> {
    let Parsed::Complete(header, header_bytes) = frame::parse(bytes, sender) else { return None };
    let is_message = matches!(header.opcode, Opcode::Text | Opcode::Binary);
    let payload_bytes = usize::try_from(header.payload_bytes).ok()?;
    if !is_message || header.fin == Fin::More || payload_bytes > limits.message_bytes_max {
        return None;
    }
    let masked = bytes[header_bytes..].get(..payload_bytes)?;
    let mut plain = Vec::with_capacity(payload_bytes);
    mask::unmask_into(&mut plain, masked, header.key);
    Some((header_bytes + payload_bytes, header.opcode, plain))
}

#[inline]
fn whole_message(opcode: Opcode, plain: Vec<u8>) -> Result<Received, Violation> {
    if opcode == Opcode::Binary {
        return Ok(Received::Binary(plain.into()));
    }
    match simdutf8::basic::from_utf8(&plain) {
        Ok(_) => Ok(Received::Text(plain.into())),
        Err(_) => Err(Violation::BadUtf8),
    }
}

impl Message {
    fn new(kind: Kind) -> Self {
        Self { kind, bytes: Vec::new(), checked: 0, fragments: 0 }
    }

    fn append(&mut self, masked: &[u8], frame: &Frame, remaining: u64) -> Result<(), Violation> {
        self.make_room(masked.len(), remaining);
        mask::unmask_into(&mut self.bytes, masked, frame.key);
        match self.kind {
            Kind::Text => self.check(),
            Kind::Binary => Ok(()),
        }
    }

    /// Doubles the room, but never past the end of the frame: memory follows what has come, not
    /// what was announced, and an unfragmented message ends in a buffer of exactly its size.
    fn make_room(&mut self, now: usize, remaining: u64) {
        if self.bytes.capacity() - self.bytes.len() < now {
            let ahead = usize::try_from(remaining).unwrap_or(usize::MAX);
            self.bytes.reserve_exact(now + ahead.min(self.bytes.len()));
        }
    }

    /// Fails at the first byte that cannot be UTF-8, however long the message still is (RFC 6455
    /// section 8.1).
    fn check(&mut self) -> Result<(), Violation> {
        match simdutf8::compat::from_utf8(&self.bytes[self.checked..]) {
            Ok(_) => self.checked = self.bytes.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::BadUtf8),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Received, Violation> {
        // The bytes may stay in history for long, charged by their length.
        self.bytes.shrink_to_fit();
        match self.kind {
            Kind::Text if self.checked < self.bytes.len() => Err(Violation::BadUtf8),
            Kind::Text => Ok(Received::Text(self.bytes.into())),
            Kind::Binary => Ok(Received::Binary(self.bytes.into())),
        }
    }
}

/// RFC 6455 section 5.5.1: nothing, or a code and a reason in UTF-8.
fn parse_close(payload: Bytes) -> Result<Received, Violation> {
    if payload.is_empty() {
        return Ok(Received::Close { code: None, reason: payload });
    }
    let Some((code, reason)) = payload.split_first_chunk() else {
        return Err(Violation::BadCloseLength);
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.is_sendable() {
        return Err(Violation::BadCloseCode);
    }
    if simdutf8::basic::from_utf8(reason).is_err() {
        return Err(Violation::BadCloseReason);
    }
    Ok(Received::Close { code: Some(code), reason: payload.slice(2..) })
}
