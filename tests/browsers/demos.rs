//! The README's chat and the pages at `/demo`, as a newcomer opens them: in two browsers at once, with
//! the server killed under them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::browser::{Browser, Kind};
use crate::common::http::Chunked;
use crate::common::program::{Program, free_ports};
use crate::common::{TestServer, describe, fetch};

/// Seconds on a machine that is not busy.
const COME_BACK: Duration = Duration::from_secs(60);
const OPTIONS: [&str; 6] = ["--workers", "2", "--cpus", "none", "--retry", "500ms"];
const PAGES: usize = 2;
const DEMOS: [&str; 5] = ["feed", "chat", "answer", "progress", "counter"];

/// Where in a page the state is shown, where text is typed, and what then appears.
struct Chat {
    state: &'static str,
    type_in: &'static str,
    list: &'static str,
    /// How a restart is reported.
    restarted: &'static str,
}

#[test]
fn the_readmes_chat_goes_on_after_a_crash_and_says_so() {
    let readme = include_str!("../../README.md");
    let page = readme.split("```html\n").nth(1).and_then(|rest| rest.split("```").next());
    let chat = Chat {
        state: "line.textContent === 'open'",
        type_in: "text.value = 'TEXT'; form.requestSubmit()",
        list: "chat",
        restarted: "(some was lost: epoch)",
    };
    survive(&chat, |browser, server| {
        let body = page.expect("a page").replace("http://localhost:8080", server);
        browser.show(&body, PAGES);
    });
}

#[test]
fn the_demos_chat_goes_on_after_a_crash_and_says_so() {
    let chat = Chat {
        state: "document.getElementById('state').textContent === 'Live over ws'",
        type_in: "document.getElementById('name').value = 'ann';
                  text.value = 'TEXT'; form.requestSubmit()",
        list: "chat",
        restarted: "— the server was restarted —",
    };
    survive(&chat, |browser, server| browser.visit(&format!("{server}/demo/chat"), PAGES));
}

/// Two people chat, the server is killed, one of them writes meanwhile, and both carry on.
fn survive(chat: &Chat, open: impl FnOnce(&mut Browser, &str)) {
    let Some(mut browser) = Browser::launch(Kind::Chromium) else { return };
    let port = free_ports(2);
    let server = Program::start(port, &OPTIONS);
    open(&mut browser, &format!("http://{}", server.addr));
    await_all(&mut browser, chat.state);
    browser.evaluate_in(0..1, &chat.type_in.replace("TEXT", "hello"));
    await_all(&mut browser, &format!("{}.textContent.includes('hello')", chat.list));
    server.kill();
    await_all(&mut browser, &format!("!({})", chat.state));
    browser.evaluate_in(1..2, &chat.type_in.replace("TEXT", "in between"));
    let _server = Program::start(port, &OPTIONS);
    let both = format!("{}.textContent.includes('{}')", chat.list, chat.restarted);
    await_all(&mut browser, &format!("{both} && {}", chat.state));
    await_all(&mut browser, &format!("{}.textContent.split('in between').length === 2", chat.list));
}

#[test]
fn the_demos_chat_shows_who_is_here_and_who_types() {
    let server = TestServer::with(|settings| settings.presence_grace = Duration::ZERO);
    let Some(mut ann) = Browser::launch(Kind::Firefox) else { return };
    let Some(mut bob) = Browser::launch(Kind::Chromium) else { return };
    let page = format!("http://{}/demo/chat", server.addr);
    ann.visit(&page, PAGES);
    bob.visit(&page, 1);
    // Each page here has a browser's profile of its own, and so a name.
    let all = "document.getElementById('here').textContent.split(', ').length === 3";
    await_all(&mut ann, all);
    await_all(&mut bob, all);
    ann.evaluate_in(0..1, "document.getElementById('text').oninput()");
    let typing = "document.getElementById('typing').textContent";
    await_all(&mut bob, &format!("{typing}.endsWith(' is typing')"));
    // What is typed is not kept; who came and went is.
    let before = describe(server.addr, "demo:chat")["events"].clone();
    await_all(&mut bob, &format!("{typing} === ''"));
    assert_eq!(describe(server.addr, "demo:chat")["events"], before);
    drop(ann);
    await_all(&mut bob, "document.getElementById('here').textContent === localStorage.chatName");
}

