//! Which pages may connect, and what CORS tells their browser.

use pushline::auth::{CORS_PREFLIGHT, Gate, OriginVerdict, Page, RequestKind};

use super::*;

use OriginVerdict::{Forbidden, Listed, Local, NoBrowser, SameHost, Unchecked};
use RequestKind::{Credentialed, Plain, WebSocket};

const KINDS: [RequestKind; 3] = [WebSocket, Credentialed, Plain];

/// The verdicts for a WebSocket, a request with credentials, and one without.
fn verdicts(gate: &Gate, origin: &str, host: &str) -> [OriginVerdict; 3] {
    let page = page(origin, host);
    KINDS.map(|kind| gate.origin_verdict(kind, &page))
}

fn page<'a>(origin: &'a str, host: &'a str) -> Page<'a> {
    let (origin, host) = (Some(origin.as_bytes()), Some(host.as_bytes()));
    Page { origin, host, fetch_site: None }
}

#[test]
fn a_guarded_gate_takes_listed_pages_and_its_own() {
    let gate = hmac_gate("origins = [\"https://app.example\", \"http://localhost:3000\"]");
    let foreign = [Forbidden, Forbidden, Unchecked];
    for (origin, expected) in [
        ("https://app.example", [Listed; 3]),
        ("http://localhost:3000", [Listed; 3]),
        ("https://push.example", [SameHost; 3]),
        ("http://app.example", foreign),
        ("https://app.example:8443", foreign),
        ("https://app.example.", foreign),
        ("https://APP.example", foreign),
        ("HTTPS://app.example", foreign),
        ("https://app.example:443", foreign),
        ("https://app.example.evil.example", foreign),
        ("https://xapp.example", foreign),
        ("https://sub.push.example", foreign),
        ("https://app.example@evil.example", foreign),
        ("https://push.example@evil.example", foreign),
        ("https://evil.example/push.example", foreign),
        ("http://localhost", foreign),
        ("http://localhost:30000", foreign),
        ("null", foreign),
        ("", foreign),
        ("*", foreign),
        ("push.example", foreign),
        ("://push.example", foreign),
        ("https://app.example https://evil.example", foreign),
    ] {
        assert_eq!(verdicts(&gate, origin, "push.example"), expected, "{origin}");
    }
    for kind in KINDS {
        assert_eq!(gate.origin_verdict(kind, &Page::default()), NoBrowser);
        let no_host = Page { host: None, ..page("https://push.example", "") };
        let no_host = gate.origin_verdict(kind, &no_host);
        assert_ne!(no_host, SameHost);
    }
}

/// Scheme aside: a proxy that ends TLS hides it. A missing port is the one of the page's scheme.
#[test]
fn the_same_host_is_the_same_name_and_port() {
    let gate = hmac_gate("");
    for (origin, host, expected) in [
        ("https://push.example", "push.example", SameHost),
        ("http://push.example", "push.example", SameHost),
        ("https://push.example", "push.example:443", SameHost),
        ("http://push.example", "push.example:80", SameHost),
        ("https://push.example", "push.example:80", Forbidden),
        ("https://PUSH.example", "push.EXAMPLE", SameHost),
        ("http://push.example:8080", "push.example:8080", SameHost),
        ("http://push.example:8080", "push.example:8081", Forbidden),
        ("http://push.example:8080", "push.example", Forbidden),
        ("http://push.example", "push.example:8080", Forbidden),
        ("http://[::1]:8080", "[::1]:8080", SameHost),
        ("http://[::1]:8080", "[::2]:8080", Forbidden),
        ("http://127.0.0.1:8080", "localhost:8080", Forbidden),
        ("chrome-extension://push.example", "push.example", Forbidden),
        ("http://", "", Forbidden),
        ("http://:80", ":80", Forbidden),
        ("http://push.example:x", "push.example:x", Forbidden),
        ("http://push.example:99999", "push.example:99999", Forbidden),
        ("http://[", "[", Forbidden),
        ("http://a,b", "a,b", Forbidden),
    ] {
        assert_eq!(verdicts(&gate, origin, host)[0], expected, "{origin} at {host}");
        assert_eq!(verdicts(&gate, origin, host)[1], expected, "{origin} at {host}");
    }
}

/// An open gate's operator has said so, or it is for one machine: then pages of other sites are kept
/// from reaching into it, by WebSockets and by plain requests, which a browser sends before it asks.
/// With a list, the list alone speaks.
#[test]
fn a_gate_for_this_machine_takes_pages_of_this_machine_only() {
    let (anybody, gate) = (Gate::open(), Gate::open().for_this_machine());
    for (origin, expected) in [
        ("http://localhost:8080", SameHost),
        ("http://localhost:3000", Local),
        ("https://LOCALHOST", Local),
        ("http://127.0.0.1:5173", Local),
        ("http://127.0.0.2:5173", Local),
        ("http://[::1]:5173", Local),
        ("https://evil.example", Forbidden),
        ("http://localhost.evil.example", Forbidden),
        ("http://127.0.0.1.evil.example", Forbidden),
        ("http://127.0.0.1@evil.example", Forbidden),
        ("chrome-extension://localhost", Forbidden),
        ("null", Forbidden),
    ] {
        assert_eq!(verdicts(&gate, origin, "localhost:8080"), [expected; 3], "{origin}");
        let of_anybody = verdicts(&anybody, origin, "localhost:8080");
        assert!(of_anybody.iter().all(|verdict| verdict.is_allowed()), "{origin}");
    }
    let listed = gate_with_origins("[\"https://app.example\"]").for_this_machine();
    assert!(listed.is_open());
    assert_eq!(verdicts(&listed, "http://localhost:3000", "push.example"), [Forbidden; 3]);
    assert_eq!(verdicts(&listed, "https://app.example", "push.example"), [Listed; 3]);
}

