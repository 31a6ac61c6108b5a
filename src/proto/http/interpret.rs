//! What the fields of a head mean for the message: host, framing, persistence. Request smuggling
//! lives on mistakes made here, so nothing is repaired and nothing is guessed.

use super::head::{Expectation, Field, Framing, HeadError, Version, span};
use super::response::Connection;
use super::scan;
use super::syntax::RequestLine;

/// What follows from the fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meaning {
    pub(super) path_start: u16,
    /// Where it begins and ends.
    pub(super) host: Option<(u16, u16)>,
    pub(super) framing: Framing,
    pub(super) connection: Connection,
    pub(super) expectation: Expectation,
}

/// Lengths of the names that [`Fields::read`] knows, as a set of bits.
const TELLING_LENS: u32 = 1 << 4 | 1 << 6 | 1 << 10 | 1 << 14 | 1 << 17;

#[inline(always)]
pub(super) fn is_telling_len(name_len: usize) -> bool {
    name_len < 32 && TELLING_LENS >> name_len & 1 == 1
}

/// The fields that matter to the message, as found.
#[derive(Default)]
struct Fields {
    host: Option<Field>,
    content_length: Option<Field>,
    transfer_encoding: Option<Field>,
    expect: Option<Field>,
    close: bool,
    keep_alive: bool,
}

impl Fields {
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], field: Field) -> Result<(), HeadError> {
        let name = field.name(bytes);
        match name.len() {
            4 if is(name, b"host") => once(&mut self.host, field, HeadError::HostRepeated),
            6 if is(name, b"expect") => {
                // Only `100-continue` alone can be met, so of several the first other one is kept.
                if self.expect.is_none_or(|expect| is_continue(expect.value(bytes))) {
                    self.expect = Some(field);
                }
                Ok(())
            }
            10 if is(name, b"connection") => {
                self.read_connection(field.value(bytes));
                Ok(())
            }
            14 if is(name, b"content-length") => {
                once(&mut self.content_length, field, HeadError::ContentLengthRepeated)
            }
            17 if is(name, b"transfer-encoding") => {
                once(&mut self.transfer_encoding, field, HeadError::TransferEncodingInvalid)
            }
            _ => Ok(()),
        }
    }

    fn read_connection(&mut self, value: &[u8]) {
        if is(value, b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        let mut rest = value;
        loop {
            let comma = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
            let option = rest[..comma].trim_ascii();
            match option.len() {
                5 => self.close |= is(option, b"close"),
                10 => self.keep_alive |= is(option, b"keep-alive"),
                _ => {}
            }
            match rest.get(comma + 1..) {
                Some(tail) => rest = tail,
                None => return,
            }
        }
    }

    fn connection(&self, version: Version) -> Connection {
        match version {
            _ if self.close => Connection::Close,
            Version::Http11 => Connection::KeepAlive,
            Version::Http10 if self.keep_alive => Connection::KeepAliveHttp10,
            Version::Http10 => Connection::Close,
        }
    }

    /// RFC 9112 section 6.3.
    #[inline(always)]
    fn framing(&self, bytes: &[u8], version: Version) -> Result<Framing, HeadError> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(Framing::None),
            (None, Some(length)) => Ok(Framing::Length(content_length(length.value(bytes))?)),
            (Some(_), Some(_)) => Err(HeadError::ContentLengthWithTransferEncoding),
            (Some(_), None) if version == Version::Http10 => {
                Err(HeadError::TransferEncodingOnHttp10)
            }
            (Some(codings), None) => check_codings(codings.value(bytes)).map(|()| Framing::Chunked),
        }
    }

    /// RFC 9110 section 10.1.1.
    #[inline(always)]
    fn expectation(&self, bytes: &[u8], version: Version) -> Result<Expectation, HeadError> {
        match self.expect {
            None => Ok(Expectation::None),
            Some(expect) if !is_continue(expect.value(bytes)) => Err(HeadError::ExpectationUnknown),
            Some(_) if version == Version::Http10 => Ok(Expectation::None),
            Some(_) => Ok(Expectation::Continue),
        }
    }
}

/// Reads the fields whose bit is set in `telling`.
#[inline(always)]
pub(super) fn meaning(
    bytes: &[u8],
    line: &RequestLine,
    fields: &[Field],
    mut telling: u64,
) -> Result<Meaning, HeadError> {
    let mut found = Fields::default();
    while telling != 0 {
        found.read(bytes, fields[telling.trailing_zeros() as usize])?;
        telling &= telling - 1;
    }
    match found.host {
        Some(host) => {
            let (start, end) = host.value_span();
            check_host(bytes, start, end)?;
        }
        None if line.version == Version::Http11 => return Err(HeadError::HostMissing),
        None => {}
    }
    let mut path_start = line.target_start();
    let mut host = found.host.map(|host| host.value_span());
    if !line.target(bytes).starts_with(b"/")
        && let Some(authority) = authority(bytes, line)?
    {
        path_start = authority.1;
        host = Some(authority);
    }
    Ok(Meaning {
        path_start,
        host,
        framing: found.framing(bytes, line.version)?,
        connection: found.connection(line.version),
        expectation: found.expectation(bytes, line.version)?,
    })
}

