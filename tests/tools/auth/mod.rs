//! Access control as a server uses it: settings in, a gate out, requests judged at a given second.
//! Every rule has a test here or beside its code that fails when the rule is removed.

mod origins;
mod reloads;
mod rights;
mod settings;
mod tokens;
mod tool;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use pushline::auth::{Access, AuthFault, AuthSettings, Credentials, Denied, Gate, Grant, Page};
use serde_json::{Value, json};

/// The second at which requests arrive.
const NOW: u64 = 1_800_000_000;

/// Long enough for HS512.
const SECRET: &str = "a-secret-of-sixty-four-bytes-for-tests-only-0123456789abcdefghij";
const _: () = assert!(SECRET.len() == 64);

const RSA_PRIVATE: &str = include_str!("../../fixtures/keys/rsa_private.pem");
const RSA_PUBLIC: &str = include_str!("../../fixtures/keys/rsa_public.pem");
const EC_PRIVATE: &str = include_str!("../../fixtures/keys/ec_p256_private.pem");
const ED_PRIVATE: &str = include_str!("../../fixtures/keys/ed25519_private.pem");

/// The path of a test key.
fn key_file(name: &str) -> String {
    format!("{}/tests/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Settings from the text of an `[auth]` section; `SECRET` is in the environment.
fn load(section: &str) -> Result<Gate, AuthFault> {
    let settings: AuthSettings = toml::from_str(section).expect("a well-formed section");
    let env = |name: &str| (name == "SECRET").then(|| SECRET.to_owned());
    Gate::from_settings(&settings, &env).map_err(|error| error.fault)
}

fn gate(section: &str) -> Gate {
    load(section).expect("good settings")
}

/// A gate with the shared secret and these lines.
fn hmac_gate(lines: &str) -> Gate {
    gate(&format!("hmac_secrets = [{{ env = \"SECRET\" }}]\n{lines}"))
}

/// A gate with one public key.
fn public_key_gate(file: &str) -> Gate {
    gate(&format!("public_keys = [{{ file = \"{}\" }}]", key_file(file)))
}

/// Claims valid for a minute, with `more` merged in; `null` removes a claim.
fn claims(more: Value) -> Value {
    let mut claims = json!({"exp": NOW + 60, "pushline": {"subscribe": ["user:4:*"]}});
    for (name, value) in more.as_object().expect("an object") {
        match value {
            Value::Null => claims.as_object_mut().expect("an object").remove(name),
            value => claims.as_object_mut().expect("an object").insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// A token with any header, signed by any key: what a forger can make.
fn forge(header: Value, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(&header.to_string()), encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm);
    format!("{message}.{}", signature.expect("a signature"))
}

fn signed(header: Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    forge(header, &claims.to_string(), key, algorithm)
}

fn secret_key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

fn hs256(claims: &Value) -> String {
    signed(json!({"alg": "HS256", "typ": "JWT"}), claims, &secret_key(), Algorithm::HS256)
}

/// Presents a bearer credential.
fn bearer(gate: &Gate, credential: &str) -> Result<Arc<Grant>, Denied> {
    let header = format!("Bearer {credential}");
    let authorization = Some(header.as_bytes());
    admit(gate, &Credentials { authorization, ..Credentials::default() })
}

/// A request that does not come from a page.
fn admit(gate: &Gate, credentials: &Credentials<'_>) -> Result<Arc<Grant>, Denied> {
    gate.admit(Access::Http, credentials, &Page::default(), NOW)
}

/// Why it was refused, if it was.
fn denial(result: Result<Arc<Grant>, Denied>) -> Option<Denied> {
    result.err()
}
