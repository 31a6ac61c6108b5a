//! Bounds of memory.

use crate::config::bounds::{GIB, KIB};
use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{count, show_size, size};
use crate::config::values::set;
use crate::limits::EVENT_BYTES_MAX;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "max_event_bytes",
        value: "SIZE",
        group: Group::Limits,
        change: Change::Reload,
        help: "Largest event.",
        field: Field::Server {
            put: |s, t| set(&mut s.event_bytes_max, size(t, 1..=EVENT_BYTES_MAX as u64)),
            show: |s| show_size(s.event_bytes_max as u64),
        },
    },
    Key {
        name: "max_fragments",
        value: "N",
        group: Group::Limits,
        change: Change::Reload,
        help: "Most fragments of one WebSocket message.",
        field: Field::Server {
            put: |s, t| set(&mut s.fragments_max, count(t, 1..=100_000)),
            show: |s| s.fragments_max.to_string(),
        },
    },
    Key {
        name: "max_channels",
        value: "N",
        group: Group::Limits,
        change: Change::Reload,
        help: "Most channels in all.",
        field: Field::Server {
            put: |s, t| set(&mut s.channels_max, count(t, 1..=100_000_000)),
            show: |s| s.channels_max.to_string(),
        },
    },
    Key {
        name: "history_bytes",
        value: "SIZE",
        group: Group::Limits,
        change: Change::Reload,
        help: "All history together: on disk with a data_dir, otherwise in memory. In a [[channel]]: \
               what its channels keep together when others need room.",
        field: Field::Shared {
            put: |s, t| set(&mut s.history_bytes, size(t, 64 * KIB..=1024 * GIB)),
            show: |s| show_size(s.history_bytes),
            put_share: |c, t| set(&mut c.history_share, size(t, 0..=1024 * GIB)),
        },
    },
    Key {
        name: "history_memory_bytes",
        value: "SIZE",
        group: Group::Limits,
        change: Change::Reload,
        help: "With a data_dir or a broker, the newest part of history, which is in memory; older \
               events are read from there.",
        field: Field::Server {
            put: |s, t| set(&mut s.history_memory_bytes, size(t, 64 * KIB..=1024 * GIB)),
            show: |s| show_size(s.history_memory_bytes),
        },
    },
    Key {
        name: "replica_bytes",
        value: "SIZE",
        group: Group::Limits,
        change: Change::Reload,
        help: "Memory a worker may hold for the slow readers of one channel; at least one event.",
        field: Field::Server {
            put: |s, t| set(&mut s.replica_bytes, size(t, 64 * KIB..=16 * GIB)),
            show: |s| show_size(s.replica_bytes as u64),
        },
    },
    Key {
        name: "worker_replica_bytes",
        value: "SIZE",
        group: Group::Limits,
        change: Change::Reload,
        help: "Memory a worker may hold for the slow readers of all its channels together. Beyond \
               it, each channel keeps an equal share.",
        field: Field::Server {
            put: |s, t| set(&mut s.worker_replica_bytes, size(t, 64 * KIB..=1024 * GIB)),
            show: |s| show_size(s.worker_replica_bytes as u64),
        },
    },
    Key {
        name: "worker_input_bytes",
        value: "SIZE",
        group: Group::Limits,
        change: Change::Reload,
        help: "Memory a worker may hold for unfinished requests and messages; at least one with the \
               largest event. Beyond it, the largest are refused (503, 1013).",
        field: Field::Server {
            put: |s, t| set(&mut s.worker_input_bytes, size(t, 64 * KIB..=1024 * GIB)),
            show: |s| show_size(s.worker_input_bytes as u64),
        },
    },
    Key {
        name: "lane_events",
        value: "N",
        group: Group::Limits,
        change: Change::Restart,
        help: "Events that may wait for a worker. When as many wait, publishes to its subscribers' \
               channels are refused (503).",
        field: Field::Server {
            put: |s, t| set(&mut s.lane_events, count(t, 1..=1_000_000)),
            show: |s| s.lane_events.to_string(),
        },
    },
];
