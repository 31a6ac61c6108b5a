//! Everything request smuggling lives on is refused, with the right status, however the bytes
//! arrive: whole, one by one, and cut in two at every place.

use pushline::proto::http::head::{
    EMPTY_LINES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, HeadError, HeadScan, HeaderSpace,
    METHOD_BYTES_MAX, Parsed, TARGET_BYTES_MAX, parse, parse_prefix,
};
use pushline::proto::reject::Reject;

/// Outcome of a head that arrives in these pieces: the way a worker reads it.
fn arrive(head: &[u8], cuts: impl Iterator<Item = usize>) -> Result<Option<usize>, HeadError> {
    let mut scan = HeadScan::default();
    for end in cuts.chain([head.len()]) {
        if let Some(length) = scan.advance(&head[..end])? {
            return parse(&head[..length], &mut HeaderSpace::new()).map(|it| Some(it.head_len()));
        }
    }
    Ok(None)
}

fn whole(head: &[u8]) -> Result<Option<usize>, HeadError> {
    match parse_prefix(head, &mut HeaderSpace::new())? {
        Parsed::Complete(request) => Ok(Some(request.head_len())),
        Parsed::Partial => Ok(None),
    }
}

/// The one outcome of a head, checked to be the same for every way it can arrive.
fn outcome(head: &[u8]) -> Result<Option<usize>, HeadError> {
    let outcome = whole(head);
    let shown = String::from_utf8_lossy(&head[..head.len().min(200)]);
    assert_eq!(arrive(head, 0..head.len()), outcome, "byte by byte: {shown:?}");
    assert_eq!(arrive(head, 0..0), outcome, "scanned whole: {shown:?}");
    if head.len() < 1024 {
        for cut in 0..head.len() {
            assert_eq!(arrive(head, [cut].into_iter()), outcome, "cut at {cut}: {shown:?}");
        }
    }
    outcome
}

/// A request with these lines after a valid `Host`.
fn with(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

/// A request line with nothing else wrong.
fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

fn is_refused(head: &[u8], error: HeadError, status: u16) {
    assert_eq!(outcome(head), Err(error), "{:?}", String::from_utf8_lossy(head));
    assert_eq!(Reject::from(error).status.code(), status, "{error:?}");
}

fn is_accepted(head: &[u8]) {
    assert_eq!(outcome(head), Ok(Some(head.len())), "{:?}", String::from_utf8_lossy(head));
}

#[test]
fn every_ambiguous_framing_is_refused() {
    use HeadError::*;
    for (lines, error, status) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", ContentLengthRepeated, 400),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", ContentLengthRepeated, 400),
        ("Content-Length: 5, 5\r\n", ContentLengthInvalid, 400),
        ("Content-Length: 5,6\r\n", ContentLengthInvalid, 400),
        ("Content-Length: +5\r\n", ContentLengthInvalid, 400),
        ("Content-Length: -5\r\n", ContentLengthInvalid, 400),
        ("Content-Length: 0x5\r\n", ContentLengthInvalid, 400),
        ("Content-Length: 5 5\r\n", ContentLengthInvalid, 400),
        ("Content-Length:\r\n", ContentLengthInvalid, 400),
        ("Content-Length: 18446744073709551616\r\n", ContentLengthInvalid, 400),
        ("Content-Length: 99999999999999999999999\r\n", ContentLengthInvalid, 400),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            ContentLengthWithTransferEncoding,
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            ContentLengthWithTransferEncoding,
            400,
        ),
        (
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
            ContentLengthWithTransferEncoding,
            400,
        ),
        ("Transfer-Encoding: gzip\r\n", TransferCodingUnknown, 501),
        ("Transfer-Encoding: identity\r\n", TransferCodingUnknown, 501),
        ("Transfer-Encoding: gzip, chunked\r\n", TransferCodingUnknown, 501),
        ("Transfer-Encoding: xchunked\r\n", TransferCodingUnknown, 501),
        ("Transfer-Encoding: chunked, gzip\r\n", TransferEncodingInvalid, 400),
        ("Transfer-Encoding: chunked, chunked\r\n", TransferEncodingInvalid, 400),
        ("Transfer-Encoding: chunked,\r\n", TransferEncodingInvalid, 400),
        ("Transfer-Encoding: \r\n", TransferEncodingInvalid, 400),
        ("Transfer-Encoding: \"chunked\"\r\n", TransferEncodingInvalid, 400),
        ("Transfer-Encoding: chunked;q=1\r\n", TransferEncodingInvalid, 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            TransferEncodingInvalid,
            400,
        ),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", TransferEncodingInvalid, 400),
        ("Transfer-Encoding : chunked\r\n", SpaceBeforeColon, 400),
        ("Transfer-Encoding\t: chunked\r\n", SpaceBeforeColon, 400),
        ("Transfer-Encoding: chunked\r\n\tfolded\r\n", LineFolded, 400),
        ("Transfer-Encoding:\r\n chunked\r\n", LineFolded, 400),
        ("Transfer-Encoding: chunked\n", BareLf, 400),
        ("Transfer-Encoding: chunked\nX: y\r\n", BareLf, 400),
        ("X: y\rTransfer-Encoding: chunked\r\n", BareCr, 400),
        ("X: y\r\r\n", BareCr, 400),
        ("Transfer-Encoding: \x0bchunked\r\n", ControlByte, 400),
        ("Transfer-Encoding: chunked\0\r\n", ControlByte, 400),
        ("X: a\x7fb\r\n", ControlByte, 400),
        ("Transfer\0-Encoding: chunked\r\n", HeaderNameInvalid, 400),
        ("Transfer-\u{212a}: chunked\r\n", HeaderNameInvalid, 400),
        ("X(: y\r\n", HeaderNameInvalid, 400),
        ("X\"Y: y\r\n", HeaderNameInvalid, 400),
        (": y\r\n", HeaderNameInvalid, 400),
        ("no colon\r\n", SpaceBeforeColon, 400),
        ("nocolon\r\n", HeaderNameInvalid, 400),
        ("nocolon\n", BareLf, 400),
        ("Expect: 200-ok\r\n", ExpectationUnknown, 417),
        ("Expect:\r\n", ExpectationUnknown, 417),
        ("Expect: 100-continue\r\nExpect: x\r\n", ExpectationUnknown, 417),
        ("Expect: x\r\nExpect: 100-continue\r\n", ExpectationUnknown, 417),
        ("Host: a\r\n", HostRepeated, 400),
        ("host: b\r\n", HostRepeated, 400),
    ] {
        is_refused(&with(lines), error, status);
    }
}

