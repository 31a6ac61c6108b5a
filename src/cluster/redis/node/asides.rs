//! What nodes say to each other goes over channels of Redis' own, which keep nothing: one for all nodes,
//! and one for each. They are heard over a connection that does nothing else.

use std::io;
use std::time::Duration;

use super::super::link::Link;
use super::super::resp::Reply;
use super::super::talk::Asked;
use super::Node;
use crate::cluster::LogSide;
use crate::cluster::peers::{Aside, Heeded};

impl Node {
    pub(super) fn open_asides(&mut self) -> io::Result<()> {
        let Some(address) = self.servers.first() else { return Ok(()) };
        let mut link = Link::connect(address, self.settings.tls.as_ref())?;
        link.never_block()?;
        let own = self.aside_key_of(self.peers.node());
        link.write(&[b"SUBSCRIBE", self.aside_key.as_bytes(), own.as_bytes()]);
        self.asides = Some(link);
        Ok(())
    }

    pub(super) fn read_asides(&mut self) -> io::Result<()> {
        let Some(link) = &mut self.asides else { return Ok(()) };
        link.fill()?;
        // `message`, the channel, and what was said. The first reply confirms the subscription.
        let mut take = |reply: &Reply<'_>| {
            if let [_, _, Reply::Bytes(said)] = reply.list() {
                self.peers.note(said);
            }
        };
        while link.next_reply(&mut take)?.is_some() {}
        Ok(())
    }

    fn aside_key_of(&self, node: &str) -> String {
        format!("{}:{node}", self.aside_key)
    }

    pub(super) fn say(&mut self, aside: &Aside, now: Duration) {
        let key = aside.to().map(|node| self.aside_key_of(node));
        let key = key.as_deref().unwrap_or(&self.aside_key);
        if let (Some(talk), Ok(payload)) = (&mut self.talk, serde_json::to_vec(aside)) {
            talk.ask(Asked::Say, &[b"PUBLISH", key.as_bytes(), &payload], now);
        }
    }

    pub(super) fn heed(&mut self, log: &mut dyn LogSide) {
        let Heeded { counted, say } = self.ends.heed(&mut self.peers, self.follower.as_ref(), log);
        say.iter().for_each(|aside| self.say(aside, log.now()));
        self.answer(counted, log);
    }
}
