//! What main and the admin listener tell a worker to do.

use std::sync::Arc;

use crate::auth::{Gate, Question, Revoked, Verdict};
use crate::config::Settings;
use crossbeam_channel::Sender;

use super::inspect::Page;
use crate::ring::Token;

/// A command. The worker answers without waiting: the asker's channel has room.
#[derive(Clone, Debug)]
pub enum Command {
    /// Accept no more, because another process does; answer when all accepted connections were
    /// heard.
    Retire(Sender<()>),
    /// Leave the port unless retired, refuse new requests, and end streams bit by bit.
    Drain,
    /// End what is left and stop.
    Stop,
    /// New rules of access.
    Gate(Arc<Gate>),
    /// All subjects whose tokens are revoked.
    Revoke(Arc<Revoked>),
    /// The operator's backend has answered.
    Verdict {
        /// What this worker asked.
        question: Question,
        /// The answer.
        verdict: Verdict,
    },
    /// New settings; those that need a restart are unchanged.
    Settings(Arc<Settings>),
    /// Answer with your number: a worker whose turns go on does so at once.
    Ping(Sender<u16>),
    /// Show connections, from this slot on.
    List {
        /// The first slot to look at.
        from: u32,
        /// Connections wanted at most.
        limit: usize,
        /// Only those of this subject, if one is given.
        subject: Option<Box<str>>,
        /// Takes the answer.
        reply: Sender<Page>,
    },
    /// End a connection.
    Cut {
        /// The connection.
        token: Token,
        /// Takes the answer: whether there was such a connection.
        reply: Sender<bool>,
    },
}
