//! A server, a folder to work in, and shells that run what a reader would type.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tungstenite::client::IntoClientRequest;

use super::page::Block;
use super::tool;

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = env!("CARGO_BIN_EXE_pushline");

/// Node's own clients, which some versions only have with an option.
const NODE_OPTIONS: [&str; 2] = ["--experimental-websocket", "--experimental-eventsource"];

pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What the program prints.
pub fn output(arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A process that is killed, with all it has started, when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Each has a process group of its own.
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Something that was started, what it has printed, and what it must print.
struct Follower {
    text: String,
    printed: PathBuf,
    expected: &'static [&'static str],
    _process: Running,
}

pub struct Host {
    listen: SocketAddr,
    admin: SocketAddr,
    folder: TempDir,
    followers: Vec<Follower>,
    others: Vec<Running>,
    /// A tool is missing, so some of what others would print may never come.
    skipped: bool,
    _server: Running,
}

impl Host {
    pub fn start() -> Self {
        let (server, [listen, admin]) = serve(Command::new(PROGRAM));
        let folder = TempDir::new().expect("a folder");
        Self {
            listen,
            admin,
            folder,
            followers: Vec::new(),
            others: Vec::new(),
            skipped: false,
            _server: server,
        }
    }

    /// Runs a block to its end.
    pub fn run(&mut self, block: &Block, expected: &[&str]) {
        let Some(mut command) = self.command(block) else { return };
        let output = command.output().expect("it runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{printed}\n{errors}", block.text);
        for part in expected {
            assert!(printed.contains(part), "no {part:?} from\n{}\n{printed}", block.text);
        }
    }

