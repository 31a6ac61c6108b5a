//! Which tokens are accepted.

use jsonwebtoken::{Algorithm, EncodingKey};
use pushline::auth::{Denied, Gate, TOKEN_BYTES_MAX};
use serde_json::json;

use super::*;

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).expect("a key")
}

fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).expect("a key")
}

fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).expect("a key")
}

fn jwks_gate(lines: &str) -> Gate {
    gate(&format!("jwks_file = \"{}\"\n{lines}", key_file("jwks.json")))
}

#[test]
fn every_algorithm_works_with_its_own_key() {
    let plain = |name: &str, key: &EncodingKey, algorithm| {
        signed(json!({"alg": name}), &claims(json!({})), key, algorithm)
    };
    let secret = secret_key();
    for (gate, token) in [
        (hmac_gate(""), plain("HS256", &secret, Algorithm::HS256)),
        (hmac_gate(""), plain("HS384", &secret, Algorithm::HS384)),
        (hmac_gate(""), plain("HS512", &secret, Algorithm::HS512)),
        (public_key_gate("rsa_public.pem"), plain("RS256", &rsa(), Algorithm::RS256)),
        (public_key_gate("rsa_public_pkcs1.pem"), plain("RS256", &rsa(), Algorithm::RS256)),
        (public_key_gate("ec_p256_public.pem"), plain("ES256", &ec(), Algorithm::ES256)),
        (public_key_gate("ed25519_public.pem"), plain("EdDSA", &ed(), Algorithm::EdDSA)),
        (jwks_gate(""), plain("RS256", &rsa(), Algorithm::RS256)),
        (jwks_gate(""), plain("ES256", &ec(), Algorithm::ES256)),
        (jwks_gate(""), plain("EdDSA", &ed(), Algorithm::EdDSA)),
    ] {
        let grant = bearer(&gate, &token).expect("a good token");
        assert!(grant.may_subscribe("user:4:inbox") && !grant.may_subscribe("user:42:x"));
        // The same token with one bit of its claims or its signature flipped.
        for place in [token.len() / 2, token.len() - 8] {
            let mut bytes = token.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(denial(bearer(&gate, &changed)), Some(Denied::BadSignature));
        }
    }
}

/// RFC 8725 section 2.1, first kind: no signature at all.
#[test]
fn none_is_no_algorithm() {
    let good = hs256(&claims(json!({})));
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (_, body) = message.split_once('.').expect("three parts");
    for name in ["none", "None", "NONE", "nOnE", "", "hs256", "HS1", "PS256", "ES384", "RS512"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": name}).to_string());
        for signature in ["", signature] {
            let token = format!("{header}.{body}.{signature}");
            for gate in [hmac_gate(""), public_key_gate("rsa_public.pem")] {
                let result = bearer(&gate, &token);
                assert_eq!(denial(result), Some(Denied::UnsupportedAlgorithm), "{name}");
            }
        }
    }
    let unsigned = format!("{message}.");
    assert_eq!(denial(bearer(&hmac_gate(""), &unsigned)), Some(Denied::BadSignature));
    let no_alg = format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode("{}"));
    assert_eq!(denial(bearer(&hmac_gate(""), &no_alg)), Some(Denied::MalformedCredentials));
}

/// RFC 8725 section 2.1, second kind: HMAC with what anyone knows, the public key.
#[test]
fn a_public_key_is_never_an_hmac_secret() {
    let der = pem_body(RSA_PUBLIC);
    let forms = [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim().as_bytes(), &der];
    // Alone, and beside a real secret: then HMAC is in use, and the public key must still not serve
    // it.
    let both =
        hmac_gate(&format!("public_keys = [{{ file = \"{}\" }}]", key_file("rsa_public.pem")));
    let gates = [
        (public_key_gate("rsa_public.pem"), Denied::UnsupportedAlgorithm),
        (jwks_gate(""), Denied::UnsupportedAlgorithm),
        (both, Denied::BadSignature),
    ];
    for (gate, expected) in &gates {
        for form in forms {
            let key = EncodingKey::from_secret(form);
            for (name, algorithm) in [("HS256", Algorithm::HS256), ("HS512", Algorithm::HS512)] {
                let header = json!({"alg": name});
                let token = signed(header, &claims(json!({})), &key, algorithm);
                assert_eq!(denial(bearer(gate, &token)), Some(*expected));
            }
        }
    }
}

