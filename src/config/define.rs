//! Every key, defined once.

use std::time::Duration;

use super::bounds::{CONNECTIONS_MAX, DAY, GIB, HOUR, KIB, MIB, MILLISECOND, SECOND, TENTH, YEAR};
use super::cluster_keys;
use super::keys::{Change, Field, Group, Key};
use super::units::{
    self, count, duration, rate, show_duration, show_size, show_word, size, unless, word,
};
use super::values::{
    AUTO, NONE, address, put_cpus, put_networks, set, show_cpus, show_networks, show_or, show_rate,
};
use super::words::{
    CLIENT_ADDRESS, DRIVERS, DURABILITIES, FORMATS, HISTORIES, LEVELS, SLOW, STEER,
};
use super::{presence_keys, tls_keys};
use crate::limits::EVENT_BYTES_MAX;

/// All keys but those of [`super::stream_keys`], in the order in which help and the file show them.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "listen",
        value: "ADDRESS",
        group: Group::Listen,
        change: Change::Restart,
        help: "Where clients connect; :8080 is every IPv4 address, [::]:8080 every address.",
        field: Field::Server {
            put: |s, t| set(&mut s.listen, address(t)),
            show: |s| s.listen.to_string(),
        },
    },
    Key {
        name: "admin",
        value: "ADDRESS",
        group: Group::Listen,
        change: Change::Restart,
        help: "Where the operator connects: health, readiness, metrics. Keep it on loopback.",
        field: Field::Server {
            put: |s, t| set(&mut s.admin, address(t)),
            show: |s| s.admin.to_string(),
        },
    },
    Key {
        name: "admin_key_file",
        value: "FILE|none",
        group: Group::Listen,
        change: Change::Restart,
        help: "A file with the operator's key: all but health and readiness then need it, as \
               Authorization: Bearer.",
        field: Field::Server {
            put: |s, t| {
                s.admin_key_file = (t != NONE).then(|| t.into());
                Ok(())
            },
            show: |s| {
                s.admin_key_file.as_ref().map_or(NONE.into(), |path| path.display().to_string())
            },
        },
    },
    Key {
        name: "open",
        value: "true|false",
        group: Group::Listen,
        change: Change::Reload,
        help: "Whether to listen beyond loopback, and serve pages of any site, without keys: anyone \
               can publish and read, and at the operator's listener see and cut connections.",
        field: Field::Server {
            put: |s, t| set(&mut s.open, units::switch(t)),
            show: |s| s.open.to_string(),
        },
    },
    Key {
        name: "demo",
        value: "true|false|auto",
        group: Group::Listen,
        change: Change::Reload,
        help: "Whether there are pages at /demo that show what can be done; auto: if the server \
               listens on loopback.",
        field: Field::Server {
            put: |s, t| set(&mut s.demo, unless(AUTO, t, units::switch)),
            show: |s| show_or(AUTO, s.demo),
        },
    },
    tls_keys::LISTEN,
    tls_keys::CERT,
    tls_keys::KEY,
    tls_keys::MIN_VERSION,
    tls_keys::TICKET_KEY_FILE,
    tls_keys::REDIRECT,
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
        help: "The kernel interface that workers use; auto: io_uring if the host allows all of it \
               that is used, otherwise epoll.",
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
               the worker on the core that received the packet, as long as that is even enough).",
        field: Field::Server {
            put: |s, t| set(&mut s.steer, word(t, STEER)),
            show: |s| show_word(s.steer, STEER),
        },
    },
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
        field: Field::Server { put: put_networks, show: show_networks },
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
        help: "Whether connections may speak HTTP/2: by ALPN, or at once without TLS, as proxies do.",
        field: Field::Server {
            put: |s, t| set(&mut s.http2, units::switch(t)),
            show: |s| s.http2.to_string(),
        },
    },
    Key {
        name: "http2_max_streams",
        value: "N",
        group: Group::Connections,
        change: Change::Reload,
        help: "Streams of one HTTP/2 connection at most: its subscribers and requests at a time. \
               More for a proxy that brings many clients over few connections.",
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
            put: |s, t| set(&mut s.hide_subscribers, units::switch(t)),
            show: |s| s.hide_subscribers.to_string(),
        },
    },
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
    presence_keys::GRACE,
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
    Key {
        name: "history",
        value: "all|latest",
        group: Group::Channels,
        change: Change::Reload,
        help: "What a channel keeps within its bounds: all events, or the latest of each Event-Key: \
               then it is a state, which who comes is given, and which slow readers skip to.",
        field: Field::Channel {
            put: |c, t| set(&mut c.history, word(t, HISTORIES)),
            show: |c| show_word(c.history, HISTORIES),
        },
    },
    Key {
        name: "history_count",
        value: "N",
        group: Group::Channels,
        change: Change::Reload,
        help: "Events a channel keeps; 0: none.",
        field: Field::Channel {
            put: |c, t| set(&mut c.history_count, count(t, 0..=10_000_000)),
            show: |c| c.history_count.to_string(),
        },
    },
    Key {
        name: "history_age",
        value: "TIME",
        group: Group::Channels,
        change: Change::Reload,
        help: "How long a channel keeps an event.",
        field: Field::Channel {
            put: |c, t| set(&mut c.history_age, duration(t, Duration::ZERO..=YEAR)),
            show: |c| show_duration(c.history_age),
        },
    },
    Key {
        name: "slow",
        value: "skip|disconnect",
        group: Group::Channels,
        change: Change::Reload,
        help: "What happens to readers slower than the channel: skip (told of the gap) or \
               disconnect (to reconnect and resume).",
        field: Field::Channel {
            put: |c, t| set(&mut c.slow, word(t, SLOW)),
            show: |c| show_word(c.slow, SLOW),
        },
    },
    Key {
        name: "publish_rate",
        value: "N",
        group: Group::Channels,
        change: Change::Reload,
        help: "Events a second a channel accepts; 0: no limit.",
        field: Field::Channel {
            put: |c, t| set(&mut c.publish_rate, rate(t)),
            show: |c| show_rate(c.publish_rate),
        },
    },
    presence_keys::PRESENCE,
    presence_keys::PUBLISHER,
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
        help: "All history together: on the disk where there is a data_dir, else in memory. In a \
               [[channel]]: what its channels keep together when others press.",
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
        help: "The newest part of history that is in memory, where there is a data_dir or a \
               broker; what is older is read from there.",
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
        help: "Events that may wait for a worker; when that many do, publishes to its subscribers' \
               channels are refused (503).",
        field: Field::Server {
            put: |s, t| set(&mut s.lane_events, count(t, 1..=1_000_000)),
            show: |s| s.lane_events.to_string(),
        },
    },
    Key {
        name: "data_dir",
        value: "FOLDER|none",
        group: Group::Journal,
        change: Change::Restart,
        help: "Where the log is kept, so that a restart loses nothing; none: in memory.",
        field: Field::Server {
            put: |s, t| {
                s.data_dir = (t != NONE).then(|| t.into());
                Ok(())
            },
            show: |s| s.data_dir.as_ref().map_or(NONE.into(), |path| path.display().to_string()),
        },
    },
    Key {
        name: "durability",
        value: "sync|os",
        group: Group::Journal,
        change: Change::Restart,
        help: "When an event in data_dir is seen and its publish answered: once it is on the disk \
               (sync: it survives a loss of power) or once the kernel has it (os: it survives the \
               process).",
        field: Field::Server {
            put: |s, t| set(&mut s.durability, word(t, DURABILITIES)),
            show: |s| show_word(s.durability, DURABILITIES),
        },
    },
    Key {
        name: "log_level",
        value: "LEVEL",
        group: Group::Logs,
        change: Change::Reload,
        help: "How serious a line must be to be written: error, warn, info, debug (also each \
               stream and each end of a connection) or trace.",
        field: Field::Server {
            put: |s, t| set(&mut s.log_lines.level, word(t, LEVELS)),
            show: |s| show_word(s.log_lines.level, LEVELS),
        },
    },
    Key {
        name: "log_format",
        value: "text|json",
        group: Group::Logs,
        change: Change::Restart,
        help: "How lines are written.",
        field: Field::Server {
            put: |s, t| set(&mut s.log_lines.format, word(t, FORMATS)),
            show: |s| show_word(s.log_lines.format, FORMATS),
        },
    },
    Key {
        name: "access_log",
        value: "true|false",
        group: Group::Logs,
        change: Change::Reload,
        help: "Whether each request is logged (info): its connection, path and status.",
        field: Field::Server {
            put: |s, t| set(&mut s.log_lines.access, units::switch(t)),
            show: |s| s.log_lines.access.to_string(),
        },
    },
    cluster_keys::NATS,
    cluster_keys::REDIS,
    cluster_keys::STREAM,
    cluster_keys::REPLICAS,
    cluster_keys::CREDENTIALS,
    cluster_keys::CA,
    cluster_keys::UNREADY_AFTER,
    cluster_keys::LEASE,
];
