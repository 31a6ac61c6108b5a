//! `POST /channels/{channel}`: media types, checks, event types, idempotency keys, the number of
//! subscribers, and every kind of invalid channel name.

use crate::common::http::Chunked;
use crate::common::{
    Conn, Sse, TestServer, await_subscribers, describe, fetch, publish, publish_answer, request,
    seq_of,
};

#[test]
fn a_publish_is_answered_with_id_channel_and_subscribers() {
    let server = TestServer::start();
    let first = publish_answer(server.addr, "news", "hello");
    assert_eq!(first["id"], server.id(1));
    assert_eq!(first["channel"], "news");
    assert_eq!(first["subscribers"], 0);
    assert_eq!(first.as_object().expect("an object").len(), 3);
    let second = publish_answer(server.addr, "other", "hello");
    assert_eq!(second["id"], server.id(2), "one log for all channels");
}

#[test]
fn subscribers_are_those_joined_at_that_moment_on_all_workers() {
    let server = TestServer::start();
    let mut streams: Vec<Sse> = (0..9).map(|_| Sse::open(server.addr, "channel=news")).collect();
    let _other = Sse::open(server.addr, "channel=other");
    assert_eq!(publish_answer(server.addr, "news", "x")["subscribers"], 9);
    streams.truncate(4);
    await_subscribers(server.addr, "news", 4);
    assert_eq!(publish_answer(server.addr, "news", "x")["subscribers"], 4);
}

