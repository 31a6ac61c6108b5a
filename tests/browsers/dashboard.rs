//! The operator's dashboard in a browser: it shows what exists, asks for a key if there is one,
//! cuts what it is told to, and shows a stream's frames.

use std::fs;

use crate::common::browser::{Browser, Kind};
use crate::common::{Sse, TestServer, await_subscribers, fetch, publish};
use crate::demos::await_all;

const KEY: &str = "an-operators-key-for-tests-0123456789";

#[test]
fn the_dashboard_shows_the_server_and_cuts_a_connection() {
    let server = TestServer::start();
    let mut stream = Sse::open(server.addr, "channel=seen");
    publish(server.addr, "seen", "x");
    stream.event();
    let Some(mut browser) = Browser::launch(Kind::Firefox) else { return };
    browser.visit(&format!("http://{}/", server.admin), 1);
    await_all(&mut browser, "document.getElementById('server').textContent.includes(', ready,')");
    await_all(&mut browser, "document.getElementById('channels').innerText.includes('seen\t1\t1')");
    await_all(&mut browser, "document.querySelectorAll('#charts path').length === 9");
    await_all(&mut browser, "document.querySelectorAll('#workers tbody tr').length === 2");
    let listed = "[...document.querySelectorAll('#connections tbody tr')]
        .find(({ innerText }) => innerText.includes('seen'))";
    await_all(&mut browser, &format!("{listed} !== undefined"));
    browser.evaluate(&format!("{listed}.querySelector('button').click()"));
    assert!(stream.event().data.contains("closed by the operator"));
    browser.evaluate(&format!("document.getElementById('url').value = 'http://{}'", server.addr));
    browser.evaluate("document.getElementById('subscribe').click()");
    await_subscribers(server.addr, "news", 1);
    browser.evaluate("document.getElementById('try').requestSubmit()");
    await_all(
        &mut browser,
        "document.getElementById('frames').textContent.includes('data: hello')",
    );
}

#[test]
fn the_dashboard_asks_for_the_operators_key() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), KEY).expect("written");
    let server = TestServer::with(|settings| settings.admin_key_file = Some(file.path().into()));
    let page = fetch(server.admin, "GET", "/", &[], None);
    assert_eq!((page.status, page.header("x-frame-options")), (200, Some("DENY")));
    let text = page.text();
    assert!(text.contains("default-src 'none'"), "a policy");
    assert!(!text.contains("https://") && !text.contains("src="), "nothing from elsewhere");
    let Some(mut browser) = Browser::launch(Kind::Chromium) else { return };
    browser.visit(&format!("http://{}/", server.admin), 1);
    await_all(&mut browser, "!document.getElementById('key-form').hidden");
    browser.evaluate(&format!("document.getElementById('key').value = '{KEY}'"));
    browser.evaluate("document.querySelector('#key-form button').click()");
    await_all(&mut browser, "document.getElementById('server').textContent.includes(', ready,')");
}
