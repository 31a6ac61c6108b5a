//! The `[auth]` section of the configuration file, and what can be wrong with it.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::grant::BadPatterns;

/// Who may do what. Everything is optional; without any key and without `anonymous` the gate is
/// open, and the server then only listens on loopback addresses unless told `--open`.
///
/// ```toml
/// [auth]
/// hmac_secrets = [{ env = "PUSHLINE_SECRET" }]
/// public_keys = [{ file = "/etc/pushline/issuer.pem", kid = "2025-1" }]
/// jwks_file = "/etc/pushline/jwks.json"
/// audience = ["pushline"]
/// cookie = "session"
/// origins = ["https://app.example.com"]
/// anonymous = { subscribe = ["public:*"] }
///
/// [[auth.publish_keys]]
/// name = "billing"
/// file = "/etc/pushline/billing.key"
/// publish = ["invoice:*"]
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Shared secrets for HS256, HS384 and HS512. A secret serves the algorithms whose hash is not
    /// longer than it (RFC 7518 section 3.2): 32 bytes HS256, 48 also HS384, 64 also HS512.
    /// One line break at the end of a file is not part of the secret.
    pub hmac_secrets: Vec<KeySource>,
    /// Public keys in PEM: RSA (at least 2048 bits) for RS256, P-256 for ES256, Ed25519 for EdDSA.
    pub public_keys: Vec<KeySource>,
    /// A JSON Web Key Set (RFC 7517). Entries for encryption or of other kinds are skipped.
    pub jwks_file: Option<PathBuf>,
    /// Narrows the algorithms accepted: each must be one that a key has. Empty: all that keys have.
    pub algorithms: Vec<Algorithm>,
    /// A token must name one of these in `aud`. Empty: a token must have no `aud` (RFC 7519
    /// section 4.1.3: a server that is not named in it must refuse it).
    pub audience: Vec<String>,
    /// A token's `iss` must be one of these. Empty: any.
    pub issuer: Vec<String>,
    /// How far the clocks of issuer and server may differ, in seconds, for `exp` and `nbf`.
    pub leeway_s: Leeway,
    /// Whether a token must have `exp`.
    pub expiry: Expiry,
    /// The name of a cookie that holds a token. None: cookies are ignored.
    pub cookie: Option<String>,
    /// Whether `?access_token=` is accepted. URLs end up in logs and histories: leave it off if a
    /// header, a cookie or a subprotocol entry will do.
    pub query_token: QueryToken,
    /// Keys for backends that publish.
    pub publish_keys: Vec<PublishKeySettings>,
    /// The URL of a backend, as `http://localhost:3000/push-rights`. It is asked about each request whose
    /// cookies or `Authorization` are neither a token nor a publish key, and answers with the claims of
    /// a token, or 401 or 403.
    pub url: Option<String>,
    /// What clients with a certificate may do. `None`: clients are not asked for one.
    pub client_certificates: Option<CertificateSettings>,
    /// What clients without credentials may do. None: nothing, or all if there is no key either.
    pub anonymous: Option<AnonymousSettings>,
    /// Web origins whose pages may connect, exactly as browsers send them:
    /// `https://app.example.com`, without a path, and without the scheme's default port. `null`
    /// stands for files and sandboxed frames, which anybody can make: list it only to try things
    /// out.
    pub origins: Vec<String>,
}

impl AuthSettings {
    /// The environment variables that hold secrets and keys.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let token_keys = self.hmac_secrets.iter().chain(&self.public_keys).map(|key| &key.env);
        let publish_keys = self.publish_keys.iter().map(|key| &key.env);
        token_keys.chain(publish_keys).filter_map(Option::as_deref)
    }
}

/// Where a secret or key is kept: exactly one of `file`, `env` and `value`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeySource {
    /// A file that holds it.
    pub file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub env: Option<String>,
    /// The text itself. For development: configuration files get around.
    pub value: Option<SecretText>,
    /// Its key id. A key with an id serves tokens with that `kid` or none; one without serves all.
    pub kid: Option<String>,
}

