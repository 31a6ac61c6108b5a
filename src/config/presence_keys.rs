//! The keys of who is there: publishers, and the members of channels.

use std::time::Duration;

use super::bounds::HOUR;
use super::keys::{Change, Field, Group, Key};
use super::units::{self, duration, show_duration, show_word, word};
use super::values::set;
use super::words::PUBLISHERS;

pub(super) const PUBLISHER: Key = Key {
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
};

pub(super) const PRESENCE: Key = Key {
    name: "presence",
    value: "true|false",
    group: Group::Channels,
    change: Change::Reload,
    help: "Whether a channel's subscribers may know of each other: GET \
           /channels/{channel}/presence, and events of who comes and goes.",
    field: Field::Channel {
        put: |c, t| set(&mut c.presence, units::switch(t)),
        show: |c| c.presence.to_string(),
    },
};

pub(super) const GRACE: Key = Key {
    name: "presence_grace",
    value: "TIME",
    group: Group::Times,
    change: Change::Reload,
    help: "How long one that has left a channel with presence is still a member: a connection \
           that comes back within it never left.",
    field: Field::Server {
        put: |s, t| set(&mut s.presence_grace, duration(t, Duration::ZERO..=HOUR)),
        show: |s| show_duration(s.presence_grace),
    },
};
