//! Bearer tokens: JSON Web Tokens in compact form (RFC 7519, RFC 7515 section 3.1).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::grant::{Grant, Patterns};
use super::key_fingerprint::KeyFingerprint;
use super::keys::{KeyRing, SignedWith};
use super::{Algorithm, AuthSettings, Denied, Expiry};
use crate::proto::identity::Identity;

/// Longest token or key: twice what browsers keep in a cookie, and within the cap of a request's
/// head. It bounds everything a token can make us do.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Most leeway that can be set: more would not be clock skew but a longer life for every token.
pub const LEEWAY_S_MAX: u64 = 300;

/// Longest `info` that is accepted. It is sent to all members of a channel.
const INFO_BYTES_MAX: usize = 512;

/// Longest `sub` that is accepted; a connection holds it as long as it lives.
const SUBJECT_BYTES_MAX: usize = 255;

/// What the claims of a token must say.
#[derive(Debug)]
pub(super) struct ClaimRules {
    audience: Vec<String>,
    issuer: Vec<String>,
    leeway_s: u64,
    expiry: Expiry,
}

impl From<&AuthSettings> for ClaimRules {
    fn from(settings: &AuthSettings) -> Self {
        Self {
            audience: settings.audience.clone(),
            issuer: settings.issuer.clone(),
            leeway_s: settings.leeway_s.0,
            expiry: settings.expiry,
        }
    }
}

/// Whether the text has the three parts of a token. This alone decides if a bearer credential is
/// read as a token or as a publish key.
pub(super) fn has_token_shape(text: &[u8]) -> bool {
    text.iter().filter(|byte| **byte == b'.').count() == 2
}

/// Checks a token and returns its rights. The signature comes first: claims of a forged token are
/// not even parsed.
pub(super) fn check(
    token: &str,
    keys: &KeyRing,
    rules: &ClaimRules,
    now_unix_s: u64,
) -> Result<Grant, Denied> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Denied::CredentialsTooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Denied::MalformedCredentials)?;
    let (header, claims) = message.split_once('.').ok_or(Denied::MalformedCredentials)?;
    if claims.contains('.') {
        return Err(Denied::MalformedCredentials);
    }
    let header = decode_part(header).ok_or(Denied::MalformedCredentials)?;
    let header: Header = object(&header).ok_or(Denied::MalformedCredentials)?;
    let fingerprint = keys.check(&header.signed_with()?, message.as_bytes(), signature)?;
    let claims = decode_part(claims).ok_or(Denied::BadClaims)?;
    let claims: Claims<'_> = object(&claims).ok_or(Denied::BadClaims)?;
    rules.check(&claims, now_unix_s)?;
    claims.into_grant(rules.leeway_s, fingerprint)
}

/// The rights in claims that come from the operator's backend, and need no signature.
pub(super) fn of_claims(json: &[u8], fingerprint: KeyFingerprint) -> Result<Grant, Denied> {
    let claims: Claims<'_> = object(json).ok_or(Denied::BadClaims)?;
    claims.into_grant(0, fingerprint)
}

/// How long checking a token takes. Zero if that is not worth counting.
pub(super) fn cost(token: &str, keys: &KeyRing) -> Duration {
    if token.len() > TOKEN_BYTES_MAX {
        return Duration::ZERO;
    }
    let header = token.split('.').next().and_then(decode_part);
    let header: Option<Header> = header.as_deref().and_then(object);
    let with = header.as_ref().and_then(|header| header.signed_with().ok());
    with.map_or(Duration::ZERO, |with| keys.cost(&with))
}

fn decode_part(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// Reads a JSON object. Serde would also take a list, with members by their order.
fn object<'t, T: Deserialize<'t>>(json: &'t [u8]) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(json).ok()).flatten()
}

/// The parts of a header (RFC 7515 section 4.1) that matter. `jwk`, `jku`, `x5u` and `x5c`, by
/// which a token could bring its own key, are ignored.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Present even if it is `null`: then it is an extension that must be understood.
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

fn present<'t, D: Deserializer<'t>>(deserializer: D) -> Result<Option<IgnoredAny>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(Some)
}

impl Header {
    fn signed_with(&self) -> Result<SignedWith<'_>, Denied> {
        if self.crit.is_some() {
            return Err(Denied::UnsupportedExtension);
        }
        let algorithm = Algorithm::from_name(&self.alg).ok_or(Denied::UnsupportedAlgorithm)?;
        Ok(SignedWith { algorithm, kid: self.kid.as_deref() })
    }
}

impl Algorithm {
    /// The algorithm of this name, exactly as registered; there is no `none`, `None` or `hs256`.
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::HS256),
            "HS384" => Some(Self::HS384),
            "HS512" => Some(Self::HS512),
            "RS256" => Some(Self::RS256),
            "ES256" => Some(Self::ES256),
            "EdDSA" => Some(Self::EdDSA),
            _ => None,
        }
    }
}

