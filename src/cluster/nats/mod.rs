//! A node on NATS JetStream: it connects, finds or creates the stream, reads what it holds, and then
//! follows it (`node`). All of it runs on one thread, the store's.

pub mod api;
mod auth;
mod codec;
pub mod examine;
pub mod link;
mod message;
mod node;
mod publish;
mod sending;
mod wire;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use self::api::ApiError;
pub use self::api::KEYS_TIME;
use self::node::Node;
use super::broker::{Broker, BrokerError, Ends};

/// How to reach the broker.
#[derive(Clone, Debug)]
pub struct NatsSettings {
    /// Its servers, as `nats://host:port` or `tls://host:port`.
    pub servers: Vec<String>,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// For `tls://`; `None` if there is no such server.
    pub tls: Option<Arc<ClientConfig>>,
    pub stream: String,
    /// On how many servers a new stream is kept; `None`: on three if there are as many.
    pub replicas: Option<u64>,
    /// How much a new stream keeps.
    pub bytes_max: u64,
    /// For how long a new stream keeps it.
    pub age_max: Duration,
    /// Largest event, by its data.
    pub event_bytes_max: usize,
    /// Unix time minus the log's clock.
    pub clock_began: Duration,
    /// Tells this node from all others.
    pub node: u64,
}

/// Why NATS can't be used.
#[derive(Debug)]
pub enum NatsError {
    /// Not the address of a server.
    Address(String),
    /// The credentials can't be used.
    Credentials(io::Error),
    Api(ApiError),
    /// The existing stream can't be used.
    Stream {
        name: String,
        /// What does not fit.
        why: String,
    },
}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(url) => {
                write!(
                    f,
                    "{url} is no address of a server, such as nats://10.0.0.1:4222 or \
                     tls://nats.internal"
                )
            }
            Self::Credentials(error) => write!(f, "cluster.credentials: {error}"),
            Self::Api(error) => {
                write!(f, "JetStream refuses: {error}; does the account have JetStream?")
            }
            Self::Stream { name, why } => write!(
                f,
                "the stream {name} can't be used: {why}; change it (`nats stream edit {name}`), or \
                 name another one in cluster.stream, which is then created"
            ),
        }
    }
}

impl std::error::Error for NatsError {}

/// A node at NATS.
///
/// # Errors
/// The settings can't be used.
pub fn begin(settings: &NatsSettings, ends: Ends) -> Result<Box<dyn Broker>, BrokerError> {
    Ok(Box::new(Node::new(settings.clone(), ends)?))
}
