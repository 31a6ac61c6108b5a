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

/// The sockets, and their source.
#[derive(Debug)]
pub struct Inherited {
    pub(super) clients: Vec<TcpListener>,
    pub(super) admin: Option<TcpListener>,
    pub(super) source: Source,
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
        let (mut clients, mut admin) = (Vec::new(), None);
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let listener = passed
                .take_tcp_listener(index)
                .map_err(|error| ServerError::io("taking the socket unit's listeners", error))?;
            match listener {
                Some(listener) if name == ADMIN_NAME => admin = Some(listener),
                Some(listener) => clients.push(listener),
                None => {}
            }
        }
        if clients.is_empty() && admin.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { clients, admin, source: Source::Manager }))
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

    /// Listeners for clients, the operator's listener, and their source; nothing if nothing was
    /// inherited.
    pub(super) fn into_parts(
        inherited: Option<Self>,
    ) -> (Vec<TcpListener>, Option<TcpListener>, Option<Source>) {
        match inherited {
            Some(Self { clients, admin, source }) => (clients, admin, Some(source)),
            None => (Vec::new(), None, None),
        }
    }

    /// Corrects the settings to say where the inherited sockets are.
    pub(super) fn correct(&self, settings: &mut Settings) -> Result<(), ServerError> {
        correct("listen", self.clients.first(), &mut settings.listen)?;
        correct("admin", self.admin.as_ref(), &mut settings.admin)
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
        warn!("{key} = {set} does not count: the inherited socket is at {address}");
        *set = address;
    }
    Ok(())
}
