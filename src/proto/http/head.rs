//! Request heads (RFC 9112 sections 2 to 5), parsed in place and without allocating.
//!
//! [`parse_prefix`] reads a head that lies in one buffer, in one pass. If it answers
//! [`Parsed::Partial`], the bytes are kept and [`HeadScan`] watches them grow, so that a head that
//! trickles in is looked at once per byte, not once per arrival.

pub use super::error::HeadError;
use super::interpret::{self, Meaning};
use super::response::Connection;
use super::scan;
use super::syntax::{self, FieldLine, Line, RequestLine, Stop};

/// Longest head, including empty lines before it and the closing one. Room for fat cookies; small
/// enough that an offset fits a `u16`, and that 10,000 trickling heads do no harm.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most fields in a head. Browsers send about 20.
pub const HEADERS_MAX: usize = 64;
/// Longest request target: 128 channels of 60 bytes fit.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest method; the longest registered one has 17 bytes.
pub const METHOD_BYTES_MAX: usize = 32;
/// Most empty lines before a request line. One is what old clients send after a body.
pub const EMPTY_LINES_MAX: usize = 4;

const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(HEADERS_MAX <= u64::BITS as usize);

/// The request method. Those we have an answer for are known; any other token is kept as sent.
#[allow(missing_docs, reason = "they have the names of RFC 9110")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'b> {
    Delete,
    Get,
    Head,
    Options,
    Other(&'b str),
    Post,
}

/// The protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and any later 1.x.
    Http11,
}

/// How the body is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// In chunks.
    Chunked,
    /// By `Content-Length`, in bytes; may be 0.
    Length(u64),
    /// There is no body, and nothing said so: a request that needs one gets 411.
    None,
}

/// Whether the client waits for `100 Continue` before it sends the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It waits. Never so for HTTP/1.0 (RFC 9110 section 10.1.1).
    Continue,
    /// It does not.
    None,
}

/// Where one field's name and value are in the head: name start and end, value start and end, 16
/// bits each. One word, because it is read back right after it was written: four small stores
/// followed by a large load would stall.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Field(u64);

impl Field {
    #[inline(always)]
    fn new(line: &FieldLine) -> Self {
        let places = [line.value_end, line.value_start, line.name_end, line.name_start];
        Self(places.iter().fold(0, |packed, &place| packed << 16 | place as u64))
    }

    #[inline]
    pub(super) fn name<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        span(bytes, self.0 as u16, (self.0 >> 16) as u16)
    }

    #[inline]
    pub(super) fn value<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let (start, end) = self.value_span();
        span(bytes, start, end)
    }

    #[inline]
    pub(super) fn value_span(&self) -> (u16, u16) {
        ((self.0 >> 32) as u16, (self.0 >> 48) as u16)
    }

    #[inline]
    fn name_len(&self) -> u16 {
        (self.0 >> 16) as u16 - self.0 as u16
    }
}

/// Room for the fields of one head: one per worker, reused for every request.
#[derive(Clone, Debug)]
pub struct HeaderSpace {
    fields: [Field; HEADERS_MAX],
}

impl HeaderSpace {
    /// Empty room.
    pub const fn new() -> Self {
        Self { fields: [Field(0); HEADERS_MAX] }
    }
}

impl Default for HeaderSpace {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`parse_prefix`] found.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'b> {
    /// A whole head; [`Request::head_len`] says where it ends.
    Complete(Request<'b>),
    /// The beginning of a head, valid so far.
    Partial,
}

/// A parsed head, borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'b> {
    bytes: &'b [u8],
    fields: &'b [Field],
    name_lens: NameLens,
    head_len: u16,
    line: RequestLine,
    meaning: Meaning,
}

/// How long the names of a head's fields are, a bit for each length: most of what is asked for is not
/// there, and need not be looked for. Lengths of 64 and more share the bits of shorter ones.
#[derive(Clone, Copy, Debug, Default)]
struct NameLens(u64);

impl NameLens {
    fn bit(len: usize) -> u64 {
        1 << (len % 64)
    }

    fn add(&mut self, len: usize) {
        self.0 |= Self::bit(len);
    }

    fn may_have(self, len: usize) -> bool {
        self.0 & Self::bit(len) != 0
    }
}

impl<'b> Request<'b> {
    /// The head's length in bytes, which is where the body begins.
    pub fn head_len(&self) -> usize {
        usize::from(self.head_len)
    }

