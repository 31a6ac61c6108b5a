//! Handshakes, by rustls. No other part of the driver knows rustls. After a handshake of TLS 1.3 its
//! secrets are taken and it is dropped; for TLS 1.2 it stays.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CipherSuite, HandshakeKind, InconsistentKeys, ProtocolVersion, ServerConfig};
use zeroize::Zeroizing;

use super::record::End;
use super::schedule::Cipher;
use super::secrets::{SecretTap, Secrets};

/// Protocols for ALPN, best first, if the configuration names none.
pub const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// The configuration of handshakes, shared by all workers. A reload replaces it.
#[derive(Debug)]
pub struct HandshakeConfig {
    version: AtomicU64,
    current: Mutex<Arc<ServerConfig>>,
}

impl HandshakeConfig {
    /// Begins with this configuration.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        let current = Mutex::new(Arc::new(prepared(config)));
        Self { version: AtomicU64::new(0), current }
    }

    /// New handshakes use this configuration; those that have begun keep the old one.
    pub fn replace(&self, config: ServerConfig) {
        let config = Arc::new(prepared(config));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = config;
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// The configuration, with what our record layer needs.
fn prepared(mut config: ServerConfig) -> ServerConfig {
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretTap);
    if config.alpn_protocols.is_empty() {
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    }
    // Each ticket costs a seal and 250 bytes on the wire, and one is enough to resume with.
    config.send_tls13_tickets = 1;
    config
}

/// A worker's view of the configuration, which never waits for the lock.
#[derive(Debug)]
pub(super) struct ConfigView {
    shared: Arc<HandshakeConfig>,
    version: u64,
    config: Arc<ServerConfig>,
}

impl ConfigView {
    pub fn new(shared: Arc<HandshakeConfig>) -> Self {
        let version = shared.version.load(Ordering::Acquire);
        let config = shared.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { shared, version, config }
    }

    fn get(&mut self) -> Arc<ServerConfig> {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version
            && let Ok(current) = self.shared.current.try_lock()
        {
            (self.version, self.config) = (version, current.clone());
        }
        self.config.clone()
    }
}

/// A handshake under way, or a connection of TLS 1.2.
pub(super) struct Rustls {
    connection: UnbufferedServerConnection,
    secrets: Secrets,
    /// Records with the beginning of a message whose end has not come: rustls reads them once more.
    unread: Vec<u8>,
}

/// Where a handshake has come to.
pub(super) enum Step {
    /// It needs another record.
    More,
    /// It is over.
    Done(Outcome),
    /// It has failed; the answer to be sent tells the peer.
    Failed,
}

/// What a handshake agreed on, besides keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub is_tls12: bool,
    pub resumed: bool,
    /// The peer has shown a certificate, which was verified.
    pub certified: bool,
}

/// What our record layer needs to go on.
pub(super) struct Handover {
    pub cipher: Cipher,
    pub send: (Zeroizing<Vec<u8>>, u64),
    pub receive: (Zeroizing<Vec<u8>>, u64),
}

