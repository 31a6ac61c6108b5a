//! Which pages may connect, and what CORS tells their browser.

use pushline::auth::{Access, CORS_PREFLIGHT, Gate, Page};

use super::*;

/// Whether this page gets a WebSocket, an answer with credentials, and one without.
fn allowed(gate: &Gate, page: &Page<'_>) -> [bool; 3] {
    let bearer = format!("Bearer {}", hs256(&claims(json!({}))));
    let token = Credentials { authorization: Some(bearer.as_bytes()), ..Credentials::default() };
    let requests =
        [(Access::WebSocket, token), (Access::Http, token), (Access::Http, Credentials::default())];
    requests.map(|(access, credentials)| {
        denial(gate.admit(access, &credentials, page, NOW)) != Some(Denied::OriginForbidden)
    })
}

fn allowed_from(gate: &Gate, origin: &str, host: &str) -> [bool; 3] {
    allowed(gate, &page(origin, host))
}

fn page<'a>(origin: &'a str, host: &'a str) -> Page<'a> {
    let (origin, host) = (Some(origin.as_bytes()), Some(host.as_bytes()));
    Page { origin, host, fetch_site: None }
}

#[test]
fn a_guarded_gate_takes_listed_pages_and_its_own() {
    let gate = hmac_gate("origins = [\"https://app.example\", \"http://localhost:3000\"]");
    let (welcome, foreign) = ([true; 3], [false, false, true]);
    for (origin, expected) in [
        ("https://app.example", welcome),
        ("http://localhost:3000", welcome),
        ("https://push.example", welcome),
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
        assert_eq!(allowed_from(&gate, origin, "push.example"), expected, "{origin}");
    }
    assert_eq!(allowed(&gate, &Page::default()), welcome);
    let no_host = Page { host: None, ..page("https://push.example", "") };
    assert_eq!(allowed(&gate, &no_host), foreign);
}

/// The scheme is ignored: a proxy that ends TLS hides it. A missing port means that of the page's
/// scheme.
#[test]
fn the_same_host_is_the_same_name_and_port() {
    let gate = hmac_gate("");
    for (origin, host, expected) in [
        ("https://push.example", "push.example", true),
        ("http://push.example", "push.example", true),
        ("https://push.example", "push.example:443", true),
        ("http://push.example", "push.example:80", true),
        ("https://push.example", "push.example:80", false),
        ("https://PUSH.example", "push.EXAMPLE", true),
        ("http://push.example:8080", "push.example:8080", true),
        ("http://push.example:8080", "push.example:8081", false),
        ("http://push.example:8080", "push.example", false),
        ("http://push.example", "push.example:8080", false),
        ("http://[::1]:8080", "[::1]:8080", true),
        ("http://[::1]:8080", "[::2]:8080", false),
        ("http://127.0.0.1:8080", "localhost:8080", false),
        ("chrome-extension://push.example", "push.example", false),
        ("http://", "", false),
        ("http://:80", ":80", false),
        ("http://push.example:x", "push.example:x", false),
        ("http://push.example:99999", "push.example:99999", false),
        ("http://[", "[", false),
        ("http://a,b", "a,b", false),
    ] {
        let [websocket, credentialed, _] = allowed_from(&gate, origin, host);
        assert_eq!((websocket, credentialed), (expected, expected), "{origin} at {host}");
    }
}

/// An open gate's operator has asked for that, or it serves one machine: then pages of other sites
/// are kept from reaching into it, by WebSockets and by plain requests, which a browser sends
/// before it asks. With a list, only the list counts.
#[test]
fn a_gate_for_this_machine_takes_pages_of_this_machine_only() {
    let (anybody, gate) = (Gate::open(), Gate::open().for_this_machine());
    for (origin, expected) in [
        ("http://localhost:8080", true),
        ("http://localhost:3000", true),
        ("https://LOCALHOST", true),
        ("http://127.0.0.1:5173", true),
        ("http://127.0.0.2:5173", true),
        ("http://[::1]:5173", true),
        ("https://evil.example", false),
        ("http://localhost.evil.example", false),
        ("http://127.0.0.1.evil.example", false),
        ("http://127.0.0.1@evil.example", false),
        ("chrome-extension://localhost", false),
        ("null", false),
    ] {
        assert_eq!(allowed_from(&gate, origin, "localhost:8080"), [expected; 3], "{origin}");
        assert_eq!(allowed_from(&anybody, origin, "localhost:8080"), [true; 3], "{origin}");
    }
    let listed = gate_with_origins("[\"https://app.example\"]").for_this_machine();
    assert!(listed.is_open());
    assert_eq!(allowed_from(&listed, "http://localhost:3000", "push.example"), [false; 3]);
    assert_eq!(allowed_from(&listed, "https://app.example", "push.example"), [true; 3]);
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
        ("cross-site", [true, false, true]),
        ("same-site", [true; 3]),
        ("same-origin", [true; 3]),
        ("none", [true; 3]),
    ] {
        let page = Page { fetch_site: Some(site.as_bytes()), ..Page::default() };
        assert_eq!(allowed(&gate, &page), expected, "{site}");
    }
    let listed = Page { fetch_site: Some(b"cross-site"), ..page("https://app.example", "x") };
    assert_eq!(allowed(&gate, &listed), [true; 3]);
}

/// Behind a proxy that ends TLS we cannot know our own scheme, but the browser does.
#[test]
fn a_page_of_our_name_and_another_scheme_is_a_foreign_one() {
    let gate = hmac_gate("");
    for (site, expected) in [(None, true), (Some("same-origin"), true), (Some("cross-site"), false)]
    {
        let fetch_site = site.map(str::as_bytes);
        let page = Page { fetch_site, ..page("http://push.example", "push.example:80") };
        assert_eq!(allowed(&gate, &page)[1], expected, "{site:?}");
    }
}

#[test]
fn null_is_only_allowed_when_listed() {
    let gate = hmac_gate("origins = [\"null\"]");
    assert_eq!(allowed_from(&gate, "null", "push.example"), [true; 3]);
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
