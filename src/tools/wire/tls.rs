//! TLS of the clients, by rustls. The command line says whom they trust.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::Args;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use serde::{Deserialize, Serialize};

/// Where Debian, Alpine, Fedora and SUSE keep the authorities that a host trusts.
const HOST_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Bytes read from a socket at once: a whole record.
const READ_BYTES: usize = 17 * 1024;

/// Whose certificates are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Trust {
    /// Authorities that sign the server's certificate, as a PEM file [default: this host's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Trust any certificate: for a first trial
    #[arg(long)]
    pub insecure: bool,
}

/// Why TLS cannot be used.
#[derive(Debug)]
pub enum TrustError {
    /// The file has no certificate that can be used.
    File(PathBuf, String),
    /// This host has none.
    NoAuthorities,
    /// A host's name that no certificate can be for.
    Name(String),
    /// An error of rustls.
    Rustls(rustls::Error),
}

impl Trust {
    /// What connections are made with.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        self.config_with(Arc::new(aws_lc_rs::default_provider()))
    }

    /// The same with what this provider offers.
    pub fn config_with(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<ClientConfig>, TrustError> {
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TrustError::Rustls)?;
        let config = match self.insecure {
            true => {
                let believe = Arc::new(BelieveAnything(provider));
                builder.dangerous().with_custom_certificate_verifier(believe).with_no_client_auth()
            }
            false => builder.with_root_certificates(self.roots()?).with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TrustError> {
        let found = || HOST_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
        let path = self.ca.clone().or_else(found).ok_or(TrustError::NoAuthorities)?;
        let failed = |why: String| TrustError::File(path.clone(), why);
        let certificates = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
        let certificates: Vec<_> = certificates.map_err(|error| failed(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates);
        match added {
            0 => Err(failed("it has no certificate".to_owned())),
            _ => Ok(roots),
        }
    }
}

/// The beginning of a connection to this host.
pub fn connection(config: &Arc<ClientConfig>, host: &str) -> Result<ClientConnection, TrustError> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| TrustError::Name(host.to_owned()))?;
    ClientConnection::new(config.clone(), name).map_err(TrustError::Rustls)
}

/// A blocking socket, with TLS or not. Its copies may be used by two threads, of which one reads.
#[derive(Debug)]
pub enum Socket {
    Plain(TcpStream),
    Tls(Arc<Secured>),
}

/// A socket with TLS.
#[derive(Debug)]
pub struct Secured {
    socket: TcpStream,
    tls: Mutex<ClientConnection>,
}

impl Socket {
    /// With TLS over an open socket.
    pub fn secured(socket: TcpStream, tls: ClientConnection) -> Self {
        Self::Tls(Arc::new(Secured { socket, tls: Mutex::new(tls) }))
    }

    /// The same socket again.
    ///
    /// # Errors
    /// There is no descriptor for it.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Plain(socket) => Self::Plain(socket.try_clone()?),
            Self::Tls(secured) => Self::Tls(secured.clone()),
        })
    }

    /// Ends it both ways; who reads wakes up.
    ///
    /// # Errors
    /// It has ended already.
    pub fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(secured) => &secured.socket,
        }
        .shutdown(Shutdown::Both)
    }
}

impl Secured {
    fn lock(&self) -> MutexGuard<'_, ClientConnection> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_sealed(&self, tls: &mut ClientConnection) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(&mut &self.socket)?;
        }
        Ok(())
    }

    /// Waits without the lock, so that another thread can write meanwhile.
    fn read(&self, to: &mut [u8]) -> io::Result<usize> {
        let mut sealed = vec![0; READ_BYTES];
        loop {
            {
                let mut tls = self.lock();
                self.send_sealed(&mut tls)?;
                match tls.reader().read(to) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            }
            let count = (&self.socket).read(&mut sealed)?;
            let mut tls = self.lock();
            let mut arrived = &sealed[..count];
            // An empty read tells it that the socket has ended.
            tls.read_tls(&mut arrived)?;
            while !arrived.is_empty() {
                tls.process_new_packets().map_err(io::Error::other)?;
                tls.read_tls(&mut arrived)?;
            }
            if let Err(error) = tls.process_new_packets() {
                // The server hears why.
                let _ = self.send_sealed(&mut tls);
                return Err(io::Error::other(error));
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(to),
            Self::Tls(secured) => secured.read(to),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(secured) => {
                let mut tls = secured.lock();
                let count = tls.writer().write(bytes)?;
                secured.send_sealed(&mut tls)?;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Trusts any certificate, for `--insecure`.
#[derive(Debug)]
struct BelieveAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, why) => write!(f, "{} cannot be used: {why}", path.display()),
            Self::NoAuthorities => f.write_str(
                "this host has no list of authorities; name one with --ca FILE, or trust any \
                 certificate with --insecure",
            ),
            Self::Name(host) => write!(f, "no certificate can be for `{host}`"),
            Self::Rustls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TrustError {}
