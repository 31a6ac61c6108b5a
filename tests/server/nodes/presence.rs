//! Who is on a channel of several nodes: all say the same, even after one of them is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::common::nats::Nats;
use crate::common::program::{Program, free_ports};
use crate::common::redis::Redis;
use crate::common::{Sse, await_that, bearer_token, fetch};

/// A node at the broker that this option names.
fn start(broker: [&str; 2]) -> Program {
    let options = [&broker[..], &["--cluster-lease", "1s"]].concat();
    let options = [&options[..], &["--presence=true", "--presence-grace", "0s"]].concat();
    Program::start(free_ports(2), &[&options[..], &["--workers", "1", "--cpus", "none"]].concat())
}

fn member(addr: SocketAddr, subject: &str) -> Sse {
    let token = bearer_token(&json!({"sub": subject}));
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    Sse::open_with(addr, "channel=room", &headers)
}

fn list(addr: SocketAddr) -> Value {
    fetch(addr, "GET", "/channels/room/presence", &[], None).json()
}

/// Empty while the node does not know the members of the others yet.
fn subjects(addr: SocketAddr) -> BTreeSet<String> {
    let list = list(addr);
    let members = list["members"].as_array().into_iter().flatten();
    members.map(|of| of["subject"].as_str().expect("text").to_owned()).collect()
}

fn await_members(nodes: &[&Program], expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&of| of.to_owned()).collect();
    for node in nodes {
        await_that("these are there", || subjects(node.addr) == expected);
    }
}

/// Applies what a stream tells, by node, until the members are those.
fn follow(stream: &mut Sse, known: &mut BTreeMap<String, BTreeSet<String>>, until: &[&str]) {
    let until: BTreeSet<String> = until.iter().map(|&of| of.to_owned()).collect();
    while known.values().flatten().cloned().collect::<BTreeSet<_>>() != until {
        let event = stream.event();
        if event.event != "pushline.presence" {
            continue;
        }
        let data = event.json();
        let of_node = known.entry(data["node"].as_str().expect("a node").to_owned()).or_default();
        if data["reset"] == true {
            of_node.clear();
        }
        let joined = data["join"].as_array().expect("a list").iter().map(|of| &of["subject"]);
        of_node.extend(joined.map(|of| of.as_str().expect("text").to_owned()));
        for left in data["leave"].as_array().expect("a list") {
            of_node.remove(left.as_str().expect("text"));
        }
    }
}

#[test]
fn members_are_those_of_all_nodes_and_one_that_is_killed_takes_its_own_with_it() {
    let Some(nats) = Nats::start() else { return };
    members_are_those_of_all_nodes(["--cluster-nats", &nats.url()]);
}

#[test]
fn members_are_those_of_all_nodes_of_a_redis() {
    let Some(redis) = Redis::start() else { return };
    members_are_those_of_all_nodes(["--cluster-redis", &redis.url()]);
}

fn members_are_those_of_all_nodes(broker: [&str; 2]) {
    let (here, there) = (start(broker), start(broker));
    let _jane = member(here.addr, "jane");
    let _jane_again = member(there.addr, "jane");
    let _john = member(there.addr, "john");
    await_members(&[&here, &there], &["jane", "john"]);
    let jane = list(here.addr)["members"].as_array().expect("a list").clone();
    let jane = jane.iter().find(|of| of["subject"] == "jane").expect("she is there").clone();
    assert_eq!(jane["nodes"].as_array().map(Vec::len), Some(2), "one member, on two nodes");

    let mut looker = Sse::resume(here.addr, "channel=room", "earliest");
    let mut known = BTreeMap::new();
    follow(&mut looker, &mut known, &["jane", "john"]);
    // A node that starts later is told.
    let late = start(broker);
    await_members(&[&late], &["jane", "john"]);
    let _jack = member(late.addr, "jack");
    await_members(&[&here, &there, &late], &["jack", "jane", "john"]);
    follow(&mut looker, &mut known, &["jack", "jane", "john"]);
    let (cursor, mut at_cursor) = (looker.last_id.clone(), known.clone());

    there.kill();
    await_members(&[&here, &late], &["jack", "jane"]);
    follow(&mut looker, &mut known, &["jack", "jane"]);
    // To one that was away meanwhile, too, and on another node.
    let mut resumed = Sse::resume(late.addr, "channel=room", &cursor);
    follow(&mut resumed, &mut at_cursor, &["jack", "jane"]);
}
