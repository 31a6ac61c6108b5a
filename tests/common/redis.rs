//! Redis or Valkey servers of the tests' own.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::program::free_ports;
use super::{PATIENCE, await_that, installed, skip};

/// A server, which writes everything to disk as it goes; it ends with the value.
pub struct Redis {
    program: PathBuf,
    port: u16,
    dir: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// Starts one; none: there is neither, which is noted.
    pub fn start() -> Option<Self> {
        let Some(program) = installed("valkey-server").or_else(|| installed("redis-server")) else {
            skip("valkey-server or redis-server", "scripts/test-clients");
            return None;
        };
        let dir = tempfile::tempdir().expect("a folder");
        let mut server = Self { program, port: free_ports(1), dir, child: None };
        server.begin();
        Some(server)
    }

    /// Starts it again, with what it had kept.
    pub fn begin(&mut self) {
        let child = Command::new(&self.program)
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--repl-diskless-sync-delay", "0", "--dir"])
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        self.child = Some(child);
        await_that("the server answers", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
                && self.ask("PING") == "+PONG"
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
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Makes it a replica, and waits until it has what the other one has.
    pub fn follow(&self, other: &Self) {
        assert_eq!(self.ask(&format!("REPLICAOF 127.0.0.1 {}", other.port)), "+OK");
        await_that("it is in step", || self.info().contains("master_link_status:up"));
    }

    pub fn info(&self) -> String {
        let mut conn = self.say("INFO replication");
        let mut text = String::new();
        // Until the line that is last in this section, or the server says no more.
        while conn.read_line(&mut text).is_ok_and(|count| count > 0) {
            if text.ends_with("\r\n") && text.contains("repl_backlog_histlen") {
                break;
            }
        }
        text
    }

    /// The first line of the answer to a command.
    pub fn ask(&self, command: &str) -> String {
        let mut line = String::new();
        self.say(command).read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn say(&self, command: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(format!("{command}\r\n").as_bytes()).expect("it reads");
        BufReader::new(stream)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
