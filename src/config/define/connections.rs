//! What connections may do, and whose they are.

use crate::config::bounds::{CONNECTIONS_MAX, KIB, MIB};
use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{count, rate, show_size, show_word, size, switch, unless, word};
use crate::config::values::{AUTO, put_networks, set, show_list, show_or, show_rate};
use crate::config::words::CLIENT_ADDRESS;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "max_connections",
        value: "N|auto",
        group: Group::Connections,
        change: Change::Reload,
        help: "Most connections; auto: as many as descriptors allow.",
        field: Field::Server {
            put: |s, t| {
                set(&mut s.connections_max, unless(AUTO, t, |t| count(t, 1..=CONNECTIONS_MAX)))
            },
            show: |s| show_or(AUTO, s.connections_max),
        },
    },
    Key {
        name: "max_connections_per_address",
        value: "N",
        group: Group::Connections,
        change: Change::Reload,
        help: "Most connections of one client address (for IPv6, of one /64); 0: no limit. Behind \
               a proxy, name it in trusted_proxies.",
        field: Field::Server {
            put: |s, t| set(&mut s.address_connections_max, rate(t)),
            show: |s| show_rate(s.address_connections_max),
        },
    },
    Key {
        name: "trusted_proxies",
        value: "NETWORKS|none",
        group: Group::Connections,
        change: Change::Restart,
        help: "Proxies trusted to name the client, as addresses or networks: 127.0.0.1,10.0.0.0/8.",
        field: Field::Server { put: put_networks, show: |s| show_list(&s.trusted_proxies) },
    },
    Key {
        name: "client_address",
        value: "x-forwarded-for|forwarded|proxy-protocol",
        group: Group::Connections,
        change: Change::Restart,
        help: "How trusted_proxies name the client: that header, or the PROXY protocol (1 or 2).",
        field: Field::Server {
            put: |s, t| set(&mut s.client_address, word(t, CLIENT_ADDRESS)),
            show: |s| show_word(s.client_address, CLIENT_ADDRESS),
        },
    },
    Key {
        name: "accept_rate",
        value: "N",
        group: Group::Connections,
        change: Change::Reload,
        help: "New connections a second and worker; 0: no limit.",
        field: Field::Server {
            put: |s, t| set(&mut s.accept_rate, rate(t)),
            show: |s| show_rate(s.accept_rate),
        },
    },
    Key {
        name: "send_buffer",
        value: "SIZE|auto",
        group: Group::Connections,
        change: Change::Restart,
        help: "Send buffer of each connection (SO_SNDBUF): a reader that stalls may hold twice as \
               much. auto: the kernel decides, up to megabytes.",
        field: Field::Server {
            put: |s, t| set(&mut s.send_buffer, unless(AUTO, t, |t| size(t, 4 * KIB..=64 * MIB))),
            show: |s| s.send_buffer.map_or(AUTO.to_owned(), |bytes| show_size(u64::from(bytes))),
        },
    },
    Key {
        name: "unsent",
        value: "SIZE|auto",
        group: Group::Connections,
        change: Change::Restart,
        help: "Bytes the kernel accepts for a reader beyond those in flight to it \
               (TCP_NOTSENT_LOWAT), and so its memory for one that has stopped reading; auto: as \
               much as the send buffer holds.",
        field: Field::Server {
            put: |s, t| set(&mut s.unsent, unless(AUTO, t, |t| size(t, 4 * KIB..=64 * MIB))),
            show: |s| s.unsent.map_or(AUTO.to_owned(), |bytes| show_size(u64::from(bytes))),
        },
    },
    Key {
        name: "max_channels_per_connection",
        value: "N",
        group: Group::Connections,
        change: Change::Reload,
        help: "Channels one connection may subscribe to.",
        field: Field::Server {
            put: |s, t| set(&mut s.connection_channels_max, count(t, 1..=1024)),
            show: |s| s.connection_channels_max.to_string(),
        },
    },
    Key {
        name: "connection_publish_rate",
        value: "N",
        group: Group::Connections,
        change: Change::Reload,
        help: "Publishes a second of one connection: requests, messages, and each 16 KiB of a body \
               of lines; 0: no limit.",
        field: Field::Server {
            put: |s, t| set(&mut s.connection_publish_rate, rate(t)),
            show: |s| show_rate(s.connection_publish_rate),
        },
    },
    Key {
        name: "http2",
        value: "true|false",
        group: Group::Connections,
        change: Change::Reload,
        help: "Whether connections may use HTTP/2: by ALPN, or by prior knowledge without TLS, as \
               proxies do.",
        field: Field::Server {
            put: |s, t| set(&mut s.http2, switch(t)),
            show: |s| s.http2.to_string(),
        },
    },
    Key {
        name: "http2_max_streams",
        value: "N",
        group: Group::Connections,
        change: Change::Reload,
        help: "Most streams of one HTTP/2 connection: its subscribers and requests at a time. Raise it \
               for a proxy that brings many clients over few connections.",
        field: Field::Server {
            put: |s, t| set(&mut s.http2_streams_max, count(t, 1..=100_000)),
            show: |s| s.http2_streams_max.to_string(),
        },
    },
    Key {
        name: "hide_subscribers",
        value: "true|false",
        group: Group::Connections,
        change: Change::Reload,
        help: "Whether the answer to a client's publish leaves out how many subscribers there are. \
               A publish key is always told.",
        field: Field::Server {
            put: |s, t| set(&mut s.hide_subscribers, switch(t)),
            show: |s| s.hide_subscribers.to_string(),
        },
    },
];