#[test]
fn a_models_answer_is_whole_for_readers_who_come_in_its_middle_or_later() {
    let server = TestServer::start();
    let Some(mut browser) = Browser::launch(Kind::Chromium) else { return };
    let page = format!("http://{}/demo/answer", server.addr);
    let answer = |is: &str| format!("document.getElementById('answer').textContent === '{is}'");
    let events = [("Content-Type", "text/event-stream")];
    let part = |text: &str| {
        format!("data: {{\"type\":\"text-delta\",\"id\":\"t\",\"delta\":\"{text}\"}}\n\n")
    };
    browser.visit(&page, 1);
    let mut model = Chunked::open(server.addr, "/channels/demo:answer/stream", &events);
    model.chunk(part("one ").as_bytes());
    await_all(&mut browser, &answer("one "));
    browser.visit(&page, 1);
    await_all(&mut browser, &answer("one "));
    browser.evaluate(
        "void (read = import('/pushline.js').then(async ({ Pushline }) => {
            const tokens = [];
            const read = new Pushline('/').stream('demo:answer');
            for await (const token of read) tokens.push(JSON.parse(token).delta);
            return tokens.join('');
        }))",
    );
    model.chunk(part("two ").as_bytes());
    await_all(&mut browser, &answer("one two "));
    model.chunk(part("three").as_bytes());
    model.finish();
    browser.visit(&page, 1);
    await_all(&mut browser, &answer("one two three"));
    let ended = "document.getElementById('news').textContent === 'It ended: done.'";
    await_all(&mut browser, ended);
    assert_eq!(browser.evaluate_in(0..2, "read"), vec![json!("one two three"); 2]);
}

#[test]
fn each_demo_works_is_short_and_its_source_is_beside_it() {
    let server = TestServer::start();
    for demo in DEMOS {
        let page = fetch(server.addr, "GET", &format!("/demo/{demo}"), &[], None);
        assert_eq!((page.status, page.text().lines().count() <= 60), (200, true), "{demo}");
    }
    let Some(mut browser) = Browser::launch(Kind::Firefox) else { return };
    browser.visit(&format!("http://{}/demo", server.addr), 1);
    let sources = "[...document.querySelectorAll('pre')]
        .filter(({ textContent }) => textContent.includes('import Pushline')).length === 5";
    await_all(&mut browser, sources);
    for name in DEMOS {
        let live = "return find('state').textContent.startsWith('Live')";
        await_all(&mut browser, &inside(name, live));
    }
    use_all(&mut browser);
    await_all(&mut browser, &inside("feed", "return find('feed').textContent === 'news'"));
    await_all(&mut browser, &inside("counter", "return find('count').textContent === '1'"));
    await_all(&mut browser, &inside("progress", "return find('bar').value === 100"));
}

#[test]
fn each_demo_says_that_the_server_was_killed_and_goes_on() {
    let Some(mut browser) = Browser::launch(Kind::Chromium) else { return };
    let port = free_ports(2);
    let server = Program::start(port, &OPTIONS);
    browser.visit(&format!("http://{}/demo", server.addr), 1);
    let state = |is: &str| format!("return find('state').textContent.startsWith('{is}')");
    let all = |browser: &mut Browser, what: &str| {
        for name in DEMOS {
            await_all(browser, &inside(name, what));
        }
    };
    all(&mut browser, &state("Live"));
    use_all(&mut browser);
    await_all(&mut browser, &inside("counter", "return find('count').textContent === '1'"));
    await_all(&mut browser, &inside("progress", "return find('bar').value > 0"));
    server.kill();
    all(&mut browser, &state("Cut off"));
    let _server = Program::start(port, &OPTIONS);
    all(&mut browser, &state("Live"));
    all(&mut browser, "return page.body.textContent.includes('he server was restarted')");
}

/// Does in each demo what it is for.
fn use_all(browser: &mut Browser) {
    for (name, what) in [
        ("feed", "find('text').value = 'news'; find('form').requestSubmit()"),
        (
            "chat",
            "find('name').value = 'ann'; find('text').value = 'hi';
                  find('form').requestSubmit()",
        ),
        ("counter", "find('more').click()"),
        ("progress", "find('start').click()"),
    ] {
        browser.evaluate(&inside(name, what));
    }
}

/// What a function does in the page of one demo.
fn inside(name: &str, what: &str) -> String {
    format!(
        "(() => {{ const page = document.querySelector('iframe[title={name}]').contentDocument;
        const find = (id) => page.getElementById(id); {what} }})()"
    )
}

pub fn await_all(browser: &mut Browser, expression: &str) {
    let deadline = Instant::now() + COME_BACK;
    while browser.evaluate(expression).iter().any(|is| *is != json!(true)) {
        let told = browser.evaluate("document.body.innerText");
        assert!(Instant::now() < deadline, "never: {expression}: {told:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
