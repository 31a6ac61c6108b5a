//! The lines of a head: where their parts begin and end, and nothing about their meaning.

use super::head::{EMPTY_LINES_MAX, HeadError, METHOD_BYTES_MAX, TARGET_BYTES_MAX, Version, span};
use super::scan;

/// Why a line has no value yet, or never will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes end before the line.
    Partial,
    /// No further bytes can repair it.
    Reject(HeadError),
}

impl From<HeadError> for Stop {
    fn from(error: HeadError) -> Self {
        Self::Reject(error)
    }
}

/// Places in the request line. All offsets are below `HEAD_BYTES_MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine {
    pub(super) method_start: u16,
    pub(super) method_end: u16,
    pub(super) path_end: u16,
    pub(super) target_end: u16,
    pub(super) version: Version,
}

impl RequestLine {
    pub(super) fn method<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        span(bytes, self.method_start, self.method_end)
    }

    pub(super) fn target<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        span(bytes, self.target_start(), self.target_end)
    }

    /// One space after the method.
    pub(super) fn target_start(&self) -> u16 {
        self.method_end + 1
    }
}

/// Places in a field line, in words: packed into 16-bit offsets before it is returned, it would
/// pass through memory and stall.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldLine {
    pub(super) name_start: usize,
    pub(super) name_end: usize,
    pub(super) value_start: usize,
    pub(super) value_end: usize,
    pub(super) next: usize,
}

/// What was found where a field line or the end of the head is due.
pub(super) enum Line {
    /// Where its name and value lie.
    Field(FieldLine),
    /// The empty line; the head ends here.
    End(usize),
}

/// Skips the empty lines some clients send before a request (RFC 9112 section 2.2).
#[inline(always)]
pub(super) fn empty_lines(bytes: &[u8]) -> Result<usize, Stop> {
    match bytes.first() {
        Some(b'\r' | b'\n') => some_empty_lines(bytes),
        _ => Ok(0),
    }
}

#[cold]
fn some_empty_lines(bytes: &[u8]) -> Result<usize, Stop> {
    let mut at = 0;
    while let Some(b'\r' | b'\n') = bytes.get(at) {
        at = line_feed(bytes, at)?;
        if at > 2 * EMPTY_LINES_MAX {
            return Err(HeadError::EmptyLines.into());
        }
    }
    Ok(at)
}

/// Reads the request line at `start` (RFC 9112 section 3); returns where the next line begins.
#[inline]
pub(super) fn request_line(bytes: &[u8], start: usize) -> Result<(RequestLine, usize), Stop> {
    let method_end = method_end(bytes, start)?;
    let target_start = method_end + 1;
    let path_end = scan::path_end(bytes, target_start);
    let target_end = match bytes.get(path_end) {
        Some(b'?') => scan::query_end(bytes, path_end),
        _ => path_end,
    };
    if target_end - target_start > TARGET_BYTES_MAX {
        return Err(HeadError::TargetTooLong.into());
    }
    match bytes.get(target_end) {
        Some(b' ') if target_end > target_start => {}
        None => return Err(Stop::Partial),
        Some(_) => return Err(HeadError::TargetInvalid.into()),
    }
    let (version, next) = version(bytes, target_end + 1)?;
    let line = RequestLine {
        method_start: start as u16,
        method_end: method_end as u16,
        path_end: path_end as u16,
        target_end: target_end as u16,
        version,
    };
    Ok((line, next))
}

#[inline]
fn method_end(bytes: &[u8], start: usize) -> Result<usize, Stop> {
    let rest = bytes.get(start..).unwrap_or(&[]);
    if rest.starts_with(b"GET ") {
        return Ok(start + 3);
    }
    if rest.starts_with(b"POST ") {
        return Ok(start + 4);
    }
    rare_method_len(rest).map(|length| start + length)
}

#[cold]
fn rare_method_len(rest: &[u8]) -> Result<usize, Stop> {
    let length = rest.iter().take_while(|&&byte| scan::is_token(byte)).count();
    if length > METHOD_BYTES_MAX {
        return Err(HeadError::MethodTooLong.into());
    }
    match rest.get(length) {
        None => Err(Stop::Partial),
        Some(b' ') if length > 0 => Ok(length),
        Some(_) => Err(HeadError::MethodInvalid.into()),
    }
}

