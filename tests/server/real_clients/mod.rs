//! Third-party clients: curl, an EventSource, and two WebSocket libraries. Each reads through a
//! relay that cuts it off again and again, resumes in its own way, and must have seen every event
//! once and in order.
//!
//! A client that is not installed is skipped, loudly; with `PUSHLINE_NO_SKIP=1` that is a failure.
//! `scripts/test-clients` installs those that a system rarely has.

mod ai;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;
use tungstenite::client::IntoClientRequest;

use crate::common::relay::Relay;
use crate::common::sse::{Events, SseEvent};
use crate::common::{
    PATIENCE, TestServer, await_subscribers, clients_dir, folder_of_script, publish, skip,
};

const EVENTS: usize = 300;
const CUTS: usize = 10;

fn runs(program: &str) -> bool {
    let run = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

fn server() -> TestServer {
    TestServer::with(|settings| {
        settings.retry = Duration::from_millis(40);
        settings.channel_default.history_count = EVENTS as u32;
    })
}

/// A client's process; it ends with the value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self(command.spawn().expect("the client starts"))
    }

    fn lines(&mut self) -> Receiver<String> {
        let output = BufReader::new(self.0.stdout.take().expect("it is piped"));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        told
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Publishes while the relay is cut in between, and compares what the client says it saw. `next`
/// returns the client's next event as (id, data).
fn publish_with_cuts(
    server: &TestServer,
    relay: &Relay,
    mut next: impl FnMut() -> (String, String),
) {
    await_subscribers(server.addr, "c", 1);
    let mut read = 0;
    let mut read_to = |to: usize| {
        while read < to {
            let (id, data) = next();
            assert_eq!((id, data), (server.id(read as u64 + 1), format!("event {read}")));
            read += 1;
        }
    };
    for n in 0..EVENTS {
        publish(server.addr, "c", &format!("event {n}"));
        if n % (EVENTS / CUTS) == EVENTS / CUTS / 2 {
            // It has an id to resume with; what follows is published while it is away.
            read_to(n - 3);
            crate::common::await_that("it is connected", || relay.cut() > 0);
        }
    }
    read_to(EVENTS);
}

fn json_event(lines: &Receiver<String>) -> (String, String) {
    let line = lines.recv_timeout(PATIENCE).expect("another event");
    let json: Value = serde_json::from_str(&line).expect("the client prints JSON");
    let text = |name: &str| json[name].as_str().expect("text").to_owned();
    (text("id"), text("data"))
}

// --- curl ---

/// curl's output as a stream of events; when it ends, curl is started again with the last id.
struct CurlReader {
    relay: SocketAddr,
    running: Option<(Running, std::process::ChildStdout)>,
    events: Events,
    last_id: String,
}

impl CurlReader {
    fn next(&mut self) -> (String, String) {
        loop {
            let (_, output) = self.running.get_or_insert_with(|| {
                self.events = Events::default();
                start_curl(self.relay, &self.last_id)
            });
            if let Some(SseEvent { id, event, data }) = self.events.read(output) {
                assert_eq!(event, "message", "{data}");
                self.last_id.clone_from(&id);
                return (id, data);
            }
            self.running = None;
        }
    }
}

fn start_curl(relay: SocketAddr, last_id: &str) -> (Running, std::process::ChildStdout) {
    let mut command = Command::new("curl");
    command.args(["-sN", "--max-time", "60", &format!("http://{relay}/sse?channel=c")]);
    if !last_id.is_empty() {
        command.args(["-H", &format!("Last-Event-ID: {last_id}")]);
    }
    let mut running = Running::start(&mut command);
    let output = running.0.stdout.take().expect("it is piped");
    (running, output)
}

#[test]
fn curl_streams_and_resumes() {
    if !runs("curl") {
        return skip("curl", "install it");
    }
    let server = server();
    let relay = Relay::start(server.addr);
    let running = Some(start_curl(relay.addr, ""));
    let mut reader = CurlReader {
        relay: relay.addr,
        running,
        events: Events::default(),
        last_id: String::new(),
    };
    publish_with_cuts(&server, &relay, || reader.next());
}

#[test]
fn curl_publishes_in_every_way_it_has() {
    if !runs("curl") {
        return skip("curl", "install it");
    }
    let server = server();
    let mut sse = crate::common::Sse::open(server.addr, "channel=c");
    let curl = |args: &[&str]| -> Value {
        let mut all = vec!["-sS", "--fail", "--max-time", "20"];
        all.extend_from_slice(args);
        let out = Command::new("curl").args(all).output().expect("curl runs");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    };
    let url = format!("http://{}/channels/c", server.addr);
    assert_eq!(curl(&["-d", "hello", &url])["id"], server.id(1));
    assert_eq!(sse.event().data, "hello");
    curl(&["--json", "{\"a\":1}", &url]);
    assert_eq!(sse.event().data, "{\"a\":1}");
    // Large enough for `Expect: 100-continue`, from a file.
    let file = tempfile::NamedTempFile::new().expect("a file");
    let large = "y".repeat(60_000);
    std::fs::write(file.path(), &large).expect("it is written");
    let from_file = format!("@{}", file.path().display());
    curl(&["-H", "Content-Type: text/plain", "--data-binary", &from_file, &url]);
    assert_eq!(sse.event().data, large);
    curl(&[
        "-H",
        "Transfer-Encoding: chunked",
        "-H",
        "Content-Type:",
        "--data-binary",
        &from_file,
        &url,
    ]);
    assert_eq!(sse.event().data, large);
    curl(&["--http1.0", "-d", "old", &url]);
    assert_eq!(sse.event().data, "old");
    let lines = "{\"channel\":\"c\",\"data\":1}\n{\"channel\":\"c\",\"data\":2}\n";
    std::fs::write(file.path(), lines).expect("it is written");
    let publish = format!("http://{}/publish", server.addr);
    let summary = curl(&["-T", &file.path().display().to_string(), "-X", "POST", &publish]);
    assert_eq!(summary["published"], 2);
    assert_eq!((sse.event().data, sse.event().data), ("1".into(), "2".into()));
}

// --- EventSource ---

#[test]
fn eventsource_reconnects_by_itself_and_resumes() {
    if !runs("node") || !clients_dir().join("node_modules/eventsource").exists() {
        return skip("node and the npm package eventsource", "scripts/test-clients");
    }
    let server = server();
    let relay = Relay::start(server.addr);
    let folder = folder_of_script(include_str!("eventsource.mjs"));
    let script = folder.path().join("script.mjs");
    let url = format!("http://{}/sse?channel=c", relay.addr);
    let mut running =
        Running::start(Command::new("node").arg(script).args([&url, &EVENTS.to_string()]));
    let lines = running.lines();
    publish_with_cuts(&server, &relay, || json_event(&lines));
}

// --- WebSocket ---

#[test]
fn python_websockets_resumes() {
    let packages = clients_dir().join("python");
    if !runs("python3") || !packages.join("websockets").exists() {
        return skip("python3 and the package websockets", "scripts/test-clients");
    }
    let server = server();
    let relay = Relay::start(server.addr);
    let url = format!("ws://{}/ws?channel=c", relay.addr);
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/real_clients/websocket.py");
    let mut running = Running::start(
        Command::new("python3")
            .arg(script)
            .args([&url, &EVENTS.to_string()])
            .env("PYTHONPATH", packages),
    );
    let lines = running.lines();
    publish_with_cuts(&server, &relay, || json_event(&lines));
}

#[test]
fn tungstenite_resumes() {
    let server = server();
    let relay = Relay::start(server.addr);
    let addr = relay.addr;
    let connect = move |last_id: &str| {
        let url = format!("ws://{addr}/ws?channel=c&lastEventId={last_id}");
        let mut request = url.into_client_request().expect("a request");
        let protocol = "pushline.v1".parse().expect("a value");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let stream = crate::common::Conn::open(addr).stream;
        tungstenite::client(request, stream).expect("a handshake").0
    };
    let mut socket = connect("");
    let mut last_id = String::new();
    publish_with_cuts(&server, &relay, || {
        loop {
            match socket.read() {
                Ok(tungstenite::Message::Text(text)) => {
                    let json: Value = serde_json::from_str(&text).expect("JSON");
                    last_id = json["id"].as_str().expect("an id").to_owned();
                    return (last_id.clone(), json["data"].as_str().expect("text").to_owned());
                }
                Ok(_) => {}
                Err(_) => socket = connect(&last_id),
            }
        }
    });
}
