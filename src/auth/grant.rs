//! What an authenticated client may do.

use std::fmt;
use std::sync::Arc;

use super::backend::Question;
use super::key_fingerprint::KeyFingerprint;
use crate::proto::identity::Identity;
use crate::proto::name::Pattern;

/// Most patterns in one list of a token or key. A token of the longest length could otherwise
/// become thousands of small allocations that live as long as its connection.
pub const PATTERNS_PER_LIST_MAX: usize = 128;

/// The channels one list of patterns covers.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Box<[Pattern]>);

/// Why a list of patterns was refused. The text itself is left out: it may come from a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPatterns {
    /// More than [`PATTERNS_PER_LIST_MAX`]; the issuer should use a prefix.
    TooMany,
    /// One of them is not an exact channel, `*`, or something ending in `:*`.
    Malformed {
        /// Its index, from 0.
        index: usize,
    },
}

impl Patterns {
    /// Parses every pattern, or none.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, BadPatterns> {
        if texts.len() > PATTERNS_PER_LIST_MAX {
            return Err(BadPatterns::TooMany);
        }
        let parse = |(index, text): (usize, &T)| {
            Pattern::parse(text.as_ref()).map_err(|_| BadPatterns::Malformed { index })
        };
        texts.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The pattern `*`: every channel.
    pub fn all() -> Self {
        Self::parse(&["*"]).expect("`*` is a pattern")
    }

    /// Whether any pattern covers the channel.
    pub fn matches(&self, channel: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(channel))
    }

    /// Whether no channel is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A text that is the same for the same patterns in the same order, and only for those.
    pub(super) fn spelled(&self) -> String {
        self.0.iter().map(|pattern| format!("{pattern}\n")).collect()
    }
}

/// What one client may do, and until when. Connections share it behind an `Arc`: the grants of
/// anonymous clients and publish keys are built once with the gate; only a token adds one.
pub struct Grant {
    subscribe: Patterns,
    publish: Patterns,
    /// Channels whose streams may be cancelled without the right to publish; few grants have any.
    cancel: Option<Box<Patterns>>,
    /// [`NEVER`]: it does not expire.
    expires_at_unix_s: u32,
    /// 0: unknown. [`NEVER`]: it was not issued, because it is a publish key's.
    issued_at_unix_s: u32,
    /// Who it is, or the name of the publish key.
    identity: Option<Arc<Identity>>,
    /// Tells publishers apart: by subject, otherwise by key.
    publisher: KeyFingerprint,
    /// The key that granted it, otherwise its own rights.
    granted_by: KeyFingerprint,
    /// What everybody may do. A token adds to it: signing in must not take away rights that signing
    /// out would give back.
    everybody: Option<Arc<Grant>>,
    /// The question to the backend that the grant is the answer to.
    asked: Option<Box<Question>>,
}

/// A second that never comes.
const NEVER: u32 = u32::MAX;

// A grant lives as long as its connection, and there may be a million of them.
const _: () = assert!(size_of::<Grant>() <= 88);

impl Grant {
    /// A grant without expiry or subject, which rests on its own rights until a key grants it.
    pub fn new(subscribe: Patterns, publish: Patterns) -> Self {
        let spelled = [subscribe.spelled(), publish.spelled()];
        let own = KeyFingerprint::of("rights", &spelled.each_ref().map(|rights| rights.as_bytes()));
        Self {
            subscribe,
            publish,
            cancel: None,
            expires_at_unix_s: NEVER,
            issued_at_unix_s: 0,
            identity: None,
            publisher: own,
            granted_by: own,
            everybody: None,
            asked: None,
        }
    }

    /// Everything, without end: the grant of an open gate.
    pub fn everything() -> Self {
        Self::new(Patterns::all(), Patterns::all())
    }

    /// Also allows to cancel the streams of these channels.
    pub(super) fn with_cancel(mut self, cancel: Patterns) -> Self {
        if !cancel.is_empty() {
            let parts = [self.granted_by.to_string(), cancel.spelled()];
            let own = KeyFingerprint::of("rights", &parts.each_ref().map(|part| part.as_bytes()));
            (self.publisher, self.granted_by) = (own, own);
            self.cancel = Some(Box::new(cancel));
        }
        self
    }

