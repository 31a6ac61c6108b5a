//! The log: the one order of all events, their history, and which worker wants which channel. No
//! I/O.
//!
//! [`Sequencer`] takes requests and returns events and answers; everything else here is a part of
//! it. A channel is looked up once per publication, an event is allocated once, and every
//! interested worker gets the same `Arc`.

mod ahead;
mod carry;
mod channel;
pub mod channel_name;
mod commit;
pub mod event;
pub mod hash;
pub mod history;
mod inspect;
mod interest;
mod join;
mod list;
mod merge;
pub mod message;
pub mod older;
mod order;
mod paged;
mod pending;
pub mod policy;
mod presence;
mod publish;
mod read;
pub mod restore;
mod sent;
pub mod sequencer;
pub mod stats;
pub mod store;
pub mod stream;
mod streaming;
pub mod tombstone;

pub use ahead::AHEAD_MAX;
pub use channel_name::ChannelName;
pub use hash::SharedHasher;
pub use policy::{Keeps, LogSettings, Policies, Policy};
pub use presence::{LISTED_MAX, NODES_CHANNEL};
pub use sequencer::{Outlet, Sequencer};
pub use stats::{ChannelPage, LogCounters, LogStats};

#[cfg(test)]
mod tests;
