//! What a parsed head says, field by field.

use super::head::*;
use super::response::Connection;

fn with_request<R>(head: &str, look: impl FnOnce(Request<'_>) -> R) -> R {
    let mut space = HeaderSpace::new();
    look(parse(head.as_bytes(), &mut space).unwrap_or_else(|error| panic!("{error:?}: {head:?}")))
}

fn with_lines<R>(version: &str, lines: &str, look: impl FnOnce(Request<'_>) -> R) -> R {
    with_request(&format!("POST / HTTP/{version}\r\nHost: h\r\n{lines}\r\n"), look)
}

#[test]
fn targets_of_every_form_give_path_query_and_host() {
    for (line, path, query, host) in [
        ("GET /", "/", "", "h"),
        ("GET /a/b%20c", "/a/b%20c", "", "h"),
        ("GET /?", "/", "", "h"),
        ("GET /a?b=c&d=/?e", "/a", "b=c&d=/?e", "h"),
        ("GET //a", "//a", "", "h"),
        ("OPTIONS *", "*", "", "h"),
        ("GET http://other:81/a?b", "/a", "b", "other:81"),
        ("GET HTTPS://other", "/", "", "other"),
        ("GET http://other?b/c", "/", "b/c", "other"),
        ("GET http://[::1]:8080/a", "/a", "", "[::1]:8080"),
    ] {
        with_request(&format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"), |request| {
            assert_eq!(request.path(), path, "{line}");
            assert_eq!(request.query(), query, "{line}");
            assert_eq!(request.host(), Some(host.as_bytes()), "{line}");
        });
    }
}

#[test]
fn methods_are_told_apart_by_case() {
    for (text, method) in [
        ("GET", Method::Get),
        ("POST", Method::Post),
        ("HEAD", Method::Head),
        ("OPTIONS", Method::Options),
        ("DELETE", Method::Delete),
        ("get", Method::Other("get")),
        ("GETX", Method::Other("GETX")),
        ("PUT", Method::Other("PUT")),
    ] {
        with_request(&format!("{text} / HTTP/1.0\r\n\r\n"), |request| {
            assert_eq!(request.method(), method);
            assert_eq!(request.version(), Version::Http10);
            assert_eq!(request.host(), None);
        });
    }
}

#[test]
fn headers_are_found_in_any_case_and_trimmed() {
    let lines = "Last-Event-ID: \t a-1 \r\nX: 1\r\nx:2\r\nEmpty: \r\n";
    with_lines("1.1", lines, |request| {
        assert_eq!(request.header("last-event-id"), Some(&b"a-1"[..]));
        assert_eq!(request.header("LAST-EVENT-ID"), Some(&b"a-1"[..]));
        assert_eq!(request.header("empty"), Some(&b""[..]));
        assert_eq!(request.header("origin"), None);
        assert_eq!(request.headers_named("X").collect::<Vec<_>>(), [b"1", b"2"]);
        let names: Vec<_> = request.headers().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"Host"[..], b"Last-Event-ID", b"X", b"x", b"Empty"]);
    });
}

#[test]
fn names_of_any_length_are_found_and_only_those_that_are_there() {
    for len in 1..200 {
        let name = "n".repeat(len);
        with_lines("1.1", &format!("{name}: 1\r\n"), |request| {
            for other in 1..200 {
                let found = request.header(&"n".repeat(other));
                assert_eq!(found, (other == len).then_some(&b"1"[..]), "{other} of {len}");
            }
        });
    }
}

#[test]
fn framing_follows_from_the_fields() {
    for (lines, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("content-length: 0042\r\n", Framing::Length(42)),
        ("Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
    ] {
        with_lines("1.1", lines, |request| assert_eq!(request.framing(), framing, "{lines}"));
    }
}

#[test]
fn persistence_follows_from_version_and_options() {
    use Connection::{Close, KeepAlive, KeepAliveHttp10};
    for (lines, http11, http10) in [
        ("", KeepAlive, Close),
        ("Connection: keep-alive\r\n", KeepAlive, KeepAliveHttp10),
        ("Connection: Keep-Alive, x\r\n", KeepAlive, KeepAliveHttp10),
        ("Connection: close\r\n", Close, Close),
        ("Connection: x ,\tCLOSE\r\n", Close, Close),
        ("Connection: keep-alive\r\nConnection: close\r\n", Close, Close),
        ("Connection: closed, ,\r\n", KeepAlive, Close),
    ] {
        with_lines("1.1", lines, |request| assert_eq!(request.connection(), http11, "{lines}"));
        with_lines("1.0", lines, |request| assert_eq!(request.connection(), http10, "{lines}"));
    }
}

#[test]
fn only_an_http11_client_waits_for_100() {
    let lines = "Expect: 100-Continue\r\n";
    with_lines("1.1", lines, |it| assert_eq!(it.expectation(), Expectation::Continue));
    with_lines("1.0", lines, |it| assert_eq!(it.expectation(), Expectation::None));
    with_lines("1.1", "", |it| assert_eq!(it.expectation(), Expectation::None));
}

#[test]
fn what_follows_the_head_is_left_alone() {
    let bytes = b"GET / HTTP/1.0\r\n\r\n\0\nnext";
    let mut space = HeaderSpace::new();
    let Ok(Parsed::Complete(request)) = parse_prefix(bytes, &mut space) else {
        panic!("a whole head");
    };
    assert_eq!(request.head_len(), 18);
    assert_eq!(HeadScan::default().advance(bytes), Ok(Some(18)));
}

#[test]
fn a_trickling_head_costs_a_look_per_byte() {
    // 16 KiB in single bytes; quadratic work here would take minutes in a debug build.
    let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
    head.resize(HEAD_BYTES_MAX - 4, b'x');
    head.extend_from_slice(b"\r\n\r\n");
    let mut scan = HeadScan::default();
    for end in 0..head.len() {
        assert_eq!(scan.advance(&head[..end]), Ok(None));
    }
    assert_eq!(scan.advance(&head), Ok(Some(HEAD_BYTES_MAX)));
}

/// Found by fuzzing: the scan said "too large" where one pass saw a broken line first.
#[test]
fn a_head_that_is_too_long_is_judged_alike_in_one_and_in_pieces() {
    for (end, error) in [
        (&b"\r\nno name: of a line that is cut off"[..], HeadError::SpaceBeforeColon),
        (b"\r\nName: of a line that is cut off", HeadError::HeadTooLarge),
        (b"of a line that is cut off", HeadError::HeadTooLarge),
    ] {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(HEAD_BYTES_MAX - 20, b'x');
        head.extend_from_slice(end);
        assert_eq!(parse_prefix(&head, &mut HeaderSpace::new()).map(drop), Err(error));
        assert_eq!(HeadScan::default().advance(&head), Err(error));
        let (first, whole) = (&head[..HEAD_BYTES_MAX - 1], &head[..]);
        let mut scan = HeadScan::default();
        assert_eq!(scan.advance(first), Ok(None));
        assert_eq!(scan.advance(whole), Err(error));
    }
}
