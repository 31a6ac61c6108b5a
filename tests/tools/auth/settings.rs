//! What settings are refused, and that neither errors nor anything printed gives a secret away.

use std::fs;

use pushline::auth::{AuthConfigError, AuthFault, AuthSettings, Gate, KEYS_MAX};

use super::*;

fn refused(section: &str) -> AuthConfigError {
    let settings: AuthSettings = toml::from_str(section).expect("a well-formed section");
    let env = |name: &str| (name == "SECRET").then(|| SECRET.to_owned());
    Gate::from_settings(&settings, &env).expect_err(section)
}

fn public_key(file: &str) -> String {
    format!("public_keys = [{{ file = \"{}\" }}]", key_file(file))
}

#[test]
fn a_shared_secret_must_be_long_and_secret() {
    let secret = |value: &str| load(&format!("hmac_secrets = [{{ value = '''{value}''' }}]")).err();
    assert_eq!(secret(&"x".repeat(31)), Some(AuthFault::SecretTooShort));
    assert_eq!(secret(&"x".repeat(32)), None);
    let pkcs1 = include_str!("../../fixtures/keys/rsa_public_pkcs1.pem");
    let jwk = r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    let ssh = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA x@y";
    for public in [RSA_PUBLIC, RSA_PRIVATE, EC_PRIVATE, pkcs1, jwk, ssh] {
        assert_eq!(secret(public), Some(AuthFault::SecretIsPublicKey));
    }
}

/// RFC 7518 section 3.2: the secret is at least as long as the hash.
#[test]
fn a_secret_serves_the_algorithms_it_is_long_enough_for() {
    for (len, algorithms) in [(32, 1), (47, 1), (48, 2), (63, 2), (64, 3), (200, 3)] {
        let secret = "x".repeat(len);
        let works = ["HS256", "HS384", "HS512"].map(|name| {
            load(&format!("algorithms = ['{name}']\nhmac_secrets = [{{ value = '{secret}' }}]"))
                .is_ok()
        });
        assert_eq!(works.iter().filter(|works| **works).count(), algorithms, "{len} bytes");
    }
}

#[test]
fn a_file_is_read_without_its_last_line_break() {
    let dir = tempfile::tempdir().expect("a directory");
    for (index, end) in ["", "\n", "\r\n"].into_iter().enumerate() {
        let path = dir.path().join(index.to_string());
        fs::write(&path, format!("{SECRET}{end}")).expect("a file");
        let gate = gate(&format!("hmac_secrets = [{{ file = '{}' }}]", path.display()));
        assert!(bearer(&gate, &hs256(&claims(json!({})))).is_ok());
    }
}

#[test]
fn a_public_key_must_be_one() {
    for (file, fault) in [
        ("rsa_private.pem", AuthFault::PrivateKey),
        ("ec_p256_private.pem", AuthFault::PrivateKey),
        ("certificate.pem", AuthFault::Certificate),
        ("rsa_1024_public.pem", AuthFault::RsaSize),
        ("ec_p384_public.pem", AuthFault::NotPublicKey),
        ("README.md", AuthFault::NotPublicKey),
    ] {
        assert_eq!(refused(&public_key(file)).fault, fault, "{file}");
    }
    let two = format!("{RSA_PUBLIC}{RSA_PUBLIC}");
    let two = format!("public_keys = [{{ value = '''{two}''' }}]");
    assert_eq!(refused(&two).fault, AuthFault::SeveralKeys);
}

