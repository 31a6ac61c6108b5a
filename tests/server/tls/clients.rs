//! Third-party clients.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use rustls::DEFAULT_VERSIONS;

use super::{Client, post, serve};
use crate::common::identity::Identity;
use crate::common::{
    TestServer, assert_ever, await_subscribers, await_that, installed, metric, skip,
};

/// What a client prints, run in a shell with `$at` and `$ca`, once `channel` has had an event.
fn printed(program: &str, script: &str) -> Option<String> {
    if installed(program).is_none() {
        let package = if program == "gnutls-cli" { "gnutls-bin" } else { program };
        skip(program, &format!("apt-get install {package}"));
        return None;
    }
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |_| {});
    let child = Command::new("sh")
        .args(["-c", script])
        .env("at", format!("localhost:{}", at.port()))
        .env("ca", identity.certificate_file())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    await_subscribers(server.addr, "news", 1);
    say_hello(&identity, at);
    let Output { stdout, stderr, .. } = child.wait_with_output().expect("it ends");
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Some(out + &err)
}

fn say_hello(identity: &Identity, at: SocketAddr) {
    let publisher = Client::connect(at, identity.client(DEFAULT_VERSIONS), "localhost");
    assert_eq!(publisher.expect("a handshake").ask(&post("news", "hello")).0, 200);
}

#[test]
fn curl_reads_a_stream() {
    let script = "timeout 60 curl -sN --cacert $ca https://$at/sse?channel=news | grep -m 1 data:";
    if let Some(printed) = printed("curl", script) {
        assert!(printed.contains("data: hello"), "{printed}");
    }
}

#[test]
fn openssl_changes_its_keys_and_asks_us_to_change_ours() {
    // What it is told comes alone in a line, once the line before has had its effect.
    let script = "out=$(mktemp)
        seen() { for _ in $(seq 600); do [ $(grep -ac \"$1\" $out) -lt $2 ] || return; sleep 0.1; done; }
        (printf 'GET /sse?channel=news HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'
        seen 'HTTP/1.1 200' 1; echo k; seen KEYUPDATE 1; echo K; seen KEYUPDATE 2; seen data: 1) |
        openssl s_client -connect $at -servername localhost -CAfile $ca \
        -verify_return_error >$out 2>&1
        grep -a 'data:\\|KEYUPDATE' $out; rm $out";
    if let Some(printed) = printed("openssl", script) {
        assert!(printed.contains("data: hello"), "{printed}");
        assert_eq!(printed.matches("KEYUPDATE").count(), 2, "{printed}");
    }
}

#[test]
fn gnutls_reads_a_stream() {
    let script = "(printf 'GET /sse?channel=news HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'; \
        sleep 20) | timeout 20 gnutls-cli --x509cafile=$ca localhost:${at#*:} | \
        grep -a -m 1 data:";
    if let Some(printed) = printed("gnutls-cli", script) {
        assert!(printed.contains("data: hello"), "{printed}");
    }
}

#[test]
fn python_reads_a_stream() {
    let script = "timeout 60 python3 -c \"
import os, ssl, urllib.request
trust = ssl.create_default_context(cafile=os.environ['ca'])
url = 'https://' + os.environ['at'] + '/sse?channel=news'
for line in urllib.request.urlopen(url, context=trust):
    if line.startswith(b'data:'):
        print(line.decode()); break
\"";
    if let Some(printed) = printed("python3", script) {
        assert!(printed.contains("data: hello"), "{printed}");
    }
}

#[test]
fn node_reads_a_stream() {
    let script = "NODE_EXTRA_CA_CERTS=$ca timeout 60 node -e \"
require('https').get('https://' + process.env.at + '/sse?channel=news', (answer) => {
  answer.on('data', (bytes) => {
    if (String(bytes).includes('data:')) { console.log(String(bytes)); process.exit(); }
  });
});
\"";
    if let Some(printed) = printed("node", script) {
        assert!(printed.contains("data: hello"), "{printed}");
    }
}

/// Whether they trust one authority or anyone, and not if they were told nothing.
#[test]
fn the_programs_clients_publish_and_subscribe_over_tls() {
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |_| {});
    let url = format!("https://localhost:{}", at.port());
    let authority = identity.certificate_file();
    let trusting = ["--ca", authority.to_str().expect("text")];
    let pushline = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushline"));
        command.args(arguments).args(["--url", &url]).stdin(Stdio::null());
        command
    };
    for trust in [&trusting[..], &["--insecure"]] {
        for transport in ["sse", "ws"] {
            let listen = ["sub", transport, "--transport", transport];
            let mut subscriber =
                pushline(&listen).args(trust).stdout(Stdio::piped()).spawn().expect("it runs");
            await_subscribers(server.addr, transport, 1);
            let published = pushline(&["pub", transport, "hello"]).args(trust).output();
            assert!(published.expect("it runs").status.success(), "{trust:?}");
            let mut line = String::new();
            let mut printed = BufReader::new(subscriber.stdout.take().expect("piped"));
            printed.read_line(&mut line).expect("a line");
            assert_eq!(line, "hello\n", "{transport} {trust:?}");
            subscriber.kill().and_then(|()| subscriber.wait()).expect("it ends");
            await_subscribers(server.addr, transport, 0);
        }
    }
    let refused = pushline(&["pub", "sse", "hello"]).output().expect("it runs");
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("--ca FILE"), "{told}");
}

