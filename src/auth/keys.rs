//! The keys that check tokens. Every key is bound, when loaded, to the algorithms of its own kind;
//! a token's `alg` can only choose among keys that have it. That rules out algorithm confusion: a
//! public key is never given to HMAC, whatever a token asks for.

use std::fmt;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{self, aws_lc};
use jsonwebtoken::errors::{Error as CryptoError, ErrorKind as CryptoErrorKind};
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm as CryptoAlgorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};

use super::key_fingerprint::KeyFingerprint;
use super::settings::{AuthConfigError, AuthFault};
use super::source::{self, Env, Material, Place};
use super::{Algorithm, AuthSettings, Denied};

/// Keys that check tokens. A token without `kid` is tried against all shared secrets, at 1 us each;
/// public keys take a hundred times as long, and it is checked against at most one of them.
pub const KEYS_MAX: usize = 16;

/// Checks made to find out how long one takes; the shortest counts.
const TRIALS: usize = 3;

/// RFC 7518 section 3.3 asks for 2048 bits or more; the crate that does the arithmetic takes 4096.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// All keys that check tokens.
pub(super) struct KeyRing(Box<[TokenKey]>);

/// What a token's header says about how it was signed.
pub(super) struct SignedWith<'a> {
    pub algorithm: Algorithm,
    pub kid: Option<&'a str>,
}

impl KeyRing {
    /// Reads all keys that the settings name.
    pub fn load(settings: &AuthSettings, env: Env<'_>) -> Result<Self, AuthConfigError> {
        let mut keys = Vec::new();
        for (index, source) in settings.hmac_secrets.iter().enumerate() {
            let setting = format!("auth.hmac_secrets[{index}]");
            let material = Place::from(source).fetch(&setting, env)?;
            let key = secret_key(material.without_line_break());
            keys.push((key.map_err(|fault| material.error(fault))?.named(&source.kid), material));
        }
        for (index, source) in settings.public_keys.iter().enumerate() {
            let setting = format!("auth.public_keys[{index}]");
            let material = Place::from(source).fetch(&setting, env)?;
            let key = pem_key(&material.bytes).map_err(|fault| material.error(fault))?;
            keys.push((key.named(&source.kid), material));
        }
        let mut ring = Vec::new();
        for (key, material) in keys {
            ring.push(narrowed(key, settings).map_err(|fault| material.error(fault))?);
        }
        if let Some(path) = &settings.jwks_file {
            let material = source::read_file("auth.jwks_file", path)?;
            ring.append(&mut jwks_keys(&material, settings)?);
        }
        check_ring(&ring, settings)?;
        Ok(Self(ring.into()))
    }

    /// Whether no token can be checked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether checks can take long: any key that is not for HMAC.
    pub fn is_slow(&self) -> bool {
        self.0.iter().any(TokenKey::is_public)
    }

    /// How long it takes to check a token with this header. Zero for shared secrets, and if it is
    /// refused without a check.
    pub fn cost(&self, with: &SignedWith<'_>) -> Duration {
        self.candidates(with).map_or(Duration::ZERO, |keys| keys.map(|key| key.cost).sum())
    }

    /// The keys for the token's algorithm and, if it names one, its `kid`: any number of shared
    /// secrets, or one public key.
    fn candidates(&self, with: &SignedWith<'_>) -> Result<impl Iterator<Item = &TokenKey>, Denied> {
        let of_algorithm = || self.0.iter().filter(|key| key.has(with.algorithm));
        let mut public = of_algorithm().filter(|key| key.is_public());
        if of_algorithm().next().is_none() {
            return Err(Denied::UnsupportedAlgorithm);
        }
        if with.kid.is_none() && public.nth(1).is_some() {
            return Err(Denied::MissingKeyId);
        }
        let mut serving = of_algorithm().filter(|key| key.serves(with.kid)).peekable();
        match serving.peek() {
            Some(_) => Ok(serving),
            None => Err(Denied::UnknownKey),
        }
    }