fn pem_body(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(body).expect("base64")
}

#[test]
fn an_algorithm_of_another_family_is_refused() {
    let rs256 = signed(json!({"alg": "RS256"}), &claims(json!({})), &rsa(), Algorithm::RS256);
    let renamed = signed(json!({"alg": "HS256"}), &claims(json!({})), &rsa(), Algorithm::RS256);
    assert_eq!(denial(bearer(&hmac_gate(""), &rs256)), Some(Denied::UnsupportedAlgorithm));
    assert_eq!(denial(bearer(&hmac_gate(""), &renamed)), Some(Denied::BadSignature));
    let gate = public_key_gate("ed25519_public.pem");
    assert_eq!(denial(bearer(&gate, &rs256)), Some(Denied::UnsupportedAlgorithm));
    let hs256 = hs256(&claims(json!({})));
    let gate = public_key_gate("rsa_public.pem");
    assert_eq!(denial(bearer(&gate, &hs256)), Some(Denied::UnsupportedAlgorithm));
}

#[test]
fn a_listed_algorithm_shuts_out_the_others_of_the_same_key() {
    let gate = hmac_gate("algorithms = [\"HS512\"]");
    let token =
        signed(json!({"alg": "HS512"}), &claims(json!({})), &secret_key(), Algorithm::HS512);
    assert!(bearer(&gate, &token).is_ok());
    let denied = denial(bearer(&gate, &hs256(&claims(json!({})))));
    assert_eq!(denied, Some(Denied::UnsupportedAlgorithm));
}

#[test]
fn a_kid_selects_the_key() {
    let token = |header| signed(header, &claims(json!({})), &rsa(), Algorithm::RS256);
    let gate = jwks_gate("");
    assert!(bearer(&gate, &token(json!({"alg": "RS256", "kid": "rsa-1"}))).is_ok());
    assert!(bearer(&gate, &token(json!({"alg": "RS256"}))).is_ok());
    // The last is an encryption key of the set, and the very same RSA key.
    for kid in ["other", "", "RSA-1", "ec-1", "encryption"] {
        let result = bearer(&gate, &token(json!({"alg": "RS256", "kid": kid})));
        assert_eq!(denial(result), Some(Denied::UnknownKey), "{kid}");
    }
    // A key that was given no id serves tokens that name any.
    let gate = public_key_gate("rsa_public.pem");
    assert!(bearer(&gate, &token(json!({"alg": "RS256", "kid": "any"}))).is_ok());
}

/// Trying one public key after the other would cost that many checks.
#[test]
fn of_several_public_keys_the_token_says_which() {
    let keys = |kids: [&str; 2]| {
        let [file, other] = ["rsa_public.pem", "rsa_public_pkcs1.pem"].map(key_file);
        let [kid, other_kid] = kids;
        load(&format!(
            "public_keys = [{{ file = '{file}'{kid} }}, {{ file = '{other}'{other_kid} }}]"
        ))
    };
    for kids in [["", ""], [", kid = 'a'", ""], ["", ", kid = 'a'"], [", kid = 'a'"; 2]] {
        assert_eq!(keys(kids).err(), Some(AuthFault::KeyIdNeeded), "{kids:?}");
    }
    let gate = keys([", kid = 'a'", ", kid = 'b'"]).expect("told apart");
    let token = |header| signed(header, &claims(json!({})), &rsa(), Algorithm::RS256);
    assert!(bearer(&gate, &token(json!({"alg": "RS256", "kid": "b"}))).is_ok());
    let unnamed = bearer(&gate, &token(json!({"alg": "RS256"})));
    assert_eq!(denial(unnamed), Some(Denied::MissingKeyId));
    let secrets = "{ value = 'another-secret-of-thirty-two-bytes' }, { env = 'SECRET' }";
    let gate = load(&format!("hmac_secrets = [{secrets}]")).expect("cheap to try");
    assert!(bearer(&gate, &hs256(&claims(json!({})))).is_ok());
}

