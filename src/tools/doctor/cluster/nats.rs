//! NATS JetStream: its versions, the stream's replicas and bounds, and how soon it is on disk.

use std::io;
use std::time::Duration;

use super::super::{Finding, Verdict};
use super::{clock, finding};
use crate::cluster::nats::KEYS_TIME;
use crate::cluster::nats::api::{ApiError, StreamInfo};
use crate::cluster::nats::examine::{Account, Examined};
use crate::cluster::nats::link::ServerInfo;
use crate::tools::numbers::grouped;

/// NATS's own default loses as much when the power goes everywhere at once.
const SYNC_INTERVAL_MAX: Duration = Duration::from_secs(10);

pub(super) fn judge(found: &Examined) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        found.servers.iter().map(|(address, info)| server(address, info)).collect();
    findings.push(servers(found.servers.iter().filter(|(_, info)| info.is_ok()).count()));
    findings.push(account(found.account.as_ref()));
    match &found.stream {
        Ok(info) => findings.extend(of_stream(info, found.servers.len())),
        Err(error) => findings.push(no_stream(error)),
    }
    findings.extend(found.clock.map(clock));
    findings.push(sync(found.sync_interval));
    findings
}

fn server(address: &str, info: &io::Result<ServerInfo>) -> Finding {
    let check = format!("NATS at {address}");
    let wanted = "2.10 or later, with JetStream";
    let info = match info {
        Ok(info) => info,
        Err(error) => {
            let cure = "is it there, and does it let this user in?";
            return finding(&check, error.to_string(), wanted, Verdict::Fail, cure);
        }
    };
    let version = info.version.clone();
    match (info.is_recent(), info.jetstream) {
        (true, true) => finding(&check, version, wanted, Verdict::Ok, ""),
        (false, _) => {
            finding(&check, version, wanted, Verdict::Fail, "install a later nats-server")
        }
        (true, false) => {
            let found = format!("{version} without JetStream");
            finding(&check, found, wanted, Verdict::Fail, "start it with -js, or `jetstream {}`")
        }
    }
}

fn servers(count: usize) -> Finding {
    let verdict = if count >= 3 { Verdict::Ok } else { Verdict::Weak };
    let cure = "what one server acknowledged is gone with its disk: run three, and name them all";
    finding("servers that answer", count.to_string(), "3 or more", verdict, cure)
}

fn account(account: Option<&Account>) -> Finding {
    let (check, wanted) = ("account", "room for history_bytes");
    let Some(Account { storage, limits }) = account else {
        let cure =
            "JetStream does not answer this user: has it a leader, and the account JetStream?";
        return finding(check, "no answer".to_owned(), wanted, Verdict::Fail, cure);
    };
    let room = match u64::try_from(limits.max_storage) {
        Ok(bytes) => format!("{} of {} bytes used", grouped(*storage), grouped(bytes)),
        Err(_) => format!("{} bytes used, no limit", grouped(*storage)),
    };
    finding(check, room, wanted, Verdict::Note, "")
}

fn no_stream(error: &ApiError) -> Finding {
    let wanted = "one, or none: then it is created";
    match error {
        ApiError::Refused { .. } => finding("stream", error.to_string(), wanted, Verdict::Note, ""),
        ApiError::Away | ApiError::Malformed(_) => {
            let cure = "JetStream must have a leader: are more than half of its servers there?";
            finding("stream", error.to_string(), wanted, Verdict::Fail, cure)
        }
    }
}

fn of_stream(info: &StreamInfo, servers: usize) -> Vec<Finding> {
    let config = &info.config;
    let number = |key: &str| config[key].as_i64().unwrap_or(0);
    let replicas = number("num_replicas");
    let at_least = |ok: bool| if ok { Verdict::Ok } else { Verdict::Weak };
    let keys_s = Duration::from_nanos(number("duplicate_window").unsigned_abs()).as_secs();
    let bound = bound_of(number("max_bytes"), number("max_age"));
    let mut findings = vec![
        finding(
            "replicas of the stream",
            replicas.to_string(),
            "3, on three servers",
            at_least(replicas >= 3 || servers < 3),
            "`nats stream edit --replicas 3`",
        ),
        finding(
            "bounds of the stream",
            bound.clone(),
            "bytes, or a time",
            at_least(bound != "none"),
            "it grows until the disk is full: `nats stream edit --max-bytes`",
        ),
        finding(
            "keys known again for",
            format!("{keys_s} s"),
            &format!("{} s", KEYS_TIME.as_secs()),
            at_least(keys_s >= KEYS_TIME.as_secs()),
            "a publish that is tried again later is there twice: `nats stream edit --dupe-window`",
        ),
    ];
    if let Some(why) = info.obstacle() {
        let cure = "no node starts on it: change it, or name another stream";
        findings.push(finding("kind of stream", why, "limits, all subjects", Verdict::Fail, cure));
    }
    let behind = info.replicas_behind();
    if !behind.is_empty() {
        let cure = "until they are, the stream is less safe than it looks";
        findings.push(finding("replicas", behind.join(", "), "all current", Verdict::Weak, cure));
    }
    findings
}

/// What bounds a stream, in words: NATS has -1 bytes for any number of them, and 0 ns for any age.
fn bound_of(bytes: i64, age_ns: i64) -> String {
    let grouped_bytes = grouped(bytes.unsigned_abs());
    let seconds = grouped(Duration::from_nanos(age_ns.unsigned_abs()).as_secs());
    match (bytes, age_ns) {
        (-1 | 0, 0) => "none".to_owned(),
        (_, 0) => format!("{grouped_bytes} bytes"),
        (1.., _) => format!("{grouped_bytes} bytes, {seconds} s"),
        _ => format!("any bytes, {seconds} s"),
    }
}

fn sync(interval: Option<Duration>) -> Finding {
    let (check, wanted) = ("sync_interval", "10 s or less, or replicas with power of their own");
    let Some(interval) = interval else {
        let found = "only the system account is told".to_owned();
        return finding(check, found, wanted, Verdict::Note, "");
    };
    let verdict = if interval <= SYNC_INTERVAL_MAX { Verdict::Ok } else { Verdict::Weak };
    let cure =
        "if the power goes everywhere at once, so much is lost: `sync_interval` in nats.conf";
    finding(check, format!("{} s", interval.as_secs()), wanted, verdict, cure)
}
