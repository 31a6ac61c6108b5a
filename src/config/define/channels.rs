//! What applies to channels that no `[[channel]]` matches.

use std::time::Duration;

use crate::config::bounds::YEAR;
use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{count, duration, rate, show_duration, show_word, switch, word};
use crate::config::values::{set, show_rate};
use crate::config::words::{HISTORIES, PUBLISHERS, SLOW};

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "history",
        value: "all|latest",
        group: Group::Channels,
        change: Change::Reload,
        help: "What a channel keeps within its bounds: all events, or the latest of each Event-Key. Then \
               it is a state: new readers are given it, and slow readers skip to it.",
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
    Key {
        name: "presence",
        value: "true|false",
        group: Group::Channels,
        change: Change::Reload,
        help: "Whether a channel's subscribers may know of each other: GET \
               /channels/{channel}/presence, and events of who comes and goes.",
        field: Field::Channel {
            put: |c, t| set(&mut c.presence, switch(t)),
            show: |c| c.presence.to_string(),
        },
    },
    Key {
        name: "publisher",
        value: "none|subject",
        group: Group::Channels,
        change: Change::Reload,
        help: "What an event says of who published it: none, or the subject of the token (the sub \
               claim).",
        field: Field::Channel {
            put: |c, t| set(&mut c.publisher, word(t, PUBLISHERS)),
            show: |c| show_word(c.publisher, PUBLISHERS),
        },
    },
];