    /// The fingerprints of all these keys.
    pub fn fingerprints(&self) -> impl Iterator<Item = KeyFingerprint> {
        self.0.iter().map(|key| key.fingerprint)
    }

    /// Checks the signature of `message`, given as base64url, by the keys of the token's algorithm
    /// and, if it names one, its `kid`. Returns which key it was.
    pub fn check(
        &self,
        with: &SignedWith<'_>,
        message: &[u8],
        signature: &str,
    ) -> Result<KeyFingerprint, Denied> {
        let mut candidates = self.candidates(with)?;
        let key = candidates.find(|key| key.verifies(with.algorithm, message, signature));
        key.map(|key| key.fingerprint).ok_or(Denied::BadSignature)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

/// One key, its id, and the algorithms it may be used with.
struct TokenKey {
    kid: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
    fingerprint: KeyFingerprint,
    /// How long a check takes; zero for a shared secret.
    cost: Duration,
}

impl TokenKey {
    /// Binds a key to its algorithms, after making sure that it really works with each of them.
    fn new(key: DecodingKey, algorithms: &[Algorithm]) -> Result<Self, CryptoError> {
        for algorithm in algorithms {
            (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&algorithm.in_crypto(), &key)?;
            if *algorithm == Algorithm::ES256 {
                check_curve(&key)?;
            }
        }
        let fingerprint = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => KeyFingerprint::of("key", &[bytes]),
            DecodingKeyKind::RsaModulusExponent { n, e } => KeyFingerprint::of("key", &[n, e]),
        };
        let algorithms = algorithms.to_vec();
        let mut key = Self { kid: None, algorithms, key, fingerprint, cost: Duration::ZERO };
        if key.is_public() {
            key.cost = key.measured();
        }
        Ok(key)
    }

    fn is_public(&self) -> bool {
        self.key.family() != AlgorithmFamily::Hmac
    }

    /// How long a check takes on this machine, measured on a signature of plausible form: machines
    /// differ, and so do keys of one kind.
    fn measured(&self) -> Duration {
        let signature = match self.key.family() {
            AlgorithmFamily::Rsa => vec![0x55; rsa_bits(&self.key).unwrap_or(0) / 8],
            // For Ed25519, the last byte must be small.
            AlgorithmFamily::Ed => [&[0x55; 63][..], &[0]].concat(),
            _ => vec![0x55; 64],
        };
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let trial = |_| {
            let began = Instant::now();
            let _ = self.verifies(self.algorithms[0], &[b'.'; 256], &signature);
            began.elapsed()
        };
        (0..TRIALS).map(trial).min().unwrap_or_default()
    }

    fn named(self, kid: &Option<String>) -> Self {
        Self { kid: kid.as_deref().map(Box::from), ..self }
    }

    fn has(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// A key with an id serves tokens that name it or none; a key without an id serves every token.
    fn serves(&self, kid: Option<&str>) -> bool {
        match (self.kid.as_deref(), kid) {
            (Some(own), Some(wanted)) => own == wanted,
            (None, _) | (_, None) => true,
        }
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        assert!(self.has(algorithm), "a key is only used with its own algorithms");
        let verified = crypto::verify(signature, message, &self.key, algorithm.in_crypto());
        matches!(verified, Ok(true))
    }
}

impl Algorithm {
    fn in_crypto(self) -> CryptoAlgorithm {
        match self {
            Self::HS256 => CryptoAlgorithm::HS256,
            Self::HS384 => CryptoAlgorithm::HS384,
            Self::HS512 => CryptoAlgorithm::HS512,
            Self::RS256 => CryptoAlgorithm::RS256,
            Self::ES256 => CryptoAlgorithm::ES256,
            Self::EdDSA => CryptoAlgorithm::EdDSA,
        }
    }

    fn in_jwk(self) -> KeyAlgorithm {
        KeyAlgorithm::from(self.in_crypto())
    }
}

/// A shared secret, for the algorithms whose hash is not longer than it.
fn secret_key(secret: &[u8]) -> Result<TokenKey, AuthFault> {
    if is_public_key_text(secret) {
        return Err(AuthFault::SecretIsPublicKey);
    }
    let algorithms: &[Algorithm] = match secret.len() {
        64.. => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        48.. => &[Algorithm::HS256, Algorithm::HS384],
        32.. => &[Algorithm::HS256],
        _ => return Err(AuthFault::SecretTooShort),
    };
    TokenKey::new(DecodingKey::from_secret(secret), algorithms)
        .map_err(|_| AuthFault::SecretTooShort)
}

/// Whether a server would take this shared secret.
pub(super) fn check_secret(secret: &[u8]) -> Result<(), AuthFault> {
    secret_key(secret).map(|_| ())
}

/// Whether a would-be secret is the text of a public key: PEM, OpenSSH or JWK.
fn is_public_key_text(secret: &[u8]) -> bool {
    let has = |needle: &[u8]| memchr::memmem::find(secret, needle).is_some();
    let is_ssh = [b"ssh-".as_slice(), b"ecdsa-sha2-"].iter().any(|kind| secret.starts_with(kind));
    has(b"-----BEGIN") || has(b"\"kty\"") || is_ssh
}

/// A public key in PEM; its kind is read from the key.
fn pem_key(pem: &[u8]) -> Result<TokenKey, AuthFault> {
    let count = |label: &[u8]| memchr::memmem::find_iter(pem, label).count();
    if count(b"PRIVATE KEY-----") > 0 {
        return Err(AuthFault::PrivateKey);
    }
    if count(b"-----BEGIN CERTIFICATE") > 0 {
        return Err(AuthFault::Certificate);
    }
    if count(b"-----BEGIN") > 1 {
        return Err(AuthFault::SeveralKeys);
    }
    let (key, algorithm) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        check_rsa_size(&key)?;
        (key, Algorithm::RS256)
    } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        (key, Algorithm::ES256)
    } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        check_ed_size(&key)?;
        (key, Algorithm::EdDSA)
    } else {
        return Err(AuthFault::NotPublicKey);
    };
    TokenKey::new(key, &[algorithm]).map_err(|_| AuthFault::NotPublicKey)
}

