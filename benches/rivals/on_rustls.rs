//! rustls alone, in blocking sockets and one connection after the other: a handshake, a request, its
//! answer. `scripts/bench-tls` compares our handshakes with it. Its settings are the server's.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig, ServerConnection, StreamOwned};

use crate::job::{REQUEST_BYTES_MAX, Seat};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub fn serve(seat: Seat) -> io::Result<()> {
    let config = config().map_err(io::Error::other)?;
    for socket in seat.listener.incoming() {
        // One that leaves early is none of the others' business.
        let _ = answer(&config, socket?);
    }
    Ok(())
}

fn answer(config: &Arc<ServerConfig>, socket: TcpStream) -> io::Result<()> {
    let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(tls, socket);
    let mut request = [0; REQUEST_BYTES_MAX];
    while stream.read(&mut request)? > 0 {
        stream.write_all(ANSWER)?;
    }
    Ok(())
}

fn config() -> Result<Arc<ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
