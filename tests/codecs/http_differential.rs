//! The head parser against httparse, on generated and mutated heads, seeded. The fuzzing target of
//! the same name, shared by this test, says what must hold for each.

#[path = "../fuzz/targets/http_head.rs"]
mod http_head;
#[path = "../fuzz/targets/split.rs"]
mod split;

use http_head::{Stricter, check, compare, stricter_rule};

const CASES: u64 = 60_000;

fn pick<T: Copy>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "M-SEARCH", "x!"];
const TARGETS: [&str; 10] = [
    "/",
    "/sse?channel=news",
    "/channels/a%20b",
    "/a?b?c=d&e=%41",
    "http://example.com/ws?channel=x",
    "https://example.com:8080",
    "*",
    "/x{y}|z^`\\",
    "/sse?channel=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "/?",
];
const HEADERS: [&str; 18] = [
    "Host: example.com",
    "Host: [::1]:8080",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Accept: */*",
    "Content-Length: 12",
    "Transfer-Encoding: chunked",
    "Connection: keep-alive",
    "Connection: Upgrade",
    "Connection: close",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "X-Empty:",
    "X-Tabs: \t a\tb \t",
    "X-High: \u{e9}\u{20ac}",
    "Last-Event-ID: abcdefgh-42",
    "sec-ch-ua: \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"",
    "x!#$%&'*+.^_`|~9: token",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
];

fn generate(rng: &mut fastrand::Rng) -> Vec<u8> {
    let version = pick(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let mut head = format!("{} {} {version}\r\n", pick(rng, &METHODS), pick(rng, &TARGETS));
    if rng.u8(..10) > 0 {
        head.push_str("Host: localhost:8080\r\n");
    }
    for _ in 0..rng.usize(..8) {
        head.push_str(pick(rng, &HEADERS[2..]));
        head.push_str("\r\n");
    }
    if rng.u8(..20) == 0 {
        head.push_str(pick(rng, &HEADERS));
        head.push_str("\r\n");
    }
    if rng.u8(..100) == 0 {
        head.push_str(&"A: b\r\n".repeat(60));
    }
    head.push_str("\r\n");
    head.push_str(pick(rng, &["", "", "body", "GET / HTTP/1.1\r\n\r\n"]));
    head.into_bytes()
}

const SPICE: &[u8] = b"\r\n\t :\0\x01\x1f\x7f\x80\xff#\"<>?/@[]{}aZ09-_,;=+.%";

fn mutate(head: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..4) {
        if head.is_empty() {
            return;
        }
        let at = rng.usize(..head.len());
        match rng.u8(..6) {
            0 => head[at] = pick(rng, SPICE),
            1 => head.insert(at, pick(rng, SPICE)),
            2 => drop(head.remove(at)),
            3 => head.truncate(at),
            4 => head[at] = rng.u8(..),
            _ => {
                let end = (at + rng.usize(..12)).min(head.len());
                let copy = head[at..end].to_vec();
                let to = rng.usize(..head.len());
                head.splice(to..to, copy);
            }
        }
    }
}

/// The head as the fuzzing target takes it: in pieces of random lengths.
fn cut_somehow(head: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut input: Vec<u8> = (0..rng.usize(..4)).map(|_| rng.alphabetic() as u8).collect();
    input.push(b'\n');
    input.extend_from_slice(head);
    input
}

#[test]
fn we_agree_with_httparse_but_for_the_listed_rules() {
    let mut accepted = 0_u32;
    let mut stricter = std::collections::HashMap::new();
    for seed in 0..CASES {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut head = generate(&mut rng);
        if seed % 4 != 0 {
            mutate(&mut head, &mut rng);
        }
        check(&cut_somehow(&head, &mut rng));
        match compare(&head) {
            Some(error) => *stricter.entry(stricter_rule(error)).or_insert(0_u32) += 1,
            None => accepted += 1,
        }
    }
    // The generator reaches both outcomes; otherwise the agreement would mean nothing.
    assert!(u64::from(accepted) > CASES / 4, "{accepted} of {CASES}");
    for rule in [Stricter::LineEnds, Stricter::Target, Stricter::Meaning, Stricter::Caps] {
        assert!(stricter.contains_key(&Some(rule)), "{rule:?} never applied: {stricter:?}");
    }
}
