//! A node at Redis 7 or Valkey: a script gives each entry of a stream the next number, which is its
//! `seq`. Every node reads the stream over a connection that does nothing else.
//!
//! | part | what |
//! |---|---|
//! | `node` | the node at work |
//! | `talk` | the connection for publications and questions: answers come in their order |
//! | `scripts` | what is done at the server in one step |
//! | `entry` | events as entries of the stream |
//! | `examine` | what `pushline doctor --cluster` asks |
//! | `resp`, `link` | the protocol, and a connection |
//!
//! Redis answers before its replicas have what was written. So a server that takes over, or starts
//! again, may have lost an event that was shown, and would give its number to another one. But such a
//! server has a new replication id. The first node that finds an id other than the one noted in the
//! stream notes the new one and raises the generation, in one step. Publications for an earlier
//! generation are refused, so a new epoch begins before a number can be given twice.

mod entry;
pub mod examine;
mod link;
mod node;
mod resp;
mod scripts;
pub mod talk;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use self::node::Node;
use super::broker::{Broker, BrokerError, Ends};

/// How to reach the servers.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// As `redis://host:port` or `rediss://host:port`; the one that is the primary is used.
    pub servers: Vec<String>,
    /// For `rediss://`; `None` if there is no such server.
    pub tls: Option<Arc<ClientConfig>>,
    /// What the keys begin with.
    pub stream: String,
    /// Unix time minus the log's clock.
    pub clock_began: Duration,
    /// Tells this node from all others.
    pub node: u64,
}

/// Why Redis can't be used.
#[derive(Debug)]
pub enum RedisError {
    /// Not the address of a server.
    Address(String),
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(url) => {
                write!(
                    f,
                    "{url} is no address of a server, such as redis://10.0.0.1:6379 or \
                     rediss://redis.internal"
                )
            }
        }
    }
}

impl std::error::Error for RedisError {}

/// A node at Redis.
///
/// # Errors
/// The settings can't be used.
pub fn begin(settings: &RedisSettings, ends: Ends) -> Result<Box<dyn Broker>, BrokerError> {
    Ok(Box::new(Node::new(settings.clone(), ends)?))
}
