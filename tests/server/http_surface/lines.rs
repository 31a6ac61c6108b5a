//! `POST /publish`: lines take effect as they arrive over a body that stays open, in order; a bad
//! line ends the request, naming itself and what was published before it.

use std::time::Duration;

use serde_json::json;

use crate::common::http::Chunked;
use crate::common::{Conn, Sse, TestServer, bearer_token, describe, fetch, publish, request};

fn line(channel: &str, data: &str) -> String {
    format!("{}\n", json!({"channel": channel, "data": data}))
}

#[test]
fn each_line_takes_effect_when_it_arrives() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=a&channel=b");
    let mut publisher = Chunked::open(server.addr, "/publish", &[]);
    for round in 0..20 {
        let channel = ["a", "b"][round % 2];
        publisher.chunk(line(channel, &format!("token {round}")));
        // Read before the next line is sent: the body is still open.
        let envelope = sse.event().json();
        assert_eq!(envelope["channel"], channel);
        assert_eq!(envelope["data"], format!("token {round}"));
    }
    let summary = publisher.finish();
    assert_eq!(summary.status, 200);
    let expected = json!({"published": 20, "first_id": server.id(1), "last_id": server.id(20)});
    assert_eq!(summary.json(), expected);
}

#[test]
fn all_kinds_of_data_types_and_keys() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=c&envelope=json");
    let body = concat!(
        r#"{"channel":"c","data":"text","event":"typed"}"#,
        "\n",
        r#"{"channel":"c","data":{"json":[1,2.50]}}"#,
        "\r\n",
        r#"{"channel":"c","data":null}"#,
        "\n",
        r#"{"data_base64":"/wA=","channel":"c"}"#,
        "\n",
        r#"{"channel":"c","data":"keyed","key":"k"}"#,
        "\n",
        r#"{"channel":"c","data":"repeated","key":"k"}"#,
        "\n",
        r#"{"channel":"c","data":"\u0041\n\ud83d\ude00"}"#,
        "\n",
    );
    let response = fetch(server.addr, "POST", "/publish", &[], Some(body.as_bytes()));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["published"], 7);
    assert_eq!(response.json()["last_id"], server.id(6), "a repeat is not an event");
    let events: Vec<_> = sse.events(6).into_iter().map(|event| event.json()).collect();
    assert_eq!(events[0]["event"], "typed");
    assert_eq!(events[0]["data"], "text");
    assert_eq!(events[1]["data"], json!({"json": [1, 2.5]}));
    assert_eq!(events[2]["data"], json!(null));
    assert_eq!(events[3]["data_base64"], "/wA=");
    assert_eq!(events[4]["data"], "keyed");
    assert_eq!(events[5]["data"], "A\n\u{1f600}");
}

#[test]
fn a_last_line_needs_no_newline_and_blank_lines_are_nothing() {
    let server = TestServer::start();
    let text = format!("\n\r\n{}   \n\n{}", line("c", "1"), line("c", "2").trim_end());
    let response = fetch(server.addr, "POST", "/publish", &[], Some(text.as_bytes()));
    assert_eq!(response.json()["published"], 2);
    let mut chunked = Chunked::open(server.addr, "/publish", &[]);
    for byte in text.as_bytes() {
        chunked.chunk([*byte]);
    }
    assert_eq!(chunked.finish().json()["published"], 2);
    assert_eq!(describe(server.addr, "c")["events"], 4);
}

#[test]
fn no_lines_at_all_are_fine() {
    let server = TestServer::start();
    let none = json!({"published": 0, "first_id": null, "last_id": null});
    for body in ["", "\n", "\r\n\n  \n"] {
        let response = fetch(server.addr, "POST", "/publish", &[], Some(body.as_bytes()));
        assert_eq!(response.status, 200);
        assert_eq!(response.json(), none);
    }
    assert_eq!(Chunked::open(server.addr, "/publish", &[]).finish().json(), none);
}

#[test]
fn a_bad_line_names_itself_and_what_was_published() {
    let server = TestServer::start();
    let bad_lines = [
        ("{\"channel\":\"c\"", "bad_json"),
        ("[]", "bad_json"),
        ("garbage", "bad_json"),
        ("{}", "bad_channel"),
        ("{\"channel\":\"c\"}", "bad_data"),
        ("{\"channel\":\"c\",\"data\":1,\"data_base64\":\"\"}", "bad_data"),
        ("{\"channel\":\"c\",\"data_base64\":\"*\"}", "bad_base64"),
        ("{\"channel\":\"c\",\"data\":1,\"event\":\"pushline.gap\"}", "reserved_event_type"),
        ("{\"channel\":\"c\",\"data\":1,\"event\":\"a\\nb\"}", "bad_event_type"),
        ("{\"channel\":\"c\",\"data\":1,\"key\":\"\"}", "bad_key"),
        ("{\"channel\":\"c\",\"data\":1,\"channel\":\"d\"}", "bad_json"),
        ("{\"channel\":\"a/b\",\"data\":1}", "channel_name_invalid"),
        ("{\"channel\":7,\"data\":1}", "bad_json"),
    ];
    for (number, (bad, code)) in bad_lines.into_iter().enumerate() {
        let body = format!("{}\n{}{bad}\n{}", line("c", "1"), line("c", "2"), line("c", "never"));
        let response = fetch(server.addr, "POST", "/publish", &[], Some(body.as_bytes()));
        assert_eq!(response.status, 400, "{bad}");
        let json = response.json();
        assert_eq!(json["error"]["code"], code, "{bad}");
        assert_eq!(json["line"], 4, "{bad}: {json}");
        assert_eq!(json["published"], 2, "{bad}: {json}");
        let seq = number as u64 * 2 + 1;
        assert_eq!(json["first_id"], server.id(seq), "{bad}");
        assert_eq!(json["last_id"], server.id(seq + 1), "{bad}");
    }
}

