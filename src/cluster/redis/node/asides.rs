//! What nodes say to each other beside the stream, over a channel of Redis (PUBLISH), which keeps
//! nothing. It is heard over a connection that does nothing else.

use std::io;
use std::time::Duration;

use super::super::link::Link;
use super::super::resp::Reply;
use super::super::talk::Asked;
use super::Node;
use crate::cluster::LogSide;
use crate::cluster::peers::{Aside, HERE_PAUSE};

impl Node {
    pub(super) fn open_asides(&mut self) -> io::Result<()> {
        let Some(address) = self.servers.first() else { return Ok(()) };
        let mut link = Link::connect(address, self.settings.tls.as_ref())?;
        link.never_block()?;
        link.write(&[b"SUBSCRIBE", self.aside_key.as_bytes()]);
        self.asides = Some(link);
        Ok(())
    }

    pub(super) fn read_asides(&mut self) -> io::Result<()> {
        let Some(link) = &mut self.asides else { return Ok(()) };
        link.fill()?;
        // `message`, the channel, and what was said. The first reply confirms the subscription.
        let take = |reply: &Reply<'_>| match reply.list() {
            [_, _, Reply::Bytes(said)] => serde_json::from_slice::<Aside>(said).ok(),
            _ => None,
        };
        while let Some(said) = link.next_reply(take)? {
            self.heard.extend(said);
        }
        Ok(())
    }

    pub(super) fn say(&mut self, aside: Option<&Aside>, now: Duration) {
        let payload = aside.and_then(|aside| serde_json::to_vec(aside).ok());
        if let (Some(talk), Some(payload)) = (&mut self.talk, payload) {
            talk.ask(Asked::Say, &[b"PUBLISH", self.aside_key.as_bytes(), &payload], now);
        }
    }

    /// Handles what was said, and says that this node is here.
    pub(super) fn heed(&mut self, log: &mut dyn LogSide) {
        let now = log.now();
        let said = std::mem::take(&mut self.heard);
        let (counted, answers) = self.peers.heed(said, now, |channel| log.subscribers(channel));
        answers.iter().for_each(|aside| self.say(Some(aside), now));
        self.answer(counted, log);
        if now.saturating_sub(self.said_here_at) >= HERE_PAUSE {
            self.said_here_at = now;
            let here = self.ends.here(&mut self.peers, self.follower.as_ref(), log);
            self.say(Some(&here), now);
        }
    }
}
