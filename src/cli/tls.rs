//! `pushline tls`: a certificate for a first trial.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use rcgen::{Certificate, CertificateParams, KeyPair};

use super::say;

/// The names in the certificate, unless `--name` gives others.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// How long the certificate is valid: some clients refuse one of more than 398 days.
const VALID: Duration = Duration::from_hours(365 * 24);

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

#[derive(Debug, Subcommand)]
pub(super) enum TlsCommand {
    /// Make a key and a self-signed certificate, to try TLS out.
    SelfSigned(SelfSignedArgs),
}

#[derive(Args, Debug)]
pub(super) struct SelfSignedArgs {
    /// The folder for cert.pem and key.pem; files that exist are kept
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Names and addresses the certificate is for [default: localhost, 127.0.0.1 and ::1]
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

pub(super) fn tls(command: TlsCommand) -> Result<ExitCode, String> {
    let TlsCommand::SelfSigned(SelfSignedArgs { folder, names }) = command;
    let names = match names.is_empty() {
        true => LOCAL_NAMES.map(str::to_owned).into(),
        false => names,
    };
    let (made, signing) = self_signed(names)
        .map_err(|error| format!("no certificate can be made for these names: {error}"))?;
    let [certificate, key] = [CERTIFICATE, KEY].map(|name| folder.join(name));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write_new(&key, "PRIVATE KEY", signing.serialize_der(), 0o600)?;
    write_new(&certificate, "CERTIFICATE", made.der().to_vec(), 0o644)?;
    say(&format!(
        "Wrote {certificate} and {key}. Clients do not trust them unless told to. To try them:\n\
         pushline --listen-tls localhost:8443 --tls-cert {certificate} --tls-key {key}\n\
         curl -kN 'https://localhost:8443/sse?channel=news'\n",
        certificate = certificate.display(),
        key = key.display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn self_signed(names: Vec<String>) -> Result<(Certificate, KeyPair), rcgen::Error> {
    let mut certificate = CertificateParams::new(names)?;
    let now = SystemTime::now();
    certificate.not_before = now.into();
    certificate.not_after = (now + VALID).into();
    let signing = KeyPair::generate()?;
    Ok((certificate.self_signed(&signing)?, signing))
}

fn write_new(path: &Path, tag: &str, content: Vec<u8>, mode: u32) -> Result<(), String> {
    let text = pem::encode(&pem::Pem::new(tag, content));
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{} exists already, and is kept", path.display()),
        _ => format!("{}: {error}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn a_certificate_for_a_trial_ends_within_what_strict_clients_take() {
        let (certificate, _) = self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider().into();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        let is_valid_in = |days: u64| {
            let then = SystemTime::now() + Duration::from_hours(24 * days);
            let then = UnixTime::since_unix_epoch(then.duration_since(UNIX_EPOCH).unwrap());
            let name = "localhost".try_into().unwrap();
            verifier.verify_server_cert(certificate.der(), &[], &name, &[], then).is_ok()
        };
        assert_eq!([0, 364, 398].map(is_valid_in), [true, true, false]);
    }
}
