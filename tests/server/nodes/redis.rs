//! The same on Redis or Valkey, which may lose what it answered: then a new epoch begins, and no id is
//! given twice.

use super::{Redis, Sse, TestServer, await_that, fetch, metric, publish, publish_keyed, seq_of};
use crate::common::PATIENCE;

fn node(servers: &[&Redis]) -> TestServer {
    let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
    TestServer::with(|settings| settings.cluster.redis = urls.clone())
}

fn epoch_of(id: &str) -> &str {
    id.split_once('-').expect("an id").0
}

/// The log of this node ends, because the stream may have lost something.
fn ends_and_begins_again(server: TestServer) {
    let running = server.into_server();
    let lost = running.lost().recv_timeout(PATIENCE).expect("it ends");
    assert!(lost.begins_again(), "{lost}");
    std::thread::spawn(move || running.stop()).join().expect("it stops");
}

#[test]
fn events_keys_and_kinds_are_the_same_on_every_node_of_a_redis() {
    let Some(redis) = Redis::start() else { return };
    let (here, there) = (node(&[&redis]), node(&[&redis]));
    assert_eq!(here.epoch(), there.epoch());
    let mut stream = Sse::open(there.addr, "channel=a.b&envelope=json");
    let ids = ["one", "two", "three"].map(|data| publish(here.addr, "a.b", data));
    assert_eq!(ids.each_ref().map(|id| seq_of(id)), [1, 2, 3]);
    for (id, data) in ids.iter().zip(["one", "two", "three"]) {
        let event = stream.event().json();
        assert_eq!((&event["id"], &event["data"]), (&id.as_str().into(), &data.into()));
    }
    let headers = [("Content-Type", "application/octet-stream"), ("Event-Type", "ping ü")];
    let binary = fetch(there.addr, "POST", "/channels/a.b", &headers, Some(b"\xff\r\n"));
    assert_eq!(binary.status, 200, "{}", binary.text());
    let event = stream.event().json();
    assert_eq!((&event["event"], &event["data_base64"]), (&"ping ü".into(), &"/w0K".into()));
    super::nodes_know_and_count_each_other(&here, &there);
    super::connections_are_listed_and_cut_at_any_node(&here, &there);
    let late = node(&[&redis]);
    let mut resumed = Sse::resume(late.addr, "channel=a.b", &ids[0]);
    assert_eq!(resumed.events(2).into_iter().map(|event| event.id).collect::<Vec<_>>(), ids[1..]);
    let first = publish_keyed(here.addr, "k");
    assert_eq!(publish_keyed(late.addr, "k")["id"], first["id"]);
    // A node without its history asks the server.
    let forgetful = TestServer::with(|settings| {
        settings.cluster.redis = vec![redis.url()];
        settings.channel_default.history_count = 0;
    });
    assert_eq!(publish_keyed(forgetful.addr, "k")["id"], first["id"]);
    assert_eq!(metric(late.admin, "pushline_cluster_up"), 1);
}

#[test]
fn while_redis_is_away_publishes_are_refused_and_after_its_restart_a_new_epoch_begins() {
    let Some(mut redis) = Redis::start() else { return };
    let server = node(&[&redis]);
    let mut stream = Sse::open(server.addr, "channel=a");
    let id = publish(server.addr, "a", "one");
    assert_eq!(stream.event().id, id);
    redis.kill();
    await_that("the node knows", || metric(server.admin, "pushline_log_up") == 0);
    let refused = fetch(server.addr, "POST", "/channels/a", &[], Some(b"lost"));
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
    redis.begin();
    ends_and_begins_again(server);
    let server = node(&[&redis]);
    assert_ne!(server.epoch(), epoch_of(&id));
    let mut resumed = Sse::resume(server.addr, "channel=a&envelope=json", &id);
    let gap = resumed.event();
    assert_eq!((&*gap.event, &gap.json()["data"]["reason"]), ("pushline.gap", &"epoch".into()));
    assert_eq!(resumed.event().json()["data"], "one");
}

#[test]
fn a_replica_that_takes_over_begins_a_new_epoch_on_every_node() {
    let (Some(mut primary), Some(replica)) = (Redis::start(), Redis::start()) else { return };
    replica.follow(&primary);
    let nodes = [node(&[&primary, &replica]), node(&[&replica, &primary])];
    let id = publish(nodes[0].addr, "a", "one");
    await_that("the replica has it", || replica.ask("XLEN {PUSHLINE}:log") == ":1");
    primary.kill();
    assert_eq!(replica.ask("REPLICAOF NO ONE"), "+OK");
    nodes.into_iter().for_each(ends_and_begins_again);
    let nodes = [node(&[&primary, &replica]), node(&[&replica, &primary])];
    assert_eq!(nodes[0].epoch(), nodes[1].epoch());
    assert_ne!(nodes[0].epoch(), epoch_of(&id));
    let next = publish(nodes[0].addr, "a", "two");
    let mut resumed = Sse::resume(nodes[1].addr, "channel=a&envelope=json", &id);
    assert_eq!(resumed.event().event, "pushline.gap");
    assert_eq!(resumed.events(2)[1].id, next);
}

#[test]
fn the_stream_keeps_no_more_than_the_nodes_do() {
    let Some(redis) = Redis::start() else { return };
    let server = TestServer::with(|settings| {
        settings.cluster.redis = vec![redis.url()];
        settings.channel_default.history_count = 10;
    });
    (0..50).for_each(|n| drop(publish(server.addr, "a", &n.to_string())));
    await_that("the stream is trimmed", || redis.ask("XLEN {PUSHLINE}:log") == ":10");
    let late = node(&[&redis]);
    let mut stream = Sse::open(late.addr, "channel=a&last_event_id=earliest&envelope=json");
    assert_eq!(stream.event().event, "pushline.gap");
    assert_eq!(stream.event().json()["data"], "40");
}

#[test]
fn a_redis_is_examined_before_one_relies_on_it() {
    let (Some(primary), Some(replica)) = (Redis::start(), Redis::start()) else { return };
    replica.follow(&primary);
    let server = node(&[&primary]);
    publish(server.addr, "a", "one");
    let doctor = |urls: &str| {
        let command = ["doctor", "--connections", "1", "--cluster", urls];
        let ran = std::process::Command::new(env!("CARGO_BIN_EXE_pushline")).args(command).output();
        String::from_utf8(ran.expect("it runs").stdout).expect("text")
    };
    let said = doctor(&format!("{},{}", primary.url(), replica.url()));
    for wanted in [
        "primary",
        "replica",
        "replicas of the primary",
        "always",
        "no limit, noeviction",
        "entries so far: 1, kept: 1",
        "clock of the broker",
    ] {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
    assert_eq!(primary.ask("CONFIG SET maxmemory 100mb"), "+OK");
    assert_eq!(primary.ask("CONFIG SET maxmemory-policy allkeys-lru"), "+OK");
    assert_eq!(primary.ask("CONFIG SET appendonly no"), "+OK");
    let said = doctor(&format!("{},redis://127.0.0.1:1", primary.url()));
    for wanted in ["allkeys-lru", "throws the log away", "appendonly no", "is it there"] {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
    let said = doctor(&replica.url());
    assert!(said.contains("no node can publish"), "{said}");
}