/// Over HTTP/1.1 and 2 and WebSockets, to a server in this process, so that its counts can be asked for.
#[test]
fn the_load_generator_counts_deliveries_over_tls() {
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |_| {});
    let url = format!("https://localhost:{}", at.port());
    let authority = identity.certificate_file();
    for (version, connections) in
        [(&["--connections", "9"][..], 9), (&HTTP2_BENCH, 3), (&WEBSOCKET_BENCH, 9)]
    {
        let before = handshakes(&server);
        let run = Command::new(env!("CARGO_BIN_EXE_pushline"))
            .args(["bench", "--url", &url, "--burst", "3", "--ca"])
            .arg(&authority)
            .args(version)
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert!(text.contains("27 of 27") && !text.contains("not ours"), "{text}");
        // The publisher has one of its own.
        await_that("each has shaken hands", || handshakes(&server) == before + connections + 1);
    }
}

/// A storm of clients that come back is another load than one of strangers.
#[test]
fn the_load_generator_resumes_sessions_if_it_is_told_to() {
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |_| {});
    let url = format!("https://localhost:{}", at.port());
    let resumed = |how: &str| {
        let before = [handshakes(&server), handshakes_of(&server, "resumed")];
        let run = Command::new(env!("CARGO_BIN_EXE_pushline"))
            .args(["bench", "--url", &url, "--insecure", "--connections", "20", "--ramp", "100"])
            .args(["--idle", how])
            .output()
            .expect("it runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        await_that("each has shaken hands", || handshakes(&server) >= before[0] + 20);
        handshakes_of(&server, "resumed") - before[1]
    };
    assert_eq!(resumed("--key-exchange=x25519"), 0);
    // After the machine has stood still, all may connect before one of them has been given a ticket.
    assert_ever("one that comes later resumes", || resumed("--tickets") > 0);
}

fn handshakes(server: &TestServer) -> u64 {
    ["full", "resumed"].map(|result| handshakes_of(server, result)).iter().sum()
}

fn handshakes_of(server: &TestServer, result: &str) -> u64 {
    metric(server.admin, &format!("pushline_tls_handshakes_total{{result=\"{result}\"}}"))
}

const WEBSOCKET_BENCH: [&str; 4] = ["--connections", "9", "--transport", "ws"];
const HTTP2_BENCH: [&str; 5] = ["--connections", "9", "--http2", "--streams", "4"];
