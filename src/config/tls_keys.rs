//! The keys of TLS. In the file they may be in a table: `[tls] cert` is `tls_cert`.

use super::TlsVersion;
use super::keys::{Change, Field, Group, Key};
use super::units::{self, show_word, unless, word};
use super::values::{NONE, address, put_files, set, show_files, show_or};

pub(super) const LISTEN: Key = Key {
    name: "listen_tls",
    value: "ADDRESS|none",
    group: Group::Tls,
    change: Change::Restart,
    help: "Where clients connect by https and wss, beside listen; needs tls_cert and tls_key.",
    field: Field::Server {
        put: |s, t| set(&mut s.listen_tls, unless(NONE, t, address)),
        show: |s| show_or(NONE, s.listen_tls),
    },
};

pub(super) const CERT: Key = Key {
    name: "tls_cert",
    value: "FILES|none",
    group: Group::Tls,
    change: Change::Reload,
    help: "Certificate chains in PEM, each by its own name (SNI), the first for all others. Files \
           that change are read again.",
    field: Field::Server {
        put: |s, t| put_files(&mut s.tls.certificates, t),
        show: |s| show_files(&s.tls.certificates),
    },
};

pub(super) const KEY: Key = Key {
    name: "tls_key",
    value: "FILES|none",
    group: Group::Tls,
    change: Change::Reload,
    help: "Their private keys in PEM, in the same order.",
    field: Field::Server {
        put: |s, t| put_files(&mut s.tls.keys, t),
        show: |s| show_files(&s.tls.keys),
    },
};

pub(super) const MIN_VERSION: Key = Key {
    name: "tls_min_version",
    value: "1.2|1.3",
    group: Group::Tls,
    change: Change::Reload,
    help: "The oldest version of TLS that is spoken. A connection of 1.2 takes several times the \
           memory.",
    field: Field::Server {
        put: |s, t| set(&mut s.tls.min_version, word(t, TLS_VERSIONS)),
        show: |s| show_word(s.tls.min_version, TLS_VERSIONS),
    },
};

pub(super) const TICKET_KEY_FILE: Key = Key {
    name: "tls_ticket_key_file",
    value: "FILE|none",
    group: Group::Tls,
    change: Change::Reload,
    help: "A secret of 32 bytes or more, the same on several nodes: a client that comes back may \
           resume its session at any of them. none: at this one, until it restarts.",
    field: Field::Server {
        put: |s, t| {
            s.tls.ticket_key_file = (t != NONE).then(|| t.into());
            Ok(())
        },
        show: |s| {
            s.tls.ticket_key_file.as_ref().map_or(NONE.into(), |path| path.display().to_string())
        },
    },
};

pub(super) const REDIRECT: Key = Key {
    name: "tls_redirect",
    value: "true|false",
    group: Group::Tls,
    change: Change::Reload,
    help: "Whether a GET without TLS is sent to the same place with TLS.",
    field: Field::Server {
        put: |s, t| set(&mut s.tls.redirect, units::switch(t)),
        show: |s| s.tls.redirect.to_string(),
    },
};

const TLS_VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
