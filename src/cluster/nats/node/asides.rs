//! What nodes say to each other goes over a subject that is not the stream's.

use super::super::wire::write_message;
use super::Node;
use crate::cluster::LogSide;
use crate::cluster::peers::{Aside, HERE_PAUSE, Heard};

impl Node {
    pub(super) fn say(&mut self, aside: Option<&Aside>) {
        let payload = aside.and_then(|aside| serde_json::to_vec(aside).ok());
        if let Some(payload) = payload.filter(|_| self.link.is_some()) {
            write_message(&mut self.out, &self.subjects.asides, None, &[], &payload);
        }
    }

    /// Does what was said, and says that this node is here.
    pub(super) fn heed(&mut self, log: &mut dyn LogSide) {
        let now = log.now();
        let mut counted = self.peers.overdue(now);
        for aside in std::mem::take(&mut self.asides) {
            match self.peers.hear(aside, now) {
                Heard::Nothing => {}
                Heard::Done(answered) => counted.push(answered),
                Heard::Count { to, number, channel } => {
                    let node = self.peers.node().to_owned();
                    let subscribers = log.subscribers(&channel);
                    self.say(Some(&Aside::Counted { to, number, node, subscribers }));
                }
            }
        }
        self.answer(counted, log);
        if now.saturating_sub(self.said_here_at) >= HERE_PAUSE {
            self.said_here_at = now;
            let here = self.ends.here(&mut self.peers, self.follower.as_ref(), log);
            self.say(Some(&here));
        }
    }
}
