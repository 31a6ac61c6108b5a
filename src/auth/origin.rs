//! Which web pages may connect: the `Origin` check and the CORS headers that go with it.
//!
//! A browser adds the user's cookies to whatever a page asks for, and does not protect WebSockets
//! by CORS at all; so the page's origin is checked here, on every WebSocket upgrade and on every
//! request with credentials (Cross-Site WebSocket Hijacking). No `Origin` means that there is no
//! browser page, or that the page cannot read the answer.

use std::net::Ipv4Addr;

use super::settings::{AuthConfigError, AuthFault};

/// The kind of a request, as far as origins matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A WebSocket upgrade. Browsers let any page try, and read the answer.
    WebSocket,
    /// An HTTP request that presents a credential.
    Credentialed,
    /// An HTTP request without one. It has everybody's rights, and CORS keeps foreign pages from
    /// reading the answer.
    Plain,
}

/// What a browser says about the page behind a request: the headers as received.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page<'a> {
    /// The header `Origin`: the page's scheme, host and port.
    pub origin: Option<&'a [u8]>,
    /// The header `Host`: what the page calls this server.
    pub host: Option<&'a [u8]>,
    /// `Sec-Fetch-Site` (Fetch Metadata Request Headers, section 2.3): how the browser sees the
    /// page's site in relation to ours. Older browsers do not send it, nor do some for WebSockets.
    pub fetch_site: Option<&'a [u8]>,
}

/// How strict the rules are if there is no allow-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Openness {
    /// No keys, which the operator accepts: for every page, unless some are listed.
    Anybody,
    /// No keys: for pages of this machine.
    ThisMachine,
    /// Keys: for pages of this host only.
    Guarded,
}

/// The allow-list with its prepared answers.
#[derive(Debug)]
pub(super) struct OriginRules {
    openness: Openness,
    listed: Box<[ListedOrigin]>,
}

#[derive(Debug)]
struct ListedOrigin {
    origin: Box<[u8]>,
    cors: Box<[u8]>,
}

/// The CORS lines that do not depend on the page.
pub const CORS_FIXED: [&[u8]; 4] = [CORS_ANYBODY, CORS_LOCAL, CORS_NOBODY, b""];

/// For a page of this machine: a cache must not give this answer to another page.
const CORS_LOCAL: &[u8] = b"Access-Control-Allow-Origin: *\r\n\
    Access-Control-Expose-Headers: Retry-After\r\nVary: Origin\r\n";

/// For an open gate without a list. `*` never goes with credentials (Fetch, section 3.2.5), and
/// this does not offer them.
pub const CORS_ANYBODY: &[u8] =
    b"Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\n";

/// For a page that is refused while others are allowed: a cache must not give it their answer.
const CORS_NOBODY: &[u8] = b"Vary: Origin\r\n";

/// Added to the answer of a preflight, for pages that get CORS headers at all. Browsers cap the
/// age themselves; ten minutes spares a page the second round trip without pinning a mistake.
pub const CORS_PREFLIGHT: &[u8] = b"Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n\
    Access-Control-Allow-Headers: Authorization, Cache-Control, Content-Type, Event-Ephemeral, \
    Event-Key, Event-Tombstone, Event-Type, Idempotency-Key, Last-Event-ID, Publish-Count, \
    Publish-From, Publish-To, Stream-Id, Stream-Offset, X-API-Key\r\n\
    Access-Control-Max-Age: 600\r\n";

impl OriginRules {
    pub fn new(openness: Openness, origins: &[String]) -> Result<Self, AuthConfigError> {
        let mut listed = Vec::with_capacity(origins.len());
        for (index, origin) in origins.iter().enumerate() {
            if !is_browser_origin(origin) {
                return Err(AuthConfigError::new("auth.origins", AuthFault::BadOrigin(index)));
            }
            let cors = format!(
                "Access-Control-Allow-Origin: {origin}\r\n\
                 Access-Control-Allow-Credentials: true\r\n\
                 Access-Control-Expose-Headers: Retry-After\r\nVary: Origin\r\n"
            );
            listed.push(ListedOrigin {
                origin: origin.as_bytes().into(),
                cors: cors.into_bytes().into(),
            });
        }
        Ok(Self { openness, listed: listed.into() })
    }

    pub fn openness(&self) -> Openness {
        self.openness
    }

    /// Restricts an open gate to pages of this machine.
    pub fn keep_to_this_machine(&mut self) {
        if self.openness == Openness::Anybody {
            self.openness = Openness::ThisMachine;
        }
    }

    /// Whether a request of this kind may come from this page.
    pub fn allow(&self, kind: RequestKind, page: &Page<'_>) -> bool {
        let Some(origin) = page.origin else { return allows_no_origin(kind, page) };
        let is_same_host = page.host.is_some_and(|host| is_same_host(origin, host))
            && !page.is_of_another_scheme();
        if is_same_host || self.find(origin).is_some() {
            return true;
        }
        match self.openness {
            Openness::Anybody => self.listed.is_empty() || kind == RequestKind::Plain,
            Openness::ThisMachine => self.listed.is_empty() && is_local(origin),
            Openness::Guarded => kind == RequestKind::Plain,
        }
    }

