//! Several servers with one log: a broker's stream. `scripts/cluster` does the same with thousands of
//! clients and brokers that die.

mod presence;
mod redis;
mod states;
mod streams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::identity::Identity;
use crate::common::nats::Nats;
use crate::common::redis::Redis;
use crate::common::{
    Conn, Sse, TestServer, await_that, bearer_token, fetch, metric, publish, publish_answer,
    request, seq_of,
};

fn node(nats: &Nats) -> TestServer {
    TestServer::with(|settings| settings.cluster.nats = vec![nats.url()])
}

fn publish_keyed(addr: SocketAddr, key: &str) -> Value {
    let answer = fetch(addr, "POST", "/channels/keyed", &[("Idempotency-Key", key)], Some(b"x"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn an_event_is_seen_on_every_node_under_one_id_and_any_node_resumes_any_client() {
    let Some(nats) = Nats::start() else { return };
    let (here, there) = (node(&nats), node(&nats));
    assert_eq!(here.epoch(), there.epoch());
    let mut stream = Sse::open(there.addr, "channel=a.b&channel=$c:1");
    let ids = ["one", "two", "three"].map(|data| publish(here.addr, "a.b", data));
    for (id, data) in ids.iter().zip(["one", "two", "three"]) {
        let event = stream.event();
        assert_eq!((&event.id, &event.json()["data"]), (id, &data.into()));
    }
    // From the other node back to the first, with nothing but a cursor.
    let mut resumed = Sse::resume(here.addr, "channel=a.b", &ids[0]);
    assert_eq!(resumed.events(2).into_iter().map(|event| event.id).collect::<Vec<_>>(), ids[1..]);
    // A node that starts later has what was before.
    let late = node(&nats);
    let mut resumed = Sse::resume(late.addr, "channel=a.b&channel=$c:1", &ids[0]);
    assert_eq!(resumed.events(2).into_iter().map(|event| event.id).collect::<Vec<_>>(), ids[1..]);
    let id = publish(late.addr, "$c:1", "four");
    for stream in [&mut stream, &mut resumed] {
        assert_eq!(stream.event().id, id);
    }
}

#[test]
fn what_an_event_is_survives_the_way_to_other_nodes() {
    let Some(nats) = Nats::start() else { return };
    let (here, there) = (node(&nats), node(&nats));
    let mut stream = Sse::open(there.addr, "channel=a&envelope=json");
    let headers = [("Content-Type", "application/json"), ("Event-Type", "ping ü")];
    let json = fetch(here.addr, "POST", "/channels/a", &headers, Some(b"{\"n\":1}"));
    assert_eq!(json.status, 200, "{}", json.text());
    let event = stream.event().json();
    assert_eq!((&event["event"], &event["data"]["n"]), (&"ping ü".into(), &1.into()));
    let headers = [("Content-Type", "application/octet-stream")];
    let binary = fetch(here.addr, "POST", "/channels/a", &headers, Some(&[0xff, 0]));
    assert_eq!(binary.status, 200, "{}", binary.text());
    assert_eq!(stream.event().json()["data_base64"], "/wA=");
    // Anyone may publish by NATS itself.
    let ack = nats.ask("PUSHLINE.ev.a", "by hand");
    let ack: Value = serde_json::from_str(&ack).expect("JSON");
    let event = stream.event().json();
    assert_eq!(event["data"], "by hand");
    assert_eq!(seq_of(event["id"].as_str().expect("an id")), ack["seq"].as_u64().expect("a seq"));
}

#[test]
fn a_key_is_known_on_every_node() {
    let Some(nats) = Nats::start() else { return };
    let (here, there) = (node(&nats), node(&nats));
    let first = publish_keyed(here.addr, "k");
    assert_eq!(publish_keyed(there.addr, "k")["id"], first["id"]);
    assert_ne!(publish_keyed(there.addr, "other")["id"], first["id"]);
    // A node without its history asks the broker.
    let forgetful = TestServer::with(|settings| {
        settings.cluster.nats = vec![nats.url()];
        settings.channel_default.history_count = 0;
    });
    assert_eq!(publish_keyed(forgetful.addr, "k")["id"], first["id"]);
}

#[test]
fn while_the_broker_is_away_publishes_are_refused_and_then_all_goes_on_where_it_was() {
    let Some(mut nats) = Nats::start() else { return };
    let (here, there) = (node(&nats), node(&nats));
    let mut stream = Sse::open(there.addr, "channel=a");
    let first = publish(here.addr, "a", "one");
    assert_eq!(stream.event().id, first);
    nats.kill();
    await_that("the node knows", || metric(here.admin, "pushline_log_up") == 0);
    let refused = fetch(here.addr, "POST", "/channels/a", &[], Some(b"lost"));
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    // A reader may come and go meanwhile.
    let mut resumed = Sse::resume(there.addr, "channel=a", "earliest");
    assert_eq!(resumed.event().id, first);
    nats.begin();
    for server in [&here, &there] {
        await_that("the node is back", || metric(server.admin, "pushline_log_up") == 1);
    }
    let second = publish(here.addr, "a", "two");
    assert_eq!(seq_of(&second), seq_of(&first) + 1);
    for stream in [&mut stream, &mut resumed] {
        assert_eq!(stream.event().id, second);
    }
    assert_eq!(metric(there.admin, "pushline_cluster_up"), 1);
}

#[test]
fn an_event_that_gets_lost_on_its_way_to_a_node_comes_although_no_other_follows() {
    let Some(nats) = Nats::start() else { return };
    let way = nats.losing("lost on the way");
    let here = node(&nats);
    let there = TestServer::with(|settings| {
        settings.cluster.nats = vec![format!("nats://{}", way.addr)];
    });
    let mut stream = Sse::open(there.addr, "channel=a");
    let ids = ["one", "lost on the way"].map(|data| publish(here.addr, "a", data));
    assert_eq!(stream.events(2).into_iter().map(|event| event.id).collect::<Vec<_>>(), ids);
}

#[test]
fn an_event_that_the_broker_has_no_room_for_is_refused_and_the_connection_stays() {
    let Some(nats) = Nats::configured("max_payload: 4096") else { return };
    let server = node(&nats);
    let mut stream = Sse::open(server.addr, "channel=a");
    let large = "x".repeat(8192);
    let refused = fetch(server.addr, "POST", "/channels/a", &[], Some(large.as_bytes()));
    assert_eq!(refused.status, 503, "{}", refused.text());
    let id = publish(server.addr, "a", "small");
    assert_eq!(stream.event().id, id);
    assert_eq!(metric(server.admin, "pushline_cluster_openings_total"), 1);
}

#[test]
fn a_node_that_is_away_for_too_long_is_not_ready() {
    let Some(mut nats) = Nats::start() else { return };
    let server = TestServer::with(|settings| {
        settings.cluster.nats = vec![nats.url()];
        settings.cluster.unready_after = std::time::Duration::from_millis(1);
    });
    let readiness = || fetch(server.admin, "GET", "/readyz", &[], None);
    await_that("the node is ready", || readiness().status == 200);
    nats.kill();
    await_that("the node is not ready", || {
        let answer = readiness();
        answer.status == 503 && answer.text().contains("broker_away")
    });
    nats.begin();
    await_that("the node is ready again", || readiness().status == 200);
}

#[test]
fn a_stream_that_is_another_one_ends_the_log_and_the_next_start_has_its_epoch() {
    let Some(nats) = Nats::start() else { return };
    let server = node(&nats);
    let id = publish(server.addr, "a", "one");
    let deleted = nats.ask("$JS.API.STREAM.DELETE.PUSHLINE", "");
    assert!(deleted.contains("true"), "{deleted}");
    let created = nats.ask(
        "$JS.API.STREAM.CREATE.PUSHLINE",
        "{\"name\":\"PUSHLINE\",\"subjects\":[\"PUSHLINE.>\"],\"storage\":\"file\"}",
    );
    assert!(created.contains("created"), "{created}");
    let running = server.into_server();
    let lost = running.lost().recv_timeout(crate::common::PATIENCE).expect("it ends");
    assert!(lost.begins_again(), "{lost}");
    std::thread::spawn(move || running.stop()).join().expect("it stops");
    let server = node(&nats);
    assert_ne!(server.epoch(), id.split('-').next().expect("an epoch"));
    // The same place, another event: no client takes one for the other.
    let other = publish_answer(server.addr, "a", "another");
    assert_eq!(seq_of(other["id"].as_str().expect("an id")), seq_of(&id));
    let mut resumed = Sse::resume(server.addr, "channel=a&envelope=json", &id);
    let gap = resumed.event();
    assert_eq!(
        (gap.event.as_str(), &gap.json()["data"]["reason"]),
        ("pushline.gap", &"epoch".into())
    );
    assert_eq!(resumed.event().json()["data"], "another");
}

#[test]
fn a_subject_is_revoked_on_every_node_and_on_those_that_start_later() {
    let Some(nats) = Nats::start() else { return };
    let auth = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]";
    let guarded = || {
        TestServer::guarded(auth, |settings| {
            settings.cluster.nats = vec![nats.url()];
            settings.open = false;
        })
    };
    let (here, there) = (guarded(), guarded());
    let rights = json!({"subscribe": ["*"], "publish": ["*"]});
    let claims = json!({"exp": 4_000_000_000_u64, "iat": 1, "sub": "jane", "pushline": rights});
    let bearer = format!("Bearer {}", bearer_token(&claims));
    let status = |addr: SocketAddr| {
        let mut conn = Conn::open(addr);
        let headers = [("Authorization", bearer.as_str())];
        conn.send(request("GET", "/channels/news", &headers, None));
        conn.response().status
    };
    let mut stream = Sse::open_with(there.addr, "channel=news", &[("Authorization", &bearer)]);
    assert_eq!((status(here.addr), status(there.addr)), (200, 200));
    let revoked = fetch(here.admin, "DELETE", "/v1/subjects/jane", &[], None);
    assert_eq!(revoked.status, 204, "{}", revoked.text());
    while stream.next_event().is_some() {}
    assert_eq!((status(here.addr), status(there.addr)), (401, 401));
    assert_eq!(status(guarded().addr), 401);
}

#[test]
fn what_a_node_has_no_memory_for_is_read_from_the_stream() {
    let Some(nats) = Nats::start() else { return };
    is_read_from_the_stream(&nats);
}

#[test]
fn the_oldest_nats_is_asked_for_one_message_after_the_other() {
    let Some(nats) = Nats::oldest() else { return };
    is_read_from_the_stream(&nats);
}

fn is_read_from_the_stream(nats: &Nats) {
    const COUNT: usize = 3_000;
    let small = || {
        TestServer::with(|settings| {
            settings.cluster.nats = vec![nats.url()];
            settings.history_memory_bytes = 64 << 10;
            settings.channel_default.history_count = 5_000;
        })
    };
    let server = small();
    let quiet = publish(server.addr, "quiet", "long ago");
    let line = |number| format!("{{\"channel\":\"busy\",\"data\":\"{number}\"}}\n");
    let lines: String = (0..COUNT).map(line).collect();
    let answer = fetch(server.addr, "POST", "/publish", &[], Some(lines.as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    for server in [server, small()] {
        let mut busy = Sse::open(server.addr, "channel=busy&last_event_id=earliest");
        let mut both = Sse::resume(server.addr, "channel=quiet&channel=busy", &quiet);
        for number in 0..COUNT {
            assert_eq!(busy.event().data, number.to_string());
            assert_eq!(both.event().json()["data"], number.to_string());
        }
        let mut first = Sse::open(server.addr, "channel=quiet&last_event_id=earliest");
        assert_eq!(first.event().data, "long ago");
        publish(server.addr, "quiet", "now");
        assert_eq!(first.event().data, "now", "from the stream to live");
    }
}

/// Subscribers of one node, and of all, as the answer to a publish tells them.
fn counted(addr: SocketAddr) -> (Value, Value) {
    let headers = [("Publish-Count", "cluster")];
    let answer = fetch(addr, "POST", "/channels/a", &headers, Some(b"x"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.json()["subscribers"].clone(), answer.json()["cluster"].clone())
}

/// The nodes that a node knows, itself first.
fn known_nodes(server: &TestServer) -> Vec<Value> {
    let listed = fetch(server.admin, "GET", "/v1/nodes", &[], None).json();
    listed["nodes"].as_array().expect("a list").clone()
}

fn nodes_know_and_count_each_other(here: &TestServer, there: &TestServer) {
    for server in [here, there] {
        await_that("they know each other", || known_nodes(server).len() == 2);
    }
    let streams = [here, there, there].map(|server| Sse::open(server.addr, "channel=a"));
    assert_eq!(counted(here.addr), (1.into(), 3.into()));
    assert_eq!(counted(there.addr), (2.into(), 3.into()));
    await_that("they tell how many connections they have", || {
        known_nodes(here)[1]["connections"].as_u64() >= Some(2)
    });
    assert_eq!(publish_answer(here.addr, "a", "x")["cluster"], Value::Null, "only if asked");
    drop(streams);
}

/// Connections of all nodes to the channels `here..` and `there..`, by those, read at one node in pages
/// of two.
fn connections_of_all(server: &TestServer) -> BTreeMap<String, Value> {
    let (mut found, mut after) = (BTreeMap::new(), String::new());
    loop {
        let path = format!("/v1/connections?node=all&limit=2{after}");
        let page = fetch(server.admin, "GET", &path, &[], None).json();
        assert_eq!(page["silent"], json!([]), "{page}");
        for entry in page["connections"].as_array().expect("a list") {
            let channel = entry["channels"][0].as_str();
            if let Some(channel) = channel.filter(|name| name.contains("here")) {
                let before = found.insert(channel.to_owned(), entry.clone());
                assert!(before.is_none(), "twice: {entry}");
            }
        }
        let Some(next) = page["next"].as_str() else { return found };
        after = format!("&after={next}");
    }
}

fn connections_are_listed_and_cut_at_any_node(here: &TestServer, there: &TestServer) {
    for server in [here, there] {
        await_that("they know each other", || known_nodes(server).len() == 2);
    }
    let _here: Vec<Sse> =
        (0..3).map(|n| Sse::open(here.addr, &format!("channel=here{n}"))).collect();
    let mut over_there: Vec<Sse> =
        (0..3).map(|n| Sse::open(there.addr, &format!("channel=there{n}"))).collect();
    let all = connections_of_all(here);
    assert_eq!(
        all.keys().collect::<Vec<_>>(),
        ["here0", "here1", "here2", "there0", "there1", "there2"]
    );
    assert_eq!(
        connections_of_all(there).keys().collect::<Vec<_>>(),
        all.keys().collect::<Vec<_>>()
    );
    let name = known_nodes(there)[0]["node"].as_str().expect("a name").to_owned();
    let of_one = format!("/v1/connections?node={name}&limit=1000");
    let of_one = fetch(here.admin, "GET", &of_one, &[], None).json();
    let of_one = of_one["connections"].as_array().expect("a list").clone();
    assert!(of_one.iter().all(|entry| entry["node"] == name), "{of_one:?}");

    let id = all["there1"]["id"].as_str().expect("an id");
    assert!(id.starts_with(&name), "{id} begins with {name}");
    let cut = |id: &str| fetch(here.admin, "DELETE", &format!("/v1/connections/{id}"), &[], None);
    assert_eq!(cut(id).status, 204);
    while over_there[1].next_or_cut().is_some() {}
    let again = cut(id);
    assert_eq!((again.status, &*again.error_code()), (404, "no_such_connection"));
    let elsewhere = cut(&id.replace(&name, "00000000deadbeef"));
    assert_eq!((elsewhere.status, &*elsewhere.error_code()), (404, "no_such_node"));
    assert_eq!(cut("00000000deadbeef-x").status, 400);
    publish(here.addr, "there0", "still here");
    assert_eq!(over_there[0].event().data, "still here");
}

#[test]
fn connections_of_every_node_are_listed_and_cut_at_any_node() {
    let Some(nats) = Nats::start() else { return };
    connections_are_listed_and_cut_at_any_node(&node(&nats), &node(&nats));
}

#[test]
fn a_node_that_does_not_answer_an_operator_is_named() {
    let Some(nats) = Nats::start() else { return };
    let here = node(&nats);
    let mute = "00000000deadbeef";
    let says = json!({"is": "here", "node": mute, "version": "", "head": 0, "connections": 0, "behind_ms": 0});
    let mut conn = nats.connect();
    await_that("it is believed to be there", || {
        conn.publish("_pushline.PUSHLINE", "", &says.to_string());
        known_nodes(&here).len() == 2
    });
    let _stream = Sse::open(here.addr, "channel=a");
    let listed = fetch(here.admin, "GET", "/v1/connections?node=all", &[], None).json();
    assert_eq!(listed["silent"], json!([mute]), "{listed}");
    let entries = listed["connections"].as_array().expect("a list");
    assert!(entries.iter().any(|entry| entry["channels"][0] == "a"), "{listed}");
    conn.publish("_pushline.PUSHLINE", "", &says.to_string());
    let cut = fetch(here.admin, "DELETE", &format!("/v1/connections/{mute}-0-1-2"), &[], None);
    assert_eq!((cut.status, &*cut.error_code()), (503, "node_silent"));
}

#[test]
fn a_publisher_may_be_told_of_the_subscribers_of_all_nodes() {
    let Some(nats) = Nats::start() else { return };
    let (here, there) = (node(&nats), node(&nats));
    nodes_know_and_count_each_other(&here, &there);
    drop(there);
    await_that("who is gone is not counted", || known_nodes(&here).len() == 1);
    let (of_this_node, of_all) = counted(here.addr);
    assert_eq!(of_all, of_this_node);
}

#[test]
fn without_a_broker_there_is_this_node_only() {
    let server = TestServer::start();
    let _stream = Sse::open(server.addr, "channel=a");
    assert_eq!(counted(server.addr), (1.into(), 1.into()));
    assert_eq!(known_nodes(&server), Vec::<Value>::new());
    let headers = [("Publish-Count", "all")];
    let refused = fetch(server.addr, "POST", "/channels/a", &headers, Some(b"x"));
    assert_eq!((refused.status, &*refused.error_code()), (400, "bad_switch"));
}

#[test]
fn a_node_speaks_tls_with_its_broker_and_proves_who_it_is() {
    let identity = Identity::new(&["localhost"]);
    let Some(nats) = Nats::secured(&identity, "s3cret") else { return };
    let secured = || {
        TestServer::with(|settings| {
            settings.cluster.nats = vec![format!("tls://s3cret@localhost:{}", nats.port())];
            settings.cluster.ca = Some(identity.certificate_file());
        })
    };
    let (here, there) = (secured(), secured());
    let mut stream = Sse::open(there.addr, "channel=a");
    // More than a record holds, both ways.
    let data = "sealed ".repeat(9_000);
    let id = publish(here.addr, "a", &data);
    let event = stream.event();
    assert_eq!((event.id, event.data), (id, data));
}

/// Two nodes that know who they are by this file.
fn nodes_with(nats: &Nats, credentials: &Path) -> [TestServer; 2] {
    [(); 2].map(|()| {
        TestServer::with(|settings| {
            settings.cluster.nats = vec![nats.url()];
            settings.cluster.credentials = Some(credentials.to_owned());
        })
    })
}

fn events_go_from_node_to_node([here, there]: &[TestServer; 2]) {
    let mut stream = Sse::open(there.addr, "channel=a");
    let id = publish(here.addr, "a", "signed");
    assert_eq!(stream.event().id, id);
}

#[test]
fn a_node_signs_with_the_key_that_a_creds_file_has() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nats");
    let operator = std::fs::read_to_string(files.join("nats.conf")).expect("a fixture");
    let Some(nats) = Nats::configured(&operator) else { return };
    events_go_from_node_to_node(&nodes_with(&nats, &files.join("user.creds")));
}

#[test]
fn a_node_signs_with_an_nkey() {
    // The public key of this seed; both were made for tests.
    let user = "UAHBPZQJWVT762GBLPTKNDMKN26PXZGKT2RA3GTZUY4GO5ZKK5423IJY";
    let users = format!("authorization {{ users = [ {{ nkey: {user} }} ] }}");
    let Some(nats) = Nats::configured(&users) else { return };
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nats/user.nk");
    events_go_from_node_to_node(&nodes_with(&nats, &seed));
}

#[test]
fn a_broker_is_examined_before_one_relies_on_it() {
    let Some(nats) = Nats::start() else { return };
    drop(node(&nats));
    let doctor = std::process::Command::new(env!("CARGO_BIN_EXE_pushline"))
        .args(["doctor", "--cluster", &format!("{},nats://127.0.0.1:1", nats.url())])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert_eq!(doctor.status.code(), Some(1), "one of them is not there: {said}");
    for wanted in ["2.15", "replicas of the stream", "clock of the broker", "keys known again"] {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
}
