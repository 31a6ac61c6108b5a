//! `pushline tls`: a certificate for a first trial.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::say;

/// The names in the certificate, unless `--name` gives others.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

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
    let made = rcgen::generate_simple_self_signed(names);
    let made =
        made.map_err(|error| format!("no certificate can be made for these names: {error}"))?;
    let [certificate, key] = [CERTIFICATE, KEY].map(|name| folder.join(name));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write_new(&key, "PRIVATE KEY", made.signing_key.serialize_der(), 0o600)?;
    write_new(&certificate, "CERTIFICATE", made.cert.der().to_vec(), 0o644)?;
    say(&format!(
        "Wrote {certificate} and {key}. Clients do not trust them unless told to. To try them:\n\
         pushline --listen-tls localhost:8443 --tls-cert {certificate} --tls-key {key}\n\
         curl -kN 'https://localhost:8443/sse?channel=news'\n",
        certificate = certificate.display(),
        key = key.display(),
    ))?;
    Ok(ExitCode::SUCCESS)
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
