//! Tokens made without the key, or not valid now.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::common::fetch;
use crate::common::ws::upgrade;

const RSA_PUBLIC: &str = include_str!("../../fixtures/keys/rsa_public.pem");
const RSA_PRIVATE: &str = include_str!("../../fixtures/keys/rsa_private.pem");

fn claims() -> Value {
    json!({"exp": now_unix_s() + 60, "pushline": {"subscribe": ["*"], "publish": ["*"]}})
}

/// A server that knows one RSA key, and nothing else.
fn rsa_server() -> TestServer {
    let file = format!("{}/tests/fixtures/keys/rsa_public.pem", env!("CARGO_MANIFEST_DIR"));
    let auth = format!("public_keys = [{{ file = \"{file}\" }}]\ncookie = \"session\"\n");
    TestServer::guarded(&auth, |_| {})
}

/// The token is refused, wherever it comes from.
fn assert_refused(server: &TestServer, token: &str, code: &str) {
    let (authorization, cookie) = (bearer(token), format!("session={token}"));
    for header in [("Authorization", &authorization), ("Cookie", &cookie)] {
        let headers = [(header.0, header.1.as_str())];
        for target in ["/sse?channel=a", "/channels/a"] {
            let response = fetch(server.addr, "GET", target, &headers, None);
            assert_eq!(outcome(&response), refused(401, code), "{}", header.0);
        }
        assert_eq!(publish_with(server.addr, "/channels/a", &headers), refused(401, code));
    }
    let entry = format!("pushline.v1, bearer.{token}");
    let mut conn = crate::common::Conn::open(server.addr);
    conn.send(upgrade("/ws?channel=a", &[("Sec-WebSocket-Protocol", &entry)]));
    let response = conn.response();
    assert_eq!(outcome(&response), refused(401, code), "a subprotocol entry");
    let challenge = response.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
}

/// RFC 8725 section 2.1: no signature, in every spelling of `none`.
#[test]
fn a_token_without_a_signature_is_none() {
    let (shared, rsa) = (server(), rsa_server());
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    for name in ["none", "None", "NONE", "nOnE"] {
        let token = format!("{}.{}.", encode(&json!({"alg": name})), encode(&claims()));
        assert_refused(&shared, &token, "token_algorithm");
        assert_refused(&rsa, &token, "token_algorithm");
    }
    let bare = format!("{}.{}.", encode(&json!({"alg": "HS256"})), encode(&claims()));
    assert_refused(&shared, &bare, "token_signature");
}

/// RFC 8725 section 2.1: HMAC with a public key, in every form it is known in.
#[test]
fn the_public_key_is_no_shared_secret() {
    let server = rsa_server();
    let body: String = RSA_PUBLIC.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&body).expect("PEM");
    for secret in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim_end().as_bytes(), body.as_bytes(), &der] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let key = EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&Header::new(algorithm), &claims(), &key);
            assert_refused(&server, &token.expect("a token"), "token_algorithm");
        }
    }
    // The genuine token works, so the server does not simply refuse everything.
    let key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).expect("a key");
    let real = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims(), &key);
    assert_eq!(get_with(server.addr, "/channels/a", &real.expect("a token")).status, 200);
}

#[test]
fn a_signature_is_checked() {
    let server = server();
    let good = token(&["a"], &["a"]);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("three parts");
    let more = URL_SAFE_NO_PAD.encode(claims().to_string());
    assert_refused(&server, &format!("{header}.{more}.{signature}"), "token_signature");
    let key = EncodingKey::from_secret(b"another-secret-of-32-bytes-or-more-0123");
    let other = jsonwebtoken::encode(&Header::default(), &claims(), &key).expect("a token");
    assert_refused(&server, &other, "token_signature");
}

#[test]
fn a_token_is_good_from_nbf_to_exp() {
    let server = server();
    let now = now_unix_s();
    let with = |more: Value| {
        let mut claims = claims();
        for (name, value) in more.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        sign(&claims)
    };
    // The clocks may differ by five seconds.
    assert_refused(&server, &with(json!({"exp": now - 10})), "token_expired");
    assert_refused(&server, &with(json!({"exp": 0})), "token_expired");
    assert_refused(&server, &with(json!({"nbf": now + 30})), "token_not_yet_valid");
    assert_refused(&server, &with(json!({"exp": null})), "token_without_expiry");
    let good = with(json!({"nbf": now - 10}));
    assert_eq!(get_with(server.addr, "/channels/a", &good).status, 200);
}

#[test]
fn rubbish_is_refused_and_not_repeated() {
    let server = server();
    let long = "x".repeat(9000);
    for rubbish in ["x", "a.b", "a.b.c.d", "..", "%", "{}", &long] {
        let authorization = bearer(rubbish);
        let headers = [("Authorization", authorization.as_str())];
        let response = fetch(server.addr, "GET", "/channels/a", &headers, None);
        assert!(matches!(response.status, 401 | 431), "{} {rubbish:.20}", response.status);
        assert!(rubbish.len() < 3 || !response.text().contains(rubbish));
    }
}
