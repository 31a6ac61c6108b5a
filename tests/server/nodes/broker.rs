//! Brokers of the tests' own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::common::{await_that, installed, skip};

/// A NATS server with JetStream; it ends with the value.
pub struct Nats {
    program: PathBuf,
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Nats {
    /// Starts one; none: it is not installed, which is noted.
    pub fn start() -> Option<Self> {
        let Some(program) = installed("nats-server") else {
            skip("nats-server", "scripts/test-clients");
            return None;
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let dir = tempfile::tempdir().expect("a folder");
        let mut server = Self { program, port, dir, child: None };
        server.begin();
        Some(server)
    }

    /// Starts it again, with what it had kept.
    pub fn begin(&mut self) {
        let child = Command::new(&self.program)
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"])
            .arg(self.dir.path())
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

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A request to it by the protocol itself; the payload of the answer.
    pub fn ask(&self, subject: &str, payload: &str) -> String {
        use std::io::{BufRead, BufReader, Read, Write};
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        let mut lines = BufReader::new(stream.try_clone().expect("a socket"));
        let say = |text: String| (&stream).write_all(text.as_bytes()).expect("written");
        say("CONNECT {\"verbose\":false}\r\nSUB answer 1\r\n".to_owned());
        say(format!("PUB {subject} answer {}\r\n{payload}\r\n", payload.len()));
        loop {
            let mut line = String::new();
            lines.read_line(&mut line).expect("an answer");
            if line.starts_with("MSG ") {
                let length = line.trim_end().rsplit(' ').next().expect("a length");
                let mut answer = vec![0; length.parse().expect("a length")];
                lines.read_exact(&mut answer).expect("an answer");
                return String::from_utf8(answer).expect("text");
            }
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
