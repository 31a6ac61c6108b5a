//! A server, clients and a relay in between: real programs, real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything: only a failure takes this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushline"));
    command.env_remove("PUSHLINE_TOKEN").env_remove("PUSHLINE_URL");
    command
}

/// A server that is killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    fn start_at(listen: &str) -> Self {
        let mut child = program()
            .args(["serve", "--listen", listen, "--admin", "127.0.0.1:0", "--workers", "2"])
            .args(["--cpus", "none", "--drain", "2s", "--history-count", "1000"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut banner = BufReader::new(child.stderr.take().expect("piped"));
        let address = std::iter::from_fn(|| {
            let mut line = String::new();
            banner.read_line(&mut line).ok().filter(|length| *length > 0).map(|_| line)
        })
        .find_map(|line| {
            let (_, rest) = line.split_once("listens on http://")?;
            rest.split_whitespace().next()?.parse().ok()
        })
        .expect("the server says where it listens");
        // The reader is gone, which must not stop the server.
        thread::spawn(move || std::io::copy(&mut banner, &mut std::io::sink()));
        Self { child, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it as an operator would, and waits.
    pub fn stop(mut self) -> SocketAddr {
        signal(&self.child, Signal::TERM);
        assert!(wait(&mut self.child).success(), "a drained server exits with 0");
        self.address
    }

    /// A new one in place of one that has ended.
    pub fn start_again(address: SocketAddr) -> Self {
        Self::start_at(&address.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `sub` or `pub`, killed when dropped.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Option<Receiver<String>>,
    errors: Receiver<String>,
}

impl Client {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = program()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let stdin = child.stdin.take();
        let out = lines_of(child.stdout.take().expect("piped"));
        let errors = lines_of(child.stderr.take().expect("piped"));
        Self { child, stdin, out: Some(out), errors }
    }

    /// One whose standard error is a pipe without a reader.
    pub fn start_without_errors(arguments: &[&str]) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = program()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(writer)
            .spawn()
            .expect("the client starts");
        let stdin = child.stdin.take();
        let out = lines_of(child.stdout.take().expect("piped"));
        Self { child, stdin, out: Some(out), errors: lines_of(std::io::empty()) }
    }

    /// The next line of standard output.
    pub fn line(&self) -> String {
        let out = self.out.as_ref().expect("standard output is read");
        out.recv_timeout(PATIENCE).expect("a line comes")
    }

    pub fn lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// Waits for a message on standard error that contains `text`.
    pub fn message(&self, text: &str) -> String {
        std::iter::from_fn(|| self.errors.recv_timeout(PATIENCE).ok())
            .find(|line| line.contains(text))
            .unwrap_or_else(|| panic!("no message with {text:?}"))
    }

    /// Lines into standard input.
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(text.as_bytes()).expect("the client reads");
    }

    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// All that is still to come on standard output, up to its end.
    pub fn rest(&mut self) -> Vec<String> {
        self.out.take().into_iter().flatten().collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(source: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

fn signal(child: &Child, which: Signal) {
    kill_process(Pid::from_child(child), which).expect("the process is there");
}

fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until(|| {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    status.expect("just seen")
}

/// Checks again and again until it is so.
pub fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it does not come to that");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a client to its end; returns status, standard output, standard error.
pub fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let output =
        program().args(arguments).stdin(Stdio::null()).output().expect("the client starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status, text(output.stdout), text(output.stderr))
}

/// Runs a client whose standard output is not read after the first line.
pub fn run_into_closed_pipe(arguments: &[&str], more: impl FnOnce()) -> ExitStatus {
    let mut child =
        program().args(arguments).stdout(Stdio::piped()).spawn().expect("the client starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a first line");
    drop(out);
    more();
    wait(&mut child)
}

/// Copies bytes between clients and a server, until it is told to cut.
pub struct Relay {
    pub address: SocketAddr,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// Connections last until they are cut.
    pub fn start(server: SocketAddr) -> Self {
        Self::start_with(server, || usize::MAX)
    }

    /// Each connection is cut when this many bytes have gone to the server.
    pub fn start_cutting(server: SocketAddr, bytes: std::ops::Range<usize>, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self::start_with(server, move || random.usize(bytes.clone()))
    }

    fn start_with(
        server: SocketAddr,
        mut bytes_max: impl FnMut() -> usize + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let held = sockets.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                let pair = |socket: &TcpStream| socket.try_clone().expect("a handle");
                held.lock().expect("not poisoned").extend([pair(&client), pair(&upstream)]);
                let back = (pair(&upstream), pair(&client));
                let left = bytes_max();
                thread::spawn(move || copy(back.0, back.1, usize::MAX));
                thread::spawn(move || copy(client, upstream, left));
            }
        });
        Self { address, sockets }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections; new ones are accepted at once.
    pub fn cut(&self) {
        for socket in self.sockets.lock().expect("not poisoned").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut left: usize) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let length = length.min(left);
        left -= length;
        if to.write_all(&buffer[..length]).is_err() || left == 0 {
            break;
        }
    }
    for socket in [from, to] {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// A server that is not Pushline: it answers the first request of every connection with the same
/// bytes, and closes.
pub struct Stranger {
    address: SocketAddr,
    pub answered: Arc<AtomicUsize>,
}

impl Stranger {
    pub fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let answered = Arc::new(AtomicUsize::new(0));
        let count = answered.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                answer_once(client, answer);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, answered }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Reads until the client sends no more, so that closing does not destroy the answer.
fn answer_once(mut client: TcpStream, answer: &str) {
    let mut received = [0; 4096];
    let _ = client.read(&mut received);
    let _ = client.write_all(answer.as_bytes());
    let _ = client.shutdown(Shutdown::Write);
    let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
    while let Ok(1..) = client.read(&mut received) {}
}