#[test]
fn a_key_set_must_hold_a_usable_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let short_rsa = r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
    let short_ed = r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#;
    let off_curve = r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#;
    let short_secret = r#"{"kty":"oct","k":"AAAA"}"#;
    let for_encryption = r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","use":"enc"}"#;
    let for_signing = r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA","key_ops":["sign"]}"#;
    let set = |key: &str| format!("{{\"keys\":[{key}]}}");
    for (text, fault) in [
        (set(short_rsa), AuthFault::JwksKey(0)),
        (set(short_ed), AuthFault::JwksKey(0)),
        (set(off_curve), AuthFault::JwksKey(0)),
        (set(short_secret), AuthFault::JwksKey(0)),
        (set(for_encryption), AuthFault::JwksEmpty),
        (set(for_signing), AuthFault::JwksEmpty),
        (set(r#"{"kty":"NEW"}"#), AuthFault::JwksEmpty),
        (set(""), AuthFault::JwksEmpty),
        ("{\n  nonsense".to_owned(), AuthFault::JwksSyntax(2, 3)),
    ] {
        let path = dir.path().join("jwks.json");
        fs::write(&path, &text).expect("a file");
        let fault_found = refused(&format!("jwks_file = '{}'", path.display())).fault;
        assert_eq!(fault_found, fault, "{text}");
    }
}

/// RFC 7517 section 5: what is not understood is skipped, and the rest of the set serves.
#[test]
fn a_key_of_a_kind_unknown_here_spoils_no_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("jwks.json");
    let good = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "kid": "good"});
    for odd in [
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "post-quantum"}),
        json!({"kty": "NEW"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "AAAA", "use": "enc"}),
        json!({"kty": "OKP", "crv": "Ed448", "x": "AAAA"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "EC", "crv": "brainpoolP256r1", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RSA-OAEP-512", "use": "enc"}),
        json!({"kty": "oct", "k": "AAAA", "use": "wrap"}),
        json!({"kty": "oct", "k": "AAAA", "key_ops": ["encrypt", "dance"]}),
        json!({"kty": "RSA", "use": "enc"}),
        json!({}),
    ] {
        for keys in [[&odd, &good], [&good, &odd]] {
            fs::write(&path, json!({"keys": keys, "more": 1}).to_string()).expect("a file");
            let gate = load(&format!("jwks_file = '{}'", path.display()));
            let gate = gate.unwrap_or_else(|fault| panic!("{odd}: {fault}"));
            assert!(bearer(&gate, &hs256(&claims(json!({})))).is_ok(), "{odd}");
        }
    }
}

/// A key of a set that names its algorithm is for that one only (RFC 7517 section 4.4).
#[test]
fn a_key_set_binds_secrets_to_their_algorithm() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("jwks.json");
    let key = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "alg": "HS512"});
    fs::write(&path, json!({"keys": [key]}).to_string()).expect("a file");
    let gate = gate(&format!("jwks_file = '{}'", path.display()));
    let denied = denial(bearer(&gate, &hs256(&claims(json!({})))));
    assert_eq!(denied, Some(Denied::UnsupportedAlgorithm));
    let hs512 = json!({"alg": "HS512"});
    let token = signed(hs512, &claims(json!({})), &secret_key(), Algorithm::HS512);
    assert!(bearer(&gate, &token).is_ok());
}

/// An operator who set up tokens and forgot the key must not get an open server.
#[test]
fn token_settings_without_a_key_are_refused() {
    for section in [
        "audience = ['x']",
        "issuer = ['x']",
        "cookie = 'session'",
        "query_token = 'enabled'",
        "algorithms = ['HS256']",
    ] {
        assert_eq!(refused(section).fault, AuthFault::NoTokenKey, "{section}");
    }
    assert!(gate("origins = ['https://app.example']").is_open());
}

