//! The listening sockets: bound here, or received from a running server or from systemd.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;
use tracing::warn;

use super::ServerError;
use super::balance::Balance;
use super::inherited::Inheritance;
use crate::config::{Settings, Steer};
use crate::ring::{
    Layer, ListenOptions, Listener, listen, listen_again, steer_by_cpu, stop_steering,
};

/// How long a start waits for its port: the 20,000 connections of a killed server were measured to
/// keep it for half a second.
const BIND_TIME_MAX: Duration = Duration::from_secs(3);
/// Pause between two attempts.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// How long the kernel keeps a connection that sends nothing: nearly every client sends its request
/// right after the handshake, and accepting both together costs a worker a tenth less.
const DEFER_ACCEPT: Duration = Duration::from_secs(1);

/// Listeners for clients, all on one port; one per worker if this server bound them.
#[derive(Debug)]
pub(super) struct Listeners {
    address: SocketAddr,
    layer: Layer,
    sockets: Vec<Socket>,
}

impl Listeners {
    pub fn bind(
        (wanted, layer): (SocketAddr, Layer),
        settings: &Settings,
        workers: u16,
    ) -> Result<Self, ServerError> {
        let bind_error = |error| ServerError::Bind { address: wanted, error };
        // With SO_REUSEPORT a second server of the same user would silently share the port; without
        // it, binding fails if another program listens there.
        let trial = bind_patiently(wanted).map_err(bind_error)?;
        let address = trial.local_addr().map_err(bind_error)?;
        drop(trial);
        let options = options(settings);
        let sockets: io::Result<Vec<Socket>> =
            (0..workers).map(|_| listen(address, &options)).collect();
        let listeners = Self { address, layer, sockets: sockets.map_err(bind_error)? };
        if settings.steer == Steer::Cpu {
            listeners.steer().map_err(|error| ServerError::io("steering by core", error))?;
        }
        Ok(listeners)
    }

    /// Uses sockets that another process bound, of which there must be at least one.
    pub fn adopt(
        sockets: Vec<TcpListener>,
        (address, layer): (SocketAddr, Layer),
        settings: &Settings,
    ) -> Result<Self, ServerError> {
        let failed = |error| ServerError::io("going on with a listener", error);
        let sockets: Vec<Socket> = sockets.into_iter().map(Socket::from).collect();
        let options = options(settings);
        sockets.iter().try_for_each(|socket| listen_again(socket, &options)).map_err(failed)?;
        let listeners = Self { address, layer, sockets };
        match settings.steer {
            Steer::Cpu => {
                if let Err(error) = listeners.steer() {
                    warn!("these listeners cannot be steered by core: {error}");
                }
            }
            // An error means that they were not steered before.
            Steer::Hash => drop(listeners.sockets.first().map(stop_steering)),
        }
        Ok(listeners)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn steer(&self) -> io::Result<()> {
        self.sockets.first().map_or(Ok(()), |first| steer_by_cpu(first, self.count()))
    }

    fn count(&self) -> u16 {
        u16::try_from(self.sockets.len()).unwrap_or(u16::MAX)
    }

    /// Whether several workers accept from one listener. If so, accepts are armed one at a time:
    /// with multishot accepts the kernel would always wake the same worker.
    pub fn are_shared(&self, workers: u16) -> bool {
        self.count() < workers
    }

    /// What each worker accepts from. Every listener has a worker, so that no connection waits in
    /// a queue that is never read, and every worker has a listener.
    pub fn shares(self, workers: u16) -> Result<Vec<Vec<Listener>>, ServerError> {
        let is_shared = self.are_shared(workers);
        let Self { mut sockets, layer, .. } = self;
        let (count, workers) = (sockets.len(), usize::from(workers));
        for worker in count..workers {
            let shared = sockets[worker % count].try_clone();
            sockets.push(shared.map_err(|error| ServerError::io("sharing a listener", error))?);
        }
        let mut shares: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
        for (index, socket) in sockets.into_iter().enumerate() {
            shares[index % workers].push(Listener { socket: socket.into(), layer, is_shared });
        }
        Ok(shares)
    }

    /// What keeps workers balanced, if the listeners are steered in a way that needs it.
    pub fn balance(&self, steer: Steer) -> Result<Option<Balance>, ServerError> {
        let steered = self.sockets.first().filter(|_| steer == Steer::Cpu);
        let listener = steered.map(Socket::try_clone).transpose();
        let listener = listener.map_err(|error| ServerError::io("sharing a listener", error))?;
        Ok(listener.map(|listener| Balance::new(listener, self.count())))
    }

    /// Copies of the sockets, for a process that may take over.
    pub fn copies(&self) -> Result<Vec<OwnedFd>, ServerError> {
        let copies: io::Result<Vec<OwnedFd>> =
            self.sockets.iter().map(|socket| Ok(socket.try_clone()?.into())).collect();
        copies.map_err(|error| ServerError::io("sharing a listener", error))
    }
}

/// All ports of a server: the one without TLS, and perhaps one with it.
#[derive(Debug)]
pub(super) struct Ports {
    pub plain: Listeners,
    pub tls: Option<Listeners>,
}

impl Ports {
    /// Goes on with what was inherited, and binds the rest.
    pub fn open(
        inherited: Inheritance,
        settings: &Settings,
        workers: u16,
    ) -> Result<Self, ServerError> {
        let Inheritance { plain, tls, .. } = inherited;
        let open = |sockets: Vec<TcpListener>, at| match sockets.is_empty() {
            true => Listeners::bind(at, settings, workers),
            false => Listeners::adopt(sockets, at, settings),
        };
        let with_tls = settings.listen_tls.map(|address| open(tls, (address, Layer::Tls)));
        let tls = with_tls.transpose()?;
        Ok(Self { plain: open(plain, (settings.listen, Layer::Plain))?, tls })
    }

