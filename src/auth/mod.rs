//! Access control: who may subscribe and publish, and which web pages may connect.
//!
//! A [`Gate`] is built from [`AuthSettings`], never changes, and is shared by all workers; a reload
//! builds another. A request goes through [`Gate::admit`], which checks the page's origin, finds
//! the credential that counts, and answers with a [`Grant`] or a [`Denied`]. Nothing here opens a
//! socket or reads a clock; files are only read while a gate is built.
//!
//! Secrets stay inside: every type that holds one leaves it out when printed, and no error quotes
//! one.

mod backend;
pub mod cli;
mod credentials;
mod denied;
mod grant;
mod host;
mod key_fingerprint;
mod keys;
mod origin;
mod proof;
mod publish_keys;
mod revoked;
mod settings;
mod source;
mod token;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

pub use backend::{Question, Verdict};
pub use credentials::{Credentials, bearer_entry};
pub use denied::Denied;
pub use grant::{BadPatterns, Grant, PATTERNS_PER_LIST_MAX, Patterns};
pub use host::is_meant_for_loopback;
pub use keys::KEYS_MAX;
pub use origin::{CORS_ANYBODY, CORS_FIXED, CORS_PREFLIGHT, Page};
pub use proof::ProofKey;
pub use publish_keys::{PUBLISH_KEY_BYTES_MIN, PUBLISH_KEYS_MAX};
pub use revoked::{REVOKED_MAX, Revoked, TooManyRevoked};
pub(crate) use settings::unreadable;
pub use settings::{
    Algorithm, AnonymousSettings, AuthConfigError, AuthFault, AuthSettings, CertificateSettings,
    Expiry, KeySource, Leeway, PublishKeySettings, QueryToken, SecretText,
};
pub use source::{Env, KEY_FILE_BYTES_MAX};
pub use token::{LEEWAY_S_MAX, TOKEN_BYTES_MAX};

use backend::Backend;
use credentials::Presented;
use key_fingerprint::{KeyFingerprint, KeyFingerprints};
use keys::KeyRing;
use origin::{Openness, OriginRules, RequestKind};
use publish_keys::PublishKeys;
use token::ClaimRules;

/// All access rules, ready to be applied.
pub struct Gate {
    /// The rights without credentials: all of them in an open gate, `anonymous` in a guarded one.
    everybody: Arc<Grant>,
    anonymous: Anonymous,
    keys: KeyRing,
    rules: ClaimRules,
    publish_keys: PublishKeys,
    /// What a client certificate grants; `None`: clients are not asked for one.
    certified: Option<Arc<Grant>>,
    client_ca: Option<PathBuf>,
    /// The backend that decides about credentials that are neither a token nor a publish key.
    backend: Option<Arc<Backend>>,
    /// Takes the questions to it.
    asks: Option<Sender<Asked>>,
    fingerprints: KeyFingerprints,
    cookie: Option<Box<str>>,
    query_token: QueryToken,
    origins: OriginRules,
}

/// A question, and the worker that wants its answer.
#[derive(Debug)]
pub struct Asked {
    /// The worker that waits for the verdict.
    pub worker: u16,
    /// What the backend is to be asked.
    pub question: Question,
}

/// What happens to a request without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anonymous {
    /// It is admitted with everybody's rights.
    Admitted,
    /// It is asked for credentials, as everybody has no rights.
    Refused,
}

/// The kind of a request, for [`Gate::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A WebSocket's upgrade, after which a browser shows its page everything.
    WebSocket,
    /// A request whose answer a browser shows only to pages that CORS names.
    Http,
}

impl Gate {
    /// A gate without keys: everyone may do everything. Fit for loopback; the server refuses to
    /// listen on other addresses with it unless told `--open`, and turns it into
    /// [`Gate::for_this_machine`].
    pub fn open() -> Self {
        Self::from_settings(&AuthSettings::default(), &|_| None)
            .expect("default settings name no key, file or origin that could be wrong")
    }

