//! Request bodies (RFC 9112 sections 6 and 7), decoded in place: payload comes out as slices of the
//! input.

use super::head::Framing;
use super::response::Status;
use super::scan;
use crate::proto::reject::Reject;

/// Longest line with a chunk's size, extensions included. We use no extensions, and without a cap
/// they would be a way to send for ever without saying anything.
pub const CHUNK_LINE_BYTES_MAX: u16 = 256;
/// Most bytes of trailer fields in total, line ends included. We ignore all of them.
pub const TRAILERS_BYTES_MAX: u16 = 8 * 1024;

/// Why a body is refused. Each is the client's fault and ends the connection, as the beginning of
/// the next request can no longer be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyError {
    /// Not a chunk extension: neither `;name`, `;name=token` nor `;name="quoted"`.
    ChunkExtensionInvalid,
    /// The line with a chunk's size exceeds [`CHUNK_LINE_BYTES_MAX`].
    ChunkLineTooLong,
    /// A chunk's size is missing, has an illegal byte, or does not fit a `u64`.
    ChunkSizeInvalid,
    /// A line, or a chunk's data, does not end in CRLF where it must.
    LineEndInvalid,
    /// A trailer line is not a field line.
    TrailerInvalid,
    /// The trailers exceed [`TRAILERS_BYTES_MAX`].
    TrailersTooLarge,
}

impl From<BodyError> for Reject {
    fn from(error: BodyError) -> Self {
        let bad_request = Self::bad_request;
        match error {
            BodyError::ChunkExtensionInvalid => {
                bad_request("chunk_extension_invalid", "a chunk extension is malformed")
            }
            BodyError::ChunkLineTooLong => {
                bad_request("chunk_line_too_long", "a chunk size line exceeds 256 bytes")
            }
            BodyError::ChunkSizeInvalid => bad_request(
                "chunk_size_invalid",
                "a chunk size is not a hexadecimal number of 64 bits",
            ),
            BodyError::LineEndInvalid => {
                bad_request("chunk_line_end_invalid", "a CRLF is missing in the chunked body")
            }
            BodyError::TrailerInvalid => {
                bad_request("trailer_invalid", "a trailer line is not a header line")
            }
            BodyError::TrailersTooLarge => Self::new(
                Status::HeaderFieldsTooLarge,
                "trailers_too_large",
                "the trailers exceed 8 KiB",
            ),
        }
    }
}

/// Whether more of the body is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The body has ended; what was not consumed belongs to the next request.
    Done,
    /// Pass what was not consumed again, or more bytes if all were.
    More,
}

/// What one step of [`BodyDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'b> {
    /// The next piece of payload; may be empty.
    pub payload: &'b [u8],
    /// How many of the bytes were used, including the payload.
    pub consumed: usize,
    /// Whether more is to come.
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `remaining` bytes delimited by `Content-Length`.
    Length,
    /// Before the first digit of a chunk's size.
    SizeFirst,
    /// Within the digits.
    Size,
    /// Within the extensions after the digits.
    Extension(Extension),
    /// The LF of the size line.
    SizeLf,
    /// `remaining` bytes of a chunk.
    Data,
    /// The CR after a chunk.
    DataCr,
    /// The LF after a chunk.
    DataLf,
    /// At the beginning of a trailer line or the last, empty one.
    TrailerFirst,
    /// Within a trailer's name.
    TrailerName,
    /// Within a trailer's value.
    TrailerValue,
    /// The LF of a trailer line.
    TrailerLf,
    /// The LF of the last line.
    EndLf,
    /// Nothing more.
    Done,
}

/// A place within chunk extensions (RFC 9112 section 7.1.1). Although they are ignored, they must
/// follow their grammar: anything else may be the end of the line to another parser. Whitespace
/// around `;` and `=` is bad style, but part of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// In whitespace before a `;`.
    Blank,
    /// After a `;`, before the name.
    NameFirst,
    /// Within the name.
    Name,
    /// In whitespace after the name: an `=` or a `;` must follow.
    NameBlank,
    /// After the `=`, before the value.
    ValueFirst,
    /// Within a value that is a token.
    Value,
    /// Within the quotes.
    Quoted,
    /// After a backslash within the quotes.
    Escaped,
    /// After the closing quote.
    QuoteEnd,
}