#[test]
fn settings_that_cannot_mean_anything_are_refused() {
    let key = "hmac_secrets = [{ env = 'SECRET' }]";
    let many = vec!["{ env = 'SECRET' }"; KEYS_MAX + 1].join(",");
    for (section, fault) in [
        ("hmac_secrets = [{}]".to_owned(), AuthFault::NotOneSource),
        ("hmac_secrets = [{ env = 'SECRET', value = 'x' }]".to_owned(), AuthFault::NotOneSource),
        ("hmac_secrets = [{ env = 'ABSENT' }]".to_owned(), AuthFault::EnvMissing),
        (
            "hmac_secrets = [{ file = '/nowhere/key' }]".to_owned(),
            AuthFault::Unreadable(std::io::ErrorKind::NotFound),
        ),
        ("hmac_secrets = [{ file = '/dev/zero' }]".to_owned(), AuthFault::FileTooLong),
        (format!("hmac_secrets = [{many}]"), AuthFault::TooManyKeys(KEYS_MAX)),
        (format!("{key}\nalgorithms = ['RS256']"), AuthFault::AlgorithmMismatch),
        (format!("{key}\nalgorithms = ['RS256', 'HS256']"), AuthFault::AlgorithmMismatch),
        (format!("{key}\ncookie = 'a b'"), AuthFault::BadCookieName),
        (format!("{key}\ncookie = ''"), AuthFault::BadCookieName),
        (format!("{key}\nleeway_s = 301"), AuthFault::LeewayTooLong),
        ("anonymous = { subscribe = ['a', 'b*'] }".to_owned(), AuthFault::BadPattern(1)),
        (
            "publish_keys = [{ env = 'SECRET', publish = ['a:*:b'] }]".to_owned(),
            AuthFault::BadPattern(0),
        ),
    ] {
        assert_eq!(refused(&section).fault, fault, "{section}");
    }
}

#[test]
fn an_origin_that_no_browser_sends_is_refused() {
    for bad in [
        "*",
        "https://*.example",
        "https://app.example/",
        "https://app.example/path",
        "https://App.example",
        "https://app.example:443",
        "http://app.example:80",
        "app.example",
        "https://",
        "https://user@app.example",
        "https://app.example\\r\\nX-Evil: 1",
        "",
    ] {
        let fault = refused(&format!("origins = ['null', \"{bad}\"]")).fault;
        assert_eq!(fault, AuthFault::BadOrigin(1), "{bad}");
    }
    gate("origins = ['http://[::1]:3000', 'tauri://localhost', 'https://app.example:8443']");
}

#[test]
fn unknown_settings_are_refused() {
    for section in [
        "cookies = 'session'",
        "hmac_secrets = [{ path = 'x' }]",
        "publish_keys = [{ subscribe = ['*'] }]",
        "anonymous = { read = ['*'] }",
        "algorithms = ['none']",
        "algorithms = ['PS256']",
        "expiry = false",
    ] {
        assert!(toml::from_str::<AuthSettings>(section).is_err(), "{section}");
    }
}

#[test]
fn errors_name_the_place_and_the_cure() {
    let missing = refused("public_keys = [{ file = '/nowhere/key.pem' }]").to_string();
    assert!(missing.contains("auth.public_keys[0]") && missing.contains("/nowhere/key.pem"));
    assert!(missing.contains("check the path"));
    let private = refused(&public_key("rsa_private.pem")).to_string();
    assert!(private.contains("rsa_private.pem") && private.contains("openssl pkey"));
    let env = refused("hmac_secrets = [{ env = 'ABSENT' }]").to_string();
    assert!(env.contains("environment variable ABSENT"));
}

#[test]
fn nothing_printed_gives_a_secret_away() {
    let section = format!(
        "hmac_secrets = [{{ value = '{SECRET}' }}]\n\
         publish_keys = [{{ value = 'the-key-of-a-backend' }}]"
    );
    let settings: AuthSettings = toml::from_str(&section).expect("a well-formed section");
    let gate = Gate::from_settings(&settings, &|_| None).expect("good settings");
    let grant = bearer(&gate, &hs256(&claims(json!({"sub": "jane"})))).expect("a good token");
    let printed = format!("{settings:?} {settings:#?} {gate:?} {gate:#?} {grant:?}");
    let hides = |secret: &str| {
        let bytes: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
        !printed.contains(secret) && !printed.contains(&bytes[..4].join(", "))
    };
    assert!(hides(SECRET) && hides("the-key-of-a-backend") && !printed.contains("jane"));

    for weak in ["hush", "hush hush hush hush"] {
        for list in ["hmac_secrets", "publish_keys", "public_keys"] {
            let error = refused(&format!("{list} = [{{ value = '{weak}' }}]"));
            assert!(!format!("{error} {error:?}").contains("hush"));
        }
    }
}
