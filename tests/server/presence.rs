//! Who is on a channel: by a list, by events, and for a client that was away.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use pushline::config::Settings;
use pushline::proto::name::Pattern;
use serde_json::{Value, json};

use crate::common::ws::Ws;
use crate::common::{Conn, Response, Sse, TestServer, await_that, bearer_token, request, seq_of};

const AUTH: &str = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]\nexpiry = \"optional\"\n\
                    [anonymous]\nsubscribe = [\"*\"]\n";

/// `room` has presence without a grace.
fn server() -> TestServer {
    TestServer::guarded(AUTH, |settings| {
        with_presence(settings);
        settings.presence_grace = Duration::ZERO;
    })
}

fn with_presence(settings: &mut Settings) {
    let mut rule = settings.channel_default.clone();
    rule.presence = true;
    settings.channels.push((Pattern::parse("room").expect("a pattern"), rule));
}

fn bearer(subject: &str) -> String {
    let rights = json!({"subscribe": ["room", "other"], "info": {"name": subject}});
    format!("Bearer {}", bearer_token(&json!({"sub": subject, "pushline": rights})))
}

fn sse(addr: SocketAddr, query: &str, subject: &str) -> Sse {
    let mut sse = Sse::open_with(addr, query, &[("Authorization", &bearer(subject))]);
    assert_eq!(sse.event().event, "pushline.open");
    sse
}

fn get(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut conn = Conn::open(addr);
    conn.send(request("GET", target, headers, None));
    conn.response()
}

fn list(addr: SocketAddr) -> Value {
    get(addr, "/channels/room/presence", &[]).json()
}

fn subjects(list: &Value) -> BTreeSet<String> {
    let members = list["members"].as_array().expect("a list").iter();
    members.map(|of| of["subject"].as_str().expect("text").to_owned()).collect()
}

fn await_members(addr: SocketAddr, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&of| of.to_owned()).collect();
    await_that("these are there", || subjects(&list(addr)) == expected);
}

/// Applies what the stream tells until the members are those.
fn follow(stream: &mut Sse, members: &mut BTreeSet<String>, until: &[&str]) {
    while *members != until.iter().map(|&of| of.to_owned()).collect() {
        let event = stream.event();
        if event.event == "pushline.open" {
            continue;
        }
        assert_eq!(event.event, "pushline.presence", "{event:?}");
        let data = event.json();
        if data["reset"] == true {
            members.clear();
        }
        for member in data["join"].as_array().expect("a list") {
            let subject = member["subject"].as_str().expect("text").to_owned();
            assert_eq!(member["info"], json!({"name": subject}));
            members.insert(subject);
        }
        for subject in data["leave"].as_array().expect("a list") {
            members.remove(subject.as_str().expect("text"));
        }
    }
}

#[test]
fn members_are_subjects_and_come_and_go_as_events() {
    let server = server();
    let mut looker = Sse::open_with(server.addr, "channel=room", &[]);
    assert_eq!(list(server.addr)["count"], 0, "one without a token is no member");
    let mut told = BTreeSet::new();

    let jane = sse(server.addr, "channel=room", "jane");
    let authorization = bearer("jane");
    let headers = [("Authorization", authorization.as_str())];
    let jane_again = Ws::open(server.addr, "channel=other", Some("pushline.v1"), &headers);
    let mut jane_again = jane_again;
    jane_again.op(&json!({"op": "subscribe", "channel": "room", "ref": 1}));
    assert_eq!(jane_again.json()["ok"], true);
    let john = sse(server.addr, "channel=room&channel=other&envelope=none", "john");
    follow(&mut looker, &mut told, &["jane", "john"]);
    let found = list(server.addr);
    assert_eq!((subjects(&found), &found["count"]), (told.clone(), &json!(2)));
    assert_eq!(found["channel"], "room");
    let jane_listed = json!({"subject": "jane", "info": {"name": "jane"}});
    assert!(found["members"].as_array().expect("a list").contains(&jane_listed), "{found}");
    assert!(seq_of(found["id"].as_str().expect("an id")) >= seq_of(&looker.last_id));

    // One of two connections of hers.
    drop(jane);
    drop(john);
    follow(&mut looker, &mut told, &["jane"]);
    jane_again.op(&json!({"op": "unsubscribe", "channel": "room"}));
    follow(&mut looker, &mut told, &[]);
    assert_eq!(list(server.addr)["count"], 0);
}

