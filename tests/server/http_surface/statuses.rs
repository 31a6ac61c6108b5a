//! The other routes and every status an HTTP client can meet: greeting, preflight, HEAD, and what
//! is refused with which status and which headers.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::common::ws::upgrade;
use crate::common::{Conn, Response, TestServer, await_that, fetch, publish, request};

fn raw(server: &TestServer, bytes: impl AsRef<[u8]>) -> Response {
    let mut conn = Conn::open(server.addr);
    conn.send(bytes);
    conn.response()
}

#[test]
fn the_greeting_names_the_two_lines_to_try() {
    let server = TestServer::start();
    let response = fetch(server.addr, "GET", "/", &[], None);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    let text = response.text();
    assert!(text.contains("curl -N http://127.0.0.1/sse?channel=news"), "{text}");
    assert!(text.contains("curl -d hello http://127.0.0.1/channels/news"), "{text}");
    assert!(response.header("date").is_some_and(|date| date.ends_with(" GMT")));
}

#[test]
fn head_is_get_without_a_body_or_a_stream() {
    let server = TestServer::start();
    publish(server.addr, "c", "x");
    let mut conn = Conn::open(server.addr);
    for target in ["/", "/channels/c", "/channels/a%2fb", "/nowhere", "/publish"] {
        conn.send(request("GET", target, &[], None));
        let got = conn.response();
        conn.send(request("HEAD", target, &[], None));
        let head = conn.response_head();
        assert_eq!(head.status, got.status, "{target}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{target}");
        assert_eq!(head.header("content-length"), got.header("content-length"), "{target}");
    }
    conn.send(request("HEAD", "/sse?channel=c", &[], None));
    let head = conn.response_head();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    conn.expect_end();
}

#[test]
fn the_browser_client_is_for_every_origin_and_small() {
    let server = TestServer::guarded("origins = [\"https://app.example\"]", |_| {});
    let origin = ("Origin", "https://elsewhere.example");
    let response = fetch(server.addr, "GET", "/pushline.js", &[origin], None);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("cache-control"), Some("public, max-age=300"));
    assert!(response.text().contains("export class Pushline"));
    assert!(gzipped_len(&response.body) <= 6 * 1024, "{}", gzipped_len(&response.body));
    let etag = response.header("etag").expect("one");
    let known = fetch(server.addr, "GET", "/pushline.js", &[("If-None-Match", etag)], None);
    assert_eq!((known.status, known.header("etag"), known.body.len()), (304, Some(etag), 0));
    let other = fetch(server.addr, "GET", "/pushline.js", &[("If-None-Match", "\"old\"")], None);
    assert_eq!(other.body, response.body);
}

#[test]
fn demos_are_there_only_where_they_are_wanted() {
    let server = TestServer::with(|settings| settings.demo = Some(false));
    assert_eq!(fetch(server.addr, "GET", "/demo/chat", &[], None).status, 404);
    assert!(!fetch(server.addr, "GET", "/", &[], None).text().contains("/demo"));
    assert_eq!(fetch(server.addr, "GET", "/pushline.js", &[], None).status, 200);
}

#[test]
fn the_openapi_description_names_each_route_and_its_methods() {
    let server = TestServer::start();
    let description = fetch(server.addr, "GET", "/openapi.json", &[], None);
    assert_eq!(description.header("content-type"), Some("application/json"));
    let description = description.json();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = description["paths"].as_object().expect("paths");
    let known = [
        "/",
        "/sse",
        "/ws",
        "/channels/{channel}",
        "/channels/{channel}/events",
        "/channels/{channel}/stream",
        "/channels/{channel}/stream/cancel",
        "/channels/{channel}/presence",
        "/publish",
        "/sse/{connection}/token",
        "/pushline.js",
        "/openapi.json",
    ];
    assert_eq!(paths.keys().collect::<BTreeSet<_>>(), known.map(String::from).iter().collect());
    for (path, of) in paths {
        let target = path.replace(['{', '}'], "");
        let allow = fetch(server.addr, "OPTIONS", &target, &[], None);
        let allow = allow.header("allow").expect("methods").to_ascii_lowercase();
        for method in ["get", "post", "put", "delete"] {
            let is_there = allow.split(", ").any(|known| known == method);
            assert_eq!(of.get(method).is_some(), is_there, "{method} {path}");
        }
    }
}

