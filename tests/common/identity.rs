//! Certificates and keys of a test, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pushline::config::Settings;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

/// A certificate that signed itself, as files.
pub struct Identity {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Identity {
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("names");
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Self { folder, certificate: made.cert.der().clone(), key: made.signing_key };
        identity.write();
        identity
    }

    pub fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn write(&self) {
        let encode = |tag: &str, bytes: &[u8]| pem::encode(&pem::Pem::new(tag, bytes));
        let certificate = encode("CERTIFICATE", &self.certificate);
        fs::write(self.certificate_file(), certificate).expect("written");
        let key = encode("PRIVATE KEY", &self.key.serialize_der());
        fs::write(self.key_file(), key).expect("written");
    }

    /// Puts another one's files in place of these.
    pub fn become_as(&self, other: &Self) {
        fs::copy(other.key_file(), self.key_file()).expect("copied");
        fs::copy(other.certificate_file(), self.certificate_file()).expect("copied");
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What tells the program to speak TLS with it, on this port.
    pub fn options(&self, port: u16) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let (certificate, key) = (text(self.certificate_file()), text(self.key_file()));
        let options = [
            "--listen-tls",
            &format!("127.0.0.1:{port}"),
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
        ];
        options.map(str::to_owned).into()
    }

    /// The server is to speak TLS with it.
    pub fn serve(&self, settings: &mut Settings) {
        settings.listen_tls = Some(([127, 0, 0, 1], 0).into());
        settings.tls.certificates.push(self.certificate_file());
        settings.tls.keys.push(self.key_file());
    }

    /// A client that believes it.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        self.builder(versions).with_no_client_auth().into()
    }

    /// A client that believes it and shows a certificate of `authority`.
    pub fn client_of(&self, authority: &Authority) -> Arc<ClientConfig> {
        let (chain, key) = authority.signed();
        let builder = self.builder(rustls::DEFAULT_VERSIONS);
        builder.with_client_auth_cert(vec![chain], key).expect("they match").into()
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        builder.with_protocol_versions(versions).expect("known").with_root_certificates(roots)
    }
}

/// One that signs clients' certificates.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        let text = pem::encode(&pem::Pem::new("CERTIFICATE", certificate.der().to_vec()));
        fs::write(folder.path().join("ca.pem"), text).expect("written");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn signed(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let params = CertificateParams::new(vec!["backend".to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
        (certificate.der().clone(), key)
    }
}