#[test]
fn one_that_was_away_has_exact_membership_by_its_cursor() {
    let server = server();
    let _jane = sse(server.addr, "channel=room", "jane");
    let john = sse(server.addr, "channel=room", "john");
    await_members(server.addr, &["jane", "john"]);
    let found = list(server.addr);
    let (mut members, cursor) = (subjects(&found), found["id"].as_str().expect("an id").to_owned());
    drop(john);
    await_members(server.addr, &["jane"]);
    let _jack = sse(server.addr, "channel=room", "jack");
    let mut resumed = Sse::resume(server.addr, "channel=room", &cursor);
    follow(&mut resumed, &mut members, &["jane", "jack"]);
}

#[test]
fn a_connection_that_comes_back_within_the_grace_never_left() {
    let server = TestServer::guarded(AUTH, |settings| {
        with_presence(settings);
        settings.presence_grace = Duration::from_secs(600);
    });
    let mut looker = Sse::open_with(server.addr, "channel=room", &[]);
    let jane = sse(server.addr, "channel=room", "jane");
    follow(&mut looker, &mut BTreeSet::new(), &["jane"]);
    drop(jane);
    await_that("she has left", || {
        let channel = get(server.addr, "/channels/room", &[]).json();
        channel["subscribers"] == 1
    });
    assert_eq!(subjects(&list(server.addr)).len(), 1);
    let _jane = sse(server.addr, "channel=room", "jane");
    let _john = sse(server.addr, "channel=room", "john");
    let mut told = BTreeSet::from(["jane".to_owned()]);
    follow(&mut looker, &mut told, &["jane", "john"]);
}

#[test]
fn a_list_needs_the_right_to_subscribe_and_a_rule() {
    let auth = AUTH.split("[anonymous]").next().expect("a part");
    let server = TestServer::guarded(auth, with_presence);
    let target = "/channels/room/presence";
    assert_eq!(get(server.addr, target, &[]).status, 401);
    let foreign = json!({"sub": "eve", "pushline": {"subscribe": ["elsewhere"]}});
    let foreign = format!("Bearer {}", bearer_token(&foreign));
    let refused = get(server.addr, target, &[("Authorization", &foreign)]);
    assert_eq!((refused.status, refused.error_code()), (403, "subscribe_forbidden".to_owned()));
    let jane = bearer("jane");
    let headers = [("Authorization", jane.as_str())];
    let off = get(server.addr, "/channels/other/presence", &headers);
    assert_eq!((off.status, off.error_code()), (404, "presence_off".to_owned()));

    let mut ws = Ws::open(server.addr, "channel=other", Some("pushline.v1"), &headers);
    ws.op(&json!({"op": "presence", "channel": "room", "ref": 1}));
    let answer = ws.json();
    assert_eq!(
        (&answer["ref"], &answer["ok"], &answer["count"]),
        (&json!(1), &json!(true), &json!(0))
    );
    assert_eq!((&answer["channel"], &answer["members"]), (&json!("room"), &json!([])));
    ws.op(&json!({"op": "presence", "channel": "elsewhere", "ref": 2}));
    assert_eq!(ws.json()["error"]["code"], "subscribe_forbidden");
    ws.op(&json!({"op": "presence", "channel": "other", "ref": 3}));
    assert_eq!(ws.json()["error"]["code"], "presence_off");
}

/// Over a journal ids go on, so clients resume; but only the process that ended knew the members.
#[test]
fn after_a_restart_over_a_journal_what_was_told_is_taken_back_and_told_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let start = || {
        TestServer::guarded(AUTH, |settings| {
            with_presence(settings);
            settings.data_dir = Some(dir.path().to_owned());
            settings.presence_grace = Duration::ZERO;
        })
    };
    let server = start();
    let jane = sse(server.addr, "channel=room", "jane");
    let mut members = BTreeSet::new();
    let mut looker = Sse::resume(server.addr, "channel=room", "earliest");
    follow(&mut looker, &mut members, &["jane"]);
    let cursor = looker.last_id.clone();
    drop((jane, looker));
    server.drain();
    let server = start();
    // No member has to come for it.
    let mut resumed = Sse::resume(server.addr, "channel=room", &cursor);
    follow(&mut resumed, &mut members, &[]);
    let _john = sse(server.addr, "channel=room", "john");
    follow(&mut resumed, &mut members, &["john"]);
    assert_eq!(subjects(&list(server.addr)), members);
}

/// Presence can be tried without keys.
#[test]
fn a_server_without_keys_takes_a_tokens_word() {
    let server = TestServer::with(with_presence);
    let _jane = Sse::open_with(server.addr, "channel=room", &[("Authorization", &bearer("jane"))]);
    await_members(server.addr, &["jane"]);
    for broken in ["Bearer nonsense", "Bearer .e30.", "Bearer a.!.b"] {
        Sse::open_with(server.addr, "channel=room", &[("Authorization", broken)]);
    }
    assert_eq!(subjects(&list(server.addr)).len(), 1);
}
