//! Real browsers with real pages. Each page has a profile of its own, so its connections are its
//! own too. What is not installed is skipped by name: see [`skip`].

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::{clients_dir, installed, skip};

/// A browser that starts on a busy machine, or twelve pages of one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which browser.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Chromium,
    Firefox,
}

impl Kind {
    /// What puppeteer calls it, and Debian's program.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Chromium => ("chrome", "chromium"),
            Self::Firefox => ("firefox", "firefox-esr"),
        }
    }
}

/// A running browser and its pages; it ends with the value.
pub struct Browser {
    child: Child,
    answers: Receiver<String>,
    pages: usize,
}

impl Browser {
    /// Starts one without pages; `None` after a skip.
    pub fn launch(kind: Kind) -> Option<Self> {
        let (name, program) = kind.names();
        let Some(program) = installed(program) else {
            skip(program, "install it");
            return None;
        };
        if installed("node").is_none()
            || !clients_dir().join("node_modules/puppeteer-core").exists()
        {
            skip("node and the npm package puppeteer-core", "scripts/test-clients");
            return None;
        }
        Some(Self::start(name, &program))
    }

    fn start(name: &str, program: &Path) -> Self {
        // Packages are looked for where the script is.
        let script = tempfile::Builder::new().suffix(".mjs").tempfile_in(clients_dir());
        let script = script.expect("a file");
        std::fs::write(script.path(), include_str!("browser.mjs")).expect("it is written");
        let mut child = Command::new("node")
            .arg(script.path())
            .arg(name)
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The receiver is gone: the browser is about to end.
                let _ = tell.send(line);
            }
        });
        let browser = Self { child, answers, pages: 0 };
        browser.answer("it starts");
        browser
    }

    /// Opens more pages, of this origin or else of another than any server's, that run this script
    /// first.
    pub fn open(&mut self, origin: Option<&str>, script: &str, count: usize) {
        self.ask(&json!({ "command": "open", "origin": origin, "script": script, "count": count }));
        self.pages += count;
    }

    /// Opens tabs of one profile that show the server's own page, with this script.
    pub fn open_tabs(&mut self, origin: &str, script: &str, count: usize) {
        self.ask(&json!({ "command": "tabs", "origin": origin, "script": script, "count": count }));
        self.pages += count;
    }

    /// Opens pages at this address.
    pub fn visit(&mut self, address: &str, count: usize) {
        self.ask(&json!({ "command": "visit", "address": address, "count": count }));
        self.pages += count;
    }

    /// Opens pages with this text, from another origin than any server's.
    pub fn show(&mut self, body: &str, count: usize) {
        self.ask(&json!({ "command": "visit", "body": body, "count": count }));
        self.pages += count;
    }

    /// Closes a page; those behind it move up.
    pub fn close(&mut self, page: usize) {
        self.ask(&json!({ "command": "close", "page": page }));
        self.pages -= 1;
    }

    /// Ends a page's process, as a bug or a lack of memory would. Chromium alone.
    pub fn crash(&mut self, page: usize) {
        self.ask(&json!({ "command": "crash", "page": page }));
        self.pages -= 1;
    }

    /// A call of Chromium's protocol for developers.
    pub fn protocol(&mut self, page: usize, method: &str, parameters: &Value) {
        self.ask(&json!({
            "command": "protocol", "page": page, "method": method, "parameters": parameters,
        }));
    }

    /// What an expression is in every page.
    pub fn evaluate(&mut self, expression: &str) -> Vec<Value> {
        self.evaluate_in(0..self.pages, expression)
    }

    /// What an expression is in these pages.
    pub fn evaluate_in(&mut self, pages: Range<usize>, expression: &str) -> Vec<Value> {
        let (from, to) = (pages.start, pages.end);
        let command =
            json!({ "command": "evaluate", "from": from, "to": to, "expression": expression });
        self.ask(&command).as_array().expect("a list").clone()
    }

    fn ask(&mut self, command: &Value) -> Value {
        let input = self.child.stdin.as_mut().expect("it is piped");
        writeln!(input, "{command}").expect("node reads");
        self.answer(&command["command"].to_string())
    }

    fn answer(&self, what: &str) -> Value {
        let line = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never: {what}"));
        let mut told: Value = serde_json::from_str(&line).expect("JSON");
        assert!(told["error"].is_null(), "{what}: {told}");
        told["answer"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its input ends the script, which ends the browser.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
