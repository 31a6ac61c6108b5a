//! The traffic secrets of a handshake, which rustls gives in no other way than to its key log. They are
//! not logged.

use std::cell::RefCell;

use rustls::KeyLog;
use zeroize::Zeroizing;

const CLIENT_LABEL: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_LABEL: &str = "SERVER_TRAFFIC_SECRET_0";

/// The traffic secrets of both sides.
#[derive(Default)]
pub struct Secrets {
    /// Seals what the client sends.
    pub client: Zeroizing<Vec<u8>>,
    /// Seals what the server sends.
    pub server: Zeroizing<Vec<u8>>,
}

thread_local! {
    /// The secrets of the handshake whose record is being processed.
    static LOGGED: RefCell<Secrets> = RefCell::default();
}

/// The key log of a configuration whose handshakes' secrets are to be taken.
#[derive(Debug)]
pub struct SecretTap;

impl KeyLog for SecretTap {
    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT_LABEL | SERVER_LABEL)
    }

    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        LOGGED.with_borrow_mut(|logged| match label {
            CLIENT_LABEL => logged.client = secret.to_vec().into(),
            SERVER_LABEL => logged.server = secret.to_vec().into(),
            _ => {}
        });
    }
}

impl Secrets {
    /// Takes the secrets that were logged, if there are any. To be called after each record of the
    /// handshake, on the same thread.
    pub(crate) fn take_logged(&mut self) {
        let logged = LOGGED.take();
        if !logged.client.is_empty() {
            *self = logged;
        }
    }
}