/// A key for a backend that publishes, sent as `Authorization: Bearer` or `X-API-Key`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublishKeySettings {
    /// Its name in logs. Not secret.
    pub name: Option<String>,
    /// A file that holds it.
    pub file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub env: Option<String>,
    /// The text itself. For development: configuration files get around.
    pub value: Option<SecretText>,
    /// Patterns of the channels it may publish to. None: all.
    pub publish: Option<Vec<String>>,
}

/// Certificates of clients, over TLS: a way for a backend to publish without a key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateSettings {
    /// The authorities that sign them, in PEM.
    pub ca: PathBuf,
    /// Patterns of the channels they may publish to. `None`: all.
    pub publish: Option<Vec<String>>,
}

/// What clients without credentials may do; those with credentials may do it too.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnonymousSettings {
    /// Patterns of the channels to subscribe to.
    pub subscribe: Vec<String>,
    /// Patterns of the channels to publish to.
    pub publish: Vec<String>,
    /// Patterns of the channels whose streams may be cancelled, in addition to those of `publish`.
    pub cancel: Vec<String>,
}

/// The signature algorithms that can be used at all (RFC 7518 section 3.1, RFC 8037). There is no
/// `none` in this list, so a token that asks for it does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519 (RFC 8032).
    EdDSA,
}

/// Allowed difference of clocks in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Leeway(pub u64);

impl Default for Leeway {
    /// Enough for any machine that keeps time, and too short to be relied on.
    fn default() -> Self {
        Self(5)
    }
}

/// Whether a token must have `exp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expiry {
    /// A token without it is refused: if leaked, it would be valid for ever.
    #[default]
    Required,
    /// A token without it does not expire.
    Optional,
}

/// Whether `?access_token=` is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryToken {
    /// A token in the URL is refused.
    #[default]
    Disabled,
    /// A token in the URL is accepted if no stronger credential is present.
    Enabled,
}

/// Text that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    #[cfg(test)]
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

/// What is wrong with the settings: which one, why, and how to cure it. Contains a path, a
/// variable's name or a pattern, never key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfigError {
    /// The setting, the file or the environment variable.
    pub place: String,
    /// What is wrong with it.
    pub fault: AuthFault,
}

impl AuthConfigError {
    pub(super) fn new(place: impl Into<String>, fault: AuthFault) -> Self {
        Self { place: place.into(), fault }
    }
}

impl fmt::Display for AuthConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

impl std::error::Error for AuthConfigError {}

/// The ways in which access settings can be wrong. All are for the operator to cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFault {
    /// Not exactly one of `file`, `env`, `value`.
    NotOneSource,
    /// The file cannot be read, for this reason.
    Unreadable(std::io::ErrorKind),
    /// The file is longer than any key.
    FileTooLong,
    /// The environment variable is not set.
    EnvMissing,
    /// A shared secret shorter than its hash.
    SecretTooShort,
    /// A shared secret that is a public key in disguise: anyone could sign with it.
    SecretIsPublicKey,
    /// A private key where only the public half belongs.
    PrivateKey,
    /// A certificate instead of the key in it.
    Certificate,
    /// More than one PEM block.
    SeveralKeys,
    /// Not a PEM public key of a kind we use.
    NotPublicKey,
    /// An RSA key of an unsafe or unsupported size.
    RsaSize,
    /// The key set is not JSON of the right shape; line and column.
    JwksSyntax(usize, usize),
    /// No key in the set can check a signature.
    JwksEmpty,
    /// The entry with this index in the key set is broken.
    JwksKey(usize),
    /// More keys than this.
    TooManyKeys(usize),
    /// Several public keys of one algorithm without distinct ids.
    KeyIdNeeded,
    /// An algorithm is listed that no key has, or a key has none of those listed.
    AlgorithmMismatch,
    /// Something that only matters to tokens is set, but no key can check tokens.
    NoTokenKey,
    /// A publish key that is short, not printable, or shaped like a token.
    WeakPublishKey,
    /// The same publish key twice.
    DuplicatePublishKey,
    /// The pattern with this index is malformed.
    BadPattern(usize),
    /// More patterns than a grant may have.
    TooManyPatterns,
    /// Not the name of a cookie.
    BadCookieName,
    /// The backend's URL can't be used.
    BadUrl,
    /// The origin with this index is not one that browsers send.
    BadOrigin(usize),
    /// More leeway than any clock needs.
    LeewayTooLong,
}

