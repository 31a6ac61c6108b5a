//! Rights that the operator's backend decides, asked with the cookies and the `Authorization` of a
//! request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
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

/// A backend that says what it is told to.
fn backend_of_mind(says: &Arc<Mutex<String>>) -> Backend {
    let says = says.clone();
    Backend::start(move |_| says.lock().expect("no panic").clone())
}

fn rights(subject: &str, channels: &[&str]) -> String {
    let rights = json!({"sub": subject, "pushline": {"subscribe": channels}});
    answer(&rights.to_string(), "no-store")
}

/// The code of the refusal; none: it is subscribed.
fn subscribe(ws: &mut Ws, channel: &str) -> Option<String> {
    ws.op(&json!({"op": "subscribe", "channel": channel, "ref": 1}));
    Some(ws.json()["error"]["code"].as_str()?.to_owned())
}

#[test]
fn who_subscribes_to_more_later_is_asked_about_again_with_the_cookies_of_its_request() {
    let says = Arc::new(Mutex::new(rights("jane", &["a"])));
    let backend = backend_of_mind(&says);
    let server = backend.guard();
    let cookie = [("Cookie", "session=jane")];
    let mut ws = Ws::open(server.addr, "channel=a", Some("pushline.v1"), &cookie);
    let refusing = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned();
    for (says_now, channel, expected) in [
        (rights("jane", &["a"]), "b", Some("subscribe_forbidden")),
        (rights("jane", &["a", "b"]), "b", None),
        (rights("mallory", &["*"]), "c", Some("token_subject")),
        (refusing, "c", Some("backend_refused")),
        ("nonsense\r\n\r\n".to_owned(), "c", Some("backend_unavailable")),
        // Fewer rights end no subscription.
        (rights("jane", &["c"]), "c", None),
        (rights("jane", &["c"]), "d", Some("subscribe_forbidden")),
    ] {
        *says.lock().expect("no panic") = says_now;
        // What was answered last may still hold, for a second.
        crate::common::await_that("it is so", || {
            subscribe(&mut ws, channel).as_deref() == expected
        });
    }
    let described = |channel: &str| fetch(server.addr, "GET", channel, &cookie, None).json();
    assert_eq!(described("/channels/c")["subscribers"], 1);
    *says.lock().expect("no panic") = rights("jane", &["a", "b"]);
    crate::common::await_that("it reads what it read", || {
        let read = fetch(server.addr, "GET", "/channels/b", &cookie, None);
        read.status == 200 && read.json()["subscribers"] == 1
    });
}

#[test]
fn while_the_backend_thinks_the_operations_of_a_websocket_wait_in_their_order() {
    let (tell, told) = std::sync::mpsc::channel::<String>();
    let told = Arc::new(Mutex::new(told));
    let backend = Backend::start(move |_| told.lock().expect("no panic").recv().expect("a word"));
    let server = backend.guard();
    let answers = |channels: &[&str], age: &str| {
        let rights = json!({"sub": "jane", "pushline": {"subscribe": channels}}).to_string();
        tell.send(answer(&rights, age)).expect("it listens");
    };
    answers(&["a"], "no-store");
    let cookie = [("Cookie", "session=jane")];
    let mut ws = Ws::open(server.addr, "channel=a", Some("pushline.v1"), &cookie);
    crate::common::await_that("it is asked again", || {
        if backend.asked() == 1 {
            ws.op(&json!({"op": "subscribe", "channel": "b", "ref": 1}));
        }
        backend.asked() == 2
    });
    ws.op(&json!({"op": "ping", "ref": 2}));
    answers(&["a", "b"], "max-age=60");
    let mut refs = Vec::new();
    while refs.last() != Some(&json!(2)) {
        let answer = ws.json();
        refs.push(answer["ref"].clone());
        if answer["ok"] == true && answer["channel"] == "b" {
            refs.push(json!("b"));
        }
    }
    assert!(refs.contains(&json!("b")), "{refs:?}");
    assert_eq!(subscribe(&mut ws, "c").as_deref(), Some("subscribe_forbidden"));
    assert_eq!(backend.asked(), 2, "the answer is remembered");
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