/// The verifier looks at a key only when it checks a token: a key of another curve would pass for a
/// P-256 key that refuses everything.
fn check_curve(key: &DecodingKey) -> Result<(), CryptoError> {
    let point = key.try_get_as_bytes()?;
    match ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point) {
        Ok(_) => Ok(()),
        Err(_) => Err(CryptoErrorKind::InvalidEcdsaKey.into()),
    }
}

fn check_rsa_size(key: &DecodingKey) -> Result<(), AuthFault> {
    match rsa_bits(key) {
        Some(bits) if RSA_BITS.contains(&bits) => Ok(()),
        Some(_) | None => Err(AuthFault::RsaSize),
    }
}

fn rsa_bits(key: &DecodingKey) -> Option<usize> {
    let components = aws_lc::DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
    let from_der;
    let modulus = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e: _ } => n,
        DecodingKeyKind::SecretOrDer(der) => {
            from_der = components(der).ok()?.0;
            &from_der
        }
    };
    let leading_zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    match &modulus[leading_zeros..] {
        [] => None,
        [first, rest @ ..] => Some(8 * rest.len() + 8 - first.leading_zeros() as usize),
    }
}

/// The verifier cuts the key at 32 bytes unchecked, which would panic on a shorter one.
fn check_ed_size(key: &DecodingKey) -> Result<(), AuthFault> {
    match key.try_get_as_bytes() {
        Ok(bytes) if bytes.len() == 32 => Ok(()),
        _ => Err(AuthFault::NotPublicKey),
    }
}