    /// Builds a gate, reading key files and environment variables. The error names the setting and
    /// the file, what is wrong and how to cure it, and no key material.
    pub fn from_settings(settings: &AuthSettings, env: Env<'_>) -> Result<Self, AuthConfigError> {
        check_values(settings)?;
        let keys = KeyRing::load(settings, env)?;
        if keys.is_empty() {
            source::refuse_token_settings(settings)?;
        }
        let has_keys = !keys.is_empty() || !settings.publish_keys.is_empty();
        let is_open = !has_keys
            && settings.anonymous.is_none()
            && settings.client_certificates.is_none()
            && settings.url.is_none();
        let everybody = match &settings.anonymous {
            Some(anonymous) => anonymous_grant(anonymous)?,
            None if is_open => Grant::everything(),
            None => Grant::new(Patterns::default(), Patterns::default()),
        };
        let anonymous =
            if everybody.is_useless() { Anonymous::Refused } else { Anonymous::Admitted };
        let everybody = Arc::new(everybody);
        let publish_keys = PublishKeys::load(&settings.publish_keys, &everybody, env)?;
        let of_certificates = settings.client_certificates.as_ref();
        let certified = of_certificates.map(|of| certified_grant(of, &everybody)).transpose()?;
        let backend = settings.url.as_ref().map(|url| Arc::new(Backend::new(url, &everybody)));
        let of_keys = keys.fingerprints().chain(publish_keys.fingerprints());
        let of_keys = of_keys.chain(certified.iter().flat_map(|grant| grant.fingerprints()));
        let of_keys = of_keys.chain(backend.iter().map(|backend| backend.fingerprint()));
        let fingerprints = everybody.fingerprints().chain(of_keys).collect();
        let openness = if is_open { Openness::Anybody } else { Openness::Guarded };
        Ok(Self {
            everybody,
            anonymous,
            keys,
            rules: ClaimRules::from(settings),
            publish_keys,
            certified,
            client_ca: of_certificates.map(|of| of.ca.clone()),
            backend,
            asks: None,
            fingerprints: KeyFingerprints::new(fingerprints),
            cookie: settings.cookie.as_deref().map(Box::from),
            query_token: settings.query_token,
            origins: OriginRules::new(openness, &settings.origins)?,
        })
    }

    /// The same for a server that only its own machine is to use. Where no key is needed it keeps
    /// out the web pages of other sites, which a browser on this machine would let in.
    pub fn for_this_machine(mut self) -> Self {
        self.origins.keep_to_this_machine();
        self
    }

    /// The same, with where its backend is asked.
    pub fn asking(self, asks: Sender<Asked>) -> Self {
        Self { asks: Some(asks), ..self }
    }

    /// Whether there is a backend that decides.
    pub(crate) fn has_backend(&self) -> bool {
        self.backend.is_some()
    }

    /// Has the backend asked. Returns whether there was room for the question.
    pub fn ask(&self, worker: u16, question: &Question) -> bool {
        let asked = Asked { worker, question: question.clone() };
        self.asks.as_ref().is_some_and(|asks| asks.try_send(asked).is_ok())
    }

    /// What to ask the backend about these credentials; `None` if they are not the backend's to decide.
    pub fn question(&self, credentials: &Credentials<'_>) -> Option<Question> {
        let backend = self.backend.as_ref()?;
        let is_ours = match self.presented(credentials) {
            Ok(Presented::Token(text)) => self.is_token(text),
            Ok(Presented::TokenOrPublishKey(text)) => {
                self.is_token(text) || self.publish_keys.find(text.as_bytes()).is_some()
            }
            Ok(Presented::PublishKey(_) | Presented::Certificate) => true,
            Ok(Presented::Nothing) | Err(_) => false,
        };
        let Credentials { cookie, authorization, .. } = credentials;
        if is_ours { None } else { Question::of(backend, *cookie, *authorization) }
    }

    /// The same question, to be asked again under the present rules; none: there is no backend any more.
    pub(crate) fn question_again(&self, asked: &Question) -> Option<Question> {
        self.backend.as_ref().map(|backend| asked.again(backend))
    }

    /// Whether the text may be a token that is checked here.
    fn is_token(&self, text: &str) -> bool {
        !self.keys.is_empty() && token::has_token_shape(text.as_bytes())
    }

    /// The file with the authorities whose client certificates count.
    pub(crate) fn client_ca(&self) -> Option<&Path> {
        self.client_ca.as_deref()
    }

    /// Whether everyone may do everything.
    pub fn is_open(&self) -> bool {
        self.origins.openness() != Openness::Guarded
    }

    /// Whether a request with this `Host` is meant for this server.
    pub fn is_meant(&self, host: Option<&[u8]>) -> bool {
        self.origins.openness() != Openness::ThisMachine || is_meant_for_loopback(host)
    }

