//! Where secrets must not appear: answers, metrics, the operator's lists, the log at its most
//! verbose.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use super::*;
use crate::common::ws::{RawWs, TEXT, frame, upgrade};
use crate::common::{Conn, PATIENCE, PUBLISH_KEY, fetch, request};

/// The program with a configuration file; everything it writes is kept.
struct Program {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
    said: Receiver<String>,
    _file: NamedTempFile,
}

impl Program {
    fn start(config: &str) -> Self {
        let mut file = NamedTempFile::new().expect("a scratch file");
        file.write_all(config.as_bytes()).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_pushline"))
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2"])
            .args(["--cpus", "none", "--drain", "1s", "--config"])
            .arg(file.path())
            .env("PUSHLINE_SECRET", SECRET)
            .env("PUSHLINE_PUBLISH_KEY", PUBLISH_KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (tell, said) = channel();
        let out = child.stdout.take().expect("piped");
        let errors = child.stderr.take().expect("piped");
        for pipe in [Box::new(out) as Box<dyn Read + Send>, Box::new(errors)] {
            let tell = tell.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = tell.send(line);
                }
            });
        }
        let address = |text: &str, before: &str| {
            let (_, from) = text.split_once(before)?;
            from.split([' ', ')']).next()?.parse().ok()
        };
        let mut early = Vec::new();
        let (addr, admin) = loop {
            let line = said.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{early:?}"));
            let both = address(&line, "listens on http://").zip(address(&line, "admin http://"));
            early.push(line);
            if let Some(both) = both {
                break both;
            }
        };
        for line in early {
            tell.send(line).expect("it is kept here");
        }
        Self { child, addr, admin, said, _file: file }
    }

    /// Ends it; returns all it wrote.
    fn end(mut self) -> String {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
        self.said.iter().map(|line| line + "\n").collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Good and bad credentials from every source, on every route; then everything the server wrote is
/// searched for them.
#[test]
fn no_credential_is_ever_repeated() {
    let config =
        format!("log_level = \"trace\"\n[auth]\n{}query_token = \"enabled\"\n", readme_auth());
    let program = Program::start(&config);
    let good = token(&["a"], &["a"]);
    let (header, rest) = good.split_once('.').expect("three parts");
    let bad = format!("{header}.x{rest}");
    let key = PUBLISH_KEY.replace('k', "j");
    let mut said = String::new();
    let mut streams = Vec::new();
    for credential in [good.as_str(), &bad, PUBLISH_KEY, &key] {
        let (authorization, cookie) = (bearer(credential), format!("session={credential}"));
        let entry = format!("pushline.v1, bearer.{credential}");
        for header in [
            ("Authorization", authorization.as_str()),
            ("X-API-Key", credential),
            ("Cookie", &cookie),
        ] {
            for (method, target) in [
                ("GET", "/channels/a"),
                ("GET", "/channels/b"),
                ("POST", "/channels/a"),
                ("POST", "/channels/b"),
                ("POST", "/publish"),
                ("POST", "/sse/0-1-1-1/token"),
                ("GET", "/nowhere"),
                ("BREW", "/"),
            ] {
                let response = fetch(program.addr, method, target, &[header], Some(b"x"));
                said += &format!("{:?}{}", response.headers, response.text());
            }
        }
        let target = format!("/channels/a?access_token={credential}");
        for target in [target.as_str(), &format!("/nowhere/{credential}")] {
            let response = fetch(program.addr, "GET", target, &[], None);
            said += &format!("{:?}{}", response.headers, response.text());
        }
        let mut conn = Conn::open(program.addr);
        conn.send(upgrade("/ws?channel=a", &[("Sec-WebSocket-Protocol", &entry)]));
        let head = conn.response_head();
        said += &format!("{:?}", head.headers);
        if head.status == 101 {
            let mut ws = RawWs { conn, head };
            for op in [
                json!({"op": "auth", "token": bad, "ref": "1"}).to_string(),
                json!({"op": "auth", "token": good, "ref": "1"}).to_string(),
                format!("{{\"op\":\"auth\",\"token\":\"{good}\""),
                json!({"op": good, "token": good, "ref": "1"}).to_string(),
            ] {
                ws.send(frame(true, TEXT, op.as_bytes()));
                said += &String::from_utf8_lossy(&ws.answer().payload);
            }
            streams.push(ws.conn);
        }
        let mut conn = Conn::open(program.addr);
        conn.send(request("GET", "/sse?channel=a", &[("Authorization", &authorization)], None));
        said += &format!("{:?}", conn.response_head().headers);
        streams.push(conn);
    }
    assert_eq!(streams.len(), 5, "a WebSocket, and a stream or a refusal for each");
    for target in ["/metrics", "/v1/connections", "/v1/channels", "/readyz"] {
        let response = fetch(program.admin, "GET", target, &[], None);
        assert_eq!(response.status, 200, "{target}");
        said += &response.text();
    }
    assert!(said.contains("somebody"), "the list of connections names the token's subject");
    said += &program.end();
    assert!(said.contains("draining"), "the log was read");
    let (_, signature) = good.rsplit_once('.').expect("three parts");
    for secret in [rest, signature, SECRET, PUBLISH_KEY, &key] {
        let place = said.find(secret);
        assert_eq!(place, None, "{}", &said[place.unwrap_or(0).saturating_sub(200)..]);
    }
}