/// Where the authority of a target that is not a path begins and ends; none in `OPTIONS *` (RFC
/// 9112 section 3.2).
#[cold]
fn authority(bytes: &[u8], line: &RequestLine) -> Result<Option<(u16, u16)>, HeadError> {
    if line.target(bytes) == b"*" && line.method(bytes) == b"OPTIONS" {
        return Ok(None);
    }
    if line.method(bytes) == b"CONNECT" {
        return Err(HeadError::MethodUnsupported);
    }
    let target = span(bytes, line.target_start(), line.path_end);
    let scheme_len = [&b"http://"[..], b"https://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme)))
        .map(|scheme| scheme.len())
        .ok_or(HeadError::TargetInvalid)?;
    let rest = &target[scheme_len..];
    let length = memchr::memchr(b'/', rest).unwrap_or(rest.len());
    if length == 0 {
        return Err(HeadError::TargetInvalid);
    }
    let start = line.target_start() + scheme_len as u16;
    let end = start + length as u16;
    check_host(bytes, start, end)?;
    Ok(Some((start, end)))
}

#[inline]
fn once(slot: &mut Option<Field>, field: Field, repeated: HeadError) -> Result<(), HeadError> {
    match slot.replace(field) {
        None => Ok(()),
        Some(_) => Err(repeated),
    }
}

/// Whether `name` is `lower`, ignoring case. Exact for token bytes: only the two cases of a letter
/// become that letter by setting bit 5.
#[inline(always)]
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    let mut difference = 0;
    for (byte, lower) in name.iter().zip(lower) {
        difference |= (byte | 0x20) ^ lower;
    }
    difference == 0
}

/// Whether `name` is `other`, ignoring case; they are equally long. Exact for names without `^` and `~`,
/// as [`is`] is.
#[inline]
pub(super) fn is_named(name: &[u8], other: &str) -> bool {
    let pairs = name.iter().zip(other.as_bytes());
    pairs.fold(0, |difference, (one, other)| difference | ((one | 0x20) ^ (other | 0x20))) == 0
}

fn is_continue(expect: &[u8]) -> bool {
    expect.eq_ignore_ascii_case(b"100-continue")
}

/// `1*DIGIT` that fits a `u64`; no sign, no list, no whitespace (RFC 9110 section 8.6).
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() {
        return Err(HeadError::ContentLengthInvalid);
    }
    value
        .iter()
        .try_fold(0_u64, |sum, &byte| match byte {
            b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        })
        .ok_or(HeadError::ContentLengthInvalid)
}

/// Accepts only `chunked`, once (RFC 9112 section 6.1). Tells codings we do not know from nonsense.
fn check_codings(codings: &[u8]) -> Result<(), HeadError> {
    if codings.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut chunked = 0;
    let mut last_is_chunked = false;
    for coding in codings.split(|&byte| byte == b',') {
        let coding = coding.trim_ascii();
        if coding.is_empty() || !coding.iter().all(|&byte| scan::is_token(byte)) {
            return Err(HeadError::TransferEncodingInvalid);
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
    }
    match (chunked, last_is_chunked) {
        (0, _) | (1, true) => Err(HeadError::TransferCodingUnknown),
        _ => Err(HeadError::TransferEncodingInvalid),
    }
}

/// `uri-host [":" port]` (RFC 9110 section 7.2, RFC 3986 section 3.2.2). An `http` target without a
/// host is invalid (RFC 9110 section 4.2.1), so an empty host is refused.
#[inline]
fn check_host(bytes: &[u8], start: u16, end: u16) -> Result<(), HeadError> {
    let host = span(bytes, start, end);
    let name_len = match host {
        [b'[', rest @ ..] => literal_len(rest),
        // The byte after the host stops the scan, so it may look beyond.
        _ => scan::host_end(bytes, usize::from(start)) - usize::from(start),
    };
    let port_fits = match host.get(name_len..) {
        Some([]) => true,
        Some([b':', digits @ ..]) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if port_fits && name_len > 0 { Ok(()) } else { Err(HeadError::HostInvalid) }
}

/// Length of `[` address `]`, given what follows the `[`; 0 if it is not an address.
#[cold]
fn literal_len(rest: &[u8]) -> usize {
    let length = rest.iter().take_while(|&&byte| scan::is_host(byte) || byte == b':').count();
    match rest.get(length) {
        Some(b']') if length > 0 => length + 2,
        _ => 0,
    }
}