    /// Whether a connection that was let in, perhaps under earlier rules, may stay: its key still
    /// exists, and everybody may still do the same. Without a grant it was let in by an open gate.
    pub fn stands_by(&self, grant: Option<&Grant>) -> bool {
        self.is_open() || grant.is_some_and(|grant| self.fingerprints.cover(grant))
    }

    /// Whether checking a token can take long enough to delay other connections.
    pub(crate) fn is_slow(&self) -> bool {
        self.keys.is_slow()
    }

    /// How long checking these credentials takes. Zero if that is not worth counting.
    pub(crate) fn cost_of(&self, credentials: &Credentials<'_>) -> Duration {
        match self.presented(credentials) {
            Ok(Presented::Token(token) | Presented::TokenOrPublishKey(token)) => {
                self.cost_of_token(token)
            }
            Ok(Presented::PublishKey(_) | Presented::Certificate | Presented::Nothing) | Err(_) => {
                Duration::ZERO
            }
        }
    }

    /// The same for a token alone.
    pub fn cost_of_token(&self, token: &str) -> Duration {
        if self.is_slow() { token::cost(token, &self.keys) } else { Duration::ZERO }
    }

    /// Admits or denies a request: the page it comes from is checked first, then the credentials.
    pub fn admit(
        &self,
        access: Access,
        credentials: &Credentials<'_>,
        page: &Page<'_>,
        now_unix_s: u64,
    ) -> Result<Arc<Grant>, Denied> {
        let presented = self.presented(credentials)?;
        let kind = match (access, presented) {
            (Access::WebSocket, _) => RequestKind::WebSocket,
            (Access::Http, Presented::Nothing) => RequestKind::Plain,
            (Access::Http, _) => RequestKind::Credentialed,
        };
        if !self.origins.allow(kind, page) {
            return Err(Denied::OriginForbidden);
        }
        if self.is_open() {
            return Ok(self.believe(credentials.pick(None, QueryToken::Enabled)));
        }
        self.grant_for(presented, now_unix_s)
    }

    /// Admits or denies a request about which the backend has decided.
    ///
    /// # Errors
    /// The page it comes from is not allowed, or the backend has refused.
    pub(crate) fn admit_decided(
        &self,
        access: Access,
        decided: Result<Arc<Grant>, Denied>,
        page: &Page<'_>,
    ) -> Result<Arc<Grant>, Denied> {
        let kind = match access {
            Access::WebSocket => RequestKind::WebSocket,
            Access::Http => RequestKind::Credentialed,
        };
        if self.origins.allow(kind, page) { decided } else { Err(Denied::OriginForbidden) }
    }

    /// Checks a token alone, as in the refresh of a running connection.
    pub fn authenticate_token(&self, token: &str, now_unix_s: u64) -> Result<Arc<Grant>, Denied> {
        match self.is_open() {
            true => Ok(self.believe(Ok(Presented::Token(token)))),
            false => self.grant_for(Presented::Token(token), now_unix_s),
        }
    }

    /// The CORS header lines, each with its line end, of a response to a page of this origin. The
    /// answer to a preflight adds [`CORS_PREFLIGHT`].
    ///
    /// A listed origin is named exactly, with credentials and `Vary`; any other gets none. Only an
    /// open gate without a list answers `*`, and then without credentials; one for this machine
    /// does so only to its own pages. The text comes from the settings, never from the request.
    pub fn cors_headers(&self, origin: Option<&[u8]>) -> &[u8] {
        self.origins.cors_headers(origin)
    }

    /// On a server without keys, a token's subject is believed without a check, so that presence can be
    /// tried.
    fn believe(&self, presented: Result<Presented<'_>, Denied>) -> Arc<Grant> {
        let token = match presented {
            Ok(Presented::Token(token) | Presented::TokenOrPublishKey(token)) => token,
            _ => return Arc::clone(&self.everybody),
        };
        let named = |who| Arc::new(Grant::everything().of(who));
        token::claimed(token).map_or_else(|| Arc::clone(&self.everybody), named)
    }

