//! What an admitted client may do, and where its credential is taken from.

use pushline::auth::{Access, Credentials, Denied, Gate, Page};
use serde_json::json;

use super::*;

const KEYS: &str = r#"
publish_keys = [
  { name = "all", value = "the-key-that-may-all" },
  { name = "billing", value = "the-key-of-billing", publish = ["invoice:*"] },
]
"#;

#[test]
fn an_open_gate_lets_everyone_do_everything() {
    let gate = Gate::open();
    assert!(gate.is_open());
    let stale = Credentials {
        authorization: Some(b"Bearer stale"),
        query_token: Some("stale"),
        ..Credentials::default()
    };
    for credentials in [Credentials::default(), stale] {
        let grant = admit(&gate, &credentials).expect("open");
        assert!(grant.may_subscribe("any") && grant.may_publish("any"));
        assert_eq!(grant.expires_at_unix_s(), None);
    }
    assert!(gate.authenticate_token("stale", NOW).is_ok());
}

#[test]
fn any_key_shuts_the_gate_for_strangers() {
    for gate in [hmac_gate(""), public_key_gate("rsa_public.pem"), gate(KEYS)] {
        assert!(!gate.is_open());
        let result = admit(&gate, &Credentials::default());
        assert_eq!(denial(result), Some(Denied::MissingCredentials));
    }
}

#[test]
fn a_token_without_our_claims_has_no_rights() {
    let gate = hmac_gate("");
    let grant = bearer(&gate, &hs256(&claims(json!({"pushline": null, "sub": "jane"}))));
    let grant = grant.expect("a good token");
    assert!(!grant.may_subscribe("news") && !grant.may_publish("news"));
    assert_eq!(grant.subject(), Some("jane"));
}

#[test]
fn a_subscribe_only_token_cannot_publish() {
    let grant = bearer(&hmac_gate(""), &hs256(&claims(json!({})))).expect("a good token");
    assert!(grant.may_subscribe("user:4:x"));
    assert!(!grant.may_publish("user:4:x"));
    assert!(!grant.may_subscribe("user:42:x"));
}

#[test]
fn anonymous_rights_are_for_all_and_nothing_beyond() {
    let gate = hmac_gate("anonymous = { subscribe = [\"public:*\"] }");
    let stranger = admit(&gate, &Credentials::default()).expect("anonymous");
    assert!(stranger.may_subscribe("public:x") && !stranger.may_subscribe("user:4:x"));
    assert!(!stranger.may_publish("public:x"));
    let known = bearer(&gate, &hs256(&claims(json!({})))).expect("a good token");
    assert!(known.may_subscribe("public:x") && known.may_subscribe("user:4:x"));
    assert!(!known.may_publish("public:x"));
}

/// Otherwise a client whose session ended would silently see less instead of being told why.
#[test]
fn a_bad_token_does_not_fall_back_to_anonymous() {
    let gate = hmac_gate("anonymous = { subscribe = [\"*\"] }");
    let expired = hs256(&claims(json!({"exp": NOW - 100})));
    assert_eq!(denial(bearer(&gate, &expired)), Some(Denied::Expired));
}

#[test]
fn anonymous_rights_without_keys_are_not_an_open_gate() {
    let gate = gate("anonymous = { subscribe = [\"*\"] }");
    assert!(!gate.is_open());
    let stranger = admit(&gate, &Credentials::default()).expect("anonymous");
    assert!(stranger.may_subscribe("any") && !stranger.may_publish("any"));
}

