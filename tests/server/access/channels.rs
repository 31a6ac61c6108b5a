//! Which channel is meant, and whether it is covered: patterns match what they say, and no other
//! spelling of a name gets around them.

use super::*;
use crate::common::ws::{RawWs, TEXT, frame};
use crate::common::{Conn, fetch};

/// Whether the token reads the channel: tried in every way there is, all of which must agree.
fn reads(server: &TestServer, token: &str, channel: &str) -> bool {
    let query = format!("/sse?channel={channel}");
    let authorization = bearer(token);
    let headers = [("Authorization", authorization.as_str())];
    let mut conn = Conn::open(server.addr);
    conn.send(crate::common::request("GET", &query, &headers, None));
    let over_sse = conn.response_head().status == 200;
    let described = get_with(server.addr, &format!("/channels/{channel}"), token).status == 200;
    let op = json!({"op": "subscribe", "channel": channel, "ref": "r"}).to_string();
    let entry = format!("pushline.v1, bearer.{token}");
    let mut ws =
        RawWs::over(Conn::open(server.addr), "", &[("Sec-WebSocket-Protocol", entry.as_str())]);
    ws.send(frame(true, TEXT, op.as_bytes()));
    let answer: Value = serde_json::from_slice(&ws.answer().payload).expect("JSON");
    let over_ws = answer["ok"] == true;
    assert_eq!((over_sse, described, over_ws), (over_sse, over_sse, over_sse), "{channel}");
    over_sse
}

fn writes(server: &TestServer, token: &str, channel: &str) -> bool {
    let authorization = bearer(token);
    let headers = [("Authorization", authorization.as_str())];
    let (status, code) = publish_with(server.addr, &format!("/channels/{channel}"), &headers);
    assert!(status == 200 || code == "publish_forbidden", "{channel}: {status} {code}");
    status == 200
}

#[test]
fn a_pattern_covers_what_is_below_its_colon_and_nothing_else() {
    let server = server();
    for (pattern, covered, not_covered) in [
        (
            "user:4:*",
            &["user:4:x", "user:4:x:y"][..],
            &["user:42:x", "user:4", "user:4x", "xuser:4:x"][..],
        ),
        ("news", &["news"], &["news:x", "newsx", "new", "NEWS", "News"]),
        ("a:*", &["a:b", "a:b:c"], &["a", "a:", "b:a:b", "A:b"]),
        ("*", &["anything:at:all"], &[]),
    ] {
        let token = token(&[pattern], &[pattern]);
        for channel in covered {
            assert!(reads(&server, &token, channel), "{pattern} covers {channel}");
            assert!(writes(&server, &token, channel), "{pattern} covers {channel}");
        }
        for channel in not_covered {
            assert!(!reads(&server, &token, channel), "{pattern} does not cover {channel}");
            assert!(!writes(&server, &token, channel), "{pattern} does not cover {channel}");
        }
    }
}

/// A star anywhere else is not a pattern, and a token that has one is refused.
#[test]
fn a_pattern_that_could_over_match_spoils_the_token() {
    let server = server();
    for pattern in ["user:*:inbox", "user*", "*:x", "user:4*", "**", "user:**", "", "a b", "a:%2a"]
    {
        for token in [token(&[pattern], &[]), token(&["news"], &["news", pattern])] {
            let response = get_with(server.addr, "/channels/news", &token);
            assert_eq!(outcome(&response), refused(401, "token_pattern"), "{pattern:?}");
        }
    }
}

/// The name that is checked is the one that is used: decoded once, and nothing is resolved away.
#[test]
fn no_spelling_of_a_name_gets_around_its_check() {
    let server = server();
    let own = token(&["user:4:*"], &["user:4:*"]);
    let authorization = bearer(&own);
    let headers = [("Authorization", authorization.as_str())];
    let tries = [
        ("user%3A42%3Ax", 403, "publish_forbidden"),
        ("%75ser:42:x", 403, "publish_forbidden"),
        ("user:4:%2e%2e%2Fuser:42:x", 400, "channel_name_invalid"),
        ("user:4:..%2fuser:42:x", 400, "channel_name_invalid"),
        ("user:4:%252e", 400, "channel_name_invalid"),
        ("user:4:%00", 400, "channel_name_invalid"),
        ("user:4:x%0d%0aA:b", 400, "channel_name_invalid"),
        ("user:4:x%20", 400, "channel_name_invalid"),
        ("user:4:%C4%B0", 400, "channel_name_invalid"),
        ("..", 400, "channel_name_invalid"),
        ("%2e%2e", 400, "channel_name_invalid"),
        (".", 400, "channel_name_invalid"),
        ("USER:4:x", 403, "publish_forbidden"),
    ];
    for (segment, status, code) in tries {
        let answer = publish_with(server.addr, &format!("/channels/{segment}"), &headers);
        assert_eq!(answer, refused(status, code), "{segment}");
        let code = code.replace("publish", "subscribe");
        let read = get_with(server.addr, &format!("/sse?channel={segment}"), &own);
        assert_eq!(outcome(&read), refused(status, &code), "{segment}");
        let described = get_with(server.addr, &format!("/channels/{segment}"), &own);
        assert_eq!(outcome(&described), refused(status, &code), "{segment}");
    }
    // Paths are not resolved either: a dot segment does not lead to another path.
    for path in ["/channels/user:4:x/../user:42:x", "/channels/./user:42:x", "//channels/user:42:x"]
    {
        assert_eq!(publish_with(server.addr, path, &headers), refused(404, "not_found"), "{path}");
    }
}

/// An encoded name of a permitted channel means that channel, not a second one beside it.
#[test]
fn an_encoded_name_is_the_same_channel() {
    let server = server();
    let own = token(&["user:4:*"], &["user:4:*"]);
    let (mut sse, _) = stream(server.addr, "channel=user%3A4%3Ainbox", &own);
    let target = "/channels/%75ser:4:inbo%78";
    let authorization = bearer(&own);
    let response =
        fetch(server.addr, "POST", target, &[("Authorization", &authorization)], Some(b"one"));
    assert_eq!(response.json()["channel"], "user:4:inbox");
    assert_eq!(sse.event().data, "one");
}
