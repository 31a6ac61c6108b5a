//! Why a request was turned away: a closed list, with what the client is told about it.

use std::fmt;

use crate::proto::http::response::Status;
use crate::proto::reject::Reject;

/// Why access was denied. No variant carries anything the client sent, so printing, logging or
/// counting one can never leak a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denied {
    /// Nothing was presented and anonymous access is not allowed.
    MissingCredentials,
    /// What was presented cannot be a token or a key: empty, not text, or not three parts.
    MalformedCredentials,
    /// Longer than [`super::TOKEN_BYTES_MAX`].
    CredentialsTooLong,
    /// The cookie came more than once. A sibling domain can add a second one, so neither is taken.
    AmbiguousCookie,
    /// A token in the URL while `query_token` is disabled.
    QueryTokenDisabled,
    /// `alg` is `none`, unknown, or of no key that is configured.
    UnsupportedAlgorithm,
    /// `crit` asks for an extension; none is understood (RFC 7515 section 4.1.11).
    UnsupportedExtension,
    /// `kid` names a key that is not configured.
    UnknownKey,
    /// There is no `kid`, and several public keys have the token's algorithm.
    MissingKeyId,
    /// No key that may be tried made this signature.
    BadSignature,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come yet.
    NotYetValid,
    /// There is no `exp`, and one is required.
    MissingExpiry,
    /// `aud` is missing or names somebody else.
    WrongAudience,
    /// `iss` is missing or not a trusted issuer.
    WrongIssuer,
    /// The claims are not JSON of the documented shape.
    BadClaims,
    /// A pattern in the claims is not a channel, `*`, or something ending in `:*`.
    BadPattern,
    /// Not one of the publish keys.
    UnknownPublishKey,
    /// Known, but this channel may not be subscribed to.
    SubscribeForbidden,
    /// Known, but this channel may not be published to.
    PublishForbidden,
    /// A web page of an origin that is not allowed.
    OriginForbidden,
    /// Asked by a name, where only this machine may ask.
    HostForbidden,
    /// Its subject's tokens of that time were called back.
    Revoked,
    /// A running connection was shown a token of another `sub`.
    OtherSubject,
}

impl Denied {
    /// Whether it took a look at the signature to find out.
    pub fn follows_check(self) -> bool {
        matches!(
            self,
            Self::BadSignature
                | Self::Expired
                | Self::NotYetValid
                | Self::MissingExpiry
                | Self::WrongAudience
                | Self::WrongIssuer
                | Self::BadClaims
                | Self::BadPattern
        )
    }

    /// The value of the `WWW-Authenticate` header (RFC 6750 section 3), where one belongs.
    ///
    /// A request without credentials gets the bare challenge, as section 3.1 asks. A refused
    /// origin gets none: no token would change the answer.
    pub fn www_authenticate(self) -> Option<String> {
        let error = match self {
            Self::MissingCredentials => return Some(format!("Bearer realm=\"{REALM}\"")),
            Self::OriginForbidden | Self::HostForbidden => return None,
            Self::SubscribeForbidden | Self::PublishForbidden | Self::OtherSubject => {
                "insufficient_scope"
            }
            _ => "invalid_token",
        };
        let Reject { message, .. } = self.into();
        Some(format!(
            "Bearer realm=\"{REALM}\", error=\"{error}\", error_description=\"{message}\""
        ))
    }

    /// Every variant, for tables of counters and for tests.
    pub const ALL: [Self; 24] = [
        Self::MissingCredentials,
        Self::MalformedCredentials,
        Self::CredentialsTooLong,
        Self::AmbiguousCookie,
        Self::QueryTokenDisabled,
        Self::UnsupportedAlgorithm,
        Self::UnsupportedExtension,
        Self::UnknownKey,
        Self::MissingKeyId,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::MissingExpiry,
        Self::WrongAudience,
        Self::WrongIssuer,
        Self::BadClaims,
        Self::BadPattern,
        Self::UnknownPublishKey,
        Self::SubscribeForbidden,
        Self::PublishForbidden,
        Self::OriginForbidden,
        Self::HostForbidden,
        Self::Revoked,
        Self::OtherSubject,
    ];
}