#[test]
fn a_publish_key_publishes_by_its_patterns_and_cannot_subscribe() {
    let gate = gate(KEYS);
    let api_key = |key: &str| {
        let api_key = Some(key.as_bytes());
        admit(&gate, &Credentials { api_key, ..Credentials::default() })
    };
    // What follows `Bearer` may be a broken token as well as a key.
    for (present, unknown) in [
        (&api_key, Denied::UnknownPublishKey),
        (&|key: &str| bearer(&gate, key), Denied::MalformedCredentials),
    ] as [(&dyn Fn(&str) -> _, Denied); 2]
    {
        let all = present("the-key-that-may-all").expect("a key");
        assert!(all.may_publish("any") && !all.may_subscribe("any"));
        assert_eq!(all.subject(), Some("all"));
        let billing = present("the-key-of-billing").expect("a key");
        assert!(billing.may_publish("invoice:7") && !billing.may_publish("invoices:7"));
        assert_eq!(denial(present("the-key-of-a-stranger")), Some(unknown));
    }
}

#[test]
fn a_publish_key_is_not_taken_where_browsers_put_tokens() {
    let gate = hmac_gate(&format!("cookie = \"session\"\nquery_token = \"enabled\"\n{KEYS}"));
    let none = Credentials::default();
    let key = Some("the-key-that-may-all");
    for credentials in [
        Credentials { cookie: Some(b"session=the-key-that-may-all"), ..none },
        Credentials { query_token: key, ..none },
        Credentials { subprotocol_token: key, ..none },
    ] {
        let result = admit(&gate, &credentials);
        assert_eq!(denial(result), Some(Denied::MalformedCredentials));
    }
}

#[test]
fn a_token_is_taken_from_every_documented_place() {
    let gate = hmac_gate("cookie = \"session\"\nquery_token = \"enabled\"");
    let token = hs256(&claims(json!({})));
    let (header, cookie) = (format!("Bearer {token}"), format!("a=b; session=\"{token}\""));
    let none = Credentials::default();
    for credentials in [
        Credentials { authorization: Some(header.as_bytes()), ..none },
        Credentials { subprotocol_token: Some(&token), ..none },
        Credentials { query_token: Some(&token), ..none },
        Credentials { cookie: Some(cookie.as_bytes()), ..none },
    ] {
        assert!(admit(&gate, &credentials).is_ok(), "{credentials:?}");
        // From nowhere else: a token is not an API key.
        let api_key = Credentials { api_key: Some(token.as_bytes()), ..none };
        assert!(admit(&gate, &api_key).is_err());
    }
    let default = hmac_gate("");
    let in_url = Credentials { query_token: Some(&token), ..none };
    let in_cookie = Credentials { cookie: Some(cookie.as_bytes()), ..none };
    assert_eq!(denial(admit(&default, &in_url)), Some(Denied::QueryTokenDisabled));
    assert_eq!(denial(admit(&default, &in_cookie)), Some(Denied::MissingCredentials));
}

/// The gate's one entrance: the page's origin is judged before its user's cookie.
#[test]
fn a_foreign_page_cannot_use_the_cookie_of_its_visitor() {
    let gate = hmac_gate("cookie = \"session\"\norigins = [\"https://app.example\"]");
    let cookie = format!("session={}", hs256(&claims(json!({}))));
    let credentials = Credentials { cookie: Some(cookie.as_bytes()), ..Credentials::default() };
    let admit = |access, origin: &str| {
        let (origin, host) = (Some(origin.as_bytes()), Some(b"push.example".as_slice()));
        gate.admit(access, &credentials, &Page { origin, host, fetch_site: None }, NOW)
    };
    for access in [Access::WebSocket, Access::Http] {
        assert!(admit(access, "https://app.example").is_ok());
        assert!(admit(access, "https://push.example").is_ok());
        let evil = admit(access, "https://evil.example");
        assert_eq!(denial(evil), Some(Denied::OriginForbidden), "{access:?}");
        let unknown = gate.admit(access, &credentials, &Page::default(), NOW);
        assert!(unknown.is_ok(), "not a browser");
    }
    let foreign = Page { origin: Some(b"https://evil.example"), ..Page::default() };
    let stranger = gate.admit(Access::Http, &Credentials::default(), &foreign, NOW);
    assert_eq!(denial(stranger), Some(Denied::MissingCredentials));
}
