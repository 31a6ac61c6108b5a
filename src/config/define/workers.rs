//! Threads, cores and the kernel interface.

use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{count, show_word, unless, word};
use crate::config::values::{AUTO, put_cpus, set, show_cpus, show_or};
use crate::config::words::{DRIVERS, STEER};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "workers",
        value: "N|auto",
        group: Group::Workers,
        change: Change::Restart,
        help: "Threads that own connections; auto: one per core.",
        field: Field::Server {
            put: |s, t| set(&mut s.workers, unless(AUTO, t, |t| count(t, 1..=1024))),
            show: |s| show_or(AUTO, s.workers),
        },
    },
    Key {
        name: "cpus",
        value: "LIST|auto|none",
        group: Group::Workers,
        change: Change::Restart,
        help: "Cores to pin workers to, as 0,2,4-7; auto: all allowed ones; none: no pinning.",
        field: Field::Server { put: |s, t| put_cpus(s, t), show: |s| show_cpus(s) },
    },
    Key {
        name: "driver",
        value: "auto|io_uring|epoll",
        group: Group::Workers,
        change: Change::Restart,
        help: "The kernel interface that workers use; auto: io_uring if the host allows all we need \
               of it, otherwise epoll.",
        field: Field::Server {
            put: |s, t| set(&mut s.driver, word(t, DRIVERS)),
            show: |s| show_word(s.driver, DRIVERS),
        },
    },
    Key {
        name: "steer",
        value: "hash|cpu",
        group: Group::Workers,
        change: Change::Restart,
        help: "How new connections are spread over workers: hash (evenly, by address) or cpu (to \
               the worker on the core that received the packet, while that is even enough).",
        field: Field::Server {
            put: |s, t| set(&mut s.steer, word(t, STEER)),
            show: |s| show_word(s.steer, STEER),
        },
    },
];
