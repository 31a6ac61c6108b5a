//! SIGHUP on a running server: keys, levels and rules change; what cannot is named; a bad file
//! changes nothing; and no secret is written at any level.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ALICE: &str = "alice-key-0123456789abcdef";
const BOB: &str = "bob-key-0123456789abcdef";

struct Running {
    child: Child,
    file: NamedTempFile,
    address: SocketAddr,
    lines: Receiver<String>,
    seen: String,
}

/// Its address, from the banner or from JSON lines, and what it wrote until then.
fn read_address(stderr: &mut impl BufRead) -> (SocketAddr, String) {
    let mut seen = String::new();
    loop {
        let begun = seen.len();
        let length = stderr.read_line(&mut seen).expect("a line");
        assert!(length > 0, "it ended: {seen}");
        let line = &seen[begun..];
        let after = line.split_once("listens on http://").map(|(_, rest)| rest);
        let of_json = line
            .contains("listening for clients")
            .then(|| line.split_once("\"address\":\"").map(|(_, rest)| rest));
        let text = after.or(of_json.flatten()).and_then(|rest| rest.split([' ', '"']).next());
        if let Some(address) = text.and_then(|text| text.parse().ok()) {
            return (address, seen);
        }
    }
}

impl Running {
    fn start(text: &str) -> Self {
        Self::start_on("127.0.0.1:0", text)
    }

    fn start_on(address: &str, text: &str) -> Self {
        let file = file(text);
        let mut child = pushline()
            .args(["--listen", address, "--admin=127.0.0.1:0", "--workers=1", "--cpus=none"])
            .arg("--config")
            .arg(file.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (tell, lines) = channel();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (address, seen) = read_address(&mut stderr);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, file, address, lines, seen }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("it is alive");
    }

    /// Replaces the file, asks for a reload, and waits for the line with the outcome.
    fn reload(&mut self, text: &str) -> String {
        std::fs::write(self.file.path(), text).expect("written");
        self.signal(Signal::HUP);
        self.wait_for("reloaded")
    }

    fn wait_for(&mut self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| {
                panic!("no line with {part:?} among:\n{}", self.seen);
            });
            self.seen += &line;
            self.seen.push('\n');
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The status of a publish with this key, over a connection of its own.
    fn publish(&self, key: &str, data: &str) -> u16 {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let request = format!(
            "POST /channels/news HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{data}",
            data.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// Ends it; returns everything it has written.
    fn end(mut self) -> String {
        self.signal(Signal::TERM);
        self.wait_for("ended");
        assert!(self.child.wait().expect("it ends").success());
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_key(key: &str) -> String {
    format!("log_level = 'trace'\n[auth]\npublish_keys = [{{ value = '{key}' }}]\n")
}

#[test]
fn keys_change_on_reload_and_a_bad_file_changes_nothing() {
    let mut server = Running::start(&with_key(ALICE));
    assert_eq!(server.publish(ALICE, "x"), 200);
    assert_eq!(server.publish(BOB, "x"), 401);

    let line = server.reload(&with_key(BOB));
    assert!(line.contains("INFO") && line.contains("access rules and keys read again"), "{line}");
    assert_eq!(server.publish(ALICE, "x"), 401);
    assert_eq!(server.publish(BOB, "x"), 200);

    let bad = [
        (with_key(ALICE) + "valu = 1", "unknown key"),
        ("workers = 0\n".to_owned() + &with_key(ALICE), "wanted: a number from 1 to 1024"),
        (with_key("short"), "auth.publish_keys[0]: a publish key needs"),
        (with_key(ALICE).replace("}]", "}"), "not TOML"),
    ];
    for (text, told) in bad {
        let line = server.reload(&text);
        assert!(
            line.contains("WARN") && line.contains("not reloaded, nothing has changed"),
            "{line}"
        );
        assert!(line.contains(told), "{line}");
        assert_eq!(server.publish(ALICE, "x"), 401);
        assert_eq!(server.publish(BOB, "x"), 200);
    }

    let written = server.end();
    for secret in [ALICE, BOB, "0123456789"] {
        assert!(!written.contains(secret), "a key was written:\n{written}");
    }
}

/// Removing the last key would open the server to anyone who can reach it.
#[test]
fn a_reload_does_not_open_a_server_that_others_can_reach() {
    let mut server = Running::start_on("0.0.0.0:0", &with_key(ALICE));
    let line = server.reload("");
    assert!(line.contains("not reloaded") && line.contains("without keys"), "{line}");
    assert_eq!(server.publish(BOB, "x"), 401);
    let line = server.reload("open = true");
    assert!(line.contains("changed: open"), "{line}");
    assert_eq!(server.publish("", "x"), 200);
    server.end();
}

#[test]
fn limits_and_levels_change_and_what_needs_a_restart_is_named() {
    let mut server = Running::start("log_level = 'error'");
    assert_eq!(server.publish("", &"x".repeat(100)), 200);

    let line = server.reload("max_event_bytes = 99\nhistory_count = 5");
    assert!(line.ends_with("changed: history_count, max_event_bytes, log_level"), "{line}");
    assert_eq!(server.publish("", &"x".repeat(100)), 413);
    assert_eq!(server.publish("", &"x".repeat(99)), 200);

    let line = server.reload("log_format = 'json'\ndead_time = '31s'\nhistory_count = 5");
    assert!(line.contains("WARN") && line.contains("changed: max_event_bytes;"), "{line}");
    assert!(line.ends_with("unchanged until a restart: dead_time, log_format"), "{line}");
    assert_eq!(server.publish("", &"x".repeat(100)), 200);

    // Options override the file at a reload too: `--workers 1` stays, and is not a change.
    let line = server.reload("workers = 2\n[[channel]]\npattern = 'news'\npublish_rate = 1");
    assert!(line.ends_with("changed: history_count, channel"), "{line}");
    // One a second: on however slow a machine, some of many in a row come too early.
    let statuses: Vec<u16> = (0..100).map(|_| server.publish("", "x")).collect();
    assert_eq!(statuses[0], 200);
    assert!(statuses.contains(&429), "{statuses:?}");
    server.end();
}

#[test]
fn start_up_facts_are_one_line_each_and_json_if_wanted() {
    let mut server =
        Running::start("log_format = 'json'\ndemo = false\n[[channel]]\npattern = '*'");
    server.wait_for("no keys are configured");
    let written = server.end();
    let lines = written.lines().filter(|line| line.starts_with('{'));
    let facts: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).expect(line)).collect();
    let fact = |message: &str| {
        let found = facts.iter().find(|fact| fact["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in\n{written}"))
    };
    assert_eq!(fact("configuration")["channel_rules"], 1);
    assert_eq!(fact("workers")["workers"], 1);
    assert_eq!(fact("started")["level"], "INFO");
    assert!(fact("listening for clients")["address"].as_str().is_some());
    assert!(fact("ended")["cut"] == 0);
}
