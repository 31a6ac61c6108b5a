//! What a client sends after its handshake, opened by us and by rustls: the data and the end must be
//! the same, however it is cut. The first line says how it is cut (see `split`), each further line is a
//! record, or something that is none.

use std::cell::RefCell;
use std::io::Read;
use std::sync::{Arc, LazyLock};

use pushline::ring::tls::records::{Fate, Records};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig,
    ServerConnection, version,
};

use super::split::split;

/// Records of an input: rustls counts some of them, and ends connections that have too many.
const LINES_MAX: usize = 24;
/// Alerts that say nothing.
const WARNINGS_MAX: usize = 4;
/// A record's content at most, and more than a record may have.
const CONTENT_BYTES_MAX: usize = (1 << 14) + 300;

const CHANGE_CIPHER_SPEC: &[u8] = &[20, 3, 3, 0, 1, 1];
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

pub fn check(input: &[u8]) {
    let Some(script) = split(input) else { return };
    let Shaken { mut theirs, mut client, mut ours } = shake_hands();
    let mut wire = Vec::new();
    let mut is_whole = true;
    let mut warnings = 0;
    for line in script.whole.split(|&byte| byte == b'\n').take(LINES_MAX) {
        warnings += usize::from(line.first() == Some(&b'a'));
        if warnings > WARNINGS_MAX {
            break;
        }
        is_whole &= write(&mut client, &mut wire, line);
    }
    let letters = input.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let cut = [letters, b"\n", &wire].concat();
    let pieces = split(&cut).map(|split| split.pieces).unwrap_or_default();
    let (mut data, mut carry, mut fate) = (Vec::new(), Vec::new(), Fate::Open);
    for piece in pieces {
        if fate == Fate::Open {
            carry.extend_from_slice(piece);
            fate = ours.open(&mut carry, &mut data);
        }
    }
    let (expected, end) = by_rustls(&mut theirs, &wire);
    // rustls goes on behind a message that no client cuts, or sends beside another one, or empty; and it
    // opens a record whose header is not what RFC 8446 section 5.2 says it always is.
    let is_strict = fate == Fate::Failed && (!is_whole || has_other_header(&wire));
    assert!(data == expected || is_strict && expected.starts_with(&data), "data of {wire:?}");
    // Of a record that has not come whole, either may know already that it is forged.
    let is_early = is_cut(&wire) && fate != Fate::Closed && end != Fate::Closed;
    assert!(fate == end || is_strict || is_early, "we: {fate:?}, rustls: {end:?} of {wire:?}");
}

/// Whether the last record is not whole.
fn is_cut(wire: &[u8]) -> bool {
    let whole: usize = records(wire).map(<[u8]>::len).sum();
    whole < wire.len()
}

/// Whether the header of a record says that it is not data, or of another version.
fn has_other_header(wire: &[u8]) -> bool {
    let mut headers = records(wire).map(|record| &record[..3]);
    headers.any(|header| header[0] != CHANGE_CIPHER_SPEC[0] && header != [DATA, 3, 3])
}

/// The records that are whole, with their headers.
fn records(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = wire.first_chunk::<5>()?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (record, rest) = wire.split_at_checked(5 + length)?;
        wire = rest;
        Some(record)
    })
}

/// Appends what a line says. Tells whether it holds no piece of a message.
fn write(client: &mut Records, wire: &mut Vec<u8>, line: &[u8]) -> bool {
    let Some((&what, rest)) = line.split_first() else { return true };
    let rest = &rest[..rest.len().min(CONTENT_BYTES_MAX)];
    match what {
        b'd' => client.seal_any(wire, DATA, rest, 0),
        b'p' => client.seal_any(wire, DATA, rest, 7),
        b'n' => client.seal_any(wire, DATA, &vec![b'n'; number(rest).min(CONTENT_BYTES_MAX)], 0),
        // Levels are ignored here (RFC 8446 section 6); rustls knows but these two.
        b'a' => client.seal_any(wire, ALERT, &[1, number(rest) as u8], 0),
        b'f' => client.seal_any(wire, ALERT, &[2, number(rest) as u8], 0),
        b'A' if rest.len() != 2 => client.seal_any(wire, ALERT, rest, 0),
        b'k' => {
            client.seal_any(wire, HANDSHAKE, &[24, 0, 0, 1, number(rest) as u8], 0);
            client.update();
        }
        b'h' => {
            client.seal_any(wire, HANDSHAKE, rest, 0);
            return false;
        }
        b't' => client.seal_any(wire, number(rest) as u8, b"content", 0),
        b'c' => wire.extend_from_slice(CHANGE_CIPHER_SPEC),
        b'r' => wire.extend_from_slice(rest),
        // One byte, counted from the end, is changed.
        b'x' => {
            let place = wire.len().checked_sub(1 + number(rest));
            if let Some(byte) = place.and_then(|place| wire.get_mut(place)) {
                *byte ^= 1;
            }
        }
        _ => {}
    }
    true
}

fn number(digits: &[u8]) -> usize {
    str::from_utf8(digits).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn by_rustls(server: &mut ServerConnection, mut wire: &[u8]) -> (Vec<u8>, Fate) {
    let mut data = Vec::new();
    let mut fate = Fate::Open;
    while !wire.is_empty() && fate == Fate::Open {
        server.read_tls(&mut wire).expect("it is read from memory");
        fate = match server.process_new_packets() {
            Ok(state) if state.peer_has_closed() => Fate::Closed,
            Ok(_) => Fate::Open,
            Err(_) => Fate::Failed,
        };
        // An error here says that nothing is left.
        let _ = server.reader().read_to_end(&mut data);
    }
    (data, fate)
}

// --- the handshake ---

/// Both ends after a handshake: rustls' server, a client, and a server of ours with the same secrets.
struct Shaken {
    theirs: ServerConnection,
    client: Records,
    ours: Records,
}

thread_local! {
    /// Traffic secrets of the last handshake: the client's, the server's.
    static SECRETS: RefCell<[Vec<u8>; 2]> = RefCell::default();
}

#[derive(Debug)]
struct Tap;

impl KeyLog for Tap {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let place = match label {
            "CLIENT_TRAFFIC_SECRET_0" => 0,
            "SERVER_TRAFFIC_SECRET_0" => 1,
            _ => return,
        };
        SECRETS.with_borrow_mut(|secrets| secrets[place] = secret.to_vec());
    }
}

static CONFIGS: LazyLock<(Arc<ClientConfig>, Arc<ServerConfig>)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("PKCS 8");
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they match");
    server.key_log = Arc::new(Tap);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
});

fn shake_hands() -> Shaken {
    let (client_config, server_config) = &*CONFIGS;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(client_config.clone(), name).expect("a client");
    let mut theirs = ServerConnection::new(server_config.clone()).expect("a server");
    while client.is_handshaking() || theirs.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("to memory");
        }
        theirs.read_tls(&mut &bytes[..]).expect("from memory");
        theirs.process_new_packets().expect("a handshake");
        bytes.clear();
        while theirs.wants_write() {
            theirs.write_tls(&mut bytes).expect("to memory");
        }
        client.read_tls(&mut &bytes[..]).expect("from memory");
        client.process_new_packets().expect("a handshake");
    }
    SECRETS.with_borrow(|[of_client, of_server]| Shaken {
        theirs,
        client: Records::new((of_client, 0), (of_server, 0)).expect("AES-128-GCM"),
        ours: Records::new((of_server, 0), (of_client, 0)).expect("AES-128-GCM"),
    })
}
