//! Revocations on their way to the stream, and those that came from it.

use std::collections::HashMap;

use crossbeam_channel::Sender;

use super::super::api;
use super::super::wire::write_message;
use super::Node;
use crate::cluster::{LogSide, Revocation};

/// Revocations under way in both directions. There are few: operators make them.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    count: u64,
    /// Who waits to hear that one was written. They give up by themselves, after some seconds.
    sent: HashMap<u64, Sender<bool>>,
    came: Vec<Revocation>,
}

impl Revocations {
    /// JetStream has taken one, or refused it.
    pub fn answer(&mut self, number: u64, payload: &[u8]) {
        let Some(tell) = self.sent.remove(&number) else { return };
        let _ = tell.send(api::answer::<serde_json::Value>(payload).is_ok());
    }

    /// Takes one from the stream. A payload that is none was written by hand, and is ignored.
    pub fn came(&mut self, payload: &[u8]) {
        self.came.extend(serde_json::from_slice::<Revocation>(payload).ok());
    }

    /// Applies what came. If a worker is too busy, they are applied later.
    pub fn apply(&mut self, log: &mut dyn LogSide) {
        if !self.came.is_empty() && log.revoke(&self.came) {
            self.came.clear();
        }
    }

    /// The connection is lost: no answer will come.
    pub fn give_up(&mut self) {
        self.sent.clear();
    }
}

impl Node {
    pub(super) fn send_revocation(&mut self, revocation: &Revocation, tell: Sender<bool>) {
        // Without a connection, dropping `tell` says at once that it failed.
        if self.link.is_none() {
            return;
        }
        let Ok(payload) = serde_json::to_vec(revocation) else { return };
        self.revocations.count += 1;
        let reply = format!("{}.r.{}", self.inbox, self.revocations.count);
        write_message(&mut self.out, &self.subjects.revoked, Some(&reply), &[], &payload);
        self.revocations.sent.insert(self.revocations.count, tell);
    }
}
