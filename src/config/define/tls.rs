//! TLS. In the file these keys may be in a table: `[tls] cert` is `tls_cert`.

use crate::config::keys::{Change, Field, Group, Key};
use crate::config::units::{show_word, switch, unless, word};
use crate::config::values::{
    NONE, address, optional_path, put_files, set, show_files, show_or, show_path,
};
use crate::config::words::TLS_VERSIONS;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "listen_tls",
        value: "ADDRESS|none",
        group: Group::Tls,
        change: Change::Restart,
        help: "Where clients connect by https and wss, in addition to listen; needs tls_cert and \
               tls_key.",
        field: Field::Server {
            put: |s, t| set(&mut s.listen_tls, unless(NONE, t, address)),
            show: |s| show_or(NONE, s.listen_tls),
        },
    },
    Key {
        name: "tls_cert",
        value: "FILES|none",
        group: Group::Tls,
        change: Change::Reload,
        help: "Certificate chains in PEM, chosen by the name a client asks for (SNI); the first is for \
               all other names. Files that change are read again.",
        field: Field::Server {
            put: |s, t| put_files(&mut s.tls.certificates, t),
            show: |s| show_files(&s.tls.certificates),
        },
    },
    Key {
        name: "tls_key",
        value: "FILES|none",
        group: Group::Tls,
        change: Change::Reload,
        help: "Their private keys in PEM, in the same order.",
        field: Field::Server {
            put: |s, t| put_files(&mut s.tls.keys, t),
            show: |s| show_files(&s.tls.keys),
        },
    },
    Key {
        name: "tls_min_version",
        value: "1.2|1.3",
        group: Group::Tls,
        change: Change::Reload,
        help: "The oldest version of TLS to accept. A connection with 1.2 takes several times the \
               memory.",
        field: Field::Server {
            put: |s, t| set(&mut s.tls.min_version, word(t, TLS_VERSIONS)),
            show: |s| show_word(s.tls.min_version, TLS_VERSIONS),
        },
    },
    Key {
        name: "tls_ticket_key_file",
        value: "FILE|none",
        group: Group::Tls,
        change: Change::Reload,
        help: "A file with a secret of 32 bytes or more, the same on several nodes: a client that comes \
               back can resume its TLS session at any of them. none: only at this one, until it \
               restarts.",
        field: Field::Server {
            put: |s, t| set(&mut s.tls.ticket_key_file, optional_path(t)),
            show: |s| show_path(s.tls.ticket_key_file.as_deref()),
        },
    },
    Key {
        name: "tls_redirect",
        value: "true|false",
        group: Group::Tls,
        change: Change::Reload,
        help: "Whether a GET without TLS is redirected to the same URL with TLS.",
        field: Field::Server {
            put: |s, t| set(&mut s.tls.redirect, switch(t)),
            show: |s| s.tls.redirect.to_string(),
        },
    },
];