    fn all(&self) -> impl Iterator<Item = &Listeners> {
        [&self.plain].into_iter().chain(&self.tls)
    }

    /// See [`Listeners::are_shared`].
    pub fn are_shared(&self, workers: u16) -> bool {
        self.all().any(|listeners| listeners.are_shared(workers))
    }

    /// See [`Listeners::shares`].
    pub fn shares(self, workers: u16) -> Result<Vec<Vec<Listener>>, ServerError> {
        let mut shares = self.plain.shares(workers)?;
        let of_tls = self.tls.map(|tls| tls.shares(workers)).transpose()?;
        for (share, of_tls) in shares.iter_mut().zip(of_tls.into_iter().flatten()) {
            share.extend(of_tls);
        }
        Ok(shares)
    }

    /// What keeps workers balanced, for each port that needs it.
    pub fn balances(&self, steer: Steer) -> Result<Vec<Balance>, ServerError> {
        let balances: Result<Vec<_>, _> = self.all().map(|it| it.balance(steer)).collect();
        Ok(balances?.into_iter().flatten().collect())
    }
}

fn options(settings: &Settings) -> ListenOptions {
    ListenOptions {
        reuse_port: true,
        // The kernel uses the smaller of this and net.core.somaxconn.
        backlog: i32::MAX,
        send_buffer_bytes: settings.send_buffer,
        unsent_bytes: settings.unsent,
        recv_buffer_bytes: None,
        user_timeout: Some(settings.dead_time),
        nodelay: true,
        defer_accept: Some(DEFER_ACCEPT),
    }
}

/// Binds, trying again for a while: the kernel takes a ring apart only after its process has ended,
/// and with it the listener. If a server was killed with many connections, its port is still in use
/// when it is restarted at once.
fn bind_patiently(address: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_TIME_MAX;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(BIND_PAUSE);
            }
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use rustix::net::sockopt::socket_cookie;

    use super::*;

    fn listeners(count: usize) -> Listeners {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bind = |_| Socket::from(TcpListener::bind(address).expect("a port"));
        Listeners { address, layer: Layer::Plain, sockets: (0..count).map(bind).collect() }
    }

    #[test]
    fn every_worker_has_a_listener_and_every_listener_a_worker() {
        for (sockets, workers) in [(1, 1), (1, 5), (2, 5), (5, 5), (5, 2), (7, 1)] {
            let listeners = listeners(sockets);
            let are_shared = listeners.are_shared(workers);
            assert_eq!(are_shared, sockets < usize::from(workers));
            let shares = listeners.shares(workers).expect("descriptors");
            let sizes: Vec<usize> = shares.iter().map(Vec::len).collect();
            assert_eq!(sizes.len(), usize::from(workers));
            assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
            let apart = sizes.iter().max().expect("one") - sizes.iter().min().expect("one");
            assert!(apart <= 1, "{sizes:?}");
            assert!(shares.iter().flatten().all(|it| it.is_shared == are_shared));
            let served =
                shares.iter().flatten().map(|it| socket_cookie(&it.socket).expect("a socket"));
            assert_eq!(served.collect::<BTreeSet<_>>().len(), sockets);
        }
    }
}
