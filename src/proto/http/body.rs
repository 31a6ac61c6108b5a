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
    pub(crate) fn announced_bytes(&self) -> u64 {
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
mod tests;
