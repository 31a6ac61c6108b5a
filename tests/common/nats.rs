//! NATS servers of the tests' own, and a client of a few lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::identity::Identity;
use super::program::free_ports;
use super::relay::Relay;
use super::{PATIENCE, await_that, installed, skip};

/// In a cluster an answer may get lost, as long as its servers do not know where it goes: then it is
/// asked again.
const LOST_TIME: Duration = Duration::from_secs(2);

const PROGRAM: &str = "nats-server";

/// A NATS server with JetStream; it ends with the value.
pub struct Nats {
    program: PathBuf,
    pub name: String,
    port: u16,
    /// How it finds the others, and lets clients in.
    options: Vec<String>,
    dir: TempDir,
    child: Option<Child>,
}

impl Nats {
    /// Starts one; none: it is not installed, which is noted.
    pub fn start() -> Option<Self> {
        let mut one = Self::several(1)?;
        one.pop()
    }

    /// Starts one of the oldest version that a node works with.
    pub fn oldest() -> Option<Self> {
        let mut one = Self::prepared("nats-server-2.10", 1, &[])?.pop()?;
        one.begin();
        Some(one)
    }

    /// Starts one that speaks TLS only, with who knows this token.
    pub fn secured(identity: &Identity, token: &str) -> Option<Self> {
        let text = |path: PathBuf| path.display().to_string();
        let (certificate, key) = (text(identity.certificate_file()), text(identity.key_file()));
        let tls = ["--tls", "--tlscert", &certificate, "--tlskey", &key, "--auth", token];
        Self::start_with(1, &tls)?.pop()
    }

    /// Starts some that are one cluster.
    pub fn several(count: u16) -> Option<Vec<Self>> {
        Self::start_with(count, &[])
    }

    /// Starts one with this in its configuration.
    pub fn configured(text: &str) -> Option<Self> {
        let mut one = Self::prepared(PROGRAM, 1, &[])?.pop()?;
        let file = one.dir.path().join("nats.conf");
        std::fs::write(&file, text).expect("written");
        one.options.extend(["-c".to_owned(), file.display().to_string()]);
        one.begin();
        Some(one)
    }

    fn start_with(count: u16, more: &[&str]) -> Option<Vec<Self>> {
        let mut servers = Self::prepared(PROGRAM, count, more)?;
        servers.iter_mut().for_each(Self::begin);
        Some(servers)
    }

    fn prepared(program: &str, count: u16, more: &[&str]) -> Option<Vec<Self>> {
        let Some(program) = installed(program) else {
            skip(program, "scripts/test-clients");
            return None;
        };
        let first = free_ports(2 * count);
        let route = |n: u16| format!("nats://127.0.0.1:{}", first + count + n);
        let all: Vec<String> = (0..count).map(route).collect();
        let servers = (0..count)
            .map(|n| {
                let (here, routes) = (route(n), all.join(","));
                let cluster = ["--cluster_name", "c", "--cluster", &here, "--routes", &routes];
                let cluster = if count > 1 { &cluster[..] } else { &[] };
                let options = [cluster, more].concat().into_iter().map(str::to_owned).collect();
                let dir = tempfile::tempdir().expect("a folder");
                let (name, port) = (format!("n{n}"), first + n);
                Self { program: program.clone(), name, port, options, dir, child: None }
            })
            .collect();
        Some(servers)
    }

    /// Starts it again, with what it had kept.
    pub fn begin(&mut self) {
        let child = Command::new(&self.program)
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-n", &self.name, "-sd"])
            .arg(self.dir.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        self.child = Some(child);
        await_that("nats-server listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// `STOP`: it holds its connections and says nothing, until `CONT`.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_raw(child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A way to it on which the first message that says this gets lost.
    pub fn losing(&self, text: &str) -> Relay {
        let (text, is_lost) = (text.as_bytes().to_vec(), AtomicBool::new(false));
        let is_it = move |op: &[u8]| op.windows(text.len()).any(|window| window == text);
        Relay::through((Ipv4Addr::LOCALHOST, self.port).into(), move |server, mut client| {
            let mut ops = BufReader::new(server);
            while let Ok(op) = read_op(&mut ops) {
                let goes_on = !is_it(&op) || is_lost.swap(true, Ordering::SeqCst);
                if goes_on && client.write_all(&op).is_err() {
                    return;
                }
            }
        })
    }

    /// A connection to it by the protocol itself.
    pub fn connect(&self) -> NatsConn {
        NatsConn::open(self.port, PATIENCE)
    }

    /// A request to it; the payload of the answer.
    pub fn ask(&self, subject: &str, payload: &str) -> String {
        self.connect().ask(subject, payload).expect("an answer")
    }

    /// Which server leads the stream, as far as this one knows.
    pub fn leader(&self, stream: &str) -> Option<String> {
        let mut conn = NatsConn::open(self.port, LOST_TIME);
        let answer = conn.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "").ok()?;
        let info: Value = serde_json::from_str(&answer).ok()?;
        info["cluster"]["leader"].as_str().map(str::to_owned)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client.
pub struct NatsConn {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl NatsConn {
    fn open(port: u16, answer_time_max: Duration) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        stream.set_read_timeout(Some(answer_time_max)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        let lines = BufReader::new(stream.try_clone().expect("a socket"));
        let mut conn = Self { stream, lines };
        conn.say("CONNECT {\"verbose\":false}\r\n");
        conn
    }

    pub fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).expect("written");
    }

    /// Its messages come by [`NatsConn::message`].
    pub fn subscribe(&mut self, subject: &str) {
        self.say(&format!("SUB {subject} 1\r\n"));
    }

    pub fn publish(&mut self, subject: &str, reply: &str, payload: &str) {
        self.say(&format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len()));
    }

    /// The payload of the next message.
    pub fn message(&mut self) -> std::io::Result<String> {
        loop {
            let op = read_op(&mut self.lines)?;
            if op.starts_with(b"PING") {
                self.stream.write_all(b"PONG\r\n")?;
            }
            if let Some(length) = payload_bytes(&op) {
                let payload = op[op.len() - length - 2..op.len() - 2].to_vec();
                return Ok(String::from_utf8(payload).expect("text"));
            }
        }
    }

    pub fn ask(&mut self, subject: &str, payload: &str) -> std::io::Result<String> {
        // Another connection has another port.
        let inbox = format!("inbox.{}", self.stream.local_addr()?.port());
        self.subscribe(&inbox);
        self.publish(subject, &inbox, payload);
        self.message()
    }
}

/// What a server sends next, a message with its payload.
fn read_op(from: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut op = Vec::new();
    if from.read_until(b'\n', &mut op)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if let Some(length) = payload_bytes(&op) {
        let line = op.len();
        op.resize(line + length + 2, 0);
        from.read_exact(&mut op[line..])?;
    }
    Ok(op)
}

/// As its line says, headers included; none: it is no message.
fn payload_bytes(op: &[u8]) -> Option<usize> {
    let line = op.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let is_message = line.starts_with("MSG ") || line.starts_with("HMSG ");
    line.rsplit(' ').next().filter(|_| is_message)?.parse().ok()
}
