//! What browsers load from the server: the client, demo pages, and the operator's dashboard. The
//! sources are written to be read and copied; the client is served without what only readers need.

mod squeeze;

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use self::squeeze::squeeze;

/// A file that browsers load.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// What is served.
    pub body: String,
    /// `ETag`, with its quotes.
    pub etag: String,
    /// Whether it is only served with demos on.
    pub is_demo: bool,
}

impl Asset {
    fn new(content_type: &'static str, body: String) -> Self {
        let digest = Sha256::digest(&body);
        let hex: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { content_type, body, etag: format!("\"{hex}\""), is_demo: false }
    }

    fn demo(page: &str) -> Self {
        Self { is_demo: true, ..Self::new("text/html; charset=utf-8", page.to_owned()) }
    }
}

/// By path.
static ASSETS: [(&str, LazyLock<Asset>); 10] = [
    ("/pushline.js", LazyLock::new(|| script(include_str!("pushline.js")))),
    ("/pushline-presence.js", LazyLock::new(|| script(include_str!("pushline-presence.js")))),
    ("/pushline-streams.js", LazyLock::new(|| script(include_str!("pushline-streams.js")))),
    ("/openapi.json", LazyLock::new(openapi)),
    ("/demo", LazyLock::new(|| Asset::demo(include_str!("demo/index.html")))),
    ("/demo/feed", LazyLock::new(|| Asset::demo(include_str!("demo/feed.html")))),
    ("/demo/chat", LazyLock::new(|| Asset::demo(include_str!("demo/chat.html")))),
    ("/demo/answer", LazyLock::new(|| Asset::demo(include_str!("demo/answer.html")))),
    ("/demo/progress", LazyLock::new(|| Asset::demo(include_str!("demo/progress.html")))),
    ("/demo/counter", LazyLock::new(|| Asset::demo(include_str!("demo/counter.html")))),
];

/// A script that pages load, its source as it was written.
fn script(source: &str) -> Asset {
    Asset::new("text/javascript; charset=utf-8", squeeze(source))
}

fn openapi() -> Asset {
    let text = include_str!("openapi.json").replace("VERSION", env!("CARGO_PKG_VERSION"));
    Asset::new("application/json", text)
}

/// Makes all of them, so that no worker waits for another that does.
pub fn prepare() {
    for (_, asset) in &ASSETS {
        LazyLock::force(asset);
    }
}

/// The file at this path, if there is one.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|(known, _)| *known == path).map(|(_, asset)| &**asset)
}

/// The operator's dashboard, one page, for a server whose clients connect to this port.
pub fn dashboard(listen_port: u16) -> String {
    let style = include_str!("dashboard/style.css");
    let script = include_str!("dashboard/script.js");
    include_str!("dashboard/page.html")
        .replace("LISTEN_PORT", &listen_port.to_string())
        .replace("STYLE_HASH", &policy_hash(style))
        .replace("SCRIPT_HASH", &policy_hash(script))
        .replace("STYLE", style)
        .replace("SCRIPT", script)
}

/// How a page's policy names the one script that may run in it (CSP 3 section 2.3.1).
fn policy_hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}
