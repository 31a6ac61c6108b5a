//! Where the server listens, and who may use it without keys.

use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{switch, unless};
use crate::config::values::{AUTO, address, optional_path, set, show_or, show_path};

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
            put: |s, t| set(&mut s.admin_key_file, optional_path(t)),
            show: |s| show_path(s.admin_key_file.as_deref()),
        },
    },
    Key {
        name: "open",
        value: "true|false",
        group: Group::Listen,
        change: Change::Reload,
        help: "Whether to listen beyond loopback, and serve pages of any site, without keys: anyone \
               can publish and read, under any subject, and at the operator's listener see and cut \
               connections.",
        field: Field::Server {
            put: |s, t| set(&mut s.open, switch(t)),
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
            put: |s, t| set(&mut s.demo, unless(AUTO, t, switch)),
            show: |s| show_or(AUTO, s.demo),
        },
    },
];