/// The cost of a check is known before it is made; a token that is refused without one is free.
#[test]
fn checks_by_public_keys_have_their_price() {
    let gate = public_key_gate("rsa_public.pem");
    let token = |header| signed(header, &claims(json!({})), &rsa(), Algorithm::RS256);
    assert!(!gate.cost_of_token(&token(json!({"alg": "RS256"}))).is_zero());
    for free in [&token(json!({"alg": "ES256"})), &hs256(&claims(json!({}))), "rubbish", ""] {
        assert!(gate.cost_of_token(free).is_zero(), "{free}");
    }
    assert!(hmac_gate("").cost_of_token(&hs256(&claims(json!({})))).is_zero());
}

#[test]
fn a_named_key_is_not_replaced_by_another_that_fits() {
    let gate = gate(
        "hmac_secrets = [{ env = \"SECRET\", kid = \"new\" }, \
         { value = \"another-secret-of-thirty-two-bytes\", kid = \"old\" }]",
    );
    let token = |kid: &str| {
        let header = json!({"alg": "HS256", "kid": kid});
        signed(header, &claims(json!({})), &secret_key(), Algorithm::HS256)
    };
    assert!(bearer(&gate, &token("new")).is_ok());
    assert_eq!(denial(bearer(&gate, &token("old"))), Some(Denied::BadSignature));
}

#[test]
fn a_key_inside_the_token_is_not_believed() {
    let stranger = EncodingKey::from_secret(b"the-secret-of-another-service-entirely");
    let header = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "dGhlLXNlY3JldA"},
        "jku": "https://evil.example/jwks.json", "x5u": "https://evil.example/x"});
    let token = signed(header, &claims(json!({})), &stranger, Algorithm::HS256);
    assert_eq!(denial(bearer(&hmac_gate(""), &token)), Some(Denied::BadSignature));
}

/// RFC 7515 section 4.1.11.
#[test]
fn a_critical_extension_is_refused() {
    for crit in [json!(["b64"]), json!(["exp"]), json!([]), json!(null), json!(5)] {
        let header = json!({"alg": "HS256", "crit": crit, "b64": false});
        let token = signed(header, &claims(json!({})), &secret_key(), Algorithm::HS256);
        let denied = denial(bearer(&hmac_gate(""), &token));
        assert_eq!(denied, Some(Denied::UnsupportedExtension), "{crit}");
    }
}

/// RFC 7519 sections 4.1.4 and 4.1.5, at the very seconds.
#[test]
fn tokens_live_from_nbf_to_exp_and_leeway_widens_both() {
    let strict = hmac_gate("leeway_s = 0");
    let lenient = hmac_gate("leeway_s = 10");
    for (more, on_strict, on_lenient) in [
        (json!({"exp": NOW + 1}), None, None),
        (json!({"exp": NOW}), Some(Denied::Expired), None),
        (json!({"exp": NOW - 9}), Some(Denied::Expired), None),
        (json!({"exp": NOW - 10}), Some(Denied::Expired), Some(Denied::Expired)),
        (json!({"exp": 0}), Some(Denied::Expired), Some(Denied::Expired)),
        (json!({"exp": -5}), Some(Denied::Expired), Some(Denied::Expired)),
        (json!({"exp": NOW as f64 + 0.5}), Some(Denied::Expired), None),
        (json!({"exp": 1e300}), None, None),
        (json!({"nbf": NOW}), None, None),
        (json!({"nbf": NOW + 1}), Some(Denied::NotYetValid), None),
        (json!({"nbf": NOW as f64 + 0.5}), Some(Denied::NotYetValid), None),
        (json!({"nbf": NOW + 10}), Some(Denied::NotYetValid), None),
        (json!({"nbf": NOW + 11}), Some(Denied::NotYetValid), Some(Denied::NotYetValid)),
        (json!({"nbf": 1e300}), Some(Denied::NotYetValid), Some(Denied::NotYetValid)),
        (json!({"exp": null}), Some(Denied::MissingExpiry), Some(Denied::MissingExpiry)),
        (json!({"exp": "1900000000"}), Some(Denied::BadClaims), Some(Denied::BadClaims)),
        (json!({"nbf": [1]}), Some(Denied::BadClaims), Some(Denied::BadClaims)),
    ] {
        let token = hs256(&claims(more.clone()));
        assert_eq!(denial(bearer(&strict, &token)), on_strict, "{more}, no leeway");
        assert_eq!(denial(bearer(&lenient, &token)), on_lenient, "{more}, 10 s leeway");
    }
}

