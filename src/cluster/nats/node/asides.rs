//! What nodes say to each other beside the stream, over a subject of its own.

use super::super::wire::write_message;
use super::Node;
use crate::cluster::LogSide;
use crate::cluster::peers::{Aside, HERE_PAUSE};

impl Node {
    pub(super) fn say(&mut self, aside: Option<&Aside>) {
        let payload = aside.and_then(|aside| serde_json::to_vec(aside).ok());
        if let Some(payload) = payload.filter(|_| self.link.is_some()) {
            write_message(&mut self.out, &self.subjects.asides, None, &[], &payload);
        }
    }

    /// Handles what was said, and says that this node is here.
    pub(super) fn heed(&mut self, log: &mut dyn LogSide) {
        let now = log.now();
        let said = std::mem::take(&mut self.asides);
        let (counted, answers) = self.peers.heed(said, now, |channel| log.subscribers(channel));
        answers.iter().for_each(|aside| self.say(Some(aside)));
        self.answer(counted, log);
        if now.saturating_sub(self.said_here_at) >= HERE_PAUSE {
            self.said_here_at = now;
            let here = self.ends.here(&mut self.peers, self.follower.as_ref(), log);
            self.say(Some(&here));
        }
    }
}
