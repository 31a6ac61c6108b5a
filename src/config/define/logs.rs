//! Log lines.

use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{show_word, switch, word};
use crate::config::values::set;
use crate::config::words::{FORMATS, LEVELS};

pub(super) const KEYS: &[Key] = &[
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
            put: |s, t| set(&mut s.log_lines.access, switch(t)),
            show: |s| s.log_lines.access.to_string(),
        },
    },
];
