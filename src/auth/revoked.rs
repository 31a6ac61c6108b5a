//! Subjects whose tokens are revoked: those issued before a given second are void.

use std::collections::BTreeMap;

use super::grant::Grant;

/// Most subjects. Beyond that, the key should be changed instead.
pub const REVOKED_MAX: usize = 4096;

/// Revoked subjects, and the second from which their tokens count again. It is kept in memory only,
/// so a restart forgets it, but on a node of many, whose stream has it for a while: it is meant for
/// tokens that expire soon.
#[derive(Clone, Debug, Default)]
pub struct Revoked(BTreeMap<Box<str>, u32>);

/// There is no room for another subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRevoked;

impl Revoked {
    /// Revokes what the subject was issued before this second.
    ///
    /// # Errors
    /// There are [`REVOKED_MAX`] subjects already; nothing has changed.
    pub fn add(&mut self, subject: &str, not_before_unix_s: u64) -> Result<(), TooManyRevoked> {
        if self.0.len() >= REVOKED_MAX && !self.0.contains_key(subject) {
            return Err(TooManyRevoked);
        }
        let not_before = u32::try_from(not_before_unix_s).unwrap_or(u32::MAX);
        let kept = self.0.entry(subject.into()).or_default();
        *kept = not_before.max(*kept);
        Ok(())
    }

    /// Whether the grant is revoked. One that does not say when it was issued counts as old; a
    /// publish key is not a token.
    pub fn covers(&self, grant: &Grant) -> bool {
        if self.0.is_empty() || grant.is_of_publish_key() {
            return false;
        }
        let not_before = grant.subject().and_then(|subject| self.0.get(subject));
        not_before.is_some_and(|second| grant.issued_at_unix_s() < *second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Patterns;

    fn grant(subject: Option<&str>, issued_at: Option<u64>) -> Grant {
        let rights = Grant::new(Patterns::all(), Patterns::default());
        rights.issued_to(subject.map(Box::from), issued_at)
    }

    #[test]
    fn tokens_of_before_are_void_and_those_of_others_and_of_later_are_not() {
        let mut revoked = Revoked::default();
        assert!(!revoked.covers(&grant(Some("jane"), None)));
        revoked.add("jane", 100).expect("room");
        revoked.add("jane", 50).expect("room");
        for (subject, issued_at, is_void) in [
            (Some("jane"), Some(99), true),
            (Some("jane"), None, true),
            (Some("jane"), Some(100), false),
            (Some("jane"), Some(u64::MAX), false),
            (Some("joe"), Some(1), false),
            (None, None, false),
        ] {
            assert_eq!(revoked.covers(&grant(subject, issued_at)), is_void, "{subject:?}");
        }
        let key = Grant::everything().of_publish_key(Some("jane".into()));
        assert!(!revoked.covers(&key));
    }

    #[test]
    fn the_table_has_an_end_and_whom_it_has_stays_in_it() {
        let mut revoked = Revoked::default();
        for n in 0..REVOKED_MAX {
            revoked.add(&n.to_string(), 1).expect("room");
        }
        assert_eq!(revoked.add("another", 1), Err(TooManyRevoked));
        assert_eq!(revoked.add("7", 2), Ok(()));
    }
}
