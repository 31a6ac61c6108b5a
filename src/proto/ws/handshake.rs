//! The opening handshake (RFC 6455 section 4.2): whether a request is an upgrade, and the answer.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

use crate::proto::http::response::Status;
use crate::proto::reject::Reject;

/// The envelope protocol's name.
pub(crate) const ENVELOPE_PROTOCOL: &str = "pushline.v1";
/// A name for bare mode: a browser that offers protocols (for instance to carry a token) drops a
/// connection whose answer selects none of them.
pub(crate) const BARE_PROTOCOL: &str = "pushline.bare";
/// A subprotocol entry that begins with this carries a token: browsers cannot set headers here.
const BEARER_PREFIX: &[u8] = b"bearer.";

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const NONCE_BYTES: usize = 16;

/// Some clients leave stray bits in the last digit; they mean nothing.
const NONCE_BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// What a connection's messages look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A message is the bare data.
    Bare,
    /// A message is a JSON envelope.
    Envelope,
}

/// The facts of a request that decide whether it is an upgrade.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The method as sent.
    pub method: &'a [u8],
    /// 1 for HTTP/1.1.
    pub http_minor: u8,
    /// `Upgrade`.
    pub upgrade: Field<'a>,
    /// `Connection`.
    pub connection: Field<'a>,
    /// `Sec-WebSocket-Key`.
    pub key: Field<'a>,
    /// `Sec-WebSocket-Version`.
    pub version: Field<'a>,
    /// `Sec-WebSocket-Protocol`.
    pub protocol: Field<'a>,
}

/// A header's values; a list may be spread over several lines.
pub type Field<'a> = &'a [&'a [u8]];

/// A request that may be upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// What [`write_accept`] takes.
    pub accept_key: [u8; 28],
    /// Chosen by the subprotocol.
    pub mode: Mode,
    /// The subprotocol to name in the answer.
    pub protocol: Option<&'static str>,
    /// The `bearer.` entry's token; empty if there are several, as none of them can count. Must
    /// never be echoed or logged.
    pub bearer: Option<&'a [u8]>,
}

/// Why a request is not upgraded. Each is the client's fault; the connection may go on with another
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not GET (405).
    Method,
    /// HTTP/1.0 knows no upgrade (426).
    HttpVersion,
    /// `Upgrade` does not name websocket, or `Connection` does not name upgrade (426).
    NoUpgrade,
    /// Not version 13 (426 with the version we speak).
    VersionUnsupported,
    /// No key, two, or one that is not 16 bytes in base64 (400).
    BadKey,
}

impl Refusal {
    /// Headers the answer must carry (RFC 9110 sections 15.5.6 and 15.5.22, RFC 6455 section 4.4).
    pub fn headers(self) -> &'static [(&'static str, &'static [u8])] {
        match self {
            Self::Method => &[("Allow", b"GET")],
            Self::HttpVersion | Self::NoUpgrade | Self::VersionUnsupported => &[
                ("Connection", b"Upgrade"),
                ("Upgrade", b"websocket"),
                ("Sec-WebSocket-Version", b"13"),
            ],
            Self::BadKey => &[],
        }
    }
}

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        let required = |code, message| Self::new(Status::UpgradeRequired, code, message);
        match refusal {
            Refusal::Method => Self::new(
                Status::MethodNotAllowed,
                "method_not_allowed",
                "a WebSocket must be opened with GET",
            ),
            Refusal::HttpVersion => required("upgrade_required", "a WebSocket needs HTTP/1.1"),
            Refusal::NoUpgrade => required(
                "upgrade_required",
                "a WebSocket needs Upgrade: websocket and Connection: Upgrade",
            ),
            Refusal::VersionUnsupported => {
                required("websocket_version", "Sec-WebSocket-Version must be 13")
            }
            Refusal::BadKey => Self::bad_request(
                "websocket_key",
                "Sec-WebSocket-Key must appear once, with 16 bytes in base64",
            ),
        }
    }
}

