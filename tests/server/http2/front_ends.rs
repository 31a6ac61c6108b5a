//! Proxies that speak HTTP/2 to us, as they are shipped in `tuning/proxies` but for that: their
//! clients share a few connections, on which each has a stream.

use std::io::Read;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::common::proxies::{CADDY, ENVOY, HAPROXY, Kind, NGINX_MAINLINE, Proxy};
use crate::common::{TestServer, await_subscribers, await_that, installed, metric, publish, skip};

const READERS: u64 = 8;

const HAPROXY_TO_HTTP2: Kind = HAPROXY.with(&[
    ("bind :443", "bind 127.0.0.1:PORT"),
    (
        "server pushline 127.0.0.1:8080",
        "http-reuse always\n    server pushline 127.0.0.1:8080 proto h2",
    ),
]);

const CADDY_TO_HTTP2: Kind = CADDY.with(&[
    ("admin localhost:2019", "admin off\n\tauto_https disable_redirects"),
    ("push.example.com {", "https://localhost:PORT {\n\tbind 127.0.0.1"),
    ("reverse_proxy 127.0.0.1", "reverse_proxy h2c://127.0.0.1"),
]);

const ENVOY_TO_HTTP2: Kind = ENVOY.with(&[
    ("address: 0.0.0.0, port_value: 443", "address: 127.0.0.1, port_value: PORT"),
    (
        "connect_timeout: 5s\n",
        "connect_timeout: 5s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options: { allow_connect: true }
",
    ),
]);

const NGINX_TO_HTTP2: Kind = NGINX_MAINLINE.with(&[
    ("listen 443", "listen 127.0.0.1:PORT"),
    ("proxy_http_version 1.1;", "proxy_http_version 2;"),
    (
        "location = /ws {
            proxy_pass http://pushline;",
        "location = /ws {
            proxy_http_version 1.1;
            proxy_pass http://127.0.0.1:8080;",
    ),
]);

#[test]
fn haproxy_brings_its_clients_over_http2() {
    brings_its_clients(&HAPROXY_TO_HTTP2, Connections::Few, WebSockets::Too);
}

#[test]
fn envoy_brings_its_clients_over_http2() {
    brings_its_clients(&ENVOY_TO_HTTP2, Connections::Few, WebSockets::Too);
}

/// Its WebSockets are left to HTTP/1.1.
#[test]
fn caddy_brings_its_clients_over_http2() {
    brings_its_clients(&CADDY_TO_HTTP2, Connections::Few, WebSockets::No);
}

/// Its WebSockets are left to HTTP/1.1, too.
#[test]
fn nginx_brings_its_clients_over_http2() {
    brings_its_clients(&NGINX_TO_HTTP2, Connections::Each, WebSockets::Too);
}

/// How many a proxy has for its clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    /// They share some.
    Few,
    /// One for each, with a single stream at a time.
    Each,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WebSockets {
    Too,
    No,
}

fn brings_its_clients(proxy: &Kind, connections: Connections, websockets: WebSockets) {
    if installed("curl").is_none() {
        return skip("curl", "install it");
    }
    let server = TestServer::with(|settings| settings.workers = Some(1));
    let Some(proxy) = Proxy::start(proxy, server.addr) else { return };
    let url = |path: &str| format!("https://{}{path}", proxy.host());
    let mut readers: Vec<Curl> =
        (0..READERS).map(|_| Curl::start(&[&url("/sse?channel=c")])).collect();
    await_subscribers(server.addr, "c", READERS);
    let large = "y".repeat(60_000);
    let mut told = Curl::start(&["-d", &large, &url("/channels/c")]);
    told.until(&format!("\"subscribers\":{READERS}"));
    readers.iter_mut().for_each(|reader| reader.until(&format!("data: {large}\n\n")));
    let of = |transport: &str| {
        let key = format!("pushline_connections{{transport=\"{transport}\",worker=\"0\"}}");
        metric(server.admin, &key)
    };
    await_that("all streams are of HTTP/2", || (of("http"), of("sse")) == (0, READERS));
    // One more may be kept for the next publish.
    let expected = match connections {
        Connections::Few => 1..READERS,
        Connections::Each => READERS..READERS + 2,
    };
    assert!(expected.contains(&of("http2")), "{} connections", of("http2"));
    if websockets == WebSockets::Too {
        let mut socket = Curl::start(&[&WEBSOCKET[..], &[&url("/ws?channel=w")]].concat());
        await_subscribers(server.addr, "w", 1);
        publish(server.addr, "w", "to a socket");
        socket.until("to a socket");
        assert_eq!(of("ws"), 1);
    }
}

/// A WebSocket whose frames curl shows as they are.
const WEBSOCKET: [&str; 9] = [
    "--http1.1",
    "-H",
    "Connection: Upgrade",
    "-H",
    "Upgrade: websocket",
    "-H",
    "Sec-WebSocket-Version: 13",
    "-H",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
];

/// A request of curl's; it ends with the value.
struct Curl {
    child: Child,
    output: ChildStdout,
    seen: Vec<u8>,
}

impl Curl {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new("curl")
            .args(["-sSNk", "--max-time", "60"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl starts");
        let output = child.stdout.take().expect("it is piped");
        Self { child, output, seen: Vec::new() }
    }

    /// Reads on until this has come.
    fn until(&mut self, wanted: &str) {
        let mut piece = [0; 8192];
        while memchr::memmem::find(&self.seen, wanted.as_bytes()).is_none() {
            let length = self.output.read(&mut piece).expect("a pipe");
            let seen = String::from_utf8_lossy(&self.seen);
            assert!(length > 0, "curl ended without {wanted}: {seen}");
            self.seen.extend_from_slice(&piece[..length]);
        }
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