#[test]
fn the_media_type_says_how_the_body_is_read() {
    let server = TestServer::start();
    let mut bare = Sse::open(server.addr, "channel=c");
    let mut enveloped = Sse::open(server.addr, "channel=c&envelope=json");
    let cases: [(Option<&str>, &[u8], &str, &str); 9] = [
        (None, b"text", "text", r#""data":"text""#),
        (Some("text/plain"), b"a \"b\"", "a \"b\"", r#""data":"a \"b\"""#),
        (Some("TEXT/Plain; charset=utf-8"), b"x", "x", r#""data":"x""#),
        (Some("text/anything"), b"x", "x", r#""data":"x""#),
        (Some("application/x-www-form-urlencoded"), b"a=b&c", "a=b&c", r#""data":"a=b&c""#),
        (Some("application/json"), b"{\"a\": [1]}", "{\"a\": [1]}", r#""data":{"a": [1]}"#),
        (Some("application/json;charset=utf-8"), b"null", "null", r#""data":null"#),
        (Some("application/octet-stream"), b"\xff\x00\n", "/wAK", r#""data_base64":"/wAK""#),
        (Some("text/plain"), b"", "", r#""data":"""#),
    ];
    for (media_type, body, plain, in_envelope) in cases {
        let headers: Vec<(&str, &str)> =
            media_type.map(|it| ("Content-Type", it)).into_iter().collect();
        let response = fetch(server.addr, "POST", "/channels/c", &headers, Some(body));
        assert_eq!(response.status, 200, "{media_type:?}: {}", response.text());
        assert_eq!(bare.event().data, plain, "{media_type:?}");
        let data = enveloped.event().data;
        assert!(data.contains(in_envelope), "{media_type:?}: {data}");
    }
}

#[test]
fn a_header_that_counts_once_may_not_stand_twice() {
    let server = TestServer::start();
    for (name, one, other) in [
        ("Content-Type", "text/plain", "application/json"),
        ("Event-Type", "a", "a"),
        ("Idempotency-Key", "k", "l"),
    ] {
        let headers = [(name, one), (name, other)];
        let response = fetch(server.addr, "POST", "/channels/c", &headers, Some(b"1"));
        assert_eq!((response.status, response.error_code().as_str()), (400, "header_repeated"));
    }
    let coded = [("Content-Encoding", "gzip"), ("Content-Type", "application/octet-stream")];
    let response = fetch(server.addr, "POST", "/channels/c", &coded, Some(b"\x1f\x8b"));
    assert_eq!((response.status, response.error_code().as_str()), (415, "content_coding"));
    assert_eq!(describe(server.addr, "c")["events"], 0);
}

#[test]
fn other_media_types_are_415_and_publish_nothing() {
    let server = TestServer::start();
    for media_type in [
        "image/png",
        "application/xml",
        "multipart/form-data; boundary=x",
        "textual/plain",
        "*/*",
        "json",
    ] {
        let headers = [("Content-Type", media_type)];
        let response = fetch(server.addr, "POST", "/channels/c", &headers, Some(b"x"));
        assert_eq!(response.status, 415, "{media_type}");
        assert_eq!(response.error_code(), "media_type");
    }
    assert_eq!(publish(server.addr, "c", "x"), server.id(1));
}

#[test]
fn a_body_that_is_not_json_is_told_where() {
    let server = TestServer::start();
    let headers = [("Content-Type", "application/json")];
    let response =
        fetch(server.addr, "POST", "/channels/c", &headers, Some(b"{\"a\":1,\n \"b\" 2}"));
    assert_eq!(response.error_code(), "not_json");
    assert!(response.text().contains("expected `:` at line 2 column 6"), "{response:?}");
}

/// A misspelt key would silently lose the event's type.
#[test]
fn a_line_with_a_key_that_no_publication_has_is_refused() {
    let server = TestServer::start();
    let lines =
        b"{\"channel\":\"a\",\"data\":1}\n{\"channel\":\"a\",\"evnet\":\"done\",\"data\":1}\n";
    let response = fetch(server.addr, "POST", "/publish", &[], Some(lines));
    assert_eq!((response.status, response.error_code().as_str()), (400, "unknown_key"));
    assert!(response.text().contains("\"line\":2,\"published\":1"), "{response:?}");
}

#[test]
fn what_is_not_what_it_says_it_is_is_400_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut conn = Conn::open(server.addr);
    let cases: [(&str, &[u8], &str); 8] = [
        ("text/plain", b"\xff", "not_utf8"),
        ("text/plain", b"half \xe2\x82", "not_utf8"),
        ("text/plain", b"surrogate \xed\xa0\x80", "not_utf8"),
        ("application/json", b"{\"a\":", "not_json"),
        ("application/json", b"", "not_json"),
        ("application/json", b"1 2", "not_json"),
        ("application/json", b"{'a':1}", "not_json"),
        ("application/json", b"\"\xff\"", "not_utf8"),
    ];
    for (media_type, body, code) in cases {
        let headers = [("Content-Type", media_type)];
        conn.send(request("POST", "/channels/c", &headers, Some(body)));
        let response = conn.response();
        assert_eq!(response.status, 400, "{body:?}");
        assert_eq!(response.error_code(), code, "{body:?}");
    }
    conn.send(request("POST", "/channels/c", &[], Some(b"good")));
    assert_eq!(conn.response().json()["id"], server.id(1));
}

/// A depth that a recursive reader would not survive.
#[test]
fn deeply_nested_json_does_no_harm() {
    let server = TestServer::start();
    let mut body = vec![b'['; 30_000];
    body.extend(std::iter::repeat_n(b']', 30_000));
    let headers = [("Content-Type", "application/json")];
    let response = fetch(server.addr, "POST", "/channels/c", &headers, Some(&body));
    assert!(matches!(response.status, 200 | 400), "{}", response.text());
    publish(server.addr, "c", "still here");
}

#[test]
fn a_body_without_a_length_is_411() {
    let server = TestServer::start();
    for target in ["/channels/c", "/publish"] {
        let response = fetch(server.addr, "POST", target, &[], None);
        assert_eq!(response.status, 411, "{target}");
        assert_eq!(response.error_code(), "length_required");
    }
}

#[test]
fn an_event_may_be_as_large_as_the_setting_and_no_larger() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 1000);
    let (fits, too_large) = (vec![b'x'; 1000], vec![b'x'; 1001]);
    assert_eq!(fetch(server.addr, "POST", "/channels/c", &[], Some(&fits)).status, 200);
    let response = fetch(server.addr, "POST", "/channels/c", &[], Some(&too_large));
    assert_eq!(response.status, 413);
    assert_eq!(response.error_code(), "event_too_large");
    assert!(response.text().contains("max_event_bytes is 1000"), "{}", response.text());
    let mut chunked = Chunked::open(server.addr, "/channels/c", &[]);
    for piece in fits.chunks(300) {
        chunked.chunk(piece);
    }
    assert_eq!(chunked.finish().status, 200);
    let mut chunked = Chunked::open(server.addr, "/channels/c", &[]);
    chunked.chunk(&fits);
    chunked.chunk(b"x");
    assert_eq!(chunked.conn.response().status, 413);
    assert_eq!(describe(server.addr, "c")["events"], 2);
}

/// A chunk is refused by its size line: the data it announces need not come.
#[test]
fn an_announced_chunk_that_is_too_large_is_413_at_once() {
    let server = TestServer::start();
    let mut chunked = Chunked::open(server.addr, "/channels/c", &[]);
    chunked.conn.send("7fffffff\r\nx");
    assert_eq!(chunked.conn.response().status, 413);
}

#[test]
fn megabyte_events_pass_when_the_setting_allows() {
    let server = TestServer::with(|settings| settings.event_bytes_max = 16 << 20);
    let mut sse = Sse::open(server.addr, "channel=c");
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let response = fetch(server.addr, "POST", "/channels/c", &[], Some(&body));
    assert_eq!(response.status, 200);
    assert!(sse.event().data.as_bytes() == body, "five megabytes arrive as they were sent");
}

#[test]
fn chunked_bodies_with_extensions_and_trailers_are_one_event_at_every_split() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=c");
    let body = b"4;x=y\r\nwiki\r\n5\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\nTrailer: t\r\n\r\n";
    let head = request("POST", "/channels/c", &[("Transfer-Encoding", "chunked")], None);
    let whole = [&head[..], body].concat();
    let mut conn = Conn::open(server.addr);
    conn.send(&whole);
    assert_eq!(conn.response().status, 200);
    conn.send_per_byte(&whole);
    assert_eq!(conn.response().status, 200);
    for split in (1..whole.len()).step_by(7) {
        conn.send(&whole[..split]);
        conn.send(&whole[split..]);
        assert_eq!(conn.response().status, 200, "split at {split}");
    }
    for _ in 0..2 + (1..whole.len()).step_by(7).count() {
        assert_eq!(sse.event().data, "wikipedia in\n\nchunks.");
    }
}

#[test]
fn broken_chunks_are_400_and_publish_nothing() {
    let server = TestServer::start();
    for body in [
        "zz\r\n",
        "-1\r\n",
        "4;\r\nwiki\r\n",
        "4 \r\nwiki\r\n",
        "4\nwiki\r\n",
        "4\r\nwikix",
        "fffffffffffffffff\r\n",
        "\r\n",
    ] {
        let mut chunked = Chunked::open(server.addr, "/channels/c", &[]);
        chunked.conn.send(body);
        let response = chunked.conn.response();
        assert_eq!(response.status, 400, "{body:?}: {}", response.text());
    }
    assert_eq!(describe(server.addr, "c")["events"], 0);
}

#[test]
fn event_types_are_told_and_checked() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=c");
    let long = "x".repeat(128);
    for name in ["goal", "with space", "grüße", &long] {
        let headers = [("Event-Type", name)];
        let response = fetch(server.addr, "POST", "/channels/c", &headers, Some(b"1"));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(sse.event().event, name);
    }
    publish(server.addr, "c", "untyped");
    assert_eq!(sse.event().event, "message");
    let too_long = "x".repeat(129);
    for name in ["", "pushline.gap", "pushline.x", "tab\there", &too_long] {
        let headers = [("Event-Type", name)];
        let response = fetch(server.addr, "POST", "/channels/c", &headers, Some(b"1"));
        assert_eq!(response.status, 400, "{name:?}");
    }
}

#[test]
fn a_repeated_idempotency_key_answers_the_first_id_and_publishes_nothing() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 3);
    let mut sse = Sse::open(server.addr, "channel=c");
    let send = |channel: &str, key: &str, data: &str| {
        let target = format!("/channels/{channel}");
        let headers = [("Idempotency-Key", key)];
        let response = fetch(server.addr, "POST", &target, &headers, Some(data.as_bytes()));
        assert_eq!(response.status, 200, "{}", response.text());
        seq_of(response.json()["id"].as_str().expect("an id"))
    };
    assert_eq!(send("c", "k1", "first"), 1);
    assert_eq!(send("c", "k1", "again"), 1);
    assert_eq!(send("c", "k2", "second"), 2);
    assert_eq!(send("other", "k1", "a key is the channel's own"), 3);
    assert_eq!(send("c", "k1", "and again"), 1);
    publish(server.addr, "c", "third");
    publish(server.addr, "c", "fourth");
    // The first event has left history, and its key with it.
    assert_eq!(send("c", "k1", "fifth"), 6);
    let data: Vec<String> = sse.events(5).into_iter().map(|event| event.data).collect();
    assert_eq!(data, ["first", "second", "third", "fourth", "fifth"]);
    for key in ["", &"k".repeat(129)] {
        let headers = [("Idempotency-Key", key)];
        let response = fetch(server.addr, "POST", "/channels/c", &headers, Some(b"x"));
        assert_eq!(response.status, 400, "{key:?}");
    }
}

#[test]
fn channel_names_are_percent_decoded() {
    let server = TestServer::start();
    let all = "ABCXYZabcxyz0189-._~:@!$";
    assert_eq!(publish_answer(server.addr, all, "x")["channel"], all);
    let encoded: String = all.bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(publish_answer(server.addr, &encoded, "x")["channel"], all);
    assert_eq!(describe(server.addr, all)["events"], 2);
    let mut sse = Sse::open(server.addr, &format!("channel={encoded}&last_event_id=earliest"));
    assert_eq!(sse.events(2)[1].id, server.id(2));
    let longest = "n".repeat(200);
    assert_eq!(publish_answer(server.addr, &longest, "x")["channel"], longest);
    let longest_encoded = "%6e".repeat(200);
    assert_eq!(publish_answer(server.addr, &longest_encoded, "x")["channel"], longest);
}

#[test]
fn every_other_name_is_400_wherever_it_stands() {
    let server = TestServer::start();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$".contains(&byte);
    let mut names: Vec<String> =
        (0..=255).filter(|&byte| !legal(byte)).map(|byte| format!("a%{byte:02X}b")).collect();
    names.extend(["%", "%4", "a%zz", "%%", "..", ".", "%2e", "%2E%2e"].map(String::from));
    names.extend(["n".repeat(201), "%6E".repeat(201)]);
    let mut conn = Conn::open(server.addr);
    for name in &names {
        let target = format!("/channels/{name}");
        conn.send(request("GET", &target, &[], None));
        let response = conn.response();
        assert_eq!(response.status, 400, "GET {target}");
        assert_eq!(response.error_code(), "channel_name_invalid", "GET {target}");
        let response = fetch(server.addr, "POST", &target, &[], Some(b"x"));
        assert_eq!(response.status, 400, "POST {target}");
        conn.send(request("GET", &format!("/sse?channel={name}"), &[], None));
        assert_eq!(conn.response().status, 400, "GET /sse?channel={name}");
    }
    conn.send(request("GET", "/channels/", &[], None));
    assert_eq!(conn.response().status, 400);
}

#[test]
fn a_channel_is_described() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 2);
    let empty = describe(server.addr, "c");
    let unknown = serde_json::json!({
        "channel": "c", "last_id": null, "first_id": null, "events": 0, "subscribers": 0
    });
    assert_eq!(empty, unknown);
    for data in ["1", "2", "3"] {
        publish(server.addr, "c", data);
    }
    publish(server.addr, "other", "4");
    let _sse = Sse::open(server.addr, "channel=c&channel=other");
    let expected = serde_json::json!({
        "channel": "c", "last_id": server.id(3), "first_id": server.id(2), "events": 2,
        "subscribers": 1
    });
    assert_eq!(describe(server.addr, "c"), expected);
}