/// The keys of a set that can check signatures. Providers publish sets with keys for other uses, so
/// those are skipped; a key that is meant for us and broken is an error.
fn jwks_keys(
    material: &Material,
    settings: &AuthSettings,
) -> Result<Vec<TokenKey>, AuthConfigError> {
    // The JSON reader's error can quote its input, so only the position is kept.
    let set: JwkSet = serde_json::from_slice(&material.bytes)
        .map_err(|error| material.error(AuthFault::JwksSyntax(error.line(), error.column())))?;
    let mut keys = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let key = jwk_key(jwk).map_err(|_| material.error(AuthFault::JwksKey(index)))?;
        // The operator cannot edit a provider's set, so a key of an unwanted algorithm is left out.
        keys.extend(key.and_then(|key| narrowed(key, settings).ok()));
    }
    if keys.is_empty() { Err(material.error(AuthFault::JwksEmpty)) } else { Ok(keys) }
}

/// One key of a set; `None` if it is not for checking signatures, or not of a kind we use.
fn jwk_key(jwk: &Jwk) -> Result<Option<TokenKey>, AuthFault> {
    let common = &jwk.common;
    let is_for_signatures =
        common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let may_verify =
        common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    if !is_for_signatures || !may_verify {
        return Ok(None);
    }
    let read = || DecodingKey::from_jwk(jwk).map_err(|_| AuthFault::NotPublicKey);
    let bound =
        |key, algorithm| TokenKey::new(key, &[algorithm]).map_err(|_| AuthFault::NotPublicKey);
    let mut key = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {
            let key = read()?;
            check_rsa_size(&key)?;
            bound(key, Algorithm::RS256)?
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            bound(read()?, Algorithm::ES256)?
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            let key = read()?;
            check_ed_size(&key)?;
            bound(key, Algorithm::EdDSA)?
        }
        AlgorithmParameters::OctetKey(_) => {
            let key = read()?;
            secret_key(key.try_get_as_bytes().map_err(|_| AuthFault::SecretTooShort)?)?
        }
        _ => return Ok(None),
    };
    // A key that names its algorithm is for that one only (RFC 7517 section 4.4).
    if let Some(wanted) = common.key_algorithm {
        key.algorithms.retain(|algorithm| algorithm.in_jwk() == wanted);
    }
    let is_usable = !key.algorithms.is_empty();
    Ok(is_usable.then(|| key.named(&common.key_id)))
}

/// Removes algorithms that the settings do not list.
fn narrowed(mut key: TokenKey, settings: &AuthSettings) -> Result<TokenKey, AuthFault> {
    if !settings.algorithms.is_empty() {
        key.algorithms.retain(|algorithm| settings.algorithms.contains(algorithm));
    }
    if key.algorithms.is_empty() { Err(AuthFault::AlgorithmMismatch) } else { Ok(key) }
}

fn check_ring(ring: &[TokenKey], settings: &AuthSettings) -> Result<(), AuthConfigError> {
    if ring.len() > KEYS_MAX {
        return Err(AuthConfigError::new("auth", AuthFault::TooManyKeys(KEYS_MAX)));
    }
    check_key_ids(ring)?;
    let has_key = |algorithm: &Algorithm| ring.iter().any(|key| key.has(*algorithm));
    if !ring.is_empty() && !settings.algorithms.iter().all(has_key) {
        return Err(AuthConfigError::new("auth.algorithms", AuthFault::AlgorithmMismatch));
    }
    Ok(())
}

/// If several public keys have one algorithm, each needs an id of its own: which one is meant must
/// be known before any is tried.
fn check_key_ids(ring: &[TokenKey]) -> Result<(), AuthConfigError> {
    for (place, key) in ring.iter().enumerate().filter(|(_, key)| key.is_public()) {
        let is_rival = |other: &&TokenKey| other.algorithms == key.algorithms;
        let unclear = |other: &TokenKey| other.kid == key.kid || key.kid.is_none();
        if ring[..place].iter().chain(&ring[place + 1..]).filter(is_rival).any(unclear) {
            return Err(AuthConfigError::new("auth", AuthFault::KeyIdNeeded));
        }
    }
    Ok(())
}