/// Checks a request (RFC 6455 section 4.2.1). Host and Origin are left to the caller.
pub fn check<'a>(facts: &Facts<'a>) -> Result<Accepted<'a>, Refusal> {
    if facts.method != b"GET" {
        return Err(Refusal::Method);
    }
    if facts.http_minor < 1 {
        return Err(Refusal::HttpVersion);
    }
    let names = |field: Field<'a>, name: &[u8]| items(field).any(|i| i.eq_ignore_ascii_case(name));
    if !names(facts.upgrade, b"websocket") || !names(facts.connection, b"upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if facts.version != [b"13"] {
        return Err(Refusal::VersionUnsupported);
    }
    let &[key] = facts.key else { return Err(Refusal::BadKey) };
    if !is_nonce(key) {
        return Err(Refusal::BadKey);
    }
    let (mode, protocol) = select(facts.protocol);
    let mut bearers = items(facts.protocol).filter_map(|item| item.strip_prefix(BEARER_PREFIX));
    let first = bearers.next();
    let bearer = if bearers.next().is_some() { Some(&[][..]) } else { first };
    Ok(Accepted { accept_key: accept_key(key), mode, protocol, bearer })
}

/// The first protocol we know, in the client's order of preference; bare if we know none.
fn select(offered: Field<'_>) -> (Mode, Option<&'static str>) {
    for item in items(offered) {
        if item == ENVELOPE_PROTOCOL.as_bytes() {
            return (Mode::Envelope, Some(ENVELOPE_PROTOCOL));
        }
        if item == BARE_PROTOCOL.as_bytes() {
            return (Mode::Bare, Some(BARE_PROTOCOL));
        }
    }
    (Mode::Bare, None)
}

fn items<'a>(field: Field<'a>) -> impl Iterator<Item = &'a [u8]> {
    field.iter().flat_map(|line| line.split(|&b| b == b',')).map(|item| item.trim_ascii())
}

fn is_nonce(key: &[u8]) -> bool {
    // The decoder wants room for the most the digits could hold.
    let mut nonce = [0; NONCE_BYTES + 2];
    key.len() == 24 && NONCE_BASE64.decode_slice(key, &mut nonce) == Ok(NONCE_BYTES)
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2, item 5.4).
pub(crate) fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut text = [0; 28];
    let written = base64::engine::general_purpose::STANDARD.encode_slice(digest, &mut text);
    debug_assert_eq!(written, Ok(text.len()));
    text
}