    /// The method. Case-sensitive (RFC 9110 section 9.1).
    #[inline]
    pub fn method(&self) -> Method<'b> {
        match self.line.method(self.bytes) {
            b"GET" => Method::Get,
            b"POST" => Method::Post,
            b"HEAD" => Method::Head,
            b"OPTIONS" => Method::Options,
            b"DELETE" => Method::Delete,
            other => Method::Other(ascii(other)),
        }
    }

    /// The target as sent: path and query, in whatever form.
    pub fn target(&self) -> &'b str {
        ascii(self.line.target(self.bytes))
    }

    /// The path as sent, not decoded, up to the `?`. Begins with `/`, or is `*` (only for
    /// `OPTIONS`). Only the path is left of an absolute target.
    #[inline]
    pub fn path(&self) -> &'b str {
        match span(self.bytes, self.meaning.path_start, self.line.path_end) {
            // `http://host` and `http://host?query` (RFC 9112 section 3.2.1).
            [] => "/",
            path => ascii(path),
        }
    }

    /// The query as sent, not decoded, without the `?`; empty if there is none.
    #[inline]
    pub fn query(&self) -> &'b str {
        ascii(span(self.bytes, self.line.path_end + 1, self.line.target_end))
    }

    /// The version its client speaks.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// All fields in order: name as sent, value without surrounding whitespace.
    pub fn headers(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> + use<'b> {
        let bytes = self.bytes;
        self.fields.iter().map(move |field| (field.name(bytes), field.value(bytes)))
    }

    /// The value of the first field of this name, ignoring case.
    #[inline]
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers_named(name).next()
    }

    /// Whether there may be a field of this name: `false` is certain, and costs next to nothing.
    #[inline]
    pub fn may_have(&self, name: &str) -> bool {
        self.name_lens.may_have(name.len())
    }

    /// The values of all fields of this name, ignoring case.
    #[inline]
    pub(crate) fn headers_named<'n>(
        &self,
        name: &'n str,
    ) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n> {
        let bytes = self.bytes;
        let fields = if self.may_have(name) { self.fields } else { &[] };
        fields
            .iter()
            .filter(move |field| {
                // Lengths nearly always differ, and are known without touching the head.
                usize::from(field.name_len()) == name.len()
                    && interpret::is_named(field.name(bytes), name)
            })
            .map(move |field| field.value(bytes))
    }

    /// How the body is delimited.
    #[inline]
    pub fn framing(&self) -> Framing {
        self.meaning.framing
    }

    /// Whether the client lets the connection be reused, and what the answer must say about it.
    #[inline]
    pub fn connection(&self) -> Connection {
        self.meaning.connection
    }

    /// Whether the client waits for `100 Continue`.
    #[inline]
    pub fn expectation(&self) -> Expectation {
        self.meaning.expectation
    }

    /// `Host`, or the authority of an absolute target, which takes precedence (RFC 9112 section
    /// 3.2.2). `None` only in HTTP/1.0.
    pub fn host(&self) -> Option<&'b [u8]> {
        let (start, end) = self.meaning.host?;
        Some(span(self.bytes, start, end))
    }
}

/// Whether a comma-separated list (RFC 9110 section 5.6.1) contains this token, ignoring case.
pub(crate) fn lists_token(list: &[u8], token: &str) -> bool {
    list.split(|&byte| byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The bytes from `start` to `end`; offsets in a head fit 16 bits.
#[inline]
pub(super) fn span(bytes: &[u8], start: u16, end: u16) -> &[u8] {
    bytes.get(usize::from(start)..usize::from(end)).unwrap_or(&[])
}

/// Must only be called on bytes that were checked to be visible ASCII.
#[inline]
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("")
}

/// Parses the head at the beginning of `bytes` in one pass; more may follow it.
///
/// # Errors
/// The leftmost fault of form, otherwise the first of meaning. The connection must end.
#[inline]
pub fn parse_prefix<'b>(
    bytes: &'b [u8],
    space: &'b mut HeaderSpace,
) -> Result<Parsed<'b>, HeadError> {
    let window = bytes.get(..HEAD_BYTES_MAX).unwrap_or(bytes);
    match parse_window(window, space) {
        Ok(request) => Ok(Parsed::Complete(request)),
        Err(Stop::Partial) if bytes.len() < HEAD_BYTES_MAX => Ok(Parsed::Partial),
        Err(Stop::Partial) => Err(HeadError::HeadTooLarge),
        Err(Stop::Reject(error)) => Err(error),
    }
}

#[inline(always)]
fn parse_window<'b>(bytes: &'b [u8], space: &'b mut HeaderSpace) -> Result<Request<'b>, Stop> {
    let start = syntax::empty_lines(bytes)?;
    let (line, next) = syntax::request_line(bytes, start)?;
    let mut at = next;
    let mut count = 0;
    // One bit for each field whose name is as long as one that matters to the message itself.
    let mut telling = 0_u64;
    let mut name_lens = NameLens::default();
    let head_len = loop {
        match syntax::field_line(bytes, at)? {
            Line::End(end) => break end,
            Line::Field(line) => {
                let slot = space.fields.get_mut(count).ok_or(HeadError::HeadersTooMany)?;
                *slot = Field::new(&line);
                let name_len = line.name_end - line.name_start;
                telling |= u64::from(interpret::is_telling_len(name_len)) << count;
                name_lens.add(name_len);
                count += 1;
                at = line.next;
            }
        }
    };
    let fields = &space.fields[..count];
    let meaning = interpret::meaning(bytes, &line, fields, telling)?;
    Ok(Request { bytes, fields, name_lens, head_len: head_len as u16, line, meaning })
}