    pub(super) fn with_expiry(self, expires_at_unix_s: Option<u64>) -> Self {
        let at = expires_at_unix_s.and_then(|at| u32::try_from(at).ok());
        Self { expires_at_unix_s: at.unwrap_or(NEVER), ..self }
    }

    /// Adds a token's subject and time of issue, if it has them.
    pub(super) fn issued_to(self, subject: Option<Box<str>>, at_unix_s: Option<u64>) -> Self {
        let of_subject =
            subject.as_ref().map(|sub| KeyFingerprint::of("subject", &[sub.as_bytes()]));
        let at = at_unix_s.map_or(0, |at| u32::try_from(at).unwrap_or(NEVER - 1));
        let publisher = of_subject.unwrap_or(self.granted_by);
        let identity = subject.map(|subject| Identity { subject, info: None }.into());
        Self { identity, publisher, issued_at_unix_s: at.min(NEVER - 1), ..self }
    }

    /// Adds who its owner claims to be.
    pub(super) fn of(self, who: Identity) -> Self {
        self.issued_to(Some(who.subject), None).telling(who.info)
    }

    /// What the token tells the other members of a channel about its subject.
    pub(super) fn telling(mut self, info: Option<Box<str>>) -> Self {
        if let Some(identity) = self.identity.as_mut().and_then(Arc::get_mut) {
            identity.info = info;
        }
        self
    }

    /// Adds the name of a publish key.
    pub(super) fn of_publish_key(self, name: Option<Box<str>>) -> Self {
        let identity = name.map(|subject| Identity { subject, info: None }.into());
        Self { identity, issued_at_unix_s: NEVER, ..self }
    }

    pub(super) fn granted_by(self, key: KeyFingerprint) -> Self {
        Self { granted_by: key, publisher: key, ..self }
    }

    pub(super) fn on_top_of(self, everybody: Arc<Grant>) -> Self {
        Self { everybody: Some(everybody), ..self }
    }

    pub(super) fn decided_over(self, asked: Question) -> Self {
        Self { asked: Some(Box::new(asked)), ..self }
    }

    /// The question to the backend that the grant is the answer to, if it is one.
    pub fn asked(&self) -> Option<&Question> {
        self.asked.as_deref()
    }

    /// Whether it covers no channel at all.
    pub(super) fn is_useless(&self) -> bool {
        self.subscribe.is_empty()
            && self.publish.is_empty()
            && self.cancel.is_none()
            && self.everybody.as_ref().is_none_or(|grant| grant.is_useless())
    }

    /// Its own, and that of everybody's rights if it adds to them.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = KeyFingerprint> {
        let everybody = self.everybody.as_ref().map(|grant| grant.granted_by);
        std::iter::once(self.granted_by).chain(everybody)
    }

    /// Whether the channel may be subscribed to. The name must already be decoded and checked.
    pub fn may_subscribe(&self, channel: &str) -> bool {
        self.subscribe.matches(channel)
            || self.everybody.as_ref().is_some_and(|grant| grant.may_subscribe(channel))
    }

    /// Whether the channel may be published to. The name must already be decoded and checked.
    pub fn may_publish(&self, channel: &str) -> bool {
        self.publish.matches(channel)
            || self.everybody.as_ref().is_some_and(|grant| grant.may_publish(channel))
    }

    /// Whether the channel's stream may be cancelled. The right to publish includes that.
    pub fn may_cancel(&self, channel: &str) -> bool {
        self.may_publish(channel)
            || self.cancel.as_ref().is_some_and(|cancel| cancel.matches(channel))
            || self.everybody.as_ref().is_some_and(|grant| grant.may_cancel(channel))
    }

    /// Whether there is a channel that may be published to.
    pub fn may_publish_somewhere(&self) -> bool {
        !self.publish.is_empty()
            || self.everybody.as_ref().is_some_and(|grant| grant.may_publish_somewhere())
    }

    /// The second from which the grant is void, leeway included: the one from which
    /// [`super::Gate::admit`] refuses its token. `None`: it does not expire.
    pub fn expires_at_unix_s(&self) -> Option<u64> {
        (self.expires_at_unix_s != NEVER).then_some(u64::from(self.expires_at_unix_s))
    }

    /// Whether the grant is void at `now_unix_s`.
    pub fn is_expired(&self, now_unix_s: u64) -> bool {
        self.expires_at_unix_s().is_some_and(|expires_at_unix_s| now_unix_s >= expires_at_unix_s)
    }

    /// Whether it is a publish key's, and so a backend's.
    pub fn is_of_publish_key(&self) -> bool {
        self.issued_at_unix_s == NEVER
    }

    /// The second its token was issued in, if it said so.
    pub(super) fn issued_at_unix_s(&self) -> u32 {
        self.issued_at_unix_s
    }

    /// The same for all tokens of one publisher, and different for any other.
    pub fn publisher(&self) -> impl fmt::Display {
        self.publisher
    }

    /// Who the token says it is.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref().filter(|_| !self.is_of_publish_key())
    }

    /// The `sub` claim of the token, or the name of the publish key.
    pub fn subject(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| &*identity.subject)
    }
}

