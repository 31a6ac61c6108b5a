//! Who is on a channel, as a page sees it: the same as the server sees, while members come and go, and
//! after the page was away.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{BOTH, Pages};
use crate::common::browser::Kind;
use crate::common::{Sse, TestServer, bearer_token};

#[test]
fn chromium_knows_who_is_there() {
    follow_members(Kind::Chromium);
}

#[test]
fn firefox_knows_who_is_there() {
    follow_members(Kind::Firefox);
}

fn follow_members(kind: Kind) {
    let server = TestServer::with(|settings| {
        settings.channel_default.presence = true;
        settings.presence_grace = Duration::ZERO;
    });
    for transport in BOTH {
        let Some(mut pages) = Pages::one(kind, server.addr) else { return };
        let _jane = member(&server, "jane");
        pages.follow(&format!("transport: '{transport}', token: '{}'", token("page")));
        pages.first(
            "void (members = new Map(), ended = (async () => {
                for await (members of client.presence('c')) {}
            })())",
        );
        let are = |names: &[&str]| {
            let names: BTreeSet<_> = names.iter().collect();
            format!("JSON.stringify([...members.keys()].sort()) === '{}'", json!(names))
        };
        pages.await_in(0..1, &are(&["jane", "page"]));
        assert_eq!(pages.first("members.get('jane')"), json!({"of": "jane"}));
        let john = member(&server, "john");
        pages.await_in(0..1, &are(&["jane", "john", "page"]));
        drop(john);
        pages.await_in(0..1, &are(&["jane", "page"]));
        // Its place is all it needs to catch up.
        pages.first("dispatchEvent(new Event('online'))");
        let _jack = member(&server, "jack");
        pages.await_in(0..1, &are(&["jack", "jane", "page"]));
        assert_eq!(pages.first("(client.close(), ended.then(() => errors.length))"), json!(0));
    }
}

fn token(subject: &str) -> String {
    bearer_token(&json!({"sub": subject, "pushline": {"info": {"of": subject}}}))
}

fn member(server: &TestServer, subject: &str) -> Sse {
    let authorization = format!("Bearer {}", token(subject));
    Sse::open_with(server.addr, "channel=c", &[("Authorization", &authorization)])
}
