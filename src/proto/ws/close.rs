//! Closing: the codes we send, the codes a peer may send, and why a peer is cut.

use super::frame::{self, CONTROL_BYTES_MAX, Opcode};

/// Longest close reason: what a control frame holds besides the code (RFC 6455 section 5.5).
pub(crate) const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// A status code of a close frame (RFC 6455 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint is going away.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A type of data we do not accept.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// Against our policy.
    pub const POLICY: Self = Self(1008);
    /// A message longer than we accept.
    pub const TOO_BIG: Self = Self(1009);
    /// We restart: reconnect.
    pub const RESTART: Self = Self(1012);
    /// We are overloaded, or the peer is too slow: reconnect later.
    pub const TRY_AGAIN: Self = Self(1013);
    /// Events were lost and a bare connection has no other way to say so.
    pub const GAP: Self = Self(4000);
    /// The token expired.
    pub const TOKEN_EXPIRED: Self = Self(4401);

    /// Whether a peer may send it: codes that stand for a missing code and unregistered codes are
    /// not allowed in a frame (RFC 6455 sections 7.4.1 and 7.4.2).
    pub(crate) fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// Appends a server's close frame. No code means an empty payload. A reason that does not fit is
/// cut at the end of a character.
pub(crate) fn write_close(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str) {
    let Some(code) = code else {
        return frame::write_header(out, Opcode::Close, 0);
    };
    debug_assert!(code.is_sendable());
    let reason = cut(reason, REASON_BYTES_MAX);
    frame::write_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// The longest beginning of `text` that fits and ends on a character boundary.
pub(in crate::proto) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a peer did wrong. Each is the peer's fault and ends the connection: the peer gets a close
/// frame with [`Violation::code`] and [`Violation::reason`] (RFC 6455 section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit set without an extension (section 5.2).
    ReservedBits,
    /// An undefined opcode (section 5.2).
    ReservedOpcode,
    /// A control frame longer than 125 bytes (section 5.5).
    LongControl,
    /// A control frame without FIN (section 5.5).
    FragmentedControl,
    /// A length in more bytes than it needs (section 5.2).
    WastefulLength,
    /// A 64-bit length with the top bit set (section 5.2).
    HugeLength,
    /// A client's frame without a mask (section 5.1).
    Unmasked,
    /// A server's frame with a mask (section 5.1).
    Masked,
    /// A continuation of nothing (section 5.4).
    StrayContinuation,
    /// A new message inside another (section 5.4).
    InterruptedMessage,
    /// A close payload of one byte (section 5.5.1).
    BadCloseLength,
    /// A close code no peer may send (section 7.4).
    BadCloseCode,
    /// A close reason that is not UTF-8 (section 5.5.1).
    BadCloseReason,
    /// Text that is not UTF-8 (section 8.1).
    BadUtf8,
    /// A message longer than our limit (section 10.4).
    MessageTooBig,
    /// A message in more fragments than our limit (section 10.4).
    TooManyFragments,
}

impl Violation {
    /// The close frame's code.
    pub fn code(self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::LongControl
            | Self::FragmentedControl
            | Self::WastefulLength
            | Self::HugeLength
            | Self::Unmasked
            | Self::Masked
            | Self::StrayContinuation
            | Self::InterruptedMessage
            | Self::BadCloseLength
            | Self::BadCloseCode => CloseCode::PROTOCOL_ERROR,
            Self::BadCloseReason | Self::BadUtf8 => CloseCode::INVALID_DATA,
            Self::MessageTooBig => CloseCode::TOO_BIG,
            // Not 1009: the message may be small, what we refuse is the way it comes.
            Self::TooManyFragments => CloseCode::POLICY,
        }
    }

    /// The close frame's text.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits set",
            Self::ReservedOpcode => "reserved opcode",
            Self::LongControl => "control frame too long",
            Self::FragmentedControl => "fragmented control frame",
            Self::WastefulLength => "length not minimal",
            Self::HugeLength => "length out of range",
            Self::Unmasked => "frame not masked",
            Self::Masked => "frame masked",
            Self::StrayContinuation => "nothing to continue",
            Self::InterruptedMessage => "message interrupted",
            Self::BadCloseLength => "close payload too short",
            Self::BadCloseCode => "invalid close code",
            Self::BadCloseReason => "close reason not UTF-8",
            Self::BadUtf8 => "text not UTF-8",
            Self::MessageTooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(code: Option<CloseCode>, reason: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write_close(&mut out, code, reason);
        out
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        assert_eq!(written(Some(CloseCode::NORMAL), "bye"), b"\x88\x05\x03\xe8bye");
        assert_eq!(written(Some(CloseCode::GAP), ""), b"\x88\x02\x0f\xa0");
        assert_eq!(written(None, "never said"), b"\x88\x00");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let fits = "a".repeat(REASON_BYTES_MAX);
        assert_eq!(written(Some(CloseCode::POLICY), &fits)[4..], *fits.as_bytes());
        assert_eq!(written(Some(CloseCode::POLICY), &format!("{fits}b"))[4..], *fits.as_bytes());
        for shift in 0..4 {
            let reason = format!("{}{}", "a".repeat(shift), "😀".repeat(40));
            let frame = written(Some(CloseCode::POLICY), &reason);
            let kept = std::str::from_utf8(&frame[4..]).expect("cut between characters");
            assert!(reason.starts_with(kept));
            assert!((REASON_BYTES_MAX - 3..=REASON_BYTES_MAX).contains(&kept.len()));
            assert_eq!(usize::from(frame[1]), frame.len() - 2);
        }
    }
}
