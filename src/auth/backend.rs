//! Rights that the operator's backend decides (`auth.url`). It is asked with the cookies and the
//! `Authorization` of a request, and answers with the claims of a token, or refuses. This lets in
//! clients whose sessions only the backend understands.
//!
//! Here is what is asked and what an answer means. Asking takes time, and is done in
//! `server::backend`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::Denied;
use super::grant::Grant;
use super::key_fingerprint::KeyFingerprint;
use super::token;

/// Longest time for which an answer is used, even if it allows more.
pub const ANSWER_AGE_MAX: Duration = Duration::from_secs(3600);

/// Shortest time for which an answer is used: within it, the request that asked is read again.
const ANSWER_AGE_MIN: Duration = Duration::from_secs(1);

/// Longest `Cookie` or `Authorization` that is passed on.
const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

/// Where the backend is, and what its answers are combined with.
#[derive(Debug)]
pub struct Backend {
    /// Its URL, of `http`.
    pub url: Box<str>,
    fingerprint: KeyFingerprint,
    everybody: Arc<Grant>,
}

/// What the backend is asked: who sent this, and what may they do?
#[derive(Clone)]
pub struct Question {
    backend: Arc<Backend>,
    /// The header `Cookie`, passed on as it came.
    pub cookie: Option<Arc<[u8]>>,
    /// The header `Authorization`, passed on as it came.
    pub authorization: Option<Arc<[u8]>>,
}

/// The backend's answer, and how long it may be used.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The rights, or why there are none.
    pub grant: Result<Arc<Grant>, Denied>,
    /// How long it is used for further requests.
    pub age_max: Duration,
}

impl Backend {
    pub(super) fn new(url: &str, everybody: &Arc<Grant>) -> Self {
        let fingerprint = KeyFingerprint::of("backend", &[url.as_bytes()]);
        Self { url: url.into(), fingerprint, everybody: everybody.clone() }
    }

    pub(super) fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }
}

impl Question {
    /// `None` if the request shows nothing that a backend could judge.
    pub(super) fn of(
        backend: &Arc<Backend>,
        cookie: Option<&[u8]>,
        authorization: Option<&[u8]>,
    ) -> Option<Self> {
        let is_short = |of: Option<&[u8]>| of.is_none_or(|of| of.len() <= CREDENTIAL_BYTES_MAX);
        let shows = cookie.is_some() || authorization.is_some();
        (shows && is_short(cookie) && is_short(authorization)).then(|| Self {
            backend: backend.clone(),
            cookie: cookie.map(Into::into),
            authorization: authorization.map(Into::into),
        })
    }

    /// The same, asked of this backend.
    pub(super) fn again(&self, backend: &Arc<Backend>) -> Self {
        Self { backend: backend.clone(), ..self.clone() }
    }

    /// Where it is asked.
    pub fn url(&self) -> &str {
        &self.backend.url
    }

    /// What it takes in memory, that of its answer included.
    pub fn held_bytes(&self) -> usize {
        let shown = [&self.cookie, &self.authorization].into_iter().flatten();
        2 * size_of::<Self>() + size_of::<Grant>() + shown.map(|of| of.len()).sum::<usize>()
    }

    /// What an answer means. 401 and 403 refuse, and an answer that is not understood grants nothing.
    pub fn verdict(
        &self,
        status: u16,
        cache_control: Option<&str>,
        body: &[u8],
        now_unix_s: u64,
    ) -> Verdict {
        let grant = match status {
            200..300 => self.grant(body, now_unix_s),
            401 | 403 => Err(Denied::BackendRefused),
            _ => Err(Denied::BackendUnavailable),
        };
        let age_max = match grant {
            Err(Denied::BackendUnavailable) => ANSWER_AGE_MIN,
            _ => max_age(cache_control).clamp(ANSWER_AGE_MIN, ANSWER_AGE_MAX),
        };
        Verdict { grant, age_max }
    }

    /// The verdict if there is no answer.
    pub fn unanswered() -> Verdict {
        Verdict { grant: Err(Denied::BackendUnavailable), age_max: ANSWER_AGE_MIN }
    }