#[test]
fn line_numbers_count_blank_lines_however_the_body_arrives() {
    let server = TestServer::start();
    for blank in ["", "\n", "\n\n", "\r\n\n", " \n\n\n"] {
        let number = blank.matches('\n').count() as u64 + 1;
        let body = format!("{blank}garbage");
        let whole = fetch(server.addr, "POST", "/publish", &[], Some(body.as_bytes()));
        assert_eq!(whole.json()["line"], number, "{body:?} whole");
        let mut chunked = Chunked::open(server.addr, "/publish", &[]);
        for byte in body.as_bytes() {
            chunked.chunk([*byte]);
        }
        assert_eq!(chunked.finish().json()["line"], number, "{body:?} byte by byte");
    }
}

#[test]
fn a_bad_line_is_answered_while_the_body_is_still_open() {
    let server = TestServer::start();
    let mut publisher = Chunked::open(server.addr, "/publish", &[]);
    publisher.chunk(line("c", "1"));
    publisher.chunk("garbage\n");
    let response = publisher.conn.response();
    assert_eq!(response.status, 400);
    assert_eq!(response.json()["published"], 1);
    assert_eq!(response.header("connection"), Some("close"));
    publisher.conn.expect_end();
}

#[test]
fn expectations_are_met_before_the_first_line() {
    let server = TestServer::start();
    for target in ["/publish", "/channels/c"] {
        let mut publisher = Chunked::open(server.addr, target, &[("Expect", "100-continue")]);
        let interim = publisher.conn.response();
        assert_eq!(interim.status, 100, "{target}");
        publisher.chunk(line("c", "1"));
        assert_eq!(publisher.finish().status, 200, "{target}");
    }
    // A refusal comes before the body is sent.
    let headers = [("Expect", "100-continue"), ("Content-Type", "image/png")];
    let mut refused = Chunked::open(server.addr, "/channels/c", &headers);
    assert_eq!(refused.conn.response().status, 415);
}

#[test]
fn a_line_may_be_as_long_as_an_event_and_what_names_it() {
    let server = TestServer::start();
    let (fits, too_large) = ("x".repeat(64 << 10), "x".repeat((64 << 10) + 1));
    let response = fetch(server.addr, "POST", "/publish", &[], Some(line("c", &fits).as_bytes()));
    assert_eq!(response.status, 200, "{}", response.text());
    let body = line("c", "small") + &line("c", &too_large);
    let response = fetch(server.addr, "POST", "/publish", &[], Some(body.as_bytes()));
    assert_eq!(response.status, 413, "{}", response.text());
    assert_eq!(response.json()["line"], 2);
    assert_eq!(response.json()["published"], 1);
    // As Python's encoder writes what is not ASCII.
    let escaped = format!("{{\"channel\":\"c\",\"data\":\"{}\"}}\n", "\\u00e9".repeat(32 << 10));
    let response = fetch(server.addr, "POST", "/publish", &[], Some(escaped.as_bytes()));
    assert_eq!(response.status, 200, "{}", response.text());
    // A line without end is refused long before it would fill memory.
    let mut publisher = Chunked::open(server.addr, "/publish", &[]);
    publisher.chunk(line("c", "small"));
    for _ in 0..4 {
        publisher.chunk("y".repeat(60 << 10));
    }
    let response = publisher.conn.response();
    assert_eq!(response.status, 413);
    assert_eq!(response.json()["line"], 2);
}

#[test]
fn many_lines_at_once_keep_their_order_and_the_connection_goes_on() {
    let server = TestServer::with(|settings| settings.channel_default.history_count = 10_000);
    let mut sse = Sse::open(server.addr, "channel=c");
    let body: String = (0..5000).map(|n| line("c", &n.to_string())).collect();
    let mut conn = Conn::open(server.addr);
    for round in 0..2 {
        conn.send(request("POST", "/publish", &[], Some(body.as_bytes())));
        let json = conn.response().json();
        assert_eq!(json["published"], 5000);
        assert_eq!(json["first_id"], server.id(round * 5000 + 1));
        assert_eq!(json["last_id"], server.id(round * 5000 + 5000));
        for n in 0..5000 {
            let event = sse.event();
            assert_eq!(event.data, n.to_string());
            assert_eq!(event.id, server.id(round * 5000 + n + 1));
        }
    }
}

