//! Token streams.

use std::time::Duration;

use crate::config::bounds::{DAY, GIB, HOUR, TENTH};
use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{duration, show_duration, show_size, size};
use crate::config::values::{put_stream_paths, set, show_list};

/// Largest merged event: merging copies its text several times, and a reader gets it in one piece.
const COMPACT_MAX: u64 = 2 << 20;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "stream_paths",
        value: "PATHS|none",
        group: Group::Streams,
        change: Change::Reload,
        help: "Paths that answer with a channel's open stream, for clients that have paths of their \
               own: /api/chat/{id}/stream=chat:{id} is what the AI SDK resumes from.",
        field: Field::Server { put: put_stream_paths, show: |s| show_list(&s.stream_paths) },
    },
    Key {
        name: "stream_idle",
        value: "TIME",
        group: Group::Streams,
        change: Change::Reload,
        help: "How long the producer of a stream may be silent before the stream is ended.",
        field: Field::Server {
            put: |s, t| set(&mut s.stream_idle, duration(t, TENTH..=DAY)),
            show: |s| show_duration(s.stream_idle),
        },
    },
    Key {
        name: "stream_grace",
        value: "TIME",
        group: Group::Streams,
        change: Change::Reload,
        help: "How long a stream whose producer was lost waits for it to come back.",
        field: Field::Server {
            put: |s, t| set(&mut s.stream_grace, duration(t, Duration::ZERO..=HOUR)),
            show: |s| show_duration(s.stream_grace),
        },
    },
    Key {
        name: "stream_keep",
        value: "TIME",
        group: Group::Streams,
        change: Change::Reload,
        help: "How long a stream that has ended is kept whole; after that, as long as history keeps its \
               events.",
        field: Field::Server {
            put: |s, t| set(&mut s.stream_keep, duration(t, Duration::ZERO..=DAY)),
            show: |s| show_duration(s.stream_keep),
        },
    },
    Key {
        name: "stream_bytes",
        value: "SIZE",
        group: Group::Streams,
        change: Change::Reload,
        help: "How much of a channel's stream is kept beside its history, so that a late reader gets \
               all of it; all streams together get at most half of history_bytes.",
        field: Field::Channel {
            put: |c, t| set(&mut c.stream_bytes, size(t, 0..=GIB)),
            show: |c| show_size(c.stream_bytes),
        },
    },
    Key {
        name: "stream_compact",
        value: "SIZE",
        group: Group::Streams,
        change: Change::Reload,
        help: "The tokens of a stream that has ended are merged into events of up to this size, which \
               take little memory and reach a late reader at once; 0: they are not merged.",
        field: Field::Channel {
            put: |c, t| set(&mut c.stream_compact, size(t, 0..=COMPACT_MAX)),
            show: |c| show_size(c.stream_compact),
        },
    },
];