impl Extension {
    /// The place after `byte`, if that may come here; line ends were handled before.
    fn step(self, byte: u8) -> Option<Self> {
        let blank = matches!(byte, b' ' | b'\t');
        Some(match (self, byte) {
            (Self::Blank, _) if blank => Self::Blank,
            (Self::Name | Self::NameBlank, _) if blank => Self::NameBlank,
            (Self::Value | Self::QuoteEnd, _) if blank => Self::Blank,
            (Self::NameFirst | Self::ValueFirst, _) if blank => self,
            (Self::Quoted, b'"') => Self::QuoteEnd,
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted | Self::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Self::Quoted,
            (Self::Blank | Self::Name | Self::NameBlank | Self::Value | Self::QuoteEnd, b';') => {
                Self::NameFirst
            }
            (Self::Name | Self::NameBlank, b'=') => Self::ValueFirst,
            (Self::ValueFirst, b'"') => Self::Quoted,
            (Self::NameFirst | Self::Name, _) if scan::is_token(byte) => Self::Name,
            (Self::ValueFirst | Self::Value, _) if scan::is_token(byte) => Self::Value,
            _ => return None,
        })
    }

    /// Whether the line may end here.
    fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::QuoteEnd)
    }
}

/// Takes a body apart as its bytes arrive.
#[derive(Clone, Copy, Debug)]
pub struct BodyDecoder {
    /// Bytes left of the chunk or the body; the size while its digits are read.
    remaining: u64,
    /// Bytes of the present size line, or of all trailers.
    line_bytes: u16,
    state: State,
}

const _: () = assert!(size_of::<BodyDecoder>() <= 32);

