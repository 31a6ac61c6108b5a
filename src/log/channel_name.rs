//! A channel's name, and a count of its subscribers that workers keep without asking the log.
//!
//! The first subscriber of a channel on a worker joins at the log. Those after it find all they
//! need in the worker's replica; of them the log needs only the number, which a shared counter
//! tells it without a message each way. A worker counts a subscriber before it answers it, so a
//! publish that follows the answer counts it too.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

/// Shared by the log, the workers and the events of the channel; reads as the name.
#[derive(Debug)]
pub struct ChannelName {
    name: Box<str>,
    local: AtomicU32,
}

impl ChannelName {
    /// A name without subscribers.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), local: AtomicU32::new(0) }
    }

    /// Counts a subscriber that joined without asking the log.
    pub fn enter(&self) {
        self.local.fetch_add(1, Ordering::Release);
    }

    /// Counts one of those off.
    pub fn exit(&self) {
        self.local.fetch_sub(1, Ordering::Release);
    }

    /// Subscribers that joined without asking the log.
    pub(super) fn local(&self) -> u32 {
        self.local.load(Ordering::Acquire)
    }
}

impl Deref for ChannelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
