//! What a running server logs: requests if asked to, connections by the ids of the operator's API,
//! floods of refusals in few lines, and never a token.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::common::ws::RawWs;
use crate::common::{PATIENCE, Sse, exchange, fetch, get, publish};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A server in a process of its own, whose lines are JSON.
struct Running {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    lines: Receiver<Value>,
}

impl Running {
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pushline"))
            .args(["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--workers=2", "--cpus=none"])
            .arg("--log-format=json")
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (tell, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("each line is JSON");
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let unset = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut running = Self { child, listen: unset, admin: unset, lines };
        running.listen = running.address("listening for clients");
        running.admin = running.address("listening for the operator");
        running
    }

    /// The address in the line that says this.
    fn address(&self, message: &str) -> SocketAddr {
        let line = self.line(message);
        line["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// The next line that says this.
    fn line(&self, message: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no line says {message:?}"));
            if line["message"] == message {
                return line;
            }
        }
    }

    /// Ends it; returns all lines not looked at yet.
    fn end(mut self) -> Vec<Value> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is there");
        assert!(self.child.wait().expect("it ends").success());
        self.lines.iter().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_connection_has_the_id_that_the_operators_api_knows() {
    let server = Running::start(&["--log-level=debug"]);
    let mut stream = Sse::open(server.listen, "channel=c");
    let page = get(server.admin, "/v1/connections").json();
    let id = page["connections"][0]["id"].clone();
    let opened = server.line("stream opened");
    assert_eq!((&opened["connection"], &opened["transport"]), (&id, &"sse".into()));
    let path = format!("/v1/connections/{}", id.as_str().expect("an id"));
    assert_eq!(fetch(server.admin, "DELETE", &path, &[], None).status, 204);
    assert_eq!((stream.event().event.as_str(), stream.next_event()), ("pushline.end", None));
    // The worker and the operator's thread write independently of each other.
    let (mut ended, mut cut) = (None, None);
    while ended.is_none() || cut.is_none() {
        let line = server.lines.recv_timeout(PATIENCE).expect("both come");
        match line["message"].as_str() {
            Some("connection ended") => ended = Some(line),
            Some("cut by the operator") => cut = Some(line),
            _ => {}
        }
    }
    let (ended, cut) = (ended.expect("seen"), cut.expect("seen"));
    assert_eq!((&ended["connection"], &ended["reason"]), (&id, &"operator".into()));
    assert_eq!(cut["connection"], id);
    server.end();
}

#[test]
fn requests_have_lines_only_if_asked_for() {
    let server = Running::start(&[]);
    assert_eq!(get(server.listen, "/channels/c").status, 200);
    let lines = server.end();
    assert!(lines.iter().all(|line| line["message"] != "request"), "{lines:?}");

    let server = Running::start(&["--access-log"]);
    assert_eq!(get(server.listen, "/channels/c?x=1").status, 200);
    let line = server.line("request");
    assert_eq!(
        (&line["method"], &line["path"], &line["status"]),
        (&"GET".into(), &"/channels/c".into(), &200.into())
    );
    assert!(line["connection"].is_string() && line["took_us"].is_u64(), "{line}");
    assert_eq!(line["client"], "127.0.0.1", "{line}");
    publish(server.listen, "c", "x");
    let line = server.line("request");
    assert_eq!((&line["method"], &line["path"]), (&"POST".into(), &"/channels/c".into()));
    assert_eq!(exchange(server.listen, "NOT HTTP\r\n\r\n").status, 400);
    let line = server.line("request");
    assert_eq!((&line["path"], &line["status"]), (&"-".into(), &400.into()));
    drop(RawWs::bare(server.listen, "channel=c"));
    assert_eq!(server.line("request")["status"], 101);
    drop(Sse::open(server.listen, "channel=c"));
    assert_eq!(server.line("request")["path"], "/sse");
    server.end();
}

#[test]
fn a_flood_of_refusals_is_few_lines() {
    let server = Running::start(&["--max-connections=1"]);
    let _only = Sse::open(server.listen, "channel=c");
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(get(server.listen, "/").status, 503);
    }
    let mut counted = 0;
    let mut told = 0;
    // The last refusals are reported when the server ends.
    let lines = server.end();
    for line in lines.iter().filter(|line| line["message"] == "connections refused") {
        assert_eq!((&line["reason"], &line["level"]), (&"room".into(), &"WARN".into()));
        counted += line["count"].as_u64().expect("a count");
        told += 1;
    }
    let seldom = 2 + began.elapsed().as_secs() / 10;
    assert!((1..=seldom).contains(&told), "{told} lines");
    assert!((1..=100).contains(&counted), "{counted} refused");
}

#[test]
fn a_token_is_in_no_line() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let key = "secret-key-0123456789abcdef";
    let auth = format!(
        "[auth]\nquery_token = 'enabled'\npublish_keys = [{{ value = '{key}' }}]\n\
         hmac_secrets = [{{ value = '{key}{key}' }}]\nanonymous = {{ subscribe = ['*'] }}\n"
    );
    std::fs::write(file.path(), auth).expect("written");
    let config = format!("--config={}", file.path().display());
    let server = Running::start(&["--access-log", "--log-level=trace", &config]);
    for target in ["/sse?channel=c&access_token=SECRETTOKEN", "/sse/0-1-2-SECRETTOKEN/token"] {
        get(server.listen, target);
        fetch(server.listen, "POST", target, &[], None);
    }
    let bearer = [("Authorization", &*format!("Bearer {key}"))];
    assert_eq!(fetch(server.listen, "POST", "/channels/c", &bearer, Some(b"x")).status, 200);
    let lines = server.end();
    assert!(lines.iter().filter(|line| line["message"] == "request").count() >= 5, "{lines:?}");
    for line in &lines {
        let text = line.to_string();
        assert!(!text.contains("SECRETTOKEN") && !text.contains(key), "{text}");
    }
}

#[test]
fn refused_requests_are_told_with_their_status() {
    let server = Running::start(&[]);
    assert_eq!(get(server.listen, "/nothing/here").status, 404);
    let line = server.line("requests refused");
    assert_eq!((&line["reason"], &line["count"]), (&"status 404".into(), &1.into()));
    server.end();
}