/// Appends the 101 answer. `extra_headers` are whole lines, each with its CRLF.
pub fn write_accept(
    out: &mut Vec<u8>,
    accept_key: &[u8; 28],
    protocol: Option<&str>,
    extra_headers: &[u8],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept_key);
    out.extend_from_slice(b"\r\n");
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"Sec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(extra_headers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 1.3.
    const KEY: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &[u8; 28] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn facts() -> Facts<'static> {
        Facts {
            method: b"GET",
            http_minor: 1,
            upgrade: &[b"websocket"],
            connection: &[b"Upgrade"],
            key: &[KEY],
            version: &[b"13"],
            protocol: &[],
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let accepted =
            Accepted { accept_key: *ACCEPT, mode: Mode::Bare, protocol: None, bearer: None };
        assert_eq!(check(&facts()), Ok(accepted));
        assert_eq!(accept_key(KEY), *ACCEPT);
    }

    #[test]
    fn tokens_are_found_in_lists_in_any_case_on_any_line() {
        let cases: [(Field<'_>, Field<'_>); 4] = [
            (&[b"WebSocket"], &[b"keep-alive, Upgrade"]),
            (&[b"h2c , websocket"], &[b"UPGRADE"]),
            (&[b"h2c", b"websocket"], &[b"keep-alive", b"upgrade"]),
            (&[b",websocket,"], &[b"keep-alive,\tupgrade ,"]),
        ];
        for (upgrade, connection) in cases {
            assert!(check(&Facts { upgrade, connection, ..facts() }).is_ok(), "{upgrade:?}");
        }
    }

    #[test]
    fn every_demand_of_section_4_2_1_is_made() {
        use Refusal as R;
        let f = facts();
        let cases: [(&str, Facts<'_>, Refusal, u16); 16] = [
            ("GET", Facts { method: b"POST", ..f }, R::Method, 405),
            ("case of GET", Facts { method: b"get", ..f }, R::Method, 405),
            ("HTTP/1.1", Facts { http_minor: 0, ..f }, R::HttpVersion, 426),
            ("Upgrade", Facts { upgrade: &[], ..f }, R::NoUpgrade, 426),
            ("Upgrade token", Facts { upgrade: &[b"websockets"], ..f }, R::NoUpgrade, 426),
            ("Connection", Facts { connection: &[], ..f }, R::NoUpgrade, 426),
            ("Connection token", Facts { connection: &[b"close"], ..f }, R::NoUpgrade, 426),
            ("version", Facts { version: &[], ..f }, R::VersionUnsupported, 426),
            ("version 8", Facts { version: &[b"8"], ..f }, R::VersionUnsupported, 426),
            ("two versions", Facts { version: &[b"13", b"13"], ..f }, R::VersionUnsupported, 426),
            ("key", Facts { key: &[], ..f }, R::BadKey, 400),
            ("two keys", Facts { key: &[KEY, KEY], ..f }, R::BadKey, 400),
            ("short key", Facts { key: &[b"c2hvcnQ="], ..f }, R::BadKey, 400),
            ("15 bytes", Facts { key: &[b"dGhlIHNhbXBsZSBub25j"], ..f }, R::BadKey, 400),
            ("18 bytes", Facts { key: &[b"dGhlIHNhbXBsZSBub25jZWVl"], ..f }, R::BadKey, 400),
            ("alphabet", Facts { key: &[b"dGhlIHNhbXBsZSBub25jZ_=="], ..f }, R::BadKey, 400),
        ];
        for (what, facts, refusal, status) in cases {
            assert_eq!(check(&facts), Err(refusal), "{what}");
            assert_eq!(Reject::from(refusal).status.code(), status, "{what}");
        }
        let headers = R::VersionUnsupported.headers();
        assert!(headers.contains(&("Sec-WebSocket-Version", &b"13"[..])), "section 4.4");
        assert!(headers.contains(&("Upgrade", &b"websocket"[..])), "RFC 9110 section 15.5.22");
    }

    #[test]
    fn stray_bits_in_the_last_digit_of_a_key_are_forgiven() {
        assert!(check(&Facts { key: &[b"dGhlIHNhbXBsZSBub25jZR=="], ..facts() }).is_ok());
    }

    #[test]
    fn protocols_select_the_mode_and_carry_the_token() {
        let envelope = (Mode::Envelope, Some(ENVELOPE_PROTOCOL));
        let bare = (Mode::Bare, Some(BARE_PROTOCOL));
        let unnamed = (Mode::Bare, None);
        type Selected = (Mode, Option<&'static str>);
        let cases: [(Field<'_>, Selected, Option<&[u8]>); 8] = [
            (&[], unnamed, None),
            (&[b"pushline.v1"], envelope, None),
            (&[b"chat, pushline.v1"], envelope, None),
            (&[b"bearer.a.b-c", b"pushline.v1"], envelope, Some(b"a.b-c")),
            (&[b"pushline.bare, pushline.v1, bearer.t"], bare, Some(b"t")),
            (&[b"chat"], unnamed, None),
            (&[b"Pushline.v1"], unnamed, None),
            (&[b"bearer.one, bearer.two"], unnamed, Some(b"")),
        ];
        for (protocol, (mode, selected), bearer) in cases {
            let accepted = check(&Facts { protocol, ..facts() }).expect("a good request");
            assert_eq!((accepted.mode, accepted.protocol), (mode, selected), "{protocol:?}");
            assert_eq!(accepted.bearer, bearer, "{protocol:?}");
        }
    }

    #[test]
    fn the_answer_is_a_101_with_what_was_selected_and_nothing_else() {
        let mut out = Vec::new();
        write_accept(&mut out, ACCEPT, Some(ENVELOPE_PROTOCOL), b"X-A: b\r\n");
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: pushline.v1\r\nX-A: b\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
        out.clear();
        write_accept(&mut out, ACCEPT, None, b"");
        assert!(out.ends_with(b"xOo=\r\n\r\n"));
    }
}