impl BodyDecoder {
    /// A decoder for one body.
    pub fn new(framing: Framing) -> Self {
        let (state, remaining) = match framing {
            Framing::Chunked => (State::SizeFirst, 0),
            Framing::Length(0) | Framing::None => (State::Done, 0),
            Framing::Length(length) => (State::Length, length),
        };
        Self { remaining, line_bytes: 0, state }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the body known to be still to come: of the whole body if its length was given,
    /// otherwise of the present chunk.
    pub fn announced_bytes(&self) -> u64 {
        match self.state {
            State::Length | State::Data => self.remaining,
            _ => 0,
        }
    }

    /// Decodes up to and including the next piece of payload; all bytes are consumed if there is
    /// none.
    ///
    /// # Errors
    /// The body is not what its framing promised. The decoder must not be used again.
    pub fn decode<'b>(&mut self, bytes: &'b [u8]) -> Result<Decoded<'b>, BodyError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Done => break,
                State::Length | State::Data => return Ok(self.take_payload(bytes, at)),
                State::TrailerValue => at = self.skip_trailer_value(bytes, at)?,
                _ => {
                    self.step(byte)?;
                    at += 1;
                }
            }
        }
        Ok(Decoded { payload: &[], consumed: at, progress: self.progress() })
    }

    fn progress(&self) -> Progress {
        if self.is_done() { Progress::Done } else { Progress::More }
    }

    fn take_payload<'b>(&mut self, bytes: &'b [u8], at: usize) -> Decoded<'b> {
        let rest = &bytes[at..];
        let length = usize::try_from(self.remaining).map_or(rest.len(), |all| all.min(rest.len()));
        self.remaining -= length as u64;
        if self.remaining == 0 {
            self.state = match self.state {
                State::Data => State::DataCr,
                _ => State::Done,
            };
        }
        Decoded { payload: &rest[..length], consumed: at + length, progress: self.progress() }
    }

    /// One byte of the chunked coding outside of payload (RFC 9112 section 7.1).
    fn step(&mut self, byte: u8) -> Result<(), BodyError> {
        self.state = match self.state {
            State::SizeFirst | State::Size => self.size_byte(byte)?,
            State::Extension(place) => self.extension_byte(place, byte)?,
            State::SizeLf => {
                expect(byte, b'\n')?;
                self.line_bytes = 0;
                if self.remaining == 0 { State::TrailerFirst } else { State::Data }
            }
            State::DataCr => expect(byte, b'\r').map(|()| State::DataLf)?,
            State::DataLf => expect(byte, b'\n').map(|()| State::SizeFirst)?,
            State::TrailerFirst | State::TrailerName => self.trailer_name_byte(byte)?,
            State::TrailerLf => {
                expect(byte, b'\n')?;
                self.count_trailer_bytes(1)?;
                State::TrailerFirst
            }
            State::EndLf => expect(byte, b'\n').map(|()| State::Done)?,
            State::Length | State::Data | State::TrailerValue | State::Done => self.state,
        };
        Ok(())
    }

    fn size_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        self.count_line_byte()?;
        if let Some(digit) = char::from(byte).to_digit(16) {
            self.remaining = self
                .remaining
                .checked_mul(16)
                .and_then(|size| size.checked_add(u64::from(digit)))
                .ok_or(BodyError::ChunkSizeInvalid)?;
            return Ok(State::Size);
        }
        match (self.state, byte) {
            (State::Size, b'\r') => Ok(State::SizeLf),
            (State::Size, b';') => Ok(State::Extension(Extension::NameFirst)),
            (State::Size, b' ' | b'\t') => Ok(State::Extension(Extension::Blank)),
            (State::Size, b'\n') => Err(BodyError::LineEndInvalid),
            _ => Err(BodyError::ChunkSizeInvalid),
        }
    }

    fn extension_byte(&mut self, place: Extension, byte: u8) -> Result<State, BodyError> {
        self.count_line_byte()?;
        match byte {
            b'\r' if place.may_end() => Ok(State::SizeLf),
            b'\n' => Err(BodyError::LineEndInvalid),
            _ => {
                let next = place.step(byte).ok_or(BodyError::ChunkExtensionInvalid)?;
                Ok(State::Extension(next))
            }
        }
    }

    fn trailer_name_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        self.count_trailer_bytes(1)?;
        match (self.state, byte) {
            (State::TrailerFirst, b'\r') => Ok(State::EndLf),
            (State::TrailerFirst, b'\n') => Err(BodyError::LineEndInvalid),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            _ if scan::is_token(byte) => Ok(State::TrailerName),
            _ => Err(BodyError::TrailerInvalid),
        }
    }

    fn skip_trailer_value(&mut self, bytes: &[u8], at: usize) -> Result<usize, BodyError> {
        let end = scan::value_end(bytes, at);
        self.count_trailer_bytes(end - at)?;
        match bytes.get(end) {
            None => Ok(end),
            Some(b'\r') => {
                self.count_trailer_bytes(1)?;
                self.state = State::TrailerLf;
                Ok(end + 1)
            }
            Some(b'\n') => Err(BodyError::LineEndInvalid),
            Some(_) => Err(BodyError::TrailerInvalid),
        }
    }

    fn count_line_byte(&mut self) -> Result<(), BodyError> {
        if self.line_bytes == CHUNK_LINE_BYTES_MAX {
            return Err(BodyError::ChunkLineTooLong);
        }
        self.line_bytes += 1;
        Ok(())
    }

    fn count_trailer_bytes(&mut self, count: usize) -> Result<(), BodyError> {
        let total = usize::from(self.line_bytes) + count;
        if total > usize::from(TRAILERS_BYTES_MAX) {
            return Err(BodyError::TrailersTooLarge);
        }
        self.line_bytes = total as u16;
        Ok(())
    }
}

