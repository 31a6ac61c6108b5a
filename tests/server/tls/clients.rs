//! Clients that nobody here wrote.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use rustls::DEFAULT_VERSIONS;

use super::files::Identity;
use super::{Client, post, serve};
use crate::common::{await_subscribers, installed, skip};

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
    let script = "timeout 20 curl -sN --cacert $ca https://$at/sse?channel=news | grep -m 1 data:";
    if let Some(printed) = printed("curl", script) {
        assert!(printed.contains("data: hello"), "{printed}");
    }
}

#[test]
fn openssl_changes_its_keys_and_asks_us_to_change_ours() {
    let script = "(printf 'GET /sse?channel=news HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'; \
        sleep 1; echo k; sleep 1; echo K; sleep 20) | \
        timeout 20 openssl s_client -connect $at -servername localhost -CAfile $ca \
        -verify_return_error 2>&1 | grep -a -m 3 'data:\\|KEYUPDATE'";
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
    let script = "timeout 20 python3 -c \"
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
    let script = "NODE_EXTRA_CA_CERTS=$ca timeout 20 node -e \"
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