    /// Header lines, each with its line end, for a response to this origin.
    pub fn cors_headers(&self, origin: Option<&[u8]>) -> &[u8] {
        match (origin.and_then(|origin| self.find(origin)), self.openness) {
            (Some(listed), _) => &listed.cors,
            (None, _) if !self.listed.is_empty() => CORS_NOBODY,
            (None, Openness::Anybody) => CORS_ANYBODY,
            (None, Openness::ThisMachine) if origin.is_some_and(is_local) => CORS_LOCAL,
            (None, Openness::ThisMachine) => CORS_NOBODY,
            (None, Openness::Guarded) => b"",
        }
    }

    fn find(&self, origin: &[u8]) -> Option<&ListedOrigin> {
        self.listed.iter().find(|listed| *listed.origin == *origin)
    }
}

impl Page<'_> {
    /// Whether the browser says that a page with our host name is not of our origin. Its scheme is
    /// then another; we cannot know ours behind a proxy that ends TLS.
    fn is_of_another_scheme(&self) -> bool {
        self.fetch_site.is_some_and(|site| site != b"same-origin")
    }
}

/// Other sites' pages can make a browser send a request with the user's cookies and without
/// `Origin`, as for an image; they cannot read the answer, but a stream would be held open for
/// them.
fn allows_no_origin(kind: RequestKind, page: &Page<'_>) -> bool {
    kind != RequestKind::Credentialed || page.fetch_site != Some(b"cross-site")
}

/// The parts of a serialised origin (RFC 6454 section 6.2).
struct Origin<'a> {
    scheme: &'a [u8],
    authority: Authority<'a>,
}

/// A host as written, in brackets if it is an IPv6 address, and the port if one is given.
struct Authority<'a> {
    host: &'a [u8],
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// `None` for `null` and for everything that is not plainly `scheme://host[:port]`.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let colon = text.iter().position(|byte| *byte == b':')?;
        let (scheme, rest) = text.split_at(colon);
        let is_scheme_byte = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
        let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(is_scheme_byte);
        let authority = Authority::parse(rest.strip_prefix(b"://")?)?;
        is_scheme.then_some(Self { scheme, authority })
    }

    /// The port a browser leaves out; other schemes have none.
    fn default_port(&self) -> Option<u16> {
        if self.scheme.eq_ignore_ascii_case(b"http") {
            Some(80)
        } else if self.scheme.eq_ignore_ascii_case(b"https") {
            Some(443)
        } else {
            None
        }
    }
}

impl<'a> Authority<'a> {
    /// Accepts host and port only: user info, paths and anything strange make it `None`.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let host_end = match text.first()? {
            b'[' => text.iter().position(|byte| *byte == b']')? + 1,
            _ => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
        };
        let (host, port) = text.split_at(host_end);
        let is_host_byte = |b: &u8| b.is_ascii_alphanumeric() || b"-._".contains(b);
        let is_address_byte = |b: &u8| b.is_ascii_hexdigit() || b":.".contains(b);
        let is_host = match host {
            [] => false,
            [b'[', address @ .., b']'] => {
                !address.is_empty() && address.iter().all(is_address_byte)
            }
            name => name.iter().all(is_host_byte),
        };
        let port = match port {
            [] => None,
            [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
                Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
            }
            _ => return None,
        };
        is_host.then_some(Self { host, port })
    }
}

/// Whether a page of `origin` was served by `host`, ignoring schemes. A missing port means that of
/// the origin's scheme.
fn is_same_host(origin: &[u8], host: &[u8]) -> bool {
    let (Some(origin), Some(host)) = (Origin::parse(origin), Authority::parse(host)) else {
        return false;
    };
    let Some(default_port) = origin.default_port() else { return false };
    origin.authority.host.eq_ignore_ascii_case(host.host)
        && origin.authority.port.unwrap_or(default_port) == host.port.unwrap_or(default_port)
}

/// Whether a page comes from this machine, on any port: a developer's own.
fn is_local(origin: &[u8]) -> bool {
    Origin::parse(origin).is_some_and(|origin| {
        let host = origin.authority.host;
        let address = std::str::from_utf8(host).unwrap_or("").parse::<Ipv4Addr>();
        let is_loopback = host.eq_ignore_ascii_case(b"localhost")
            || host == b"[::1]"
            || address.is_ok_and(|address| address.is_loopback());
        is_loopback && origin.default_port().is_some()
    })
}

/// Whether a browser could send this text as `Origin`. An entry that no browser sends would look
/// like an allowed origin and allow nothing.
fn is_browser_origin(text: &str) -> bool {
    if text == "null" {
        return true;
    }
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    Origin::parse(text.as_bytes()).is_some_and(|origin| {
        let port = origin.authority.port;
        is_lower && (port.is_none() || port != origin.default_port())
    })
}
