//! Keys for backends that publish.
//!
//! A key is kept as its SHA-256 and compared in constant time with every entry, so that timing
//! reveals neither its length, nor how much of a guess is right, nor which entry it matches.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::grant::{Grant, Patterns};
use super::key_fingerprint::KeyFingerprint;
use super::settings::{AuthConfigError, AuthFault, PublishKeySettings};
use super::source::{Env, Place};
use super::token;

/// Shortest publish key: 16 characters of hex are 64 bits, below which guessing becomes feasible.
pub const PUBLISH_KEY_BYTES_MIN: usize = 16;

/// Publish keys in one gate. Each credential is compared with all of them, at a few ns each.
pub const PUBLISH_KEYS_MAX: usize = 256;

/// All publish keys of a gate.
#[derive(Default)]
pub(super) struct PublishKeys(Box<[PublishKey]>);

struct PublishKey {
    digest: KeyDigest,
    grant: Arc<Grant>,
}

/// SHA-256 of a key. It has no `==` on purpose: the only comparison there is takes constant time.
#[derive(Clone, Copy)]
struct KeyDigest([u8; 32]);

impl KeyDigest {
    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl ConstantTimeEq for KeyDigest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PublishKeys {
    /// Reads all keys that the settings name. Every grant adds to `everybody`'s.
    pub fn load(
        settings: &[PublishKeySettings],
        everybody: &Arc<Grant>,
        env: Env<'_>,
    ) -> Result<Self, AuthConfigError> {
        if settings.len() > PUBLISH_KEYS_MAX {
            let fault = AuthFault::TooManyKeys(PUBLISH_KEYS_MAX);
            return Err(AuthConfigError::new("auth.publish_keys", fault));
        }
        let mut seen = HashSet::new();
        let mut keys = Vec::with_capacity(settings.len());
        for (index, entry) in settings.iter().enumerate() {
            let setting = format!("auth.publish_keys[{index}]");
            let material = Place::from(entry).fetch(&setting, env)?;
            let key = material.without_line_break();
            if !is_strong_key(key) {
                return Err(material.error(AuthFault::WeakPublishKey));
            }
            let digest = KeyDigest::of(key);
            if !seen.insert(digest.0) {
                return Err(material.error(AuthFault::DuplicatePublishKey));
            }
            let publish = match &entry.publish {
                None => Patterns::all(),
                Some(texts) => Patterns::parse(texts).map_err(|bad| {
                    AuthConfigError::new(format!("{setting}.publish"), bad.into())
                })?,
            };
            // With other patterns it counts as another key: connections it no longer covers must
            // end.
            let rights = publish.spelled();
            let fingerprint = KeyFingerprint::of("publish key", &[&digest.0, rights.as_bytes()]);
            let grant = Grant::new(Patterns::default(), publish)
                .granted_by(fingerprint)
                .of_publish_key(entry.name.as_deref().map(Box::from))
                .on_top_of(Arc::clone(everybody));
            keys.push(PublishKey { digest, grant: Arc::new(grant) });
        }
        Ok(Self(keys.into()))
    }

    /// The fingerprints of their grants.
    pub fn fingerprints(&self) -> impl Iterator<Item = KeyFingerprint> {
        self.0.iter().flat_map(|key| key.grant.fingerprints())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The grant of a key, if there is such a key. Looks at every entry, whichever matches.
    pub fn find(&self, candidate: &[u8]) -> Option<&Arc<Grant>> {
        let digest = KeyDigest::of(candidate);
        let mut hit = NO_KEY;
        for (index, key) in (0u32..).zip(&self.0) {
            hit.conditional_assign(&index, key.digest.ct_eq(&digest));
        }
        self.0.get(hit as usize).map(|key| &key.grant)
    }
}

/// An index that no key has.
const NO_KEY: u32 = u32::MAX;

/// Whether it is long enough, fit for a header, and not to be mistaken for a token: `Authorization`
/// carries both, and the shape decides which it is.
fn is_strong_key(key: &[u8]) -> bool {
    (PUBLISH_KEY_BYTES_MIN..=super::TOKEN_BYTES_MAX).contains(&key.len())
        && key.iter().all(u8::is_ascii_graphic)
        && !token::has_token_shape(key)
}

impl fmt::Debug for PublishKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublishKeys({} keys)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::SecretText;

    fn load(keys: &[&str]) -> Result<PublishKeys, AuthFault> {
        let entry = |key: &&str| PublishKeySettings {
            name: Some(key[..1].to_owned()),
            value: Some(SecretText::new(*key)),
            ..PublishKeySettings::default()
        };
        let settings: Vec<_> = keys.iter().map(entry).collect();
        let everybody = Arc::new(Grant::new(Patterns::default(), Patterns::default()));
        PublishKeys::load(&settings, &everybody, &|_| None).map_err(|error| error.fault)
    }

    #[test]
    fn every_key_is_found_and_only_whole() {
        let keys = ["a-key-of-the-first", "b-key-of-the-second", "c-key-of-the-third"];
        let ring = load(&keys).expect("good keys");
        for key in keys {
            assert_eq!(ring.find(key.as_bytes()).and_then(|g| g.subject()), Some(&key[..1]));
            assert!(ring.find(&key.as_bytes()[1..]).is_none());
            assert!(ring.find(format!("{key} ").as_bytes()).is_none());
        }
        assert!(ring.find(b"").is_none());
        assert!(PublishKeys::default().find(b"a-key-of-the-first").is_none());
    }

    /// Comparisons must go through `subtle` on fingerprints of equal length. The type has no `==`,
    /// so the only way to break this is to compare the bytes inside, which this looks for.
    #[test]
    fn keys_are_only_compared_in_constant_time() {
        let source = include_str!("publish_keys.rs");
        let find =
            source.split("pub fn find").nth(1).and_then(|rest| rest.split("\n    }\n").next());
        let find = find.expect("the body of find");
        assert!(find.contains("conditional_assign") && find.contains("ct_eq"));
        for shortcut in ["==", "break", "return", ".find(", ".position(", ".any("] {
            assert!(!find.contains(shortcut), "{shortcut} leaks through time");
        }
    }

    #[test]
    fn weak_keys_are_refused() {
        let long = "k".repeat(super::super::TOKEN_BYTES_MAX + 1);
        for weak in
            ["x", "fifteen-letters", "with a space in it", "eyJhbGciOi.eyJzdWIi.c2ln", &long]
        {
            assert_eq!(load(&[weak]).err(), Some(AuthFault::WeakPublishKey), "{weak}");
        }
        let many = vec!["one-key-too-many"; PUBLISH_KEYS_MAX + 1];
        assert_eq!(load(&many).err(), Some(AuthFault::TooManyKeys(PUBLISH_KEYS_MAX)));
        let twice = ["the-same-key-again", "the-same-key-again"];
        assert_eq!(load(&twice).err(), Some(AuthFault::DuplicatePublishKey));
    }
}
