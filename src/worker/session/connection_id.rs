//! What a connection is called outside its worker.

use std::fmt;
use std::str::FromStr;

use super::Shared;
use crate::proto::sender::{Home, Sender};
use crate::ring::Token;

/// A connection's name outside its worker: in streams, log lines and the operator's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// Which worker owns it.
    pub worker: u16,
    /// Its token at that worker.
    pub token: Token,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.worker, self.token.slot, self.token.generation)
    }
}

impl FromStr for ConnectionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('-').map(|part| part.parse::<u32>().map_err(|_| ()));
        let mut part = || parts.next().ok_or(())?;
        let worker = u16::try_from(part()?).map_err(|_| ())?;
        let token = Token { slot: part()?, generation: part()? };
        if parts.next().is_some() { Err(()) } else { Ok(Self { worker, token }) }
    }
}

impl Shared {
    /// The connection's name.
    pub(super) fn connection_id(&self, token: Token) -> ConnectionId {
        ConnectionId { worker: self.home.worker, token }
    }

    /// The name a stream is told to be refreshed by: its id, and a proof that cannot be guessed
    /// from those of other streams.
    pub(super) fn refresh_name(&self, token: Token) -> String {
        let id = self.connection_id(token).to_string();
        let proof = self.proof_key.prove(&id);
        format!("{id}-{proof}")
    }

    /// The connection as the sender of what it publishes.
    pub(super) fn sender(&self, token: Token) -> Sender {
        Sender { home: self.home, slot: token.slot, generation: token.generation }
    }

    /// The connection that a request is sent for, by the name its stream was told. `None` if it is gone,
    /// or at another node.
    pub(super) fn sender_named(&self, name: &str) -> Option<Sender> {
        let ConnectionId { worker, token } = self.refresh_target(name)?;
        Some(Sender { home: Home { worker, ..self.home }, ..self.sender(token) })
    }

    pub(super) fn refresh_target(&self, name: &str) -> Option<ConnectionId> {
        let (id, proof) = name.rsplit_once('-')?;
        let proven = self.proof_key.is_proven(id, proof);
        id.parse().ok().filter(|_| proven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_survives_the_round_trip_and_nothing_else_parses() {
        let token = Token { slot: 7, generation: u32::MAX };
        let id = ConnectionId { worker: 3, token };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "1", "1-2", "1-2-3-4", "x-2-3", "70000-1-1", "1-2-4294967296", "1--2"] {
            assert_eq!(text.parse::<ConnectionId>(), Err(()), "{text}");
        }
    }
}