fn expect(byte: u8, expected: u8) -> Result<(), BodyError> {
    if byte == expected { Ok(()) } else { Err(BodyError::LineEndInvalid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `pieces` one after the other; returns the payload, and what the body left over.
    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut payload, mut left) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let decoded = decoder.decode(rest)?;
                payload.extend_from_slice(decoded.payload);
                rest = &rest[decoded.consumed..];
                if decoded.progress == Progress::Done || rest.is_empty() {
                    break;
                }
                assert!(decoded.consumed > 0, "no step, no end");
            }
            left.extend_from_slice(rest);
        }
        Ok((payload, left, decoder.is_done()))
    }

    /// The outcome, which must be the same however the body arrives.
    fn outcome(framing: Framing, body: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        let whole = decode(framing, &[body]);
        let bytes: Vec<_> = body.chunks(1).collect();
        assert_eq!(decode(framing, &bytes), whole, "byte by byte");
        for cut in 0..body.len().min(600) {
            let (head, tail) = body.split_at(cut);
            assert_eq!(decode(framing, &[head, tail]), whole, "cut at {cut}");
        }
        whole
    }

    fn whole(payload: &[u8], left: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        Ok((payload.to_vec(), left.to_vec(), true))
    }

    #[test]
    fn a_body_without_framing_is_done_at_once() {
        for framing in [Framing::None, Framing::Length(0)] {
            assert!(BodyDecoder::new(framing).is_done());
            assert_eq!(outcome(framing, b"next"), whole(b"", b"next"));
        }
    }

    #[test]
    fn a_length_takes_that_many_bytes_and_no_more() {
        assert_eq!(outcome(Framing::Length(5), b"hellonext"), whole(b"hello", b"next"));
        let short = Ok((b"hell".to_vec(), Vec::new(), false));
        assert_eq!(outcome(Framing::Length(5), b"hell"), short);
        assert_eq!(outcome(Framing::Length(u64::MAX), b"hell"), short);
    }

    #[test]
    fn chunks_are_joined_and_extensions_and_trailers_skipped() {
        for body in [
            &b"5\r\nhello\r\n0\r\n\r\nnext"[..],
            b"2\r\nhe\r\n003\r\nllo\r\n000\r\n\r\nnext",
            b"2;a\r\nhe\r\n3;b=\"c d\"\t;e\r\nllo\r\n0;z\r\n\r\nnext",
            b"2 ; a\t= b;c\r\nhe\r\n3;d=\"\\\"\\\\;\xff\" ;e=f\r\nllo\r\n0\r\n\r\nnext",
            b"5\r\nhello\r\n0\r\nA: b\r\nC:\r\nD: \xff\t\r\n\r\nnext",
        ] {
            assert_eq!(outcome(Framing::Chunked, body), whole(b"hello", b"next"));
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        use BodyError::*;
        for (body, error) in [
            (&b"\r\n"[..], ChunkSizeInvalid),
            (b"g\r\n", ChunkSizeInvalid),
            (b"-1\r\n", ChunkSizeInvalid),
            (b"+1\r\n", ChunkSizeInvalid),
            (b"0x1\r\n", ChunkSizeInvalid),
            (b" 1\r\n", ChunkSizeInvalid),
            (b"1 \r\n", ChunkExtensionInvalid),
            (b"1\t\r\n", ChunkExtensionInvalid),
            (b"1 1\r\n", ChunkExtensionInvalid),
            (b"1;\r\n", ChunkExtensionInvalid),
            (b"1;;a\r\n", ChunkExtensionInvalid),
            (b"1;a \r\n", ChunkExtensionInvalid),
            (b"1;a=\r\n", ChunkExtensionInvalid),
            (b"1;a=b=c\r\n", ChunkExtensionInvalid),
            (b"1;a b\r\n", ChunkExtensionInvalid),
            (b"1;a[\r\n", ChunkExtensionInvalid),
            (b"1;=b\r\n", ChunkExtensionInvalid),
            (b"1;a=\"b\r\n", ChunkExtensionInvalid),
            (b"1;a=\"b\"c\r\n", ChunkExtensionInvalid),
            (b"1;a=\"\\\r\n", ChunkExtensionInvalid),
            (b";a\r\n", ChunkSizeInvalid),
            (b"10000000000000000\r\n", ChunkSizeInvalid),
            (b"fffffffffffffffff\r\n", ChunkSizeInvalid),
            (b"1\nx\r\n", LineEndInvalid),
            (b"1;a\nx\r\n", LineEndInvalid),
            (b"1\rx", LineEndInvalid),
            (b"1\r\nxy\r\n", LineEndInvalid),
            (b"1\r\nx\n", LineEndInvalid),
            (b"1\r\nx\rz", LineEndInvalid),
            (b"1;\0\r\n", ChunkExtensionInvalid),
            (b"1;\x7f\r\n", ChunkExtensionInvalid),
            (b"0\r\n\n", LineEndInvalid),
            (b"0\r\n\rx", LineEndInvalid),
            (b"0\r\nA: b\n", LineEndInvalid),
            (b"0\r\nA: b\rx", LineEndInvalid),
            (b"0\r\nA: \0\r\n", TrailerInvalid),
            (b"0\r\nA : b\r\n", TrailerInvalid),
            (b"0\r\n A: b\r\n", TrailerInvalid),
            (b"0\r\n: b\r\n", TrailerInvalid),
            (b"0\r\nA\r\n", TrailerInvalid),
        ] {
            let shown = String::from_utf8_lossy(body);
            assert_eq!(outcome(Framing::Chunked, body), Err(error), "{shown:?}");
        }
    }

    #[test]
    fn each_cap_holds_to_the_byte() {
        // The size line is counted up to its CR.
        let extended = |length: usize| {
            let line = format!("0;{}\r\n\r\n", "x".repeat(length - 3));
            outcome(Framing::Chunked, line.as_bytes())
        };
        let zeros = |length: usize| {
            let line = format!("{}\r\n\r\n", "0".repeat(length - 1));
            outcome(Framing::Chunked, line.as_bytes())
        };
        let line_max = usize::from(CHUNK_LINE_BYTES_MAX);
        assert_eq!(extended(line_max), whole(b"", b""));
        assert_eq!(extended(line_max + 1), Err(BodyError::ChunkLineTooLong));
        assert_eq!(zeros(line_max), whole(b"", b""));
        assert_eq!(zeros(line_max + 1), Err(BodyError::ChunkLineTooLong));

        // The trailers are counted up to the CR of the empty line.
        let trailers = |length: usize| {
            let value = "x".repeat(length - "A:\r\nB:\r\n\r".len());
            outcome(Framing::Chunked, format!("0\r\nA:\r\nB:{value}\r\n\r\n").as_bytes())
        };
        let trailers_max = usize::from(TRAILERS_BYTES_MAX);
        assert_eq!(trailers(trailers_max), whole(b"", b""));
        assert_eq!(trailers(trailers_max + 1), Err(BodyError::TrailersTooLarge));
    }

    proptest! {
        #[test]
        fn any_chunking_and_any_split_gives_the_same_payload(
            chunks in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nT: x\r\n\r\n");
            let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            places.extend([0, body.len()]);
            places.sort_unstable();
            let pieces: Vec<_> = places.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(Framing::Chunked, &pieces), whole(&chunks.concat(), b""));
        }

        #[test]
        fn any_bytes_in_any_split_have_one_outcome(
            body in "[0-9a-f\r\n; :xA]{0,60}",
            cut in any::<proptest::sample::Index>(),
        ) {
            let body = body.as_bytes();
            let (head, tail) = body.split_at(cut.index(body.len() + 1));
            let (one, two) =
                (decode(Framing::Chunked, &[body]), decode(Framing::Chunked, &[head, tail]));
            prop_assert_eq!(one, two);
        }
    }
}