impl From<Denied> for Reject {
    /// 401 if other credentials could help, 403 if these are known and not enough. Messages are
    /// plain ASCII without quotes, so they fit a header as they are.
    fn from(denied: Denied) -> Self {
        let unauthorized = |code, message| Self::new(Status::Unauthorized, code, message);
        let forbidden = |code, message| Self::new(Status::Forbidden, code, message);
        match denied {
            Denied::MissingCredentials => {
                unauthorized("credentials_missing", "a token or key is required")
            }
            Denied::MalformedCredentials => unauthorized(
                "credentials_malformed",
                "this is neither a known key nor of the form of a token (a JWT: three parts, dots between)",
            ),
            Denied::CredentialsTooLong => {
                unauthorized("credentials_too_long", "the token or key is too long")
            }
            Denied::AmbiguousCookie => {
                unauthorized("cookie_ambiguous", "the session cookie was sent more than once")
            }
            Denied::QueryTokenDisabled => {
                unauthorized("query_token_disabled", "tokens in the URL are not accepted here")
            }
            Denied::UnsupportedAlgorithm => unauthorized(
                "token_algorithm",
                "no key is configured for the algorithm of this token",
            ),
            Denied::UnsupportedExtension => unauthorized(
                "token_extension",
                "the token needs an extension that is not understood",
            ),
            Denied::UnknownKey => {
                unauthorized("token_key_unknown", "the token names a key that is not configured")
            }
            Denied::MissingKeyId => unauthorized(
                "token_without_kid",
                "the token must name its key by kid, as there are several",
            ),
            Denied::BadSignature => {
                unauthorized("token_signature", "the signature of the token is not valid")
            }
            Denied::Expired => unauthorized("token_expired", "the token has expired"),
            Denied::NotYetValid => {
                unauthorized("token_not_yet_valid", "the token is not valid yet")
            }
            Denied::MissingExpiry => unauthorized(
                "token_without_expiry",
                "the token has no exp claim and one is required",
            ),
            Denied::WrongAudience => {
                unauthorized("token_audience", "the token is for another audience")
            }
            Denied::WrongIssuer => unauthorized(
                "token_issuer",
                "the token comes from an issuer that is not trusted here",
            ),
            Denied::BadClaims => {
                unauthorized("token_claims", "the claims of the token are malformed")
            }
            Denied::BadPattern => {
                unauthorized("token_pattern", "a channel pattern in the token is malformed")
            }
            Denied::UnknownPublishKey => {
                unauthorized("publish_key_unknown", "this publish key is not known")
            }
            Denied::SubscribeForbidden => forbidden(
                "subscribe_forbidden",
                "these credentials do not allow subscribing to this channel",
            ),
            Denied::PublishForbidden => forbidden(
                "publish_forbidden",
                "these credentials do not allow publishing to this channel",
            ),
            Denied::OriginForbidden => {
                forbidden("origin_forbidden", "pages of this origin are not allowed")
            }
            Denied::HostForbidden => forbidden(
                "host_forbidden",
                "this server is open to its own machine: ask for it by address or as localhost, \
                 give it keys, or start it with --open",
            ),
            Denied::Revoked => {
                unauthorized("token_revoked", "the token was called back; a new one may do")
            }
            Denied::OtherSubject => {
                forbidden("token_subject", "the token is for somebody else than the connection")
            }
        }
    }
}

/// The protection space named in challenges (RFC 9110 section 11.5).
const REALM: &str = "pushline";

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Reject::from(*self).message)
    }
}

impl std::error::Error for Denied {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_denial_has_its_own_code_and_a_message_that_fits_a_header() {
        let codes: HashSet<_> =
            Denied::ALL.into_iter().map(|denied| Reject::from(denied).code).collect();
        assert_eq!(codes.len(), Denied::ALL.len());
        for denied in Denied::ALL {
            let Reject { message, .. } = denied.into();
            assert!(message.bytes().all(|b| (0x20..0x7f).contains(&b)));
            assert!(!message.contains(['"', '\\']));
        }
    }

    /// RFC 6750 section 3.1: a bare challenge when nothing was sent, else an error code.
    #[test]
    fn challenges_follow_rfc_6750() {
        let challenge = |denied: Denied| denied.www_authenticate().unwrap_or_default();
        assert_eq!(challenge(Denied::MissingCredentials), "Bearer realm=\"pushline\"");
        assert_eq!(
            challenge(Denied::Expired),
            "Bearer realm=\"pushline\", error=\"invalid_token\", \
             error_description=\"the token has expired\""
        );
        assert!(challenge(Denied::PublishForbidden).contains("error=\"insufficient_scope\""));
        assert_eq!(Denied::OriginForbidden.www_authenticate(), None);
    }

    #[test]
    fn unknown_people_get_401_and_known_ones_403() {
        let of = |status| {
            let is_of = move |denied: &Denied| Reject::from(*denied).status == status;
            Denied::ALL.into_iter().filter(is_of)
        };
        let forbidden: Vec<_> = of(Status::Forbidden).collect();
        assert_eq!(
            forbidden,
            [
                Denied::SubscribeForbidden,
                Denied::PublishForbidden,
                Denied::OriginForbidden,
                Denied::HostForbidden,
                Denied::OtherSubject
            ]
        );
        assert_eq!(of(Status::Unauthorized).count() + forbidden.len(), Denied::ALL.len());
    }
}