/// The registered claims that matter (RFC 7519 section 4.1), and our own.
#[derive(Deserialize)]
struct Claims<'t> {
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    aud: Option<OneOrMany>,
    iss: Option<String>,
    sub: Option<String>,
    #[serde(borrow)]
    pushline: Option<&'t RawValue>,
}

/// `"pushline": {"subscribe": [...], "publish": [...], "cancel": [...], "info": ...}`. Other members
/// are refused: one that a later version treats as a limit must not be ignored by this one.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Rights<'t> {
    subscribe: Vec<String>,
    publish: Vec<String>,
    cancel: Vec<String>,
    /// What other members of a channel are told about the subject: any JSON value.
    #[serde(borrow)]
    info: Option<&'t RawValue>,
}

/// Seconds since 1970, possibly with a fraction (RFC 7519 section 2).
#[derive(Deserialize, Clone, Copy)]
#[serde(transparent)]
struct NumericDate(f64);

impl NumericDate {
    /// The last whole second that is not later. Casting saturates, so no date can overflow.
    fn floor_unix_s(self) -> u64 {
        self.0.floor() as u64
    }

    /// The first whole second that is not earlier.
    fn ceil_unix_s(self) -> u64 {
        self.0.ceil() as u64
    }
}

/// `aud` is a string or a list of strings (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn names_any_of(&self, wanted: &[String]) -> bool {
        let is_wanted = |name: &String| wanted.contains(name);
        match self {
            Self::One(name) => is_wanted(name),
            Self::Many(names) => names.iter().any(is_wanted),
        }
    }
}

impl ClaimRules {
    fn check(&self, claims: &Claims<'_>, now_unix_s: u64) -> Result<(), Denied> {
        match claims.exp {
            None if self.expiry == Expiry::Required => return Err(Denied::MissingExpiry),
            Some(exp) if now_unix_s >= end_unix_s(exp, self.leeway_s) => {
                return Err(Denied::Expired);
            }
            None | Some(_) => {}
        }
        if claims
            .nbf
            .is_some_and(|nbf| now_unix_s.saturating_add(self.leeway_s) < nbf.ceil_unix_s())
        {
            return Err(Denied::NotYetValid);
        }
        let is_for_us = match &claims.aud {
            Some(aud) => aud.names_any_of(&self.audience),
            None => self.audience.is_empty(),
        };
        if !is_for_us {
            return Err(Denied::WrongAudience);
        }
        let is_trusted = |iss: &String| self.issuer.contains(iss);
        if !self.issuer.is_empty() && !claims.iss.as_ref().is_some_and(is_trusted) {
            return Err(Denied::WrongIssuer);
        }
        Ok(())
    }
}

/// The second from which a token is void: on or after `exp` (RFC 7519 section 4.1.4), plus leeway.
fn end_unix_s(exp: NumericDate, leeway_s: u64) -> u64 {
    exp.floor_unix_s().saturating_add(leeway_s)
}

/// The subject that a token names. Nothing is checked.
pub(super) fn claimed(token: &str) -> Option<Identity> {
    let claims = token.split('.').nth(1).and_then(decode_part)?;
    let (subject, info) = object::<Claims<'_>>(&claims)?.identity().ok()?;
    Some(Identity { subject: subject?, info })
}

/// A subject, and what it tells others of itself.
type Told = (Option<Box<str>>, Option<Box<str>>);

impl Claims<'_> {
    fn rights(&self) -> Result<Rights<'_>, Denied> {
        match self.pushline {
            Some(rights) => object(rights.get().as_bytes()).ok_or(Denied::BadClaims),
            None => Ok(Rights::default()),
        }
    }

    fn identity(&self) -> Result<Told, Denied> {
        let short = |text: &str, bytes_max| match text.len() <= bytes_max {
            true => Ok(Box::from(text)),
            false => Err(Denied::BadClaims),
        };
        let subject = self.sub.as_deref().map(|sub| short(sub, SUBJECT_BYTES_MAX)).transpose()?;
        let info = self.rights()?.info.map(|info| short(info.get(), INFO_BYTES_MAX));
        Ok((subject, info.transpose()?))
    }

    fn into_grant(self, leeway_s: u64, fingerprint: KeyFingerprint) -> Result<Grant, Denied> {
        let parse = |texts: &[String]| Patterns::parse(texts).map_err(|_| Denied::BadPattern);
        let rights = self.rights()?;
        let (subject, info) = self.identity()?;
        let expires_at_unix_s = self.exp.map(|exp| end_unix_s(exp, leeway_s));
        Ok(Grant::new(parse(&rights.subscribe)?, parse(&rights.publish)?)
            .with_cancel(parse(&rights.cancel)?)
            .granted_by(fingerprint)
            .with_expiry(expires_at_unix_s)
            .issued_to(subject, self.iat.map(NumericDate::floor_unix_s))
            .telling(info))
    }
}
