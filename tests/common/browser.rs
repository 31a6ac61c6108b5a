//! Real browsers with real pages. All tests of a program share one browser of each kind, and each has
//! pages of its own, which have profiles of their own: their connections are their own, too. What is
//! not installed is skipped by name: see [`skip`].

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::{clients_dir, installed, skip};

/// Time for a browser, or twelve pages of one, to start on a busy machine. A little more than the
/// script has, which knows what failed.
const PATIENCE: Duration = Duration::from_secs(130);

/// Which browser.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Chromium,
    Firefox,
}

impl Kind {
    /// Puppeteer's name for it, and Debian's program.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Chromium => ("chrome", "chromium"),
            Self::Firefox => ("firefox", "firefox-esr"),
        }
    }
}

/// A test's pages in a browser; they end with the value.
pub struct Browser {
    driver: &'static Driver,
    /// The test, for the driver.
    test: u64,
    pages: usize,
}

impl Browser {
    /// Without pages; `None` after a skip.
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
        static DRIVERS: [OnceLock<Driver>; 2] = [OnceLock::new(), OnceLock::new()];
        static TESTS: AtomicU64 = AtomicU64::new(1);
        let driver = DRIVERS[kind as usize].get_or_init(|| Driver::start(name, &program));
        Some(Self { driver, test: TESTS.fetch_add(1, Ordering::Relaxed), pages: 0 })
    }

    /// Opens more pages that first run this script, of this origin or else of one that no server
    /// has.
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

    /// Opens pages with this text, from an origin that no server has.
    pub fn show(&mut self, body: &str, count: usize) {
        self.ask(&json!({ "command": "visit", "body": body, "count": count }));
        self.pages += count;
    }

    /// Closes a page; those after it move up.
    pub fn close(&mut self, page: usize) {
        self.ask(&json!({ "command": "close", "page": page }));
        self.pages -= 1;
    }

    /// Kills a page's process, as a bug or lack of memory would. Chromium only.
    pub fn crash(&mut self, page: usize) {
        self.ask(&json!({ "command": "crash", "page": page }));
        self.pages -= 1;
    }

    /// A call in Chromium's DevTools protocol.
    pub fn protocol(&mut self, page: usize, method: &str, parameters: &Value) {
        self.ask(&json!({
            "command": "protocol", "page": page, "method": method, "parameters": parameters,
        }));
    }

    /// The value of an expression in every page.
    pub fn evaluate(&mut self, expression: &str) -> Vec<Value> {
        self.evaluate_in(0..self.pages, expression)
    }

    /// The value of an expression in these pages.
    pub fn evaluate_in(&mut self, pages: Range<usize>, expression: &str) -> Vec<Value> {
        let (from, to) = (pages.start, pages.end);
        let command =
            json!({ "command": "evaluate", "from": from, "to": to, "expression": expression });
        self.ask(&command).as_array().expect("a list").clone()
    }

    fn ask(&mut self, command: &Value) -> Value {
        self.driver.ask(self.test, command)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A test that failed does so for its own reason.
        if !std::thread::panicking() {
            self.ask(&json!({ "command": "end" }));
        }
    }
}

/// The script that drives a browser. It ends when its input does, which is when this program ends.
struct Driver {
    input: Mutex<ChildStdin>,
    /// By the id of a command: who waits for its answer.
    waiting: Arc<Mutex<HashMap<u64, Sender<Value>>>>,
    next_id: AtomicU64,
}

impl Driver {
    fn start(name: &str, program: &Path) -> Self {
        // Packages are looked for where the script is; node has read it when it answers.
        let script = tempfile::Builder::new().suffix(".mjs").tempfile_in(clients_dir());
        let script = script.expect("a file");
        std::fs::write(script.path(), include_str!("browser.mjs")).expect("it is written");
        let mut child = Command::new("node")
            .arg(script.path())
            .args([name.as_ref(), program.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let input = Mutex::new(child.stdin.take().expect("it is piped"));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let waiting = Arc::<Mutex<HashMap<u64, Sender<Value>>>>::default();
        let driver = Self { input, waiting: waiting.clone(), next_id: AtomicU64::default() };
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let told: Value = serde_json::from_str(&line).expect("JSON");
                let id = told["id"].as_u64().expect("an id");
                let asked = waiting.lock().expect("not poisoned").remove(&id);
                // Who asked may have lost its patience.
                let _ = asked.expect("once").send(told);
            }
            let _ = child.wait();
        });
        driver.ask(0, &json!({ "command": "end" }));
        driver
    }

    fn ask(&self, test: u64, command: &Value) -> Value {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = channel();
        self.waiting.lock().expect("not poisoned").insert(id, tell);
        let mut line = command.clone();
        line["id"] = json!(id);
        line["test"] = json!(test);
        writeln!(self.input.lock().expect("not poisoned"), "{line}").expect("node reads");
        let what = &command["command"];
        let mut told = answer.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never: {what}"));
        assert!(told["error"].is_null(), "{what}: {told}");
        told["answer"].take()
    }
}