    /// The credential that counts. An open gate demands none: an old cookie must not shut out a
    /// client that would be let in without it.
    fn presented<'a>(&self, credentials: &Credentials<'a>) -> Result<Presented<'a>, Denied> {
        if self.is_open() {
            return Ok(Presented::Nothing);
        }
        credentials.pick(self.cookie.as_deref(), self.query_token)
    }

    fn grant_for(&self, presented: Presented<'_>, now_unix_s: u64) -> Result<Arc<Grant>, Denied> {
        match presented {
            Presented::Nothing => match self.anonymous {
                Anonymous::Admitted => Ok(Arc::clone(&self.everybody)),
                Anonymous::Refused => Err(Denied::MissingCredentials),
            },
            Presented::Certificate => match &self.certified {
                Some(grant) => Ok(Arc::clone(grant)),
                None => self.grant_for(Presented::Nothing, now_unix_s),
            },
            Presented::TokenOrPublishKey(text) if token::has_token_shape(text.as_bytes()) => {
                self.token_grant(text, now_unix_s)
            }
            Presented::Token(token) => self.token_grant(token, now_unix_s),
            // Not reported as an unknown key: it may just as well be a truncated token.
            Presented::TokenOrPublishKey(text) => {
                self.publish_key_grant(text).map_err(|_| Denied::MalformedCredentials)
            }
            Presented::PublishKey(key) => self.publish_key_grant(key),
        }
    }

    fn token_grant(&self, token: &str, now_unix_s: u64) -> Result<Arc<Grant>, Denied> {
        let grant = token::check(token, &self.keys, &self.rules, now_unix_s)?;
        Ok(Arc::new(grant.on_top_of(Arc::clone(&self.everybody))))
    }

    fn publish_key_grant(&self, key: &str) -> Result<Arc<Grant>, Denied> {
        if self.publish_keys.is_empty() {
            return Err(Denied::MalformedCredentials);
        }
        self.publish_keys.find(key.as_bytes()).map(Arc::clone).ok_or(Denied::UnknownPublishKey)
    }
}

/// Refuses what is wrong by itself, whatever the other settings are.
fn check_values(settings: &AuthSettings) -> Result<(), AuthConfigError> {
    let AuthSettings { leeway_s, cookie, url, .. } = settings;
    if leeway_s.0 > LEEWAY_S_MAX {
        return Err(AuthConfigError::new("auth.leeway_s", AuthFault::LeewayTooLong));
    }
    if cookie.as_deref().is_some_and(|name| !credentials::is_cookie_name(name)) {
        return Err(AuthConfigError::new("auth.cookie", AuthFault::BadCookieName));
    }
    if url.as_deref().is_some_and(|url| !backend::is_url(url)) {
        return Err(AuthConfigError::new("auth.url", AuthFault::BadUrl));
    }
    Ok(())
}

/// The rights of a publish key.
fn certified_grant(
    settings: &CertificateSettings,
    everybody: &Arc<Grant>,
) -> Result<Arc<Grant>, AuthConfigError> {
    let publish = match &settings.publish {
        None => Patterns::all(),
        Some(texts) => Patterns::parse(texts)
            .map_err(|bad| AuthConfigError::new("auth.client_certificates.publish", bad.into()))?,
    };
    let (ca, rights) = (settings.ca.as_os_str().as_encoded_bytes(), publish.spelled());
    let fingerprint = KeyFingerprint::of("client certificate", &[ca, rights.as_bytes()]);
    let grant = Grant::new(Patterns::default(), publish)
        .granted_by(fingerprint)
        .of_publish_key(Some("client certificate".into()))
        .on_top_of(Arc::clone(everybody));
    Ok(Arc::new(grant))
}

fn anonymous_grant(settings: &AnonymousSettings) -> Result<Grant, AuthConfigError> {
    let parse = |setting: &str, texts: &[String]| {
        Patterns::parse(texts).map_err(|bad| AuthConfigError::new(setting, bad.into()))
    };
    let subscribe = parse("auth.anonymous.subscribe", &settings.subscribe)?;
    let publish = parse("auth.anonymous.publish", &settings.publish)?;
    let cancel = parse("auth.anonymous.cancel", &settings.cancel)?;
    Ok(Grant::new(subscribe, publish).with_cancel(cancel))
}

impl fmt::Debug for Gate {
    /// Shows how strict it is and how many keys it has, but no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("openness", &self.origins.openness())
            .field("keys", &self.keys)
            .field("publish_keys", &self.publish_keys)
            .finish_non_exhaustive()
    }
}