/// Parses a head that [`HeadScan`] found to be complete.
///
/// # Errors
/// As [`parse_prefix`]. A head that is not complete after all is [`HeadError::HeadTooLarge`].
pub fn parse<'b>(head: &'b [u8], space: &'b mut HeaderSpace) -> Result<Request<'b>, HeadError> {
    match parse_prefix(head, space)? {
        Parsed::Complete(request) => Ok(request),
        Parsed::Partial => Err(HeadError::HeadTooLarge),
    }
}

/// Finds the end of a head that arrives in pieces. Looks at each byte once to find line ends and
/// once more to judge the line, however small the pieces are.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Everything before this has been looked at.
    scanned: u16,
    /// Where the line being received begins.
    line_start: u16,
    /// Complete lines so far, not counting empty ones before the request line.
    lines: u8,
}

const _: () = assert!(size_of::<HeadScan>() <= 8);

impl HeadScan {
    /// Whether it has looked at anything yet.
    pub(crate) fn has_begun(&self) -> bool {
        self.scanned > 0
    }

    /// Looks at what is new in `bytes`, which must hold the head from its first byte on and only
    /// have grown since the last call. Returns the head's length once it is complete.
    ///
    /// # Errors
    /// As soon as no continuation could make the head well-formed: a bare LF, a method that is not
    /// a token, a broken line, an exceeded cap.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        let window = bytes.get(..HEAD_BYTES_MAX).unwrap_or(bytes);
        let seen = usize::from(self.scanned);
        loop {
            let stop = scan::value_end(window, usize::from(self.scanned));
            if let [] | [b'\r'] = &window[stop..] {
                // Nothing, or a CR whose LF may still come.
                self.scanned = stop as u16;
                break;
            }
            match self.judge_line(&window[..window.len().min(stop + 2)])? {
                Step::Head(end) => return Ok(Some(end)),
                Step::Line(next) => {
                    self.line_start = next as u16;
                    self.scanned = next as u16;
                }
            }
        }
        if self.lines == 0 {
            self.judge_beginning(window, seen)?;
        }
        if window.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(self.judge_cut_line(window)) }
    }

    /// The head is too long; a fault in its unfinished last line takes precedence, as it does when
    /// the head is parsed in one pass.
    fn judge_cut_line(&self, bytes: &[u8]) -> HeadError {
        match syntax::field_line(bytes, usize::from(self.line_start)) {
            Err(Stop::Reject(error)) if self.lines > 0 => error,
            _ => HeadError::HeadTooLarge,
        }
    }

    /// Judges the line that `bytes` end in: its end, or what breaks it, has arrived.
    fn judge_line(&mut self, bytes: &[u8]) -> Result<Step, HeadError> {
        let step = match self.lines {
            0 => self.judge_first_line(bytes),
            _ => self.judge_field_line(bytes),
        };
        step.map_err(|stop| match stop {
            Stop::Reject(error) => error,
            Stop::Partial => {
                debug_assert!(false, "a line whose end is there is not partial");
                HeadError::ControlByte
            }
        })
    }

    fn judge_first_line(&mut self, bytes: &[u8]) -> Result<Step, Stop> {
        let start = syntax::empty_lines(bytes)?;
        if start == bytes.len() {
            return Ok(Step::Line(start));
        }
        let (_, next) = syntax::request_line(bytes, start)?;
        self.lines = 1;
        Ok(Step::Line(next))
    }

    fn judge_field_line(&mut self, bytes: &[u8]) -> Result<Step, Stop> {
        match syntax::field_line(bytes, usize::from(self.line_start))? {
            Line::End(end) => Ok(Step::Head(end)),
            Line::Field(_) if usize::from(self.lines) > HEADERS_MAX => {
                Err(HeadError::HeadersTooMany.into())
            }
            Line::Field(line) => {
                self.lines += 1;
                Ok(Step::Line(line.next))
            }
        }
    }

    /// Judges whether an incomplete request line can still become valid. Only done while the method
    /// has not ended (so a few times at most), and once more when no request line can be that long.
    fn judge_beginning(&self, bytes: &[u8], seen: usize) -> Result<(), HeadError> {
        let line_start = usize::from(self.line_start);
        let in_method = seen <= line_start + METHOD_BYTES_MAX;
        let too_long = bytes.len() > line_start + REQUEST_LINE_BYTES_MAX;
        // A CR here is that of an empty line.
        if bytes.get(line_start) == Some(&b'\r') || (!in_method && !too_long) {
            return Ok(());
        }
        match syntax::request_line(bytes, line_start) {
            Err(Stop::Reject(error)) => Err(error),
            Err(Stop::Partial) | Ok(_) => Ok(()),
        }
    }
}

/// What [`HeadScan`] has come to the end of, and where that is.
enum Step {
    Head(usize),
    Line(usize),
}

/// Method, target and version with a space between each, and CRLF.
const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + 1 + TARGET_BYTES_MAX + 1 + 10;
