//! A subject as its token describes it, and the name of a node.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A subject, and what its token tells others about it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The `sub` claim.
    pub subject: Box<str>,
    /// One JSON value, if the token has one for the other members of a channel.
    pub info: Option<Box<str>>,
}

/// A node of many, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        u32::from_str_radix(text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}