impl Rustls {
    pub fn new(config: &mut ConfigView) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config.get())?;
        Ok(Self { connection, secrets: Secrets::default(), unread: Vec::new() })
    }

    /// Takes one whole record. The answer is appended to `out`.
    pub fn handshake(&mut self, record: &mut [u8], out: &mut Vec<u8>) -> Step {
        let stepped = self.process(record, out, |_| {});
        self.secrets.take_logged();
        match stepped {
            Err(_) => {
                self.alert(out);
                Step::Failed
            }
            Ok(At::Traffic) => Step::Done(self.outcome()),
            Ok(At::Blocked) => Step::More,
            Ok(At::PeerClosed) => Step::Failed,
        }
    }

    fn outcome(&self) -> Outcome {
        let is_tls12 = self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3);
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let certified = self.connection.peer_certificates().is_some();
        Outcome { is_tls12, resumed, certified }
    }

    /// Hands over the secrets, after a handshake of TLS 1.3.
    pub fn hand_over(self) -> Result<Handover, rustls::Error> {
        let Self { connection, secrets, .. } = self;
        let (extracted, kernel) = connection.dangerous_into_kernel_connection()?;
        let cipher = match kernel.negotiated_cipher_suite().suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Cipher::Aes128,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Cipher::Aes256,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Cipher::ChaCha,
            _ => return Err(InconsistentKeys::Unknown.into()),
        };
        let send = (secrets.server, extracted.tx.0);
        Ok(Handover { cipher, send, receive: (secrets.client, extracted.rx.0) })
    }

    // --- TLS 1.2 ---

    /// Takes one whole record. Its data is appended to `data`, and the answer to `out`.
    pub fn open(
        &mut self,
        record: &mut [u8],
        data: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Option<End> {
        match self.process(record, out, |bytes| data.extend_from_slice(bytes)) {
            Ok(At::Traffic | At::Blocked) => None,
            Ok(At::PeerClosed) => Some(End::Closed),
            Err(_) => {
                self.alert(out);
                Some(End::Alert)
            }
        }
    }

    /// Seals data, which must then leave.
    pub fn seal(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), rustls::Error> {
        self.write(out, data.len(), |traffic, out| traffic.encrypt(data, out))
    }

    /// Tells the peer that nothing follows. rustls itself has something like that to say after an error, or
    /// when its key is worn out.
    pub fn seal_close(&mut self, out: &mut Vec<u8>) -> Result<(), rustls::Error> {
        let before = out.len();
        self.alert(out);
        if out.len() > before {
            return Ok(());
        }
        self.write(out, 0, |traffic, out| traffic.queue_close_notify(out))
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        data_bytes: usize,
        write: impl FnOnce(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), rustls::Error> {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.unread);
        let ConnectionState::WriteTraffic(mut traffic) = state? else {
            return Err(rustls::Error::HandshakeNotComplete);
        };
        let before = out.len();
        out.resize(before + data_bytes + SEALED_EXTRA_BYTES, 0);
        let written = write(&mut traffic, &mut out[before..]);
        out.truncate(before + *written.as_ref().unwrap_or(&0));
        written.map(drop).map_err(|_| rustls::Error::EncryptError)
    }

    /// Appends the alert for an error, if there is one. It takes a single step: the next one would read
    /// the failed record once more.
    fn alert(&mut self, out: &mut Vec<u8>) {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.unread);
        if let Ok(state @ ConnectionState::EncodeTlsData(_)) = state {
            let _ = turn(state, out, &mut |_| {});
        }
    }

    /// Lets rustls work until it needs something from outside.
    fn process(
        &mut self,
        record: &mut [u8],
        out: &mut Vec<u8>,
        mut on_data: impl FnMut(&[u8]),
    ) -> Result<At, rustls::Error> {
        let Self { connection, unread, .. } = self;
        unread.extend_from_slice(record);
        loop {
            let UnbufferedStatus { discard, state } = connection.process_tls_records(unread);
            let at = match state {
                Ok(state) => turn(state, out, &mut on_data),
                Err(error) => Err(error),
            };
            unread.drain(..discard);
            if let Some(at) = at? {
                return Ok(at);
            }
        }
    }
}

/// Does the next step for rustls. Returns what it waits for, if it can't go on by itself.
fn turn(
    state: ConnectionState<'_, '_, ServerConnectionData>,
    out: &mut Vec<u8>,
    on_data: &mut impl FnMut(&[u8]),
) -> Result<Option<At>, rustls::Error> {
    match state {
        ConnectionState::EncodeTlsData(mut encode) => {
            let needed = match encode.encode(&mut []) {
                Err(EncodeError::InsufficientSize(size)) => size.required_size,
                _ => 0,
            };
            let before = out.len();
            out.resize(before + needed, 0);
            encode.encode(&mut out[before..]).map_err(|_| rustls::Error::EncryptError)?;
        }
        ConnectionState::TransmitTlsData(transmit) => transmit.done(),
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                on_data(record?.payload);
            }
        }
        ConnectionState::WriteTraffic(_) => return Ok(Some(At::Traffic)),
        ConnectionState::BlockedHandshake => return Ok(Some(At::Blocked)),
        _ => return Ok(Some(At::PeerClosed)),
    }
    Ok(None)
}

/// What rustls waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The handshake is over.
    Traffic,
    /// Another record.
    Blocked,
    PeerClosed,
}

type WriteTraffic<'a> = rustls::unbuffered::WriteTraffic<'a, ServerConnectionData>;
type EncryptError = rustls::unbuffered::EncryptError;

/// Most bytes that TLS 1.2 adds to a record's data, or an alert takes.
const SEALED_EXTRA_BYTES: usize = 64;

impl fmt::Debug for Rustls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rustls")
    }
}