#[test]
fn what_looks_odd_but_has_one_meaning_is_accepted() {
    for lines in [
        "Content-Length: 0\r\n",
        "Content-Length: 18446744073709551615\r\n",
        "Content-Length: 007\r\n",
        "Content-Length:5\r\n",
        "Content-Length: \t 5 \t\r\n",
        "tRANSFER-eNCODING: CHUNKED\r\n",
        "X:\r\n",
        "X: a\tb\r\n",
        "X: \u{e9}\u{ff}\r\n",
        "!#$%&'*+-.^_`|~0: y\r\n",
        "Expect: 100-Continue\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
    ] {
        is_accepted(&with(lines));
    }
}

#[test]
fn an_http10_request_has_no_transfer_encoding_and_needs_no_host() {
    let head = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    is_refused(head, HeadError::TransferEncodingOnHttp10, 400);
    is_accepted(b"GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn hosts_are_checked() {
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    is_refused(b"GET / HTTP/1.1\r\n\r\n", HeadError::HostMissing, 400);
    for bad in [
        "a b", "a/b", "a@b", "a:b", "a:1:2", ":80", "a:123456", "[::1", "::1", "[]", "[::1]x", "",
        "a\\b", "a?b", "a#b", "\u{e9}", "a:-1", "[g/]:1", "a,b/c",
    ] {
        is_refused(&host(bad), HeadError::HostInvalid, 400);
    }
    for good in ["a", "a:80", "a:", "127.0.0.1:8080", "[::1]", "[::1]:8080", "a_b.c~d%41:1"] {
        is_accepted(&host(good));
    }
}

#[test]
fn request_lines_are_checked_byte_by_byte() {
    use HeadError::*;
    for (bad, error, status) in [
        ("G@T / HTTP/1.1", MethodInvalid, 400),
        (" GET / HTTP/1.1", MethodInvalid, 400),
        ("GET\t/ HTTP/1.1", MethodInvalid, 400),
        ("\u{16}\u{3}\u{1}", MethodInvalid, 400),
        ("GET  / HTTP/1.1", TargetInvalid, 400),
        ("GET /\tHTTP/1.1", TargetInvalid, 400),
        ("GET /#f HTTP/1.1", TargetInvalid, 400),
        ("GET /?a#f HTTP/1.1", TargetInvalid, 400),
        ("GET /\"x\" HTTP/1.1", TargetInvalid, 400),
        ("GET /<x> HTTP/1.1", TargetInvalid, 400),
        ("GET /\u{e9} HTTP/1.1", TargetInvalid, 400),
        ("GET /\x7f HTTP/1.1", TargetInvalid, 400),
        ("GET /\0 HTTP/1.1", TargetInvalid, 400),
        ("GET a HTTP/1.1", TargetInvalid, 400),
        ("GET * HTTP/1.1", TargetInvalid, 400),
        ("CONNECT a:80 HTTP/1.1", MethodUnsupported, 501),
        ("GET ftp://a/ HTTP/1.1", TargetInvalid, 400),
        ("GET http:///x HTTP/1.1", TargetInvalid, 400),
        ("GET http://u@a/x HTTP/1.1", HostInvalid, 400),
        ("GET /", TargetInvalid, 400),
        ("GET / HTTP/1.1 ", VersionInvalid, 400),
        ("GET /  HTTP/1.1", VersionInvalid, 400),
        ("GET / http/1.1", VersionInvalid, 400),
        ("GET / HTTP/1", VersionInvalid, 400),
        ("GET / HTTP/1.10", VersionInvalid, 400),
        ("GET / ", VersionInvalid, 400),
        ("GET /a b HTTP/1.1", VersionInvalid, 400),
        ("GET / HTTP/0.9", VersionUnsupported, 505),
        ("GET / HTTP/2.0", VersionUnsupported, 505),
        ("GET / HTTP/9.9", VersionUnsupported, 505),
        ("PRI * HTTP/2.0", VersionUnsupported, 505),
    ] {
        is_refused(&line(bad), error, status);
    }
    for good in [
        "GET / HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "BREW-it! /pot HTTP/1.1",
        "GET /a?b?c/%zz{|}^`\\[]~ HTTP/1.1",
        "GET HTTP://B:80?q HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/1.9",
    ] {
        is_accepted(&line(good));
    }
    is_refused(b"GET / HTTP/1.1\nHost: a\n\n", BareLf, 400);
    is_refused(b"GET / HTTP/1.1\r\r\n", BareCr, 400);
    is_refused(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", LineFolded, 400);
}

#[test]
fn empty_lines_before_a_request_are_few() {
    let after = |count| ["\r\n".repeat(count), "GET / HTTP/1.0\r\n\r\n".into()].concat();
    is_accepted(after(1).as_bytes());
    is_accepted(after(EMPTY_LINES_MAX).as_bytes());
    is_refused(after(EMPTY_LINES_MAX + 1).as_bytes(), HeadError::EmptyLines, 400);
    is_refused(b"\nGET / HTTP/1.0\r\n\r\n", HeadError::BareLf, 400);
    is_refused(b"\rGET / HTTP/1.0\r\n\r\n", HeadError::BareCr, 400);
}

#[test]
fn each_cap_holds_to_the_byte() {
    let headers = |count: usize| with(&"X: y\r\n".repeat(count - 1));
    is_accepted(&headers(HEADERS_MAX));
    is_refused(&headers(HEADERS_MAX + 1), HeadError::HeadersTooMany, 431);

    let target = |length: usize| line(&format!("GET /{} HTTP/1.1", "x".repeat(length - 1)));
    is_accepted(&target(TARGET_BYTES_MAX));
    is_refused(&target(TARGET_BYTES_MAX + 1), HeadError::TargetTooLong, 414);
    is_refused(&[b"GET /".to_vec(), vec![b'x'; 9000]].concat(), HeadError::TargetTooLong, 414);

    let method = |length: usize| line(&format!("{} / HTTP/1.1", "M".repeat(length)));
    is_accepted(&method(METHOD_BYTES_MAX));
    is_refused(&method(METHOD_BYTES_MAX + 1), HeadError::MethodTooLong, 501);

    let rest = with("X: \r\n").len();
    let head = |length: usize| with(&format!("X: {}\r\n", "x".repeat(length - rest)));
    is_accepted(&head(HEAD_BYTES_MAX));
    is_refused(&head(HEAD_BYTES_MAX + 1), HeadError::HeadTooLarge, 431);
    is_refused(&head(HEAD_BYTES_MAX + 500), HeadError::HeadTooLarge, 431);
}

#[test]
fn what_can_never_become_a_request_is_refused_before_it_ends() {
    for (beginning, error) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00"[..], HeadError::MethodInvalid),
        (b"GET /\n", HeadError::TargetInvalid),
        (b"GET / HTTP/1.1\r\nA: b\n", HeadError::BareLf),
        (b"GET / HTTP/1.1\r\nA b", HeadError::SpaceBeforeColon),
        (&[b'M'; METHOD_BYTES_MAX + 1], HeadError::MethodTooLong),
        (b"@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@", HeadError::MethodInvalid),
    ] {
        assert_eq!(whole(beginning), Err(error));
    }
    assert_eq!(HeadScan::default().advance(b"\x16\x03\x01"), Err(HeadError::MethodInvalid));
    assert_eq!(HeadScan::default().advance(&[b'M'; 33]), Err(HeadError::MethodTooLong));
    assert_eq!(HeadScan::default().advance(b"GET / HTTP/1.1\r\nA: b\n"), Err(HeadError::BareLf));
}
