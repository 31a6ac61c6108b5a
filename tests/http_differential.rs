//! The head parser against httparse, on generated and mutated heads, seeded. Wherever httparse
//! accepts, we accept and agree on every part, unless one of the listed stricter rules applies;
//! and whatever we accept, httparse accepts.

use pushline::proto::http::head::{
    HEADERS_MAX, HeadError, HeadScan, HeaderSpace, Method, Parsed, Request, Version, parse,
    parse_prefix,
};

const CASES: u64 = 60_000;

/// Why we refuse a head that httparse takes: its own rules end at finding the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stricter {
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

/// The stricter rule behind a refusal; none if httparse must refuse too.
fn stricter_rule(error: HeadError) -> Option<Stricter> {
    use HeadError::*;
    match error {
        BareLf => Some(Stricter::LineEnds),
        EmptyLines => Some(Stricter::EmptyLines),
        TargetInvalid => Some(Stricter::Target),
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

fn pick<T: Copy>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "M-SEARCH", "x!"];
const TARGETS: [&str; 10] = [
    "/",
    "/sse?channel=news",
    "/channels/a%20b",
    "/a?b?c=d&e=%41",
    "http://example.com/ws?channel=x",
    "https://example.com:8080",
    "*",
    "/x{y}|z^`\\",
    "/sse?channel=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "/?",
];
const HEADERS: [&str; 18] = [
    "Host: example.com",
    "Host: [::1]:8080",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Accept: */*",
    "Content-Length: 12",
    "Transfer-Encoding: chunked",
    "Connection: keep-alive",
    "Connection: Upgrade",
    "Connection: close",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "X-Empty:",
    "X-Tabs: \t a\tb \t",
    "X-High: \u{e9}\u{20ac}",
    "Last-Event-ID: abcdefgh-42",
    "sec-ch-ua: \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"",
    "x!#$%&'*+.^_`|~9: token",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
];

fn generate(rng: &mut fastrand::Rng) -> Vec<u8> {
    let version = pick(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let mut head = format!("{} {} {version}\r\n", pick(rng, &METHODS), pick(rng, &TARGETS));
    if rng.u8(..10) > 0 {
        head.push_str("Host: localhost:8080\r\n");
    }
    for _ in 0..rng.usize(..8) {
        head.push_str(pick(rng, &HEADERS[2..]));
        head.push_str("\r\n");
    }
    if rng.u8(..20) == 0 {
        head.push_str(pick(rng, &HEADERS));
        head.push_str("\r\n");
    }
    if rng.u8(..100) == 0 {
        head.push_str(&"A: b\r\n".repeat(60));
    }
    head.push_str("\r\n");
    head.push_str(pick(rng, &["", "", "body", "GET / HTTP/1.1\r\n\r\n"]));
    head.into_bytes()
}

const SPICE: &[u8] = b"\r\n\t :\0\x01\x1f\x7f\x80\xff#\"<>?/@[]{}aZ09-_,;=+.%";

fn mutate(head: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..4) {
        if head.is_empty() {
            return;
        }
        let at = rng.usize(..head.len());
        match rng.u8(..6) {
            0 => head[at] = pick(rng, SPICE),
            1 => head.insert(at, pick(rng, SPICE)),
            2 => drop(head.remove(at)),
            3 => head.truncate(at),
            4 => head[at] = rng.u8(..),
            _ => {
                let end = (at + rng.usize(..12)).min(head.len());
                let copy = head[at..end].to_vec();
                let to = rng.usize(..head.len());
                head.splice(to..to, copy);
            }
        }
    }
}

/// Every part, as both sides name them.
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

/// What httparse says: the parts, `None` for a partial head, or that it refuses.
fn their_parts(head: &[u8]) -> Result<Option<Parts>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX + 64];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(head)? {
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
                // httparse leaves a value of nothing but blanks as it is.
                (header.name.into(), header.value.trim_ascii().into())
            })
            .collect(),
    }))
}

fn compare(head: &[u8], seed: u64) -> Option<HeadError> {
    let mut space = HeaderSpace::new();
    let ours = parse_prefix(head, &mut space);
    let theirs = their_parts(head);
    let shown = || format!("seed {seed}: {:?}", String::from_utf8_lossy(head));
    let scanned = HeadScan::default().advance(head);
    match ours {
        Ok(Parsed::Complete(request)) => {
            assert_eq!(Ok(Some(our_parts(&request))), theirs, "{}", shown());
            assert_eq!(scanned, Ok(Some(request.head_len())), "{}", shown());
            None
        }
        Ok(Parsed::Partial) => {
            assert_eq!(theirs, Ok(None), "{}", shown());
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

/// Through the scan: it judges a line when the line ends, and leaves to the parser what needs the
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

#[test]
fn we_agree_with_httparse_but_for_the_listed_rules() {
    let mut accepted = 0_u32;
    let mut stricter = std::collections::HashMap::new();
    for seed in 0..CASES {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut head = generate(&mut rng);
        if seed % 4 != 0 {
            mutate(&mut head, &mut rng);
        }
        match compare(&head, seed) {
            Some(error) => *stricter.entry(stricter_rule(error)).or_insert(0_u32) += 1,
            None => accepted += 1,
        }
    }
    // The generator reaches both sides; else the agreement would say nothing.
    assert!(u64::from(accepted) > CASES / 4, "{accepted} of {CASES}");
    for rule in [Stricter::LineEnds, Stricter::Target, Stricter::Meaning, Stricter::Caps] {
        assert!(stricter.contains_key(&Some(rule)), "{rule:?} never applied: {stricter:?}");
    }
}
