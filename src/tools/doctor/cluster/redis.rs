//! Redis or Valkey: their versions and roles, and what the primary loses, and when.

use std::io;

use super::super::{Finding, Verdict};
use super::{clock, finding};
use crate::cluster::redis::examine::{Examined, StreamFound};
use crate::cluster::redis::talk::Server;
use crate::tools::numbers::grouped;

pub(super) fn judge(found: &[(String, io::Result<Examined>)]) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        found.iter().map(|(address, examined)| server(address, examined)).collect();
    let answering = found.iter().filter_map(|(_, examined)| examined.as_ref().ok());
    let primaries: Vec<&Examined> = answering.filter(|of| of.server.is_primary).collect();
    findings.push(one_primary(primaries.len()));
    if let [primary] = primaries[..] {
        findings.push(replicas(&primary.server));
        findings.push(on_disk(primary));
        findings.push(memory(&primary.server));
        findings.extend(primary.clock.map(clock));
        findings.push(stream(primary.stream.as_ref()));
    }
    findings
}

fn server(address: &str, examined: &io::Result<Examined>) -> Finding {
    let (check, wanted) = (format!("Redis at {address}"), "Redis 7 or Valkey, or later");
    let server = match examined {
        Ok(examined) => &examined.server,
        Err(error) => {
            let cure = "is it there, and does it let this user in?";
            return finding(&check, error.to_string(), wanted, Verdict::Fail, cure);
        }
    };
    let role = if server.is_primary { "primary" } else { "replica" };
    let found = format!("{}, {role}", server.program());
    let (verdict, cure) = match (server.is_recent(), server.is_loading) {
        (false, _) => (Verdict::Fail, "install a later one"),
        (true, true) => (Verdict::Weak, "it still loads what is on its disk: ask again"),
        (true, false) => (Verdict::Ok, ""),
    };
    finding(&check, found, wanted, verdict, cure)
}

fn one_primary(count: usize) -> Finding {
    let cure = match count {
        0 => "no node can publish or start: `REPLICAOF NO ONE` on the one that has most",
        _ => "each gives its own numbers: make all but one replicas, and stop their writers",
    };
    let verdict = if count == 1 { Verdict::Ok } else { Verdict::Fail };
    finding("primaries that answer", count.to_string(), "1", verdict, cure)
}

fn replicas(primary: &Server) -> Finding {
    let verdict = if primary.replicas > 0 { Verdict::Ok } else { Verdict::Weak };
    let cure = "the log is gone with this server's disk: run another one as its replica";
    finding("replicas of the primary", primary.replicas.to_string(), "1 or more", verdict, cure)
}

fn on_disk(primary: &Examined) -> Finding {
    let wanted = "appendonly yes, appendfsync always or everysec";
    let server = &primary.server;
    let (found, verdict) = match primary.append_sync.as_deref() {
        _ if !server.appends => ("appendonly no".to_owned(), Verdict::Weak),
        None => ("appendonly yes; when it syncs is not told".to_owned(), Verdict::Note),
        Some(when @ ("always" | "everysec")) => (when.to_owned(), Verdict::Ok),
        Some(when) => (when.to_owned(), Verdict::Weak),
    };
    let cure = "a server that starts again has lost what was answered: set both in redis.conf";
    finding("on disk", found, wanted, verdict, cure)
}

fn memory(primary: &Server) -> Finding {
    let limit = match primary.memory_max {
        0 => "no limit".to_owned(),
        bytes => format!("{} bytes at most", grouped(bytes)),
    };
    let found = format!("{limit}, {}", primary.eviction);
    let verdict = if primary.forgets() { Verdict::Fail } else { Verdict::Ok };
    let cure = "when its memory is full it throws the log away: maxmemory-policy noeviction";
    finding("maxmemory-policy", found, "noeviction", verdict, cure)
}

fn stream(found: Option<&StreamFound>) -> Finding {
    let found = match found {
        Some(StreamFound { last, kept }) => {
            format!("entries so far: {}, kept: {}", grouped(*last), grouped(*kept))
        }
        None => "none".to_owned(),
    };
    finding("stream", found, "one, or none: then it is begun", Verdict::Note, "")
}
