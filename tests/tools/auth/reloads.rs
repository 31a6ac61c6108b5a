//! Which grants remain valid after a reload.

use super::*;

const KEY: &str = "the-key-of-a-backend";

/// The rules with which all tests begin.
const RULES: &str = "hmac_secrets = [{ env = 'SECRET', kid = 'a' }]\n\
    publish_keys = [{ value = 'the-key-of-a-backend', publish = ['a:*'] }]\n\
    anonymous = { subscribe = ['public:*'] }\n";

/// A grant by token, by publish key, and by neither.
fn grants() -> [Arc<Grant>; 3] {
    let gate = gate(RULES);
    let token = bearer(&gate, &hs256(&claims(json!({})))).expect("a good token");
    let backend = bearer(&gate, KEY).expect("a good key");
    let anonymous = admit(&gate, &Credentials::default()).expect("anonymous is let in");
    [token, backend, anonymous]
}

/// Which of them remain valid under the rules with this change.
fn holding(from: &str, to: &str) -> [bool; 3] {
    assert!(RULES.contains(from), "{from}");
    let gate = gate(&RULES.replace(from, to));
    grants().map(|grant| gate.stands_by(Some(&grant)))
}

#[test]
fn rules_read_again_unchanged_end_nothing() {
    assert_eq!(holding("", ""), [true; 3]);
    let more = "hmac_secrets = [{ value = 'a-second-secret-of-32-bytes-or-more' }, ";
    assert_eq!(holding("hmac_secrets = [", more), [true; 3]);
    assert_eq!(holding("kid = 'a'", "kid = 'b'"), [true; 3]);
}

#[test]
fn a_key_takes_along_what_it_let_in_and_nothing_else() {
    let other_secret = "value = 'a-second-secret-of-32-bytes-or-more'";
    assert_eq!(holding("env = 'SECRET'", other_secret), [false, true, true]);
    assert_eq!(holding(KEY, "another-key-of-a-backend"), [true, false, true]);
}

#[test]
fn a_grant_ends_with_the_rights_it_came_with() {
    assert_eq!(holding("['a:*']", "['b:*']"), [true, false, true]);
    assert_eq!(holding("publish = ['a:*']", ""), [true, false, true]);
    assert_eq!(holding("['public:*']", "['news']"), [false; 3]);
    // Moved to the other list.
    assert_eq!(holding("subscribe = ['public:*']", "publish = ['public:*']"), [false; 3]);
}

#[test]
fn what_an_open_gate_let_in_needs_a_key_once_there_are_some() {
    let open = Gate::open();
    let everything = admit(&open, &Credentials::default()).expect("open");
    assert!(open.stands_by(None) && open.stands_by(Some(&everything)));
    let guarded = gate(RULES);
    assert!(!guarded.stands_by(None) && !guarded.stands_by(Some(&everything)));
    assert!(grants().iter().all(|grant| open.stands_by(Some(grant))));
}

/// A key that moves from a file of its own into a set.
#[test]
fn a_public_key_is_known_again() {
    let ed = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).expect("a key");
    let token = signed(json!({"alg": "EdDSA"}), &claims(json!({})), &ed, Algorithm::EdDSA);
    let grant = bearer(&public_key_gate("ed25519_public.pem"), &token).expect("a good token");
    assert!(public_key_gate("ed25519_public.pem").stands_by(Some(&grant)));
    assert!(gate(&format!("jwks_file = '{}'", key_file("jwks.json"))).stands_by(Some(&grant)));
    assert!(!public_key_gate("rsa_public.pem").stands_by(Some(&grant)));
}
