//! Rights that the operator's backend decides, asked with the cookies and the `Authorization` of a
//! request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::*;
use crate::common::ws::Ws;
use crate::common::{PATIENCE, Sse, fetch};

const SECRETS: &str = "hmac_secrets = [{ env = \"PUSHLINE_SECRET\" }]\n";

/// A backend that knows two sessions.
struct Backend {
    url: String,
    asked: Arc<AtomicUsize>,
}

const JANE: &str =
    r#"{"sub":"jane","pushline":{"subscribe":["chat"],"publish":["chat"],"cancel":[]}}"#;

impl Backend {
    /// Each connection is answered by `answer`, a whole answer for each head.
    fn start(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/rights", listener.local_addr().expect("bound"));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, counted) = (answer.clone(), counted.clone());
                std::thread::spawn(move || serve(stream, &answer, &counted));
            }
        });
        Self { url, asked }
    }

    fn of_sessions() -> Self {
        Self::start(|head| {
            let body = match head {
                _ if head.contains("session=jane") => JANE,
                _ if head.contains("Bearer opaque") => JANE,
                _ => return "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            answer(body, "max-age=60")
        })
    }

    fn guard(&self) -> TestServer {
        TestServer::guarded(&format!("url = \"{}\"\n", self.url), |_| {})
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(body: &str, cache: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nCache-Control: {cache}\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> String, asked: &AtomicUsize) {
    let mut head = Vec::new();
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            asked.fetch_add(1, Ordering::SeqCst);
            let answer = answer(&String::from_utf8_lossy(&head));
            head.clear();
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn a_session_that_only_the_backend_knows_subscribes_and_publishes() {
    let backend = Backend::of_sessions();
    let server = backend.guard();
    let cookie = [("Cookie", "theme=dark; session=jane")];
    let mut sse = Sse::open_with(server.addr, "channel=chat", &cookie);
    assert_eq!(sse.event().event, "pushline.open");
    let mut ws = Ws::open(server.addr, "channel=chat", Some("pushline.v1"), &cookie);
    let sent = fetch(server.addr, "POST", "/channels/chat", &cookie, Some(b"hello"));
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert_eq!(sse.event().data, "hello");
    assert_eq!(ws.json()["data"], "hello");
    let other = fetch(server.addr, "POST", "/channels/other", &cookie, Some(b"hello"));
    assert_eq!((other.status, &*other.error_code()), (403, "publish_forbidden"));
    let opaque = [("Authorization", "Bearer opaque")];
    assert_eq!(fetch(server.addr, "GET", "/channels/chat", &opaque, None).status, 200);
    let unknown = [("Cookie", "session=mallory")];
    let refused = fetch(server.addr, "GET", "/channels/chat", &unknown, None);
    assert_eq!((refused.status, &*refused.error_code()), (401, "backend_refused"));
    // What shows nothing is not asked about.
    let asked = backend.asked();
    let nothing = fetch(server.addr, "GET", "/channels/chat", &[], None);
    assert_eq!((nothing.status, &*nothing.error_code()), (401, "credentials_missing"));
    assert_eq!(fetch(server.addr, "GET", "/", &unknown, None).status, 200);
    assert_eq!(backend.asked(), asked);
}

#[test]
fn an_answer_is_remembered_as_long_as_it_says_and_asked_for_once() {
    let barrier = Arc::new(Barrier::new(2));
    let gate = barrier.clone();
    let backend = Backend::start(move |_| {
        gate.wait();
        answer(JANE, "private, max-age=60")
    });
    let auth = format!("url = \"{}\"\n", backend.url);
    let server = TestServer::guarded(&auth, |settings| settings.workers = Some(1));
    let (addr, cookie) = (server.addr, [("Cookie", "session=jane")]);
    let ask = || fetch(addr, "GET", "/channels/chat", &cookie, None).status;
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        crate::common::await_that("all have come", || server.open() >= 20);
        barrier.wait();
        for one in waiting {
            assert_eq!(one.join().expect("an answer"), 200);
        }
    });
    assert_eq!((ask(), backend.asked()), (200, 1));
}

#[test]
fn a_backend_that_fails_or_says_nonsense_lets_no_one_in() {
    for told in [
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Elsewhere\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "not HTTP at all\r\n\r\n",
    ] {
        let backend = Backend::start(move |_| told.to_owned());
        let server = backend.guard();
        let cookie = [("Cookie", "session=jane")];
        let response = fetch(server.addr, "GET", "/channels/chat", &cookie, None);
        assert_eq!(
            (response.status, &*response.error_code()),
            (503, "backend_unavailable"),
            "{told}"
        );
    }
    let absent = TestServer::guarded("url = \"http://127.0.0.1:1/\"\n", |_| {});
    let response = fetch(absent.addr, "GET", "/channels/chat", &[("Cookie", "a=b")], None);
    assert_eq!(response.error_code(), "backend_unavailable");
}

/// While the backend is silent, others are served at once.
#[test]
fn nothing_waits_for_the_backend_but_the_requests_it_decides_over() {
    let backend = Backend::start(|_| {
        std::thread::park_timeout(PATIENCE);
        String::new()
    });
    let auth = format!("{SECRETS}url = \"{}\"\n", backend.url);
    let server = TestServer::guarded(&auth, |settings| settings.workers = Some(1));
    let mut waits = crate::common::Conn::open(server.addr);
    waits.send(crate::common::request("GET", "/channels/chat", &[("Cookie", "a=b")], None));
    crate::common::await_that("it is asked", || backend.asked() == 1);
    let token = bearer(&token(&["chat"], &["chat"]));
    let served = fetch(server.addr, "GET", "/channels/chat", &[("Authorization", &token)], None);
    assert_eq!(served.status, 200, "a token is checked here");
    assert!(waits.is_silent_for(Duration::from_millis(50)));
    // Closed while it waits, it leaves nothing behind.
    drop(waits);
    crate::common::await_that("it is gone", || server.open() == 0);
}

#[test]
fn pages_of_other_origins_cannot_use_the_cookies_of_a_session() {
    let backend = Backend::of_sessions();
    let server = backend.guard();
    let headers = [("Cookie", "session=jane"), ("Origin", FOREIGN)];
    let refused = fetch(server.addr, "GET", "/sse?channel=chat", &headers, None);
    assert_eq!(refused.error_code(), "origin_forbidden");
}

/// A reload without the backend ends what it has let in.
#[test]
fn a_reload_asks_again_and_without_a_backend_ends_its_sessions() {
    let backend = Backend::of_sessions();
    let mut server = backend.guard();
    let cookie = [("Cookie", "session=jane")];
    let mut sse = Sse::open_with(server.addr, "channel=chat", &cookie);
    assert_eq!(sse.event().event, "pushline.open");
    let asked = backend.asked();
    server.reload(&format!("url = \"{}\"\n", backend.url)).expect("taken");
    fetch(server.addr, "GET", "/channels/chat", &cookie, None);
    assert_eq!(backend.asked(), asked + 1, "rules that were read again are asked for again");
    fetch(server.addr, "POST", "/channels/chat", &cookie, Some(b"still here"));
    assert_eq!(sse.event().data, "still here");
    server.reload("anonymous = { subscribe = [\"news\"] }").expect("taken");
    expect_end(&mut sse, "key_removed", 4401, "key removed");
}
