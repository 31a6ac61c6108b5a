//! What can be wrong with the files for TLS, and the cures.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem;

use super::tickets::SECRET_BYTES_MIN;

/// Why TLS cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// There is a TLS listener, but no certificate.
    NoFiles,
    /// The numbers of certificates and keys, which differ.
    Unpaired(usize, usize),
    /// A file cannot be read.
    Unreadable(PathBuf, String),
    /// A file has no certificate.
    NoCertificate(PathBuf),
    /// A file has no private key.
    NoKey(PathBuf),
    /// A private key cannot be used.
    Key(PathBuf, rustls::Error),
    /// A certificate, and a key that does not belong to it.
    Mismatch(PathBuf, PathBuf),
    /// The secret for tickets is too short.
    ShortSecret(PathBuf),
    /// An error of rustls.
    Rustls(rustls::Error),
}

impl TlsError {
    pub(super) fn pem(path: &Path, error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::unreadable(path, &error),
            pem::Error::NoItemsFound => Self::NoKey(path.to_owned()),
            error => Self::Unreadable(path.to_owned(), format!("not PEM: {error:?}")),
        }
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::Unreadable(path.to_owned(), error.to_string())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFiles => f.write_str(
                "TLS: listen_tls needs tls_cert and tls_key; `pushline tls self-signed FOLDER` makes \
                 both for a first trial",
            ),
            Self::Unpaired(certificates, keys) => write!(
                f,
                "TLS: tls_cert names {certificates} file(s) and tls_key {keys}; each certificate \
                 needs its key, in the same order"
            ),
            Self::Unreadable(path, why) => {
                write!(f, "TLS: {} cannot be read: {why}", path.display())
            }
            Self::NoCertificate(path) => write!(
                f,
                "TLS: {} has no certificate (-----BEGIN CERTIFICATE-----); name the full chain, \
                 with the server's own certificate first",
                path.display()
            ),
            Self::NoKey(path) => write!(
                f,
                "TLS: {} has no private key (-----BEGIN PRIVATE KEY-----, not encrypted)",
                path.display()
            ),
            Self::Key(path, error) => {
                write!(f, "TLS: the key in {} cannot be used: {error}", path.display())
            }
            Self::Mismatch(certificate, key) => write!(
                f,
                "TLS: the key in {} is not that of the certificate in {}; name files of one pair, \
                 in the same order in tls_cert and tls_key",
                key.display(),
                certificate.display()
            ),
            Self::ShortSecret(path) => write!(
                f,
                "TLS: {} is shorter than {SECRET_BYTES_MIN} bytes; make one with `openssl rand -hex \
                 32`",
                path.display()
            ),
            Self::Rustls(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
