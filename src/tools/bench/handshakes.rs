//! How subscribers shake hands over `https`.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use rustls::client::Tls13ClientSessionValue;
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};
use serde::{Deserialize, Serialize};

use super::messages::Secure;
use super::sealed;

/// What subscribers offer to agree on keys by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyExchange {
    /// X25519 with ML-KEM-768, and X25519 by itself: as browsers do.
    Hybrid,
    /// X25519 by itself: as clients do that know no ML-KEM.
    X25519,
}

/// How connections of a client process are made. With ALPN, a server that has HTTP/2 knows that it is
/// wanted.
pub(super) fn config(secure: &Secure, streams: Option<u32>) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(provider(secure.key_exchange));
    let config = secure.trust.config_with(provider).map_err(io::Error::other)?;
    let mut config = Arc::unwrap_or_clone(config);
    sealed::prepare(&mut config);
    config.resumption = match secure.tickets {
        true => Resumption::store(Arc::<Tickets>::default()),
        false => Resumption::disabled(),
    };
    if streams.is_some() {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Ok(Arc::new(config))
}

fn provider(key_exchange: KeyExchange) -> CryptoProvider {
    let usual = aws_lc_rs::default_provider();
    match key_exchange {
        KeyExchange::Hybrid => usual,
        KeyExchange::X25519 => {
            CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..usual }
        }
    }
}

/// Session tickets that connections of this process were given, each used by one of the next. rustls'
/// own store keeps eight of a server, too few for a ramp.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl Tickets {
    fn unused(&self) -> MutexGuard<'_, Vec<Tls13ClientSessionValue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.unused().push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.unused().pop()
    }
}