fn gzipped_len(bytes: &[u8]) -> usize {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    let packed =
        Command::new("gzip").args(["--best", "--no-name", "--stdout"]).arg(file.path()).output();
    packed.expect("gzip runs").stdout.len()
}

#[test]
fn preflight_allows_what_the_api_needs() {
    let server = TestServer::start();
    for target in ["/", "/sse?channel=c", "/channels/c", "/publish", "/nowhere", "*"] {
        let headers = [
            ("Origin", "https://app.example"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "event-type, idempotency-key, last-event-id"),
        ];
        let response = fetch(server.addr, "OPTIONS", target, &headers, None);
        assert_eq!(response.status, 204, "{target}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        assert_eq!(response.header("access-control-allow-credentials"), None);
        let methods = response.header("access-control-allow-methods").expect("methods");
        assert!(methods.contains("POST") && methods.contains("GET"), "{methods}");
        let allowed = response.header("access-control-allow-headers").expect("headers");
        let allowed = allowed.to_ascii_lowercase();
        let ours = ["event-type", "event-ephemeral", "event-key", "event-tombstone"];
        for name in ["content-type", "idempotency-key", "last-event-id"].iter().chain(&ours) {
            assert!(allowed.contains(name), "{name} in {allowed}");
        }
        assert!(response.body.is_empty());
    }
}

#[test]
fn options_tells_the_methods_of_a_path() {
    let server = TestServer::start();
    for (target, allow) in [
        ("/", "GET, HEAD, OPTIONS"),
        ("/publish", "POST, OPTIONS"),
        ("/channels/c", "GET, HEAD, POST, OPTIONS"),
        ("/nowhere", "OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
    ] {
        let response = fetch(server.addr, "OPTIONS", target, &[], None);
        assert_eq!((response.status, response.header("allow")), (204, Some(allow)), "{target}");
        assert_eq!(response.header("content-length"), None, "{target}");
    }
}

#[test]
fn answers_may_be_read_from_any_origin() {
    let server = TestServer::start();
    for (method, target) in
        [("GET", "/"), ("GET", "/channels/c"), ("POST", "/channels/c"), ("GET", "/x")]
    {
        let body = (method == "POST").then_some(&b"x"[..]);
        let headers = [("Origin", "https://app.example")];
        let response = fetch(server.addr, method, target, &headers, body);
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{target}");
    }
}

#[test]
fn unknown_paths_are_404() {
    let server = TestServer::start();
    let paths =
        ["/nowhere", "/channels", "/channels/a/b", "/sse/", "//", "/SSE", "/publish/", "/ws/x"];
    for target in paths {
        let response = fetch(server.addr, "GET", target, &[], None);
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.error_code(), "not_found");
    }
}

#[test]
fn paths_with_illegal_bytes_are_400_and_queries_as_browsers_send_them_are_not() {
    let server = TestServer::start();
    for byte in ["\\", "^", "`", "{", "|", "}", "[", "]", "\"", "<", ">", "#", "\x7f", "\u{e9}"] {
        for target in [format!("/a{byte}b"), format!("/channels/a{byte}b")] {
            let mut conn = Conn::open(server.addr);
            conn.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(conn.response().status, 400, "{target}");
        }
    }
    assert_eq!(fetch(server.addr, "GET", "/?a={b}|[c]^`\\", &[], None).status, 200);
}

#[test]
fn known_paths_with_other_methods_are_405_with_allow() {
    let server = TestServer::start();
    let cases = [
        ("POST", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/sse?channel=c", "GET, HEAD, OPTIONS"),
        ("PUT", "/ws?channel=c", "GET, HEAD, OPTIONS"),
        ("GET", "/publish", "POST, OPTIONS"),
        ("HEAD", "/publish", "POST, OPTIONS"),
        ("DELETE", "/publish", "POST, OPTIONS"),
        ("PUT", "/channels/c", "GET, HEAD, POST, OPTIONS"),
        ("PATCH", "/channels/c", "GET, HEAD, POST, OPTIONS"),
        ("DELETE", "/channels/c", "GET, HEAD, POST, OPTIONS"),
        ("TRACE", "/", "GET, HEAD, OPTIONS"),
    ];
    for (method, target, allow) in cases {
        let response = fetch(server.addr, method, target, &[], None);
        assert_eq!(response.status, 405, "{method} {target}");
        assert_eq!(response.header("allow"), Some(allow), "{method} {target}");
    }
}

#[test]
fn methods_nobody_knows_are_501() {
    let server = TestServer::start();
    for method in ["BREW", "get", "PROPFIND", "X"] {
        let response = fetch(server.addr, method, "/", &[], None);
        assert_eq!(response.status, 501, "{method}");
    }
}

#[test]
fn heads_that_are_too_much_are_refused() {
    let server = TestServer::start();
    let target = format!("/sse?channel={}", "x".repeat(8 << 10));
    assert_eq!(fetch(server.addr, "GET", &target, &[], None).status, 414);
    let value = "v".repeat(16 << 10);
    assert_eq!(fetch(server.addr, "GET", "/", &[("X-Long", &value)], None).status, 431);
    let many: Vec<(String, String)> = (0..64).map(|n| (format!("X-{n}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(fetch(server.addr, "GET", "/", &many, None).status, 431);
    assert_eq!(fetch(server.addr, "GET", "/", &many[1..], None).status, 200);
}

#[test]
fn heads_that_are_wrong_are_refused() {
    let server = TestServer::start();
    let cases = [
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTX/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: x\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417),
        ("POST /channels/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (
            "POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            400,
        ),
        ("POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx", 400),
        (
            "POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
    ];
    for (text, status) in cases {
        let mut conn = Conn::open(server.addr);
        conn.send(text);
        let response = conn.response();
        assert_eq!(response.status, status, "{text:?}: {}", response.text());
        assert_eq!(response.header("connection"), Some("close"), "{text:?}");
        response.error_code();
        conn.expect_end();
    }
}

#[test]
fn upgrades_that_are_none_are_426_with_what_is_needed() {
    let server = TestServer::start();
    let plain = fetch(server.addr, "GET", "/ws?channel=c", &[], None);
    let old = raw(
        &server,
        String::from_utf8(upgrade("/ws?channel=c", &[]))
            .expect("text")
            .replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
    );
    for response in [plain, old] {
        assert_eq!(response.status, 426);
        assert_eq!(response.header("upgrade"), Some("websocket"));
        assert_eq!(response.header("sec-websocket-version"), Some("13"));
        // RFC 9110 section 7.8: a sender of Upgrade lists it in Connection.
        let connection = response.header("connection").unwrap_or_default().to_ascii_lowercase();
        assert!(connection.contains("upgrade"), "{:?}", response.headers);
    }
}

#[test]
fn a_head_that_does_not_come_is_408() {
    // Enough for a head that does come.
    let server = TestServer::with(|settings| settings.head_time = Duration::from_secs(2));
    let mut conn = Conn::open(server.addr);
    conn.send("GET / HT");
    let response = conn.response();
    assert_eq!(response.status, 408);
    assert_eq!(response.error_code(), "head_timeout");
    assert_eq!(response.header("connection"), Some("close"));
    conn.expect_end();
    // Drop by drop is no better.
    let mut conn = Conn::open(server.addr);
    let stream = conn.stream.try_clone().expect("a descriptor");
    let dripping = std::thread::spawn(move || {
        use std::io::Write;
        let mut stream = stream;
        for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat_n(&b'x', 4000)) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(conn.response().status, 408);
    drop(conn);
    dripping.join().expect("the dripper ends");
    // The second request of a connection has the same time.
    let mut conn = Conn::open(server.addr);
    conn.send(request("GET", "/", &[], None));
    assert_eq!(conn.response().status, 200);
    conn.send("GET /");
    assert_eq!(conn.response().status, 408);
}

#[test]
fn a_connection_that_never_speaks_is_closed_without_a_word() {
    let server = TestServer::with(|settings| settings.head_time = Duration::from_millis(200));
    let mut conn = Conn::open(server.addr);
    conn.expect_end();
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let server = TestServer::with(|settings| {
        settings.idle_time = Duration::from_secs(1);
        settings.heartbeat = Duration::from_millis(200);
    });
    let mut conn = Conn::open(server.addr);
    conn.send(request("GET", "/", &[], None));
    assert_eq!(conn.response().status, 200);
    conn.expect_end();
}

#[test]
fn a_body_that_makes_no_progress_is_408() {
    let server = TestServer::with(|settings| settings.body_time = Duration::from_millis(300));
    let mut conn = Conn::open(server.addr);
    conn.send("POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    let response = conn.response();
    assert_eq!(response.status, 408);
    assert_eq!(response.error_code(), "body_timeout");
    conn.expect_end();
}

/// Each body has this time, however many the connection had before.
#[test]
fn an_earlier_body_does_not_shorten_the_time_of_a_later_one() {
    // A third of it is how late this test may be.
    let body_time = Duration::from_secs(6);
    let server = TestServer::with(|settings| settings.body_time = body_time);
    let mut conn = Conn::open(server.addr);
    let (head, body) =
        ("POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n", "body");
    conn.send(head);
    // So that the head is parsed alone; if it is not, the test proves less but stays true.
    std::thread::sleep(Duration::from_millis(50));
    conn.send(body);
    assert_eq!(conn.response().status, 200);
    std::thread::sleep(body_time / 2);
    conn.send(head);
    // After the first body's deadline, long before the second's.
    std::thread::sleep(body_time * 2 / 3);
    conn.send(body);
    let response = conn.response();
    assert_eq!(response.status, 200, "{}", response.text());
}

#[test]
fn one_connection_too_many_is_503_with_retry_after() {
    let server = TestServer::with(|settings| settings.connections_max = Some(3));
    let mut conns: Vec<Conn> = (0..3).map(|_| Conn::open(server.addr)).collect();
    for conn in &mut conns {
        conn.send(request("GET", "/", &[], None));
        assert_eq!(conn.response().status, 200);
    }
    let mut refused = Conn::open(server.addr);
    let response = refused.response();
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    refused.expect_end();
    drop((conns, refused));
    await_that("the places are free again", || server.open() == 0);
    assert_eq!(fetch(server.addr, "GET", "/", &[], None).status, 200);
}

/// RFC 9110 section 9.1.
#[test]
fn a_method_that_is_not_implemented_is_501_wherever_it_points() {
    let server = TestServer::start();
    for line in ["CONNECT example.com:80", "CONNECT /", "CONNECT /channels/c", "FOOBAR /"] {
        let mut conn = Conn::open(server.addr);
        conn.send(format!("{line} HTTP/1.1\r\nHost: example.com:80\r\n\r\n"));
        let response = conn.response();
        assert_eq!((response.status, response.error_code()), (501, "not_implemented".to_owned()));
    }
}

/// RFC 9111 section 4.2.2: a cache might otherwise invent a lifetime for it.
#[test]
fn the_state_of_a_channel_is_not_stored() {
    let server = TestServer::start();
    let response = fetch(server.addr, "GET", "/channels/c", &[], None);
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

/// RFC 9110 section 6.6.1.
#[test]
fn every_answer_is_dated() {
    let server = TestServer::start();
    for (addr, method, target, status) in [
        (server.addr, "GET", "/", 200),
        (server.addr, "OPTIONS", "*", 204),
        (server.addr, "HEAD", "/sse?channel=c", 200),
        (server.addr, "GET", "/nowhere", 404),
        (server.admin, "GET", "/healthz", 200),
        (server.admin, "GET", "/nowhere", 404),
    ] {
        let response = fetch(addr, method, target, &[], None);
        assert_eq!(response.status, status, "{method} {target}");
        let date = response.header("date").expect("a date");
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{method} {target}: {date}");
    }
}

#[test]
fn the_admin_listener_says_how_it_is() {
    let server = TestServer::start();
    assert_eq!(fetch(server.admin, "GET", "/healthz", &[], None).status, 200);
    await_that("it is ready", || fetch(server.admin, "GET", "/readyz", &[], None).status == 200);
    assert_eq!(fetch(server.admin, "GET", "/nowhere", &[], None).status, 404);
    assert_eq!(fetch(server.addr, "GET", "/healthz", &[], None).status, 404);
}