    fn grant(&self, body: &[u8], now_unix_s: u64) -> Result<Arc<Grant>, Denied> {
        let grant = token::of_claims(body, self.backend.fingerprint)
            .map_err(|_| Denied::BackendUnavailable)?;
        if grant.is_expired(now_unix_s) {
            return Err(Denied::Expired);
        }
        let everybody = self.backend.everybody.clone();
        Ok(Arc::new(grant.on_top_of(everybody).decided_over(self.clone())))
    }
}

/// Whether a backend can be at this URL. It must be `http`: the backend is asked for each session, so
/// it belongs on the same machine or network.
pub(super) fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    !host.is_empty() && !host.contains(['@', '?', '#']) && url.bytes().all(|b| b.is_ascii_graphic())
}

/// `max-age` (RFC 9111 section 5.2.2.1), or zero if the answer must not be kept.
fn max_age(cache_control: Option<&str>) -> Duration {
    let directives = || cache_control.unwrap_or_default().split(',').map(str::trim);
    let is = |name: &'static str| move |text: &str| text.eq_ignore_ascii_case(name);
    if directives().any(is("no-store")) || directives().any(is("no-cache")) {
        return Duration::ZERO;
    }
    let seconds = directives().find_map(|text| text.strip_prefix("max-age=")?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Questions to the backend of before a reload are different ones, so its answers are not used again.
impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
            && self.cookie == other.cookie
            && self.authorization == other.authorization
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cookie.hash(state);
        self.authorization.hash(state);
    }
}

impl fmt::Debug for Question {
    /// Leaves out the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("url", &self.backend.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Patterns;

    fn verdict(status: u16, cache_control: &str, body: &str) -> Verdict {
        let everybody = Grant::new(Patterns::default(), Patterns::default());
        let backend = Arc::new(Backend::new("http://backend/", &Arc::new(everybody)));
        let question = Question::of(&backend, Some(b"session=1"), None).expect("a cookie");
        question.verdict(status, Some(cache_control), body.as_bytes(), 1_000)
    }

    #[test]
    fn an_answer_grants_what_it_says_for_as_long_as_it_says() {
        let body = r#"{"sub":"jane","pushline":{"subscribe":["a"],"publish":["b"]}}"#;
        let told = verdict(200, "private, max-age=60", body);
        let grant = told.grant.expect("rights");
        assert!(grant.may_subscribe("a") && grant.may_publish("b") && !grant.may_publish("a"));
        assert_eq!((grant.subject(), told.age_max), (Some("jane"), Duration::from_secs(60)));
        for (cache, age_max) in [
            ("", ANSWER_AGE_MIN),
            ("max-age=60, no-store", ANSWER_AGE_MIN),
            ("max-age=99999999", ANSWER_AGE_MAX),
        ] {
            assert_eq!(verdict(200, cache, body).age_max, age_max, "{cache}");
        }
    }

    fn long(name: &str, length: usize) -> String {
        format!("{{\"{name}\":\"{}\"}}", "x".repeat(length))
    }

    #[test]
    fn what_is_no_grant_fails_closed() {
        let (subject, info) = (long("sub", 256), long("info", 511));
        let info = format!("{{\"sub\":\"jane\",\"pushline\":{info}}}");
        let denied = |status, body| verdict(status, "max-age=60", body).grant.err();
        assert_eq!(denied(403, "{}"), Some(Denied::BackendRefused));
        for (status, body) in [
            (500, "{}"),
            (302, "{}"),
            (200, ""),
            (200, "<html>"),
            (200, r#"{"pushline":{"subscribe":["a*"]}}"#),
            (200, r#"{"pushline":{"everything":true}}"#),
            (200, &subject),
            (200, &info),
        ] {
            assert_eq!(denied(status, body), Some(Denied::BackendUnavailable), "{status} {body}");
        }
        assert_eq!(denied(200, r#"{"exp":999}"#), Some(Denied::Expired));
    }
}
