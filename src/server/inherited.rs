//! Listening sockets older than this process: those of a server it takes over, or made by the
//! service manager.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use tracing::{info, warn};

use super::ServerError;
use super::takeover::{self, Predecessor};
use crate::config::Settings;

/// The name a unit's `FileDescriptorName=` gives the operator's listener.
const ADMIN_NAME: &str = "admin";
/// And the one with TLS.
const TLS_NAME: &str = "tls";

/// The sockets, and their source.
#[derive(Debug)]
pub struct Inherited {
    pub(super) sockets: Inheritance,
    pub(super) source: Source,
}

/// The sockets by what they are for.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    pub plain: Vec<TcpListener>,
    pub tls: Vec<TcpListener>,
    pub admin: Option<TcpListener>,
}

/// Where the sockets come from.
#[derive(Debug)]
pub(super) enum Source {
    /// The service manager, which keeps them open after this server has ended.
    Manager,
    /// A running server, which waits to be replaced.
    Predecessor(Predecessor),
}

impl Inherited {
    /// The sockets the service manager has passed on (`sd_listen_fds(3)`), if any.
    ///
    /// # Errors
    /// One of them is not a TCP listener.
    pub fn from_manager() -> Result<Option<Self>, ServerError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut sockets = Inheritance::default();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let listener = passed
                .take_tcp_listener(index)
                .map_err(|error| ServerError::io("taking the socket unit's listeners", error))?;
            match listener {
                Some(listener) if name == ADMIN_NAME => sockets.admin = Some(listener),
                Some(listener) if name == TLS_NAME => sockets.tls.push(listener),
                Some(listener) => sockets.plain.push(listener),
                None => {}
            }
        }
        let Inheritance { plain, tls, admin } = &sockets;
        if plain.is_empty() && tls.is_empty() && admin.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { sockets, source: Source::Manager }))
    }

    /// The sockets of the server that runs at the configured address, if there is one.
    ///
    /// # Errors
    /// There is one, but it cannot be taken over.
    pub fn from_predecessor(settings: &Settings) -> Result<Option<Self>, ServerError> {
        let address = settings.listen;
        let asked = takeover::ask(address);
        let inherited = asked.map_err(|error| ServerError::TakeOver { address, error })?;
        match &inherited {
            Some(_) => info!(%address, "taking over from the server that is running"),
            None => info!(%address, "there is no server to take over from: starting as usual"),
        }
        Ok(inherited)
    }

    /// The sockets and their source; nothing if nothing was inherited.
    pub(super) fn into_parts(inherited: Option<Self>) -> (Inheritance, Option<Source>) {
        match inherited {
            Some(Self { sockets, source }) => (sockets, Some(source)),
            None => (Inheritance::default(), None),
        }
    }

    /// Corrects the settings to say where the inherited sockets are.
    pub(super) fn correct(&self, settings: &mut Settings) -> Result<(), ServerError> {
        let Inheritance { plain, tls, admin } = &self.sockets;
        correct("listen", plain.first(), &mut settings.listen)?;
        match &mut settings.listen_tls {
            Some(listen_tls) => correct("listen_tls", tls.first(), listen_tls)?,
            None if tls.is_empty() => {}
            None => warn!("there is a socket for TLS, but no listen_tls: it is not used"),
        }
        correct("admin", admin.as_ref(), &mut settings.admin)
    }
}

fn correct(
    key: &str,
    inherited: Option<&TcpListener>,
    set: &mut SocketAddr,
) -> Result<(), ServerError> {
    let Some(inherited) = inherited else { return Ok(()) };
    let address = inherited.local_addr();
    let address = address.map_err(|error| ServerError::io("asking for an address", error))?;
    if address != *set {
        warn!("{key} = {set} is ignored: the inherited socket is at {address}");
        *set = address;
    }
    Ok(())
}
