//! The keys of `[cluster]`.

use std::path::Path;

use super::bounds::{HOUR, SECOND};
use super::keys::{Change, Field, Group, Key};
use super::units::{count, duration, show_duration, unless};
use super::values::{AUTO, NONE, put_nats, put_redis, set, show_addresses, show_or, stream_name};

pub(super) const NATS: Key = Key {
    name: "cluster_nats",
    value: "URLS|none",
    group: Group::Cluster,
    change: Change::Restart,
    help: "NATS servers with JetStream (2.11 or later), as nats://10.0.0.1,nats://10.0.0.2: \
           all nodes that name the same stream have one log.",
    field: Field::Server { put: put_nats, show: |s| show_addresses(&s.cluster.nats) },
};

pub(super) const REDIS: Key = Key {
    name: "cluster_redis",
    value: "REDIS|none",
    group: Group::Cluster,
    change: Change::Restart,
    help: "Redis (7 or later) or Valkey instead of NATS, as redis://10.0.0.1,redis://10.0.0.2: the one \
           that is the primary is used.",
    field: Field::Server { put: put_redis, show: |s| show_addresses(&s.cluster.redis) },
};

pub(super) const STREAM: Key = Key {
    name: "cluster_stream",
    value: "NAME",
    group: Group::Cluster,
    change: Change::Restart,
    help: "The stream that is the log. It is created where there is none, with the bounds of \
           history_bytes and history_age.",
    field: Field::Server {
        put: |s, t| set(&mut s.cluster.stream, stream_name(t)),
        show: |s| s.cluster.stream.clone(),
    },
};

pub(super) const REPLICAS: Key = Key {
    name: "cluster_replicas",
    value: "1-5|auto",
    group: Group::Cluster,
    change: Change::Restart,
    help: "On how many servers a stream that is created is kept; auto: three, where there are as \
           many.",
    field: Field::Server {
        put: |s, t| set(&mut s.cluster.replicas, unless(AUTO, t, |t| count(t, 1..=5))),
        show: |s| show_or(AUTO, s.cluster.replicas),
    },
};

pub(super) const CREDENTIALS: Key = Key {
    name: "cluster_credentials",
    value: "FILE|none",
    group: Group::Cluster,
    change: Change::Restart,
    help: "A file of NATS credentials (.creds).",
    field: Field::Server {
        put: |s, t| {
            s.cluster.credentials = (t != NONE).then(|| t.into());
            Ok(())
        },
        show: |s| show_path(s.cluster.credentials.as_deref()),
    },
};

pub(super) const CA: Key = Key {
    name: "cluster_ca",
    value: "FILE|none",
    group: Group::Cluster,
    change: Change::Restart,
    help: "Authorities that sign the certificates of servers at tls:// addresses, as a PEM file; none: \
           those the host trusts.",
    field: Field::Server {
        put: |s, t| {
            s.cluster.ca = (t != NONE).then(|| t.into());
            Ok(())
        },
        show: |s| show_path(s.cluster.ca.as_deref()),
    },
};

pub(super) const UNREADY_AFTER: Key = Key {
    name: "cluster_unready_after",
    value: "TIME",
    group: Group::Cluster,
    change: Change::Restart,
    help: "How long a node may be away from the stream, or behind it, before /readyz says so.",
    field: Field::Server {
        put: |s, t| set(&mut s.cluster.unready_after, duration(t, SECOND..=HOUR)),
        show: |s| show_duration(s.cluster.unready_after),
    },
};

pub(super) const LEASE: Key = Key {
    name: "cluster_lease",
    value: "TIME",
    group: Group::Cluster,
    change: Change::Restart,
    help: "How long a node of which the others hear nothing keeps its members (presence).",
    field: Field::Server {
        put: |s, t| set(&mut s.cluster.lease, duration(t, SECOND..=HOUR)),
        show: |s| show_duration(s.cluster.lease),
    },
};

fn show_path(path: Option<&Path>) -> String {
    path.map_or(NONE.into(), |path| path.display().to_string())
}
