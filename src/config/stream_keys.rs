//! The keys of token streams.

use std::time::Duration;

use super::bounds::{DAY, GIB, HOUR, TENTH};
use super::keys::{Change, Field, Group, Key};
use super::units::{duration, show_duration, show_size, size};
use super::values::{put_stream_paths, set, show_stream_paths};

/// Merging copies the text of an event several times, and a reader gets it in one piece.
const COMPACT_MAX: u64 = 2 << 20;

/// In the order in which help and the file show them.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "stream_paths",
        value: "PATHS|none",
        group: Group::Streams,
        change: Change::Reload,
        help: "Paths that are a channel's open stream, for clients that ask by their own: \
               /api/chat/{id}/stream=chat:{id} is what the AI SDK resumes from.",
        field: Field::Server { put: put_stream_paths, show: show_stream_paths },
    },
    Key {
        name: "stream_idle",
        value: "TIME",
        group: Group::Streams,
        change: Change::Reload,
        help: "How long the producer of a stream may say nothing before the stream is ended.",
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
        help: "How long a stream that has ended is kept whole; then history decides.",
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
        help: "What is kept of a channel's stream beside its history, so that one that comes late \
               gets all of it; all streams together at most half of history_bytes.",
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
        help: "The text of a stream that has ended becomes one event, or several of at most this \
               size, which takes little memory and is what one that comes late gets; 0: it stays as \
               it is.",
        field: Field::Channel {
            put: |c, t| set(&mut c.stream_compact, size(t, 0..=COMPACT_MAX)),
            show: |c| show_size(c.stream_compact),
        },
    },
];