impl fmt::Debug for Grant {
    /// Leaves out the subject, which is personal, and the patterns, which often contain it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("expires_at_unix_s", &self.expires_at_unix_s)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(subscribe: &[&str], publish: &[&str]) -> Grant {
        let parse = |texts| Patterns::parse(texts).expect("patterns");
        Grant::new(parse(subscribe), parse(publish))
    }

    #[test]
    fn patterns_do_not_over_match() {
        let grant = grant(&["user:4:*", "news"], &[]);
        assert!(grant.may_subscribe("user:4:inbox"));
        assert!(grant.may_subscribe("news"));
        for foreign in ["user:42:x", "user:4", "user:", "newsroom", "news:x", "xnews", "NEWS", "*"]
        {
            assert!(!grant.may_subscribe(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_star_anywhere_but_at_the_end_of_a_segment_is_no_pattern() {
        for bad in ["user:4*", "*:x", "a:*:b", "**", "a:**", "user*", "", ":*x", "a b"] {
            let parsed = Patterns::parse(&["fine", bad]);
            assert_eq!(parsed.err(), Some(BadPatterns::Malformed { index: 1 }), "{bad:?}");
        }
    }

    #[test]
    fn the_two_rights_are_separate() {
        let grant = grant(&["a"], &["b"]);
        assert!(grant.may_subscribe("a") && !grant.may_publish("a"));
        assert!(grant.may_publish("b") && !grant.may_subscribe("b"));
    }

    #[test]
    fn a_stream_is_cancelled_by_a_right_of_its_own_or_by_the_right_to_publish() {
        let stop = Patterns::parse(&["chat:*"]).expect("patterns");
        let (reader, publisher) = (grant(&["*"], &[]), grant(&[], &["chat:*"]));
        assert!(publisher.may_cancel("chat:7") && !reader.may_cancel("chat:7"));
        let stopper = grant(&["*"], &[]).with_cancel(stop);
        assert!(stopper.may_cancel("chat:7") && !stopper.may_cancel("news"));
        assert!(!stopper.may_publish("chat:7"));
        assert_ne!(stopper.granted_by, reader.granted_by, "a reload sees that the rights differ");
    }

    #[test]
    fn a_grant_is_void_from_its_expiry_on() {
        let grant = grant(&["*"], &[]).with_expiry(Some(100));
        assert!(!grant.is_expired(99));
        assert!(grant.is_expired(100));
        assert!(!Grant::everything().is_expired(u64::MAX));
    }

    #[test]
    fn a_list_has_a_longest_length() {
        let texts = vec!["a"; PATTERNS_PER_LIST_MAX + 1];
        assert!(Patterns::parse(&texts[1..]).is_ok());
        assert_eq!(Patterns::parse(&texts).err(), Some(BadPatterns::TooMany));
    }

    #[test]
    fn printing_a_grant_shows_nobody() {
        let grant = grant(&["user:jane:*"], &[]).issued_to(Some("jane".into()), None);
        assert!(!format!("{grant:?}").contains("jane"));
    }
}
