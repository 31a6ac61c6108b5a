//! Many nodes. In the file these keys may be in a table: `[cluster] nats` is `cluster_nats`.

use crate::config::bounds::{HOUR, SECOND};
use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{count, duration, show_duration, unless};
use crate::config::values::{
    AUTO, optional_path, put_nats, put_redis, set, show_list, show_or, show_path, stream_name,
};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "cluster_nats",
        value: "URLS|none",
        group: Group::Cluster,
        change: Change::Restart,
        help: "NATS servers with JetStream (2.10 or later), as nats://10.0.0.1,nats://10.0.0.2. All \
               nodes with the same cluster_stream share one log.",
        field: Field::Server { put: put_nats, show: |s| show_list(&s.cluster.nats) },
    },
    Key {
        name: "cluster_redis",
        value: "REDIS|none",
        group: Group::Cluster,
        change: Change::Restart,
        help: "Redis (7 or later) or Valkey instead of NATS, as redis://10.0.0.1,redis://10.0.0.2. The \
               one that is the primary is used.",
        field: Field::Server { put: put_redis, show: |s| show_list(&s.cluster.redis) },
    },
    Key {
        name: "cluster_stream",
        value: "NAME",
        group: Group::Cluster,
        change: Change::Restart,
        help: "The stream that is the log. If it does not exist it is created, with the bounds of \
               history_bytes and history_age.",
        field: Field::Server {
            put: |s, t| set(&mut s.cluster.stream, stream_name(t)),
            show: |s| s.cluster.stream.clone(),
        },
    },
    Key {
        name: "cluster_replicas",
        value: "1-5|auto",
        group: Group::Cluster,
        change: Change::Restart,
        help: "On how many servers a new stream is kept; auto: on three if there are as many.",
        field: Field::Server {
            put: |s, t| set(&mut s.cluster.replicas, unless(AUTO, t, |t| count(t, 1..=5))),
            show: |s| show_or(AUTO, s.cluster.replicas),
        },
    },
    Key {
        name: "cluster_credentials",
        value: "FILE|none",
        group: Group::Cluster,
        change: Change::Restart,
        help: "The user at NATS, as a file: .creds, or the seed of an nkey (SU...).",
        field: Field::Server {
            put: |s, t| set(&mut s.cluster.credentials, optional_path(t)),
            show: |s| show_path(s.cluster.credentials.as_deref()),
        },
    },
    Key {
        name: "cluster_ca",
        value: "FILE|none",
        group: Group::Cluster,
        change: Change::Restart,
        help: "Authorities to trust for brokers reached by TLS, as a PEM file; none: those the host \
               trusts.",
        field: Field::Server {
            put: |s, t| set(&mut s.cluster.ca, optional_path(t)),
            show: |s| show_path(s.cluster.ca.as_deref()),
        },
    },
    Key {
        name: "cluster_unready_after",
        value: "TIME",
        group: Group::Cluster,
        change: Change::Restart,
        help: "How long a node may be away from the stream, or behind it, before /readyz says so.",
        field: Field::Server {
            put: |s, t| set(&mut s.cluster.unready_after, duration(t, SECOND..=HOUR)),
            show: |s| show_duration(s.cluster.unready_after),
        },
    },
    Key {
        name: "cluster_lease",
        value: "TIME",
        group: Group::Cluster,
        change: Change::Restart,
        help: "How long a node that the others do not hear keeps its members (presence).",
        field: Field::Server {
            put: |s, t| set(&mut s.cluster.lease, duration(t, SECOND..=HOUR)),
            show: |s| show_duration(s.cluster.lease),
        },
    },
];