#[test]
fn a_gate_for_this_machine_is_asked_by_address_or_as_localhost() {
    let gates = [Gate::open(), hmac_gate("").for_this_machine()];
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "10.0.0.7", "push.example"] {
        let host = Some(host.as_bytes());
        assert!(gates.iter().all(|gate| gate.is_meant(host)));
        let is_name = host == Some(b"push.example");
        assert_eq!(Gate::open().for_this_machine().is_meant(host), !is_name, "{host:?}");
    }
}

/// An image of a foreign page brings the user's cookie and no `Origin`.
#[test]
fn a_foreign_site_uses_no_credentials_without_an_origin() {
    let gate = hmac_gate("origins = [\"https://app.example\"]");
    for (site, expected) in [
        ("cross-site", [NoBrowser, Forbidden, NoBrowser]),
        ("same-site", [NoBrowser; 3]),
        ("same-origin", [NoBrowser; 3]),
        ("none", [NoBrowser; 3]),
    ] {
        let page = Page { fetch_site: Some(site.as_bytes()), ..Page::default() };
        assert_eq!(KINDS.map(|kind| gate.origin_verdict(kind, &page)), expected, "{site}");
    }
    let listed = Page { fetch_site: Some(b"cross-site"), ..page("https://app.example", "x") };
    assert_eq!(KINDS.map(|kind| gate.origin_verdict(kind, &listed)), [Listed; 3]);
}

/// Behind a proxy that ends TLS we cannot know our own scheme, but the browser does.
#[test]
fn a_page_of_our_name_and_another_scheme_is_a_foreign_one() {
    let gate = hmac_gate("");
    for (site, expected) in
        [(None, SameHost), (Some("same-origin"), SameHost), (Some("cross-site"), Forbidden)]
    {
        let fetch_site = site.map(str::as_bytes);
        let page = Page { fetch_site, ..page("http://push.example", "push.example:80") };
        assert_eq!(gate.origin_verdict(Credentialed, &page), expected, "{site:?}");
    }
}

#[test]
fn null_is_only_allowed_when_listed() {
    let gate = hmac_gate("origins = [\"null\"]");
    assert_eq!(verdicts(&gate, "null", "push.example"), [Listed; 3]);
}

fn gate_with_origins(origins: &str) -> Gate {
    gate(&format!("origins = {origins}"))
}

fn cors(gate: &Gate, origin: Option<&str>) -> String {
    let headers = gate.cors_headers(origin.map(str::as_bytes));
    String::from_utf8(headers.to_vec()).expect("ASCII")
}

#[test]
fn cors_names_a_listed_origin_and_no_other() {
    let guarded = hmac_gate("origins = [\"https://app.example\", \"https://b.example\"]");
    let open = gate_with_origins("[\"https://app.example\", \"https://b.example\"]");
    for gate in [guarded, open] {
        assert_eq!(
            cors(&gate, Some("https://b.example")),
            "Access-Control-Allow-Origin: https://b.example\r\n\
             Access-Control-Allow-Credentials: true\r\n\
             Access-Control-Expose-Headers: Retry-After\r\nVary: Origin\r\n"
        );
        for other in [
            None,
            Some("https://evil.example"),
            Some("https://b.example\r\nX-Evil: 1"),
            Some("null"),
            Some("*"),
        ] {
            assert_eq!(cors(&gate, other), "Vary: Origin\r\n", "{other:?}");
        }
    }
}

#[test]
fn only_an_open_gate_without_a_list_answers_with_a_wildcard() {
    for origin in [None, Some("https://any.example"), Some("null")] {
        assert_eq!(
            cors(&Gate::open(), origin),
            "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\n"
        );
        assert_eq!(cors(&hmac_gate(""), origin), "");
    }
}

#[test]
fn a_wildcard_never_goes_with_credentials() {
    let gates = [
        Gate::open(),
        hmac_gate(""),
        hmac_gate("origins = [\"https://app.example\", \"null\"]"),
        gate_with_origins("[\"https://app.example\"]"),
    ];
    for gate in &gates {
        for origin in [None, Some("https://app.example"), Some("https://evil.example"), Some("*")] {
            let headers = cors(gate, origin);
            assert!(!(headers.contains('*') && headers.contains("Credentials")), "{headers}");
            assert!(headers.is_empty() || headers.ends_with("\r\n"));
        }
    }
    let preflight = std::str::from_utf8(CORS_PREFLIGHT).expect("ASCII");
    assert!(!preflight.contains('*') && preflight.ends_with("\r\n"));
    for needed in ["Authorization", "Last-Event-ID", "X-API-Key", "Idempotency-Key", "Event-Type"] {
        assert!(preflight.contains(needed), "{needed}");
    }
    assert!(preflight.lines().all(|line| line.contains(": ") && !line.ends_with(' ')));
}
