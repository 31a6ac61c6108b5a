//! Request heads, against httparse. Wherever httparse accepts, we accept and agree on every part,
//! unless one of the listed stricter rules applies; and whatever we accept, httparse accepts.

use pushline::proto::http::head::{
    HEADERS_MAX, HeadError, HeadScan, HeaderSpace, Method, Parsed, Request, Version, parse,
    parse_prefix,
};

use super::split::split;

/// The head is judged as httparse judges it, with the same result if it comes in pieces.
pub fn check(input: &[u8]) {
    let Some(split) = split(input) else { return };
    compare(split.whole);
    assert_eq!(scan(&split.pieces), scan(&[split.whole]), "{:?}", split.pieces);
}

/// The length of a head that comes in pieces. Every line ends eventually: one without an end may be
/// judged late.
fn scan(pieces: &[&[u8]]) -> Result<Option<usize>, HeadError> {
    let mut scan = HeadScan::default();
    let mut bytes = Vec::new();
    for piece in pieces.iter().copied().chain([b"\r\n\r\n".as_slice()]) {
        bytes.extend_from_slice(piece);
        if let Some(length) = scan.advance(&bytes)? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

/// Why we refuse a head that httparse accepts: its own rules stop at finding the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stricter {
    /// RFC 9112 section 2.2 lets a recipient take a bare LF; we don't.
    LineEnds,
    /// httparse skips any number of empty lines.
    EmptyLines,
    /// httparse takes any visible ASCII and UTF-8 in a target, and any form of it.
    Target,
    /// httparse does not look at what the fields mean.
    Meaning,
    /// Our caps.
    Caps,
}

/// The stricter rule behind a refusal; `None` if httparse must refuse too.
pub fn stricter_rule(error: HeadError) -> Option<Stricter> {
    use HeadError::*;
    match error {
        BareLf => Some(Stricter::LineEnds),
        EmptyLines => Some(Stricter::EmptyLines),
        MethodUnsupported | TargetInvalid => Some(Stricter::Target),
        ContentLengthInvalid
        | ContentLengthRepeated
        | ContentLengthWithTransferEncoding
        | ExpectationUnknown
        | HostInvalid
        | HostMissing
        | HostRepeated
        | TransferCodingUnknown
        | TransferEncodingInvalid
        | TransferEncodingOnHttp10 => Some(Stricter::Meaning),
        HeadTooLarge | HeadersTooMany | MethodTooLong | TargetTooLong => Some(Stricter::Caps),
        BareCr | ControlByte | HeaderNameInvalid | LineFolded | MethodInvalid
        | SpaceBeforeColon | VersionInvalid | VersionUnsupported => None,
    }
}

/// Every part, by the names both sides use.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    length: usize,
    method: String,
    target: String,
    minor: u8,
    headers: Vec<(String, Vec<u8>)>,
}

fn our_parts(request: &Request<'_>) -> Parts {
    Parts {
        length: request.head_len(),
        method: match request.method() {
            Method::Delete => "DELETE",
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Other(other) => other,
            Method::Post => "POST",
        }
        .into(),
        target: request.target().into(),
        minor: u8::from(request.version() == Version::Http11),
        headers: request
            .headers()
            .map(|(name, value)| (String::from_utf8_lossy(name).into(), value.into()))
            .collect(),
    }
}

/// The head with a later minor version replaced by 1.1, as which it must be read (RFC 9110 section
/// 2.5); httparse knows only 1.0 and 1.1.
pub fn as_known_version(head: &[u8]) -> Vec<u8> {
    const VERSION: &[u8] = b" HTTP/1.";
    let mut head = head.to_vec();
    let at = head.windows(VERSION.len()).position(|window| window == VERSION);
    if let Some(minor) = at.and_then(|at| head.get_mut(at + VERSION.len()))
        && (b'2'..=b'9').contains(minor)
    {
        *minor = b'1';
    }
    head
}

/// httparse's result: the parts, `None` for a partial head, or a refusal.
fn their_parts(head: &[u8]) -> Result<Option<Parts>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX + 64];
    let mut request = httparse::Request::new(&mut headers);
    let head = as_known_version(head);
    let length = match request.parse(&head)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    Ok(Some(Parts {
        length,
        method: request.method.unwrap_or("").into(),
        target: request.path.unwrap_or("").into(),
        minor: request.version.unwrap_or(9),
        headers: request
            .headers
            .iter()
            .map(|header| {
                // httparse leaves a value of only blanks unchanged.
                (header.name.into(), header.value.trim_ascii().into())
            })
            .collect(),
    }))
}

/// The error, if only our own rules refuse the head.
pub fn compare(head: &[u8]) -> Option<HeadError> {
    let mut space = HeaderSpace::new();
    let ours = parse_prefix(head, &mut space);
    let theirs = their_parts(head);
    let shown = || format!("{:?}", String::from_utf8_lossy(head));
    let scanned = HeadScan::default().advance(head);
    match ours {
        Ok(Parsed::Complete(request)) => {
            assert_eq!(Ok(Some(our_parts(&request))), theirs, "{}", shown());
            assert_eq!(scanned, Ok(Some(request.head_len())), "{}", shown());
            None
        }
        Ok(Parsed::Partial) => {
            // The last byte of a version is waited for: 505 or 400 depends on it.
            let early = theirs == Err(httparse::Error::Version);
            assert!(early || theirs == Ok(None), "{theirs:?} {}", shown());
            assert_eq!(scanned, Ok(None), "{}", shown());
            None
        }
        Err(error) => {
            let rule = stricter_rule(error);
            let they_accept = matches!(theirs, Ok(Some(_)));
            assert!(!they_accept || rule.is_some(), "{error:?} {}", shown());
            assert_eq!(in_two_steps(head), Err(error), "{}", shown());
            they_accept.then_some(error)
        }
    }
}

/// Through the scan, which judges a line when it ends, and leaves to the parser what needs the
/// whole head.
fn in_two_steps(head: &[u8]) -> Result<(), HeadError> {
    let mut scan = HeadScan::default();
    let mut head = head.to_vec();
    let mut length = scan.advance(&head)?;
    if length.is_none() {
        head.extend_from_slice(b"\r\n\r\n");
        length = scan.advance(&head)?;
    }
    let length = length.expect("an empty line ends a head");
    parse(&head[..length], &mut HeaderSpace::new()).map(drop)
}
