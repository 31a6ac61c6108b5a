//! The README's answers, run unchanged: JavaScript on a page in node, commands in a shell. Only the
//! address is the test server's.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::*;
use crate::common::{PATIENCE, PUBLISH_KEY};

/// Tokens expire when they say so.
fn strict_server() -> TestServer {
    TestServer::guarded(&format!("{}leeway_s = 0\n", readme_auth()), |_| {})
}

/// The code below a heading.
fn snippet(question: &str, addr: SocketAddr) -> String {
    let heading = format!("**{question}**");
    let (_, answer) = README.split_once(&heading).unwrap_or_else(|| panic!("no {heading}"));
    let (_, code) = answer.split_once("\n```").expect("a snippet");
    let (language, code) = code.split_once('\n').expect("a language");
    assert!(matches!(language, "js" | "sh"), "{question}: {language}");
    let (code, _) = code.split_once("```").expect("its end");
    code.replace("localhost:8080", &addr.to_string())
}

/// A page that runs a snippet, and what it logs.
struct Page {
    node: Child,
    input: ChildStdin,
    logged: Receiver<String>,
    _snippet: NamedTempFile,
}

impl Page {
    /// `None` where there is no node that knows WebSockets.
    fn open(origin: &str, token: &str, snippet: &str) -> Option<Self> {
        let node = || {
            let mut node = Command::new("node");
            node.args(["--experimental-websocket", "--no-warnings"]);
            node
        };
        if !node().args(["-e", "WebSocket"]).status().is_ok_and(|status| status.success()) {
            crate::common::skip("node 20.10 or newer", "install nodejs");
            return None;
        }
        let mut file = NamedTempFile::new().expect("a scratch file");
        file.write_all(snippet.as_bytes()).expect("written");
        let script = format!("{}/tests/server/access/page.mjs", env!("CARGO_MANIFEST_DIR"));
        let mut node = node()
            .arg(script)
            .arg(file.path())
            .args([origin, token])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let input = node.stdin.take().expect("piped");
        let logged = lines(&mut node);
        Some(Self { node, input, logged, _snippet: file })
    }

    fn expect(&self, line: &str) {
        assert_eq!(self.logged.recv_timeout(PATIENCE).as_deref(), Ok(line));
    }

    /// The page has a newer token, and renews with it.
    fn renew(&mut self, token: &str) {
        writeln!(self.input, "{token}").expect("the page reads");
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

fn lines(child: &mut Child) -> Receiver<String> {
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    told
}

/// A shell that finds the program, the secret and the publish key where the README has them, and
/// whose `pushline` talks to this server.
fn shell(server: &TestServer, code: &str) -> Command {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pushline"));
    let folder = program.parent().expect("a folder").display();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", code]).env("PATH", path);
    shell.env("PUSHLINE_SECRET", SECRET).env("PUSHLINE_PUBLISH_KEY", PUBLISH_KEY);
    shell.env("PUSHLINE_URL", format!("http://{}", server.addr));
    shell
}

fn output(server: &TestServer, code: &str) -> String {
    let output = shell(server, code).output().expect("sh runs");
    String::from_utf8(output.stdout).expect("text")
}

fn await_one(server: &TestServer, channel: &str) {
    let (target, all) = (format!("/channels/{channel}"), token(&["*"], &[]));
    crate::common::await_that("one listens", || {
        get_with(server.addr, &target, &all).json()["subscribers"] == 1
    });
}

#[test]
fn a_cookie_session_on_sse() {
    let server = server();
    let code = snippet("A cookie session on SSE", server.addr);
    let Some(page) = Page::open(APP, &token(&["news"], &[]), &code) else { return };
    await_one(&server, "news");
    publish_as_backend(server.addr, "news", "hello");
    page.expect("hello");
}

#[test]
fn a_jwt_on_a_browser_websocket() {
    let server = server();
    let code = snippet("A JWT on a browser WebSocket", server.addr);
    let Some(page) = Page::open(APP, &token(&["news"], &[]), &code) else { return };
    await_one(&server, "news");
    publish_as_backend(server.addr, "news", "hello");
    page.expect("hello");
}

/// Runs an answer together with the one about renewing: the connection outlives its first token.
fn renews(first: &str, then: &str, answer: &str) {
    let server = strict_server();
    let code = snippet(first, server.addr) + &snippet(then, server.addr);
    // After node has started, twice, beside others.
    let end_unix_s = now_unix_s() + 20;
    let short = token_until(end_unix_s, &["news"], &[]);
    let Some(mut page) = Page::open(APP, &short, &code) else { return };
    await_one(&server, "news");
    publish_as_backend(server.addr, "news", "one");
    page.expect("one");
    page.renew(&token(&["news"], &[]));
    page.expect(answer);
    while now_unix_s() <= end_unix_s {
        std::thread::sleep(Duration::from_millis(100));
    }
    publish_as_backend(server.addr, "news", "two");
    page.expect("two");
}

#[test]
fn a_new_token_on_a_websocket_without_a_reconnect() {
    let question = "A new token on that WebSocket, without a reconnect";
    renews("A JWT on a browser WebSocket", question, "renewed: sent");
}

#[test]
fn a_new_token_on_an_sse_stream_without_a_reconnect() {
    let question = "A new token on that stream, without a reconnect";
    renews("A cookie session on SSE", question, "renewed: 204");
}

#[test]
fn a_publish_key_for_a_backend() {
    let server = server();
    let code = snippet("A publish key for a backend", server.addr);
    let answer = output(&server, &code);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["channel"], "news", "{answer}");
}

#[test]
fn private_channels_per_user() {
    let server = server();
    let code = snippet("Private channels per user", server.addr);
    let (listen, publish) = code.trim_end().rsplit_once('\n').expect("two commands");
    let listen = listen.trim_end().trim_end_matches('&');
    let start = |code: &str| {
        let exec = code.replacen("pushline sub", "exec pushline sub", 1);
        shell(&server, &exec)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs")
    };
    let mut hers = start(listen);
    let heard = lines(&mut hers);
    await_one(&server, "user:42:inbox");
    output(&server, publish);
    let heard = heard.recv_timeout(PATIENCE);
    hers.kill().expect("it runs");
    hers.wait().expect("it ends");
    assert_eq!(heard.as_deref(), Ok("for you only"));
    let other = start(&listen.replace("pushline sub user:42:", "pushline sub user:43:"));
    let refused = other.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("403"), "{told}");
}

#[test]
fn an_origin_that_is_not_allowed() {
    let server = server();
    let code = snippet("An origin that is not allowed", server.addr);
    let answer = output(&server, &code);
    assert!(answer.contains("\"origin_forbidden\""), "{answer}");
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden"), "{answer}");
    // And a page of that origin, with the snippet that works for a listed one.
    let code = snippet("A cookie session on SSE", server.addr);
    let Some(page) = Page::open(FOREIGN, &token(&["news"], &[]), &code) else { return };
    page.expect("stream: CORS: 403");
}
