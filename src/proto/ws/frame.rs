//! Frames (RFC 6455 section 5.2): reading and writing headers.

use super::close::Violation;
use super::mask;

/// Longest payload of a control frame (RFC 6455 section 5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;
/// Longest header: two bytes, a 64-bit length, a key.
pub(crate) const HEADER_BYTES_MAX: usize = 14;

const FIN: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const MASKED: u8 = 0x80;
const LENGTH_IN_U16: u8 = 126;
const LENGTH_IN_U64: u8 = 127;

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0,
    /// A text message or its first fragment.
    Text = 1,
    /// A binary message or its first fragment.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// Asks whether the peer is alive.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

impl Opcode {
    /// Whether it is about the connection and may come between fragments.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn parse(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// Whether a message goes on after this frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fin {
    /// More fragments follow.
    More,
    /// The message ends here.
    Last,
}

/// Who sent the bytes: a client masks, a server does not (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sender {
    /// The bytes come from a client.
    #[default]
    Client,
    /// The bytes come from a server.
    Server,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The frame's kind.
    pub opcode: Opcode,
    /// Whether the message ends with it.
    pub fin: Fin,
    /// The masking key; zero from a server, which changes nothing.
    pub key: [u8; 4],
    /// Payload length, below 2^63.
    pub payload_bytes: u64,
}

/// What [`parse`] made of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header, and how many bytes it took.
    Complete(Header, usize),
    /// Fine so far, but more bytes are needed.
    Partial,
    /// Already invalid.
    Reject(Violation),
}

/// Reads the header at the front of `bytes`. An invalid one is rejected at the first byte that
/// shows it.
pub fn parse(bytes: &[u8], sender: Sender) -> Parsed {
    match parse_parts(bytes, sender) {
        Ok(Some((header, header_bytes))) => Parsed::Complete(header, header_bytes),
        Ok(None) => Parsed::Partial,
        Err(violation) => Parsed::Reject(violation),
    }
}

fn parse_parts(bytes: &[u8], sender: Sender) -> Result<Option<(Header, usize)>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (opcode, fin) = parse_first(first)?;
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    match (sender, second & MASKED != 0) {
        (Sender::Client, false) => return Err(Violation::Unmasked),
        (Sender::Server, true) => return Err(Violation::Masked),
        (Sender::Client, true) | (Sender::Server, false) => {}
    }
    let short = second & !MASKED;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::LongControl);
    }
    let Some((payload_bytes, length_end)) = parse_length(bytes, short)? else { return Ok(None) };
    let header = |key| Header { opcode, fin, key, payload_bytes };
    if sender == Sender::Server {
        return Ok(Some((header([0; 4]), length_end)));
    }
    let Some(&key) = bytes[length_end..].first_chunk() else { return Ok(None) };
    Ok(Some((header(key), length_end + 4)))
}

fn parse_first(first: u8) -> Result<(Opcode, Fin), Violation> {
    if first & RESERVED_BITS != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::parse(first & 0x0f).ok_or(Violation::ReservedOpcode)?;
    let fin = if first & FIN != 0 { Fin::Last } else { Fin::More };
    if opcode.is_control() && fin == Fin::More {
        return Err(Violation::FragmentedControl);
    }
    Ok((opcode, fin))
}

/// The payload's length and where its field ends. The shortest form is the only one allowed.
fn parse_length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, Violation> {
    match short {
        LENGTH_IN_U16 => {
            let Some(&field) = bytes[2..].first_chunk() else { return Ok(None) };
            let length = u16::from_be_bytes(field);
            if length < u16::from(LENGTH_IN_U16) {
                return Err(Violation::WastefulLength);
            }
            Ok(Some((u64::from(length), 4)))
        }
        LENGTH_IN_U64 => {
            if bytes.get(2).is_some_and(|top| top & 0x80 != 0) {
                return Err(Violation::HugeLength);
            }
            let Some(&field) = bytes[2..].first_chunk() else { return Ok(None) };
            let length = u64::from_be_bytes(field);
            if length <= u64::from(u16::MAX) {
                return Err(Violation::WastefulLength);
            }
            Ok(Some((length, 10)))
        }
        _ => Ok(Some((u64::from(short), 2))),
    }
}

/// Appends a server's whole message as one frame.
pub fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a server's text message whose length is known only when it is written.
pub(crate) fn write_text_with(out: &mut Vec<u8>, write_payload: impl FnOnce(&mut Vec<u8>)) {
    // Most envelopes have 126 bytes to 64 KiB; others are moved to close or widen the gap.
    const HOLE_BYTES: usize = 4;
    let start = out.len();
    out.extend_from_slice(&[0; HOLE_BYTES]);
    write_payload(out);
    let payload_bytes = out.len() - start - HOLE_BYTES;
    let (header, header_bytes) = encode(Opcode::Text, Fin::Last, 0, payload_bytes);
    out.splice(start..start + HOLE_BYTES, header[..header_bytes].iter().copied());
}

/// Appends a server's header: final, no mask, the length in its shortest form.
pub(crate) fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    debug_assert!(!opcode.is_control() || payload_bytes <= CONTROL_BYTES_MAX);
    let (header, header_bytes) = encode(opcode, Fin::Last, 0, payload_bytes);
    out.extend_from_slice(&header[..header_bytes]);
}

/// Appends a client's frame, masked.
pub fn write_masked(out: &mut Vec<u8>, opcode: Opcode, fin: Fin, key: [u8; 4], payload: &[u8]) {
    let (header, header_bytes) = encode(opcode, fin, MASKED, payload.len());
    out.extend_from_slice(&header[..header_bytes]);
    out.extend_from_slice(&key);
    mask::unmask_into(out, payload, key);
}

/// A header without its key, and the header's length. The payload's length takes its shortest form.
fn encode(opcode: Opcode, fin: Fin, masked: u8, payload_bytes: usize) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = opcode as u8 | if fin == Fin::Last { FIN } else { 0 };
    if payload_bytes < usize::from(LENGTH_IN_U16) {
        header[1] = masked | payload_bytes as u8;
        return (header, 2);
    }
    if let Ok(length) = u16::try_from(payload_bytes) {
        header[1] = masked | LENGTH_IN_U16;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        return (header, 4);
    }
    header[1] = masked | LENGTH_IN_U64;
    header[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
    (header, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_round_trip_in_the_shortest_form() {
        let lengths = [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (16 << 20, 10)];
        for (payload_bytes, header_bytes) in lengths {
            let mut out = Vec::new();
            write_header(&mut out, Opcode::Binary, payload_bytes);
            assert_eq!(out.len(), header_bytes, "{payload_bytes}");
            let header = Header {
                opcode: Opcode::Binary,
                fin: Fin::Last,
                key: [0; 4],
                payload_bytes: payload_bytes as u64,
            };
            assert_eq!(parse(&out, Sender::Server), Parsed::Complete(header, header_bytes));
            for end in 0..header_bytes {
                assert_eq!(parse(&out[..end], Sender::Server), Parsed::Partial, "cut at {end}");
            }
        }
    }

    #[test]
    fn a_payload_written_in_place_gets_the_header_it_would_have_got() {
        for payload_bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; payload_bytes];
            let mut expected = b"before".to_vec();
            write(&mut expected, Opcode::Text, &payload);
            let mut out = b"before".to_vec();
            write_text_with(&mut out, |out| out.extend_from_slice(&payload));
            assert!(out == expected, "{payload_bytes}");
        }
    }
}
