//! Whether a broker is one to keep the log in: its version, what it keeps, and how safely.

mod nats;
mod redis;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::{Finding, Verdict};
use crate::cluster::nats::{NatsSettings, examine as examine_nats};
use crate::cluster::redis::{RedisSettings, examine as examine_redis};
use crate::tools::wire::tls::Trust;

/// An event's age is told by the broker's clock and ours.
const CLOCK_S_MAX: f64 = 1.0;

/// The broker that is asked about.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClusterArgs {
    /// NATS or Redis servers that are to keep the log of many nodes: their version, what they keep, how
    /// safely, and their clock.
    #[arg(long, value_name = "URLS")]
    pub cluster: Option<String>,
    /// The stream there.
    #[arg(long, value_name = "NAME", default_value = "PUSHLINE", requires = "cluster")]
    pub stream: String,
    /// Who we are to NATS: a .creds file, or the seed of an nkey.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub credentials: Option<PathBuf>,
    /// Authorities that sign the servers' certificates, as a PEM file [default: this host's]
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub ca: Option<PathBuf>,
}

/// The servers can't be asked.
#[derive(Debug)]
pub struct Unasked(Box<dyn Error>);

impl fmt::Display for Unasked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Unasked {}

/// What there is to say of the brokers; nothing if none are named.
///
/// # Errors
/// The addresses are none, or a file can't be used.
pub(crate) fn findings(args: &ClusterArgs) -> Result<Vec<Finding>, Unasked> {
    let Some(urls) = &args.cluster else { return Ok(Vec::new()) };
    let servers: Vec<String> = urls.split(',').map(|url| url.trim().to_owned()).collect();
    match servers.iter().any(|url| url.starts_with("redis")) {
        true => of_redis(args, servers),
        false => of_nats(args, servers),
    }
}

fn of_nats(args: &ClusterArgs, servers: Vec<String>) -> Result<Vec<Finding>, Unasked> {
    let settings = NatsSettings {
        tls: tls(args, &servers, "tls://")?,
        servers,
        credentials: args.credentials.clone(),
        stream: args.stream.clone(),
        replicas: None,
        bytes_max: 0,
        age_max: Duration::ZERO,
        event_bytes_max: 0,
        clock_began: Duration::ZERO,
        node: fastrand::u64(..),
    };
    let found = examine_nats::examine(&settings).map_err(|error| Unasked(Box::new(error)))?;
    Ok(nats::judge(&found))
}

fn of_redis(args: &ClusterArgs, servers: Vec<String>) -> Result<Vec<Finding>, Unasked> {
    let settings = RedisSettings {
        tls: tls(args, &servers, "rediss://")?,
        servers,
        stream: args.stream.clone(),
        clock_began: Duration::ZERO,
        node: fastrand::u64(..),
    };
    let found = examine_redis::examine(&settings).map_err(|error| Unasked(Box::new(error)))?;
    Ok(redis::judge(&found))
}

/// If an address is one with TLS.
fn tls(
    args: &ClusterArgs,
    servers: &[String],
    scheme: &str,
) -> Result<Option<Arc<ClientConfig>>, Unasked> {
    if !servers.iter().any(|url| url.starts_with(scheme)) {
        return Ok(None);
    }
    let trust = Trust { ca: args.ca.clone(), insecure: false };
    trust.config().map(Some).map_err(|error| Unasked(Box::new(error)))
}

fn finding(check: &str, found: String, wanted: &str, verdict: Verdict, cure: &str) -> Finding {
    let cure = if verdict >= Verdict::Weak { cure.to_owned() } else { String::new() };
    Finding { check: check.to_owned(), found, wanted: wanted.to_owned(), verdict, cure }
}

fn clock((ahead_s, took): (f64, Duration)) -> Finding {
    let found = format!("{ahead_s:+.3} s, {:.1} ms away", took.as_secs_f64() * 1e3);
    let verdict = match ahead_s.abs() <= CLOCK_S_MAX + took.as_secs_f64() {
        true => Verdict::Ok,
        false => Verdict::Weak,
    };
    let cure = "events age by the broker's clock: run NTP on both";
    finding("clock of the broker", found, "within a second", verdict, cure)
}