/// The connection must end at the second from which the gate refuses the token: not before, as it
/// could then be reopened, and not after.
#[test]
fn a_grant_ends_when_its_token_would_be_refused() {
    let gate = hmac_gate("leeway_s = 10");
    let token = hs256(&claims(json!({"exp": NOW + 60})));
    let grant = gate.authenticate_token(&token, NOW).expect("a good token");
    assert_eq!(grant.expires_at_unix_s(), Some(NOW + 70));
    for now in [NOW + 69, NOW + 70, NOW + 71] {
        assert_eq!(gate.authenticate_token(&token, now).is_err(), grant.is_expired(now));
    }
    assert!(gate.authenticate_token(&token, u64::MAX).is_err());
    let optional = hmac_gate("expiry = \"optional\"");
    let grant = bearer(&optional, &hs256(&claims(json!({"exp": null})))).expect("a good token");
    assert_eq!(grant.expires_at_unix_s(), None);
    let expired = hs256(&claims(json!({"exp": NOW - 60})));
    assert_eq!(denial(bearer(&optional, &expired)), Some(Denied::Expired));
}

#[test]
fn a_token_must_be_for_us() {
    let ours = hmac_gate("audience = [\"pushline\", \"push\"]");
    let nobodys = hmac_gate("");
    let wrong = Some(Denied::WrongAudience);
    for (more, on_ours, on_nobodys) in [
        (json!({"aud": "pushline"}), None, wrong),
        (json!({"aud": ["shop", "push"]}), None, wrong),
        (json!({"aud": "shop"}), wrong, wrong),
        (json!({"aud": ["shop", "push2"]}), wrong, wrong),
        (json!({"aud": []}), wrong, wrong),
        (json!({}), wrong, None),
        (json!({"aud": 5}), Some(Denied::BadClaims), Some(Denied::BadClaims)),
    ] {
        let token = hs256(&claims(more.clone()));
        assert_eq!(denial(bearer(&ours, &token)), on_ours, "{more}");
        assert_eq!(denial(bearer(&nobodys, &token)), on_nobodys, "{more}");
    }
}

#[test]
fn a_token_must_come_from_a_trusted_issuer() {
    let gate = hmac_gate("issuer = [\"https://id.example\"]");
    for (more, expected) in [
        (json!({"iss": "https://id.example"}), None),
        (json!({"iss": "https://id.example/"}), Some(Denied::WrongIssuer)),
        (json!({}), Some(Denied::WrongIssuer)),
        (json!({"iss": ["https://id.example"]}), Some(Denied::BadClaims)),
    ] {
        assert_eq!(denial(bearer(&gate, &hs256(&claims(more.clone())))), expected, "{more}");
    }
}