    /// Starts a block that keeps running, and waits until it is subscribed.
    pub fn follow(&mut self, block: &Block, channel: &str, expected: &'static [&'static str]) {
        let Some(mut command) = self.command(block) else { return };
        let before = self.subscribers(channel);
        let printed = self.folder.path().join(format!("printed-{}", self.followers.len()));
        command.stdout(File::create(&printed).expect("a file")).stderr(Stdio::null());
        let process = Running(command.spawn().expect("it starts"));
        let (text, _process) = (block.text.clone(), process);
        self.followers.push(Follower { text, printed, expected, _process });
        self.until("it is subscribed", |host| host.subscribers(channel) > before);
    }

    /// A block that makes a certificate, has a server use it, and reads a stream of that one.
    pub fn try_tls(&mut self, block: &Block, expected: &'static [&'static str]) {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let here = format!("localhost:{}", port.expect("a free port").port());
        let text = block.text.replace("localhost:8443", &here);
        let [make, serve_it, read] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("three commands, not\n{text}")
        };
        let line = |text: &str| Block { text: text.to_owned(), ..block.clone() };
        self.run(&line(make), &[]);
        let Some(command) = self.command(&line(serve_it)) else { return };
        let (server, [listen, _]) = serve(command);
        self.others.push(server);
        // The one whose subscribers are counted.
        let first = std::mem::replace(&mut self.listen, listen);
        self.follow(&line(read), "news", expected);
        output(&["pub", "news", "hello", "--url", &format!("http://{listen}")]);
        self.listen = first;
    }

    /// What the README says about `tail -F`: there is a log that grows.
    pub fn log_tail(&mut self, block: &Block) {
        let log = self.folder.path().join("app.log");
        fs::write(&log, "").expect("written");
        let Some(mut command) = self.command(block) else { return };
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.others.push(Running(command.spawn().expect("it starts")));
        // The other end subscribes later in the text; its reader begins with what comes after that.
        let mut log = File::options().append(true).open(&log).expect("it is there");
        std::thread::spawn(move || {
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end && log.write_all(b"a line of the log\n").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }

    pub fn check_config(&mut self, block: &Block, expected: &[&str]) {
        let path = self.folder.path().join("block.toml");
        fs::write(&path, &block.text).expect("written");
        let printed = output(&["config", "check", path.to_str().expect("text")]);
        assert!(expected.iter().all(|part| printed.contains(part)), "{printed}");
    }

    /// Sends each operation, and reads the answer to it.
    pub fn operate(&mut self, block: &Block) {
        let url = format!("ws://{}/ws", self.listen);
        let mut request = url.into_client_request().expect("a request");
        let protocol = "pushline.v1".parse().expect("a value");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (mut socket, _) = tungstenite::connect(request).expect("it opens");
        for line in block.text.lines() {
            let operation: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let line = line.replace("<id> or earliest", "earliest");
            socket.send(line.into()).expect("it is taken");
            let answer = loop {
                let text = socket.read().expect("an answer").into_text().expect("text");
                let message: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                // Events come in between.
                if message.get("ref").is_some() {
                    break message;
                }
            };
            assert_eq!(answer["ref"], operation["ref"], "{answer}");
            assert_eq!(answer["ok"], true, "{operation}: {answer}");
        }
    }

    pub fn see_what_followers_printed(&self) {
        if self.skipped {
            return;
        }
        for follower in &self.followers {
            let printed = || fs::read_to_string(&follower.printed).unwrap_or_default();
            for part in follower.expected {
                self.until(&format!("{part:?} from\n{}", follower.text), |_| {
                    printed().contains(part)
                });
            }
        }
    }

    pub fn scrape(&self) -> String {
        get(self.admin, "/metrics")
    }

    // --- what a reader's machine has ---

    /// A command for the block, in the folder; `None` if its tool is missing.
    fn command(&mut self, block: &Block) -> Option<Command> {
        let command = self.installed(block);
        self.skipped |= command.is_none();
        command
    }

    fn installed(&self, block: &Block) -> Option<Command> {
        use std::os::unix::process::CommandExt;
        let text = self.with_our_ports(&block.text);
        let mut command = match &*block.language {
            "sh" => {
                let curl = !text.contains("curl") || tool("curl", &["--version"], "install curl");
                curl.then(|| shell(&text))
            }
            "python" => tool("python3", &["--version"], "install python3").then(|| {
                let mut command = Command::new("python3");
                command.args(["-c", &text]);
                command
            }),
            "js" => {
                let arguments = [&NODE_OPTIONS[..], &["--version"]].concat();
                tool("node", &arguments, "install node 20.18 or newer").then(|| {
                    let mut command = Command::new("node");
                    command.args(NODE_OPTIONS).args(["--input-type=module", "--eval", &text]);
                    command
                })
            }
            other => panic!("no command runs {other}"),
        }?;
        let path = std::env::var("PATH").unwrap_or_default();
        let own = Path::new(PROGRAM).parent().expect("it has a folder").display();
        command.current_dir(&self.folder).env("PATH", format!("{own}:{path}"));
        command.env("PUSHLINE_URL", format!("http://{}", self.listen)).env_remove("PUSHLINE_TOKEN");
        command.stdin(Stdio::null()).process_group(0);
        Some(command)
    }

    fn with_our_ports(&self, text: &str) -> String {
        let (listen, admin) = (self.listen.port().to_string(), self.admin.port().to_string());
        text.replace("localhost:8080", &format!("localhost:{listen}"))
            .replace("localhost:8081", &format!("localhost:{admin}"))
    }

    fn subscribers(&self, channel: &str) -> u64 {
        let answer = get(self.listen, &format!("/channels/{channel}"));
        let facts: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        facts["subscribers"].as_u64().expect("a number")
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs a server, on ports of its own choice. Returns where clients and the operator connect.
fn serve(mut command: Command) -> (Running, [SocketAddr; 2]) {
    use std::os::unix::process::CommandExt;
    command.envs([("PUSHLINE_LISTEN", "127.0.0.1:0"), ("PUSHLINE_ADMIN", "127.0.0.1:0")]);
    command.envs([("PUSHLINE_WORKERS", "2"), ("PUSHLINE_CPUS", "none")]);
    let mut child = command.stderr(Stdio::piped()).process_group(0).spawn().expect("it starts");
    let mut banner = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    stderr.read_line(&mut banner).expect("a banner");
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let server = Running(child);
    let mut addresses = banner.split("http://").skip(1).map(|rest| {
        let end = rest.find([' ', ')']).expect("an address ends");
        rest[..end].parse().expect("an address")
    });
    let mut next = || addresses.next().unwrap_or_else(|| panic!("no address: {banner}"));
    (server, [next(), next()])
}

fn shell(text: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", text]);
    command
}

/// The body of an answer.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}