/// What was published before the publisher broke off stays published; the half line does not.
#[test]
fn a_publisher_that_breaks_off_has_published_its_whole_lines() {
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=c");
    let mut publisher = Chunked::open(server.addr, "/publish", &[]);
    publisher.chunk(line("c", "whole"));
    publisher.chunk("{\"channel\":\"c\",\"data\":\"half");
    assert_eq!(sse.event().data, "whole");
    drop(publisher);
    publish(server.addr, "c", "next");
    assert_eq!(sse.event().data, "next");
}

/// The rate is a setting per channel; the first line above it is named.
#[test]
fn a_refused_line_is_named_too() {
    let server = TestServer::with(|settings| {
        let mut limited = settings.channel_default.clone();
        limited.publish_rate = Some(1);
        let pattern = pushline::proto::name::Pattern::parse("slow").expect("a pattern");
        settings.channels = vec![(pattern, limited)];
    });
    // However many the rate lets through at once, it is fewer than this.
    let body: String = (0..50).map(|_| format!("\n{}\n", line("slow", "x"))).collect();
    let body = body + "garbage\n";
    let response = fetch(server.addr, "POST", "/publish", &[], Some(body.as_bytes()));
    assert_eq!(response.status, 429, "{}", response.text());
    let json = response.json();
    let published = json["published"].as_u64().expect("a number");
    assert_eq!(json["line"], published * 3 + 2, "{json}");
}

#[test]
fn a_line_that_has_begun_must_go_on() {
    let server = TestServer::with(|settings| settings.body_time = Duration::from_millis(300));
    let mut publisher = Chunked::open(server.addr, "/publish", &[]);
    publisher.chunk(line("c", "whole"));
    publisher.chunk("{\"channel\":");
    let response = publisher.conn.response();
    assert_eq!((response.status, response.error_code()), (408, "body_timeout".to_owned()));
    assert_eq!((&response.json()["published"], &response.json()["line"]), (&json!(1), &json!(2)));
    publisher.conn.expect_end();
}

/// Between lines a publisher may pause as long as between requests, and no longer: one that
/// silently vanished would otherwise stay for ever.
#[test]
fn a_body_may_rest_between_lines_for_as_long_as_a_connection_may_be_idle() {
    let server = TestServer::with(|settings| {
        settings.body_time = Duration::from_millis(200);
        settings.idle_time = Duration::from_secs(6);
    });
    let mut publisher = Chunked::open(server.addr, "/publish", &[]);
    publisher.chunk(line("c", "1"));
    assert!(publisher.conn.is_silent_for(Duration::from_millis(600)), "longer than within a line");
    publisher.chunk(line("c", "2"));
    let response = publisher.conn.response();
    assert_eq!((response.status, response.error_code()), (408, "body_timeout".to_owned()));
    assert_eq!(response.json()["published"], 2);
    let mut silent = Chunked::open(server.addr, "/publish", &[]);
    assert_eq!(silent.conn.response().status, 408);
}

#[test]
fn a_line_may_publish_to_many_channels() {
    const LINES: usize = 30;
    let server = TestServer::start();
    let mut sse = Sse::open(server.addr, "channel=c0&channel=c99");
    let names: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
    let line = |number: usize| {
        format!(
            "{}\n",
            json!({"channels": names, "data": number.to_string(), "key": number.to_string()})
        )
    };
    // More at once than goes to the log at once.
    let lines: String = (0..LINES).map(line).collect();
    let summary = fetch(server.addr, "POST", "/publish", &[], Some(lines.as_bytes())).json();
    let all = LINES * 100;
    let expected =
        json!({"published": all, "first_id": server.id(1), "last_id": server.id(all as u64)});
    assert_eq!(summary, expected);
    for number in 0..LINES {
        for channel in ["c0", "c99"] {
            let event = sse.event().json();
            assert_eq!(event["channel"], channel);
            assert_eq!(event["data"], number.to_string());
        }
    }
    // Each channel knows its keys: a line that is sent again is no event in any.
    fetch(server.addr, "POST", "/publish", &[], Some(line(7).as_bytes()));
    assert_eq!(describe(server.addr, "c50")["last_id"], server.id(all as u64 - 49));
}

#[test]
fn a_line_with_a_channel_that_is_not_allowed_publishes_to_none() {
    let auth = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]\nexpiry = \"optional\"\n";
    let server = TestServer::guarded(auth, |_| {});
    let rights = json!({"pushline": {"publish": ["a", "b"], "subscribe": ["*"]}});
    let bearer = format!("Bearer {}", bearer_token(&rights));
    let headers = [("Authorization", &*bearer)];
    let body = format!(
        "{}\n{}",
        json!({"channels": ["a", "b"], "data": "1"}),
        json!({"channels": ["a", "b", "c"], "data": "2"})
    );
    let response = fetch(server.addr, "POST", "/publish", &headers, Some(body.as_bytes()));
    assert_eq!(response.status, 403);
    let told = response.json();
    assert_eq!((&told["line"], &told["published"]), (&json!(2), &json!(2)));
    let history = fetch(server.addr, "GET", "/channels/a/events", &headers, None).json();
    assert_eq!(history["events"].as_array().map(Vec::len), Some(1));
}
