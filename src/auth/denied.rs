//! Why a request was denied: a closed list, with what the client is told about each.

use std::fmt;

use crate::proto::http::response::Status;
use crate::proto::reject::Reject;

/// The denials, with status, code and message of each. 401 if other credentials could help, 403 if
/// these are known and insufficient. Messages are plain ASCII without quotes, so that they fit a
/// header unchanged.
macro_rules! denials {
    ($($(#[$doc:meta])* $name:ident: $status:ident, $code:literal, $message:literal;)*) => {
        /// Why access was denied. No variant carries anything the client sent, so printing, logging
        /// or counting one can never leak a credential.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Denied {
            $($(#[$doc])* $name,)*
        }

        impl From<Denied> for Reject {
            fn from(denied: Denied) -> Self {
                match denied {
                    $(Denied::$name => Self::new(Status::$status, $code, $message),)*
                }
            }
        }

        #[cfg(test)]
        const ALL: &[Denied] = &[$(Denied::$name),*];
    };
}

denials! {
    /// Nothing was sent, and anonymous access is not allowed.
    MissingCredentials: Unauthorized, "credentials_missing",
        "a token or key is required";
    /// What was sent cannot be a token or a key: it is empty, not text, or does not have three
    /// parts.
    MalformedCredentials: Unauthorized, "credentials_malformed",
        "this is neither a known key nor of the form of a token (a JWT: three parts, dots \
         between)";
    /// Longer than [`super::TOKEN_BYTES_MAX`].
    CredentialsTooLong: Unauthorized, "credentials_too_long",
        "the token or key is too long";
    /// The cookie was sent more than once. A sibling domain can add a second one, so neither
    /// counts.
    AmbiguousCookie: Unauthorized, "cookie_ambiguous",
        "the session cookie was sent more than once";
    /// A token in the URL while `query_token` is disabled.
    QueryTokenDisabled: Unauthorized, "query_token_disabled",
        "tokens in the URL are not accepted here";
    /// `alg` is `none`, unknown, or not that of a configured key.
    UnsupportedAlgorithm: Unauthorized, "token_algorithm",
        "no key is configured for the algorithm of this token";
    /// `crit` asks for an extension; none is understood (RFC 7515 section 4.1.11).
    UnsupportedExtension: Unauthorized, "token_extension",
        "the token needs an extension that is not understood";
    /// `kid` names a key that is not configured.
    UnknownKey: Unauthorized, "token_key_unknown",
        "the token names a key that is not configured";
    /// There is no `kid`, and several public keys have the token's algorithm.
    MissingKeyId: Unauthorized, "token_without_kid",
        "the token must name its key by kid, as there are several";
    /// No key that may be tried made this signature.
    BadSignature: Unauthorized, "token_signature",
        "the signature of the token is not valid";
    /// `exp` has passed.
    Expired: Unauthorized, "token_expired",
        "the token has expired";
    /// `nbf` has not come yet.
    NotYetValid: Unauthorized, "token_not_yet_valid",
        "the token is not valid yet";
    /// There is no `exp`, and one is required.
    MissingExpiry: Unauthorized, "token_without_expiry",
        "the token has no exp claim and one is required";
    /// `aud` is missing or names another audience.
    WrongAudience: Unauthorized, "token_audience",
        "the token is for another audience";
    /// `iss` is missing or not a trusted issuer.
    WrongIssuer: Unauthorized, "token_issuer",
        "the token comes from an issuer that is not trusted here";
    /// The claims are not JSON of the documented shape.
    BadClaims: Unauthorized, "token_claims",
        "the claims of the token are malformed";
    /// A pattern in the claims is not a channel, `*`, or something ending in `:*`.
    BadPattern: Unauthorized, "token_pattern",
        "a channel pattern in the token is malformed";
    /// Not one of the publish keys.
    UnknownPublishKey: Unauthorized, "publish_key_unknown",
        "this publish key is not known";
    /// Known, but not allowed to subscribe to this channel.
    SubscribeForbidden: Forbidden, "subscribe_forbidden",
        "these credentials do not allow subscribing to this channel";
    /// Known, but not allowed to publish to this channel.
    PublishForbidden: Forbidden, "publish_forbidden",
        "these credentials do not allow publishing to this channel";
    /// Known, but allowed neither to publish to this channel nor to cancel its streams.
    CancelForbidden: Forbidden, "cancel_forbidden",
        "these credentials do not allow cancelling streams of this channel";
    /// The operator's backend refused.
    BackendRefused: Unauthorized, "backend_refused",
        "the backend refused these credentials";
    /// The operator's backend gave no answer that could be understood, or too many requests wait for it.
    BackendUnavailable: ServiceUnavailable, "backend_unavailable",
        "the backend that decides over access gave no answer; try again";
    /// A web page of an origin that is not allowed.
    OriginForbidden: Forbidden, "origin_forbidden",
        "pages of this origin are not allowed";
    /// The request names a host, where only this machine may ask.
    HostForbidden: Forbidden, "host_forbidden",
        "this server is open to its own machine: ask for it by address or as localhost, give \
         it keys, or start it with --open";
    /// Its subject's tokens of that time were revoked.
    Revoked: Unauthorized, "token_revoked",
        "the token was revoked; a new one may be accepted";
    /// A running connection was sent a token of another `sub`.
    OtherSubject: Forbidden, "token_subject",
        "the token belongs to another subject than the connection";
}

impl Denied {
    /// Whether the signature had to be checked to find this out.
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

    /// The value of the `WWW-Authenticate` header (RFC 6750 section 3), if there must be one.
    ///
    /// A request without credentials gets the bare challenge, as section 3.1 asks. A refused
    /// origin gets none: no token would change the answer.
    pub fn www_authenticate(self) -> Option<String> {
        let error = match self {
            Self::MissingCredentials => return Some(format!("Bearer realm=\"{REALM}\"")),
            Self::OriginForbidden | Self::HostForbidden | Self::BackendUnavailable => return None,
            Self::SubscribeForbidden
            | Self::PublishForbidden
            | Self::CancelForbidden
            | Self::OtherSubject => "insufficient_scope",
            _ => "invalid_token",
        };
        let Reject { message, .. } = self.into();
        Some(format!(
            "Bearer realm=\"{REALM}\", error=\"{error}\", error_description=\"{message}\""
        ))
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
            ALL.iter().copied().map(|denied| Reject::from(denied).code).collect();
        assert_eq!(codes.len(), ALL.len());
        for &denied in ALL {
            let Reject { message, .. } = denied.into();
            assert!(message.bytes().all(|b| (0x20..0x7f).contains(&b)));
            assert!(!message.contains(['"', '\\']));
        }
    }

    /// RFC 6750 section 3.1: a bare challenge if nothing was sent, otherwise an error code.
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
            ALL.iter().copied().filter(is_of)
        };
        let forbidden: Vec<_> = of(Status::Forbidden).collect();
        assert_eq!(
            forbidden,
            [
                Denied::SubscribeForbidden,
                Denied::PublishForbidden,
                Denied::CancelForbidden,
                Denied::OriginForbidden,
                Denied::HostForbidden,
                Denied::OtherSubject
            ]
        );
        let unavailable: Vec<_> = of(Status::ServiceUnavailable).collect();
        assert_eq!(unavailable, [Denied::BackendUnavailable]);
        let others = forbidden.len() + unavailable.len();
        assert_eq!(of(Status::Unauthorized).count() + others, ALL.len());
    }
}
