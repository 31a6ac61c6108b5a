//! What nodes say to each other goes over a subject that is not the stream's; what is for one node alone,
//! over that node's inbox.

use super::super::wire::write_message;
use super::{INBOX_ASIDES, Node, inbox_of};
use crate::cluster::LogSide;
use crate::cluster::peers::{Aside, Heeded};

impl Node {
    pub(super) fn say(&mut self, aside: &Aside) {
        let (Some(link), Ok(payload)) = (&self.link, serde_json::to_vec(aside)) else { return };
        if payload.len() > link.info().max_payload {
            return;
        }
        let subject = match aside.to() {
            Some(node) => format!("{}{INBOX_ASIDES}", inbox_of(node)),
            None => self.subjects.asides.clone(),
        };
        write_message(&mut self.out, &subject, None, &[], &payload);
    }

    pub(super) fn heed(&mut self, log: &mut dyn LogSide) {
        let Heeded { counted, say } = self.ends.heed(&mut self.peers, self.follower.as_ref(), log);
        say.iter().for_each(|aside| self.say(aside));
        self.answer(counted, log);
    }
}
