//! How long things take.

use std::time::Duration;

use crate::config::bounds::{DAY, HOUR, MILLISECOND, SECOND, TENTH};
use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{duration, show_duration};
use crate::config::values::set;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "heartbeat",
        value: "TIME",
        group: Group::Times,
        change: Change::Reload,
        help: "How often an idle stream gets a heartbeat. Keep it below the idle time of proxies \
               on the way.",
        field: Field::Server {
            put: |s, t| set(&mut s.heartbeat, duration(t, SECOND..=HOUR)),
            show: |s| show_duration(s.heartbeat),
        },
    },
    Key {
        name: "retry",
        value: "TIME",
        group: Group::Times,
        change: Change::Reload,
        help: "How long a client waits before it reconnects, on average.",
        field: Field::Server {
            put: |s, t| set(&mut s.retry, duration(t, MILLISECOND..=HOUR)),
            show: |s| show_duration(s.retry),
        },
    },
    Key {
        name: "head_time",
        value: "TIME",
        group: Group::Times,
        change: Change::Reload,
        help: "How long a request head may take.",
        field: Field::Server {
            put: |s, t| set(&mut s.head_time, duration(t, TENTH..=HOUR)),
            show: |s| show_duration(s.head_time),
        },
    },
    Key {
        name: "body_time",
        value: "TIME",
        group: Group::Times,
        change: Change::Reload,
        help: "How long a request body may pause.",
        field: Field::Server {
            put: |s, t| set(&mut s.body_time, duration(t, TENTH..=HOUR)),
            show: |s| show_duration(s.body_time),
        },
    },
    Key {
        name: "idle_time",
        value: "TIME",
        group: Group::Times,
        change: Change::Reload,
        help: "How long a connection without a request stays open.",
        field: Field::Server {
            put: |s, t| set(&mut s.idle_time, duration(t, SECOND..=DAY)),
            show: |s| show_duration(s.idle_time),
        },
    },
    Key {
        name: "dead_time",
        value: "TIME",
        group: Group::Times,
        change: Change::Restart,
        help: "How long a peer may leave what was sent to it unacknowledged (TCP_USER_TIMEOUT).",
        field: Field::Server {
            put: |s, t| set(&mut s.dead_time, duration(t, SECOND..=HOUR)),
            show: |s| show_duration(s.dead_time),
        },
    },
    Key {
        name: "presence_grace",
        value: "TIME",
        group: Group::Times,
        change: Change::Reload,
        help: "How long a subject remains a member of a channel with presence after its last \
               connection has left: one that comes back within it never left.",
        field: Field::Server {
            put: |s, t| set(&mut s.presence_grace, duration(t, Duration::ZERO..=HOUR)),
            show: |s| show_duration(s.presence_grace),
        },
    },
    Key {
        name: "drain",
        value: "TIME",
        group: Group::Times,
        change: Change::Reload,
        help: "How long a drain may take after SIGTERM. Give the service manager some seconds \
               more.",
        field: Field::Server {
            put: |s, t| set(&mut s.drain_time, duration(t, Duration::ZERO..=HOUR)),
            show: |s| show_duration(s.drain_time),
        },
    },
];
