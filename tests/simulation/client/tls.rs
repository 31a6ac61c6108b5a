//! A client's end of TLS, by rustls: what it says is sealed, and all it hears must open, once and in
//! order. Nothing here is of another length in another run, so a seed is always the same run.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use fastrand::Rng;
use pushline::ring::tls::HandshakeConfig;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

use crate::plan::pick;

const NAME: &str = "localhost";

/// One write in this many takes a new key first.
const WRITES_PER_KEY: u32 = 4;

/// Who all worlds' servers are, and how their clients speak to them.
static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::new);

struct Identity {
    server: ServerConfig,
    tls13: Arc<ClientConfig>,
    tls12: Arc<ClientConfig>,
}

impl Identity {
    fn new() -> Self {
        // Other signatures are now and then a byte shorter.
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let params = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("signed").der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
        Self {
            server: server(certificate.clone(), key),
            tls13: client(certificate.clone(), &version::TLS13).into(),
            tls12: client(certificate, &version::TLS12).into(),
        }
    }
}

fn server(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .expect("known versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they match");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().expect("randomness");
    config
}

fn client(
    certificate: CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a known version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // What one world's client has learned would change another world.
    config.resumption = Resumption::disabled();
    config
}

/// The cheapest key exchange.
fn provider() -> Arc<CryptoProvider> {
    let kx_groups = vec![aws_lc_rs::kx_group::X25519];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

/// What a server's workers make handshakes with.
pub fn handshakes() -> Arc<HandshakeConfig> {
    Arc::new(HandshakeConfig::new(IDENTITY.server.clone()))
}

/// What seals and opens a connection's bytes.
#[derive(Debug)]
pub struct Tls {
    connection: ClientConnection,
    writes: u32,
    /// The server has said that nothing follows.
    pub is_over: bool,
}

impl Tls {
    pub fn new(rng: &mut Rng) -> Self {
        let Identity { tls13, tls12, .. } = &*IDENTITY;
        let config = pick(rng, &[tls13, tls13, tls13, tls12]).clone();
        let name = ServerName::try_from(NAME).expect("a name");
        let mut connection = ClientConnection::new(config, name).expect("a configuration");
        connection.set_buffer_limit(None);
        Self { connection, writes: 0, is_over: false }
    }

    /// Appends to `to` what goes over the connection for these bytes: before the handshake is over
    /// nothing, and they follow it.
    pub fn seal(&mut self, bytes: &[u8], to: &mut Vec<u8>) {
        self.writes += 1;
        if self.writes.is_multiple_of(WRITES_PER_KEY) {
            // Before the handshake is over, and of TLS 1.2, there is no other key.
            let _ = self.connection.refresh_traffic_keys();
        }
        self.connection.writer().write_all(bytes).expect("memory");
        self.say(to);
    }

    /// Takes what arrived, and appends to `out` what it said and to `reply` what TLS answers.
    pub fn open(&mut self, mut arrived: &[u8], out: &mut Vec<u8>, reply: &mut Vec<u8>) {
        while !arrived.is_empty() && !self.is_over {
            self.connection.read_tls(&mut arrived).expect("room");
            let processed = self.connection.process_new_packets();
            let state = processed.expect("what the server seals opens, once and in order");
            let mut bytes = vec![0; state.plaintext_bytes_to_read()];
            self.connection.reader().read_exact(&mut bytes).expect("as many as it told");
            out.append(&mut bytes);
            self.is_over = state.peer_has_closed();
        }
        self.say(reply);
    }

    /// What tells the server that nothing follows. In the middle of a handshake it would be a mistake, of
    /// which we would be told.
    pub fn close(&mut self) -> Vec<u8> {
        let mut goodbye = Vec::new();
        if !self.connection.is_handshaking() {
            self.connection.send_close_notify();
            self.say(&mut goodbye);
        }
        goodbye
    }

    fn say(&mut self, to: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(to).expect("memory");
        }
    }
}
