//! The log on disk.

use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{show_word, word};
use crate::config::values::{optional_path, set, show_path};
use crate::config::words::DURABILITIES;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        value: "FOLDER|none",
        group: Group::Journal,
        change: Change::Restart,
        help: "Where the log is kept, so that a restart loses nothing; none: in memory.",
        field: Field::Server {
            put: |s, t| set(&mut s.data_dir, optional_path(t)),
            show: |s| show_path(s.data_dir.as_deref()),
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
];