#[inline]
fn version(bytes: &[u8], start: usize) -> Result<(Version, usize), Stop> {
    match bytes.get(start..).and_then(|rest| rest.first_chunk()) {
        Some(b"HTTP/1.1\r\n") => Ok((Version::Http11, start + 10)),
        Some(b"HTTP/1.0\r\n") => Ok((Version::Http10, start + 10)),
        _ => later_version(bytes, start),
    }
}

/// A minor version above ours is read as ours (RFC 9110 section 2.5).
#[cold]
fn later_version(bytes: &[u8], start: usize) -> Result<(Version, usize), Stop> {
    match bytes.get(start..).unwrap_or(&[]) {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b'\r', b'\n', ..] => {
            Ok((Version::Http11, start + 10))
        }
        _ => Err(version_fault(bytes, start)),
    }
}

/// What is wrong with, or missing from, the version at `start`.
#[cold]
fn version_fault(bytes: &[u8], start: usize) -> Stop {
    let rest = bytes.get(start..).unwrap_or(&[]);
    for (expected, &byte) in b"HTTP/d.d".iter().zip(rest) {
        let fits = if *expected == b'd' { byte.is_ascii_digit() } else { byte == *expected };
        if !fits {
            return HeadError::VersionInvalid.into();
        }
    }
    let Some((_, end)) = rest.split_first_chunk::<8>() else {
        return Stop::Partial;
    };
    match end {
        [] | [b'\r'] => Stop::Partial,
        [b'\r', b'\n', ..] => HeadError::VersionUnsupported.into(),
        [b'\r', ..] => HeadError::BareCr.into(),
        [b'\n', ..] => HeadError::BareLf.into(),
        _ => HeadError::VersionInvalid.into(),
    }
}

/// Reads the field line at `start`, or the empty line that ends the head (RFC 9112 section 5).
#[inline(always)]
pub(super) fn field_line(bytes: &[u8], start: usize) -> Result<Line, Stop> {
    if let Some(b'\r' | b'\n') = bytes.get(start) {
        return Ok(Line::End(line_feed(bytes, start)?));
    }
    // From line end to line end, without waiting for the colon, so that the processor looks at the
    // names and values of several lines at once.
    let end = scan::value_end(bytes, start);
    let name_end = scan::token_end(bytes, start);
    if bytes.get(name_end) != Some(&b':') || name_end == start {
        return Err(name_fault(bytes, start, name_end));
    }
    let next = match bytes.get(end..).and_then(|rest| rest.first_chunk()) {
        Some(b"\r\n") => end + 2,
        _ => return Err(line_end_fault(bytes, end)),
    };
    let mut value_start = name_end + 1;
    while value_start < end && is_blank(bytes[value_start]) {
        value_start += 1;
    }
    let mut value_end = end;
    while value_end > value_start && is_blank(bytes[value_end - 1]) {
        value_end -= 1;
    }
    Ok(Line::Field(FieldLine { name_start: start, name_end, value_start, value_end, next }))
}

/// What is wrong with, or missing from, the name that begins at `start`.
#[cold]
fn name_fault(bytes: &[u8], start: usize, name_end: usize) -> Stop {
    match bytes.get(name_end) {
        None => Stop::Partial,
        Some(b' ' | b'\t') if name_end == start => HeadError::LineFolded.into(),
        Some(b' ' | b'\t') => HeadError::SpaceBeforeColon.into(),
        Some(b'\n') => HeadError::BareLf.into(),
        Some(_) => HeadError::HeaderNameInvalid.into(),
    }
}

/// Where the line after the CRLF at `at` begins.
#[inline]
fn line_feed(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(b"\r\n") => Ok(at + 2),
        _ => Err(line_end_fault(bytes, at)),
    }
}

/// What is wrong with, or missing from, the line end due at `at`.
#[cold]
fn line_end_fault(bytes: &[u8], at: usize) -> Stop {
    match bytes.get(at..).unwrap_or(&[]) {
        [] | [b'\r'] => Stop::Partial,
        [b'\r', ..] => HeadError::BareCr.into(),
        [b'\n', ..] => HeadError::BareLf.into(),
        _ => HeadError::ControlByte.into(),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