impl From<BadPatterns> for AuthFault {
    fn from(bad: BadPatterns) -> Self {
        match bad {
            BadPatterns::TooMany => Self::TooManyPatterns,
            BadPatterns::Malformed { index } => Self::BadPattern(index),
        }
    }
}

/// Why a file cannot be read, in an operator's terms.
pub(crate) fn unreadable(kind: std::io::ErrorKind) -> String {
    match kind {
        std::io::ErrorKind::NotFound => "no such file; check the path".to_owned(),
        std::io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        kind => kind.to_string(),
    }
}

impl fmt::Display for AuthFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOneSource => f.write_str("give exactly one of file, env and value"),
            Self::Unreadable(kind) => {
                write!(f, "cannot be read: {}", unreadable(*kind))
            }
            Self::FileTooLong => f.write_str("too long for a key file; is it the right file?"),
            Self::EnvMissing => f.write_str("this environment variable is not set; set it"),
            Self::SecretTooShort => f.write_str(
                "a shared secret needs 32 bytes for HS256, 48 for HS384, 64 for HS512; \
                 make one with `openssl rand -hex 32`",
            ),
            Self::SecretIsPublicKey => f.write_str(
                "this looks like a key pair or public key, not a shared secret; anyone who knows \
                 it could make tokens. Put it under public_keys or jwks_file",
            ),
            Self::PrivateKey => f.write_str(
                "holds a private key; keep that with the issuer and give the public half, \
                 made with `openssl pkey -in KEY -pubout`",
            ),
            Self::Certificate => f.write_str(
                "holds a certificate; give the key in it, \
                 made with `openssl x509 -in CERT -pubkey -noout`",
            ),
            Self::SeveralKeys => f.write_str("holds more than one PEM block; one key per entry"),
            Self::NotPublicKey => f.write_str(
                "not a public key in PEM for RS256 (RSA), ES256 (P-256) or EdDSA (Ed25519)",
            ),
            Self::RsaSize => f.write_str("an RSA key must have 2048 to 4096 bits; make a new one"),
            Self::JwksSyntax(line, column) => {
                write!(f, "not a JSON Web Key Set, at line {line} column {column}")
            }
            Self::JwksEmpty => f.write_str("no key in this set can check a signature"),
            Self::JwksKey(index) => {
                write!(f, "key {} of the set is broken or too short; replace it", index + 1)
            }
            Self::TooManyKeys(max) => write!(f, "more than {max} keys; remove retired ones"),
            Self::KeyIdNeeded => f.write_str(
                "several public keys have the same algorithm: give each a kid of its own, and let \
                 the issuer name it in its tokens",
            ),
            Self::AlgorithmMismatch => f.write_str(
                "every algorithm listed needs a key, and every key one of those listed; \
                 leave algorithms out to accept what the keys can do",
            ),
            Self::NoTokenKey => f.write_str(
                "only matters to tokens, but there is no key to check them with; \
                 set hmac_secrets, public_keys or jwks_file",
            ),
            Self::WeakPublishKey => write!(
                f,
                "a publish key needs {} to {} printable characters without spaces, not of the \
                 shape a.b.c; make one with `openssl rand -hex 32`",
                super::PUBLISH_KEY_BYTES_MIN,
                super::TOKEN_BYTES_MAX
            ),
            Self::DuplicatePublishKey => f.write_str("the same key as an earlier entry"),
            Self::BadPattern(index) => write!(
                f,
                "pattern {} of the list is not a channel, `*`, or something ending in `:*`",
                index + 1
            ),
            Self::TooManyPatterns => write!(
                f,
                "more than {} patterns; use prefixes such as `user:*`",
                super::PATTERNS_PER_LIST_MAX
            ),
            Self::BadCookieName => f.write_str("not a cookie name (RFC 6265 section 4.1.1)"),
            Self::BadUrl => f.write_str("not of the form http://host:port/path"),
            Self::BadOrigin(index) => write!(
                f,
                "entry {} is not an origin as browsers send it: scheme://host or \
                 scheme://host:port in lower case, no path, no `*`, no default port; or null",
                index + 1
            ),
            Self::LeewayTooLong => write!(f, "more than {} seconds", super::LEEWAY_S_MAX),
        }
    }
}
