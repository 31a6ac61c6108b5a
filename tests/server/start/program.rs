//! The server as a process of its own, observed by what it writes to standard error.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::pushline;
use crate::common::PATIENCE;

/// A running server; it ends with the value.
pub struct Program {
    child: Child,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    log: Receiver<String>,
    said: RefCell<Vec<String>>,
}

impl Program {
    /// With these options, on free ports unless they say otherwise.
    pub fn start(options: &[&str]) -> Self {
        Self::spawn(pushline().args(options))
    }

    /// The server that takes over from this one.
    pub fn followed_by(&self, options: &[&str]) -> Self {
        let [listen, admin] = [self.addr, self.admin].map(|address| address.to_string());
        let mut command = pushline();
        command.args(["--take-over", "--listen", &listen, "--admin", &admin]).args(options);
        Self::spawn(&mut command)
    }

    pub fn spawn(command: &mut Command) -> Self {
        Self::listening(command.stdout(Stdio::null()))
    }

    /// Runs the command, whose standard output is set, until it accepts connections.
    pub fn listening(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
        let output = BufReader::new(child.stderr.take().expect("it is piped"));
        let (tell, log) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The receiver is gone: keep reading, so that the program never waits for us.
                let _ = tell.send(line);
            }
        });
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut program =
            Self { child, addr: unknown, admin: unknown, log, said: RefCell::default() };
        program.addr = program.address("listening for clients");
        program.admin = program.address("listening for the operator");
        program
    }

    /// The first line that contains this text.
    pub fn await_line(&self, text: &str) -> String {
        let mut said = self.said.borrow_mut();
        if let Some(line) = said.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.log.recv_timeout(left) else {
                panic!("it never said {text:?}, but {said:#?}")
            };
            said.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The address that the first line with this text tells.
    pub fn address(&self, text: &str) -> SocketAddr {
        address_in(&self.await_line(text))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far that contains this text.
    pub fn said(&self, text: &str) -> Option<String> {
        self.said.borrow().iter().find(|line| line.contains(text)).cloned()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it is there");
        self.child.wait().expect("it ends");
    }

    /// Waits for its exit.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        crate::common::await_that("it ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> SocketAddr {
    let text = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    text.and_then(|text| text.parse().ok()).expect("an address")
}