#[test]
fn claims_that_could_be_read_in_two_ways_are_refused() {
    let gate = hmac_gate("");
    for (text, expected) in [
        (
            r#"{"exp":1900000000,"pushline":{"subscribe":["a"]},"pushline":{"subscribe":["*"]}}"#,
            Denied::BadClaims,
        ),
        (r#"{"exp":1,"exp":1900000000}"#, Denied::BadClaims),
        (r#"{"exp":1900000000,"pushline":{"subscribe":["a"],"until":5}}"#, Denied::BadClaims),
        (r#"{"exp":1900000000,"pushline":{"subscribe":"a"}}"#, Denied::BadClaims),
        (r#"{"exp":1900000000,"pushline":["*"#, Denied::BadClaims),
        (r#"{"exp":1900000000,"pushline":[["*"],["*"]]}"#, Denied::BadClaims),
        (r#"[1900000000,null,null,null,null,{"subscribe":["*"]}]"#, Denied::BadClaims),
        (
            r#"{"exp":1900000000,"pushline":{"subscribe":["a"],"subscribe":["*"]}}"#,
            Denied::BadClaims,
        ),
        (r#"{"exp":1900000000,"pushline":{"subscribe":["a","user:4*"]}}"#, Denied::BadPattern),
        (r#"{"exp":1900000000,"pushline":{"publish":["*:x"]}}"#, Denied::BadPattern),
    ] {
        let token = forge(json!({"alg": "HS256"}), text, &secret_key(), Algorithm::HS256);
        assert_eq!(denial(bearer(&gate, &token)), Some(expected), "{text}");
    }
}

/// RFC 7515 section 4: a header is an object with each member once.
#[test]
fn a_header_that_could_be_read_in_two_ways_is_refused() {
    for header in [r#"["HS256",null,null]"#, r#"{"alg":"none","alg":"HS256"}"#, r#""HS256""#] {
        let header = URL_SAFE_NO_PAD.encode(header);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims(json!({})).to_string()));
        let signed =
            jsonwebtoken::crypto::sign(message.as_bytes(), &secret_key(), Algorithm::HS256);
        let token = format!("{message}.{}", signed.expect("a signature"));
        let denied = denial(bearer(&hmac_gate(""), &token));
        assert_eq!(denied, Some(Denied::MalformedCredentials), "{header}");
    }
}

/// A connection holds it as long as it lives.
#[test]
fn a_subject_has_a_longest_length() {
    let gate = hmac_gate("");
    let of = |length: usize| bearer(&gate, &hs256(&claims(json!({"sub": "x".repeat(length)}))));
    assert_eq!(of(255).expect("a good token").subject().map(str::len), Some(255));
    assert_eq!(denial(of(256)), Some(Denied::BadClaims));
}

/// Truncates a good token everywhere, and changes each of its bytes: never a grant, never a panic.
#[test]
fn a_damaged_token_gives_nothing() {
    let gate = hmac_gate("publish_keys = [{ value = \"the-key-of-a-backend\" }]");
    let token = hs256(&claims(json!({})));
    assert!(bearer(&gate, &token).is_ok());
    for place in 0..token.len() {
        assert!(bearer(&gate, &token[..place]).is_err());
        for byte in [b'.', b'A', b'=', b'"', b' ', b'~'] {
            let mut bytes = token.clone().into_bytes();
            if std::mem::replace(&mut bytes[place], byte) != byte {
                let damaged = String::from_utf8(bytes).expect("ASCII");
                assert!(bearer(&gate, &damaged).is_err(), "{byte} at {place}");
            }
        }
    }
    for odd in ["..", "a.b.c", "a.b", "a.b.c.d", "e30.e30.", "\u{0}"] {
        assert!(bearer(&gate, odd).is_err(), "{odd}");
        assert!(gate.authenticate_token(odd, NOW).is_err(), "{odd}");
    }
    let four_parts = denial(gate.authenticate_token(&format!("{token}.x"), NOW));
    assert_eq!(four_parts, Some(Denied::MalformedCredentials));
}

#[test]
fn a_token_has_a_longest_length() {
    let gate = hmac_gate("");
    let long = hs256(&claims(json!({"more": "x".repeat(TOKEN_BYTES_MAX)})));
    assert_eq!(denial(bearer(&gate, &long)), Some(Denied::CredentialsTooLong));
    let refreshed = gate.authenticate_token(&long, NOW);
    assert_eq!(denial(refreshed), Some(Denied::CredentialsTooLong));
}
