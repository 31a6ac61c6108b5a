//! Certificates and keys: read at start, at a reload, and when their files change.

mod error;
mod tickets;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, version};
use zeroize::Zeroizing;

pub use self::error::TlsError;
use self::tickets::SharedTickets;
use crate::config::{Settings, TlsVersion};
use crate::ring::tls::{HandshakeConfig, PROTOCOLS};

/// The TLS configuration of all workers, and the files it was read from.
#[derive(Debug)]
pub(super) struct TlsKeeper {
    handshakes: Arc<HandshakeConfig>,
    /// Stays the same over reloads, so that clients can resume.
    tickets: Arc<dyn ProducesTickets>,
    settings: Arc<Settings>,
    client_ca: Option<PathBuf>,
    /// Of each file, as of the last look.
    stamps: Vec<Option<Stamp>>,
}

/// What changes with a file: tools write it again, or put another one in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    written: SystemTime,
    bytes: u64,
    inode: u64,
}

impl TlsKeeper {
    /// `None` if there is no TLS listener.
    pub fn start(settings: &Settings, client_ca: Option<&Path>) -> Result<Option<Self>, TlsError> {
        if settings.listen_tls.is_none() {
            return Ok(None);
        }
        let tickets = aws_lc_rs::Ticketer::new().map_err(TlsError::Rustls)?;
        let stamps = stamps(settings, client_ca);
        let config = load(settings, client_ca, &tickets)?;
        let handshakes = Arc::new(HandshakeConfig::new(config));
        let settings = Arc::new(settings.clone());
        let client_ca = client_ca.map(Path::to_owned);
        Ok(Some(Self { handshakes, tickets, settings, client_ca, stamps }))
    }

    /// What workers make their handshakes with.
    pub fn handshakes(&self) -> Arc<HandshakeConfig> {
        self.handshakes.clone()
    }

    /// Takes new settings. Connections that are open go on; on an error nothing has changed.
    pub fn reload(
        &mut self,
        settings: &Arc<Settings>,
        client_ca: Option<&Path>,
    ) -> Result<(), TlsError> {
        let stamps = stamps(settings, client_ca);
        self.handshakes.replace(load(settings, client_ca, &self.tickets)?);
        self.settings = settings.clone();
        self.client_ca = client_ca.map(Path::to_owned);
        self.stamps = stamps;
        Ok(())
    }

    /// Reads the files again if one has changed. Returns whether one has. After an error those read
    /// before stay in use, and the error is not repeated until a file changes again.
    pub fn refresh(&mut self) -> Result<bool, TlsError> {
        let stamps = stamps(&self.settings, self.client_ca.as_deref());
        if stamps == self.stamps {
            return Ok(false);
        }
        self.stamps = stamps;
        let config = load(&self.settings, self.client_ca.as_deref(), &self.tickets)?;
        self.handshakes.replace(config);
        Ok(true)
    }
}

/// Of all files. To be taken before they are read: one that changes meanwhile is then read again.
fn stamps(settings: &Settings, client_ca: Option<&Path>) -> Vec<Option<Stamp>> {
    let tls = &settings.tls;
    let pairs = tls.certificates.iter().chain(&tls.keys).map(PathBuf::as_path);
    pairs.chain(tls.ticket_key_file.as_deref()).chain(client_ca).map(Stamp::of).collect()
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = path.metadata().ok()?;
        let written = file.modified().ok()?;
        Some(Self { written, bytes: file.len(), inode: file.ino() })
    }
}

fn load(
    settings: &Settings,
    client_ca: Option<&Path>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let tls = &settings.tls;
    match (tls.certificates.len(), tls.keys.len()) {
        (0, 0) => return Err(TlsError::NoFiles),
        (certificates, keys) if certificates == keys => {}
        (certificates, keys) => return Err(TlsError::Unpaired(certificates, keys)),
    }
    let pairs = tls.certificates.iter().zip(&tls.keys);
    let pairs: Result<Vec<Arc<CertifiedKey>>, TlsError> =
        pairs.map(|(chain, key)| pair(chain, key, &provider).map(Arc::new)).collect();
    let versions: &[_] = match tls.min_version {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(TlsError::Rustls)?;
    let builder = match client_ca {
        Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(pairs?)));
    config.ignore_client_order = true;
    if settings.http2 {
        config.alpn_protocols =
            [&b"h2"[..]].iter().chain(PROTOCOLS).map(|name| name.to_vec()).collect();
    }
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = match &tls.ticket_key_file {
        Some(path) => Arc::new(SharedTickets::read(path)?),
        None => tickets.clone(),
    };
    Ok(config)
}

/// Our own records are smallest with AES-128, so it comes first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        _ => 1,
    });
    Arc::new(provider)
}

fn pair(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let certificates = certificates(chain)?;
    let text =
        fs::read(key).map(Zeroizing::new).map_err(|error| TlsError::unreadable(key, &error))?;
    let private =
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::pem(key, error))?;
    // It wipes what it is given.
    let signing = provider.key_provider.load_private_key(private);
    let signing = signing.map_err(|error| TlsError::Key(key.to_owned(), error))?;
    let pair = CertifiedKey::new(certificates, signing);
    match pair.keys_match() {
        // A key that does not tell its public half can't be checked.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(TlsError::Mismatch(chain.to_owned(), key.to_owned())),
    }
    Ok(pair)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error| TlsError::pem(path, error))?;
    match read.first().map(ParsedCertificate::try_from) {
        Some(Ok(_)) => Ok(read),
        Some(Err(_)) | None => Err(TlsError::NoCertificate(path.to_owned())),
    }
}

/// Asks clients for a certificate, and lets in those without: the gate decides what they may do.
fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(TlsError::Rustls)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let built = builder.allow_unauthenticated().build();
    built.map_err(|_| TlsError::NoCertificate(path.to_owned()))
}

/// Chooses the certificate that is valid for the name a client asks for, otherwise the first.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let found = name.and_then(|name| self.0.iter().find(|pair| is_for(pair, &name)));
        found.or(self.0.first()).cloned()
    }
}

fn is_for(pair: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = pair.end_entity_cert().and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}
