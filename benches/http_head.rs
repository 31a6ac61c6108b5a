//! The head parser against httparse, on heads as browsers and curl send them. Ours also says what
//! the head means (host, framing, persistence, expectation); httparse only finds the parts, so it
//! runs twice: bare, and with a plain search for the fields a server can't do without.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pushline::proto::http::head::{HEADERS_MAX, HeaderSpace, Parsed, parse_prefix};

const BROWSER_SSE: &[u8] = b"GET /sse?channel=news&channel=user%3A42 HTTP/1.1\r\n\
Host: push.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: no-store\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/131.0.0.0 Safari/537.36\r\n\
Accept: text/event-stream\r\n\
sec-ch-ua: \"Google Chrome\";v=\"131\", \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
Origin: https://www.example.com\r\n\
Sec-Fetch-Site: same-site\r\n\
Sec-Fetch-Mode: cors\r\n\
Sec-Fetch-Dest: empty\r\n\
Referer: https://www.example.com/dashboard/overview?tab=live\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7\r\n\
Cookie: session=6f1c2a9e8b7d4f50a3c1e2d4b5f60718; theme=dark; consent=v2.1.0.eyJhIjoxfQ\r\n\
Last-Event-ID: k3j9x2ab-184467\r\n\r\n";

const BROWSER_WS: &[u8] = b"GET /ws?channel=news HTTP/1.1\r\n\
Host: push.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0\r\n\
Accept: */*\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Sec-WebSocket-Version: 13\r\n\
Origin: https://www.example.com\r\n\
Sec-WebSocket-Protocol: pushline.v1\r\n\
Sec-WebSocket-Extensions: permessage-deflate\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
Connection: keep-alive, Upgrade\r\n\
Sec-Fetch-Dest: empty\r\n\
Sec-Fetch-Mode: websocket\r\n\
Sec-Fetch-Site: same-site\r\n\
Pragma: no-cache\r\n\
Cache-Control: no-cache\r\n\
Upgrade: websocket\r\n\r\n";

const CURL_POST: &[u8] = b"POST /channels/news HTTP/1.1\r\n\
Host: localhost:8080\r\n\
User-Agent: curl/8.5.0\r\n\
Accept: */*\r\n\
Content-Length: 5\r\n\
Content-Type: application/x-www-form-urlencoded\r\n\r\n";

const WRK_GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";

fn ours(bytes: &[u8], space: &mut HeaderSpace) -> usize {
    match parse_prefix(bytes, space) {
        Ok(Parsed::Complete(request)) => black_box(&request).head_len(),
        Ok(Parsed::Partial) | Err(_) => unreachable!("the heads here are whole and valid"),
    }
}

fn theirs(bytes: &[u8], look: impl Fn(&[httparse::Header<'_>])) -> usize {
    // As its users write it: the room for the headers is uninitialised, which is its fastest way.
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => {
            look(black_box(&request).headers);
            length
        }
        Ok(httparse::Status::Partial) | Err(_) => unreachable!("the heads here are whole"),
    }
}

/// The fields our parser reads while it parses.
fn telling_fields(headers: &[httparse::Header<'_>]) {
    const NAMES: [&str; 5] =
        ["host", "connection", "content-length", "transfer-encoding", "expect"];
    let mut found = [None; NAMES.len()];
    for header in headers {
        for (name, found) in NAMES.iter().zip(&mut found) {
            if header.name.eq_ignore_ascii_case(name) {
                *found = Some(header.value);
            }
        }
    }
    black_box(found);
}

fn heads(criterion: &mut Criterion) {
    let cases = [
        ("browser_sse", BROWSER_SSE),
        ("browser_ws", BROWSER_WS),
        ("curl_post", CURL_POST),
        ("wrk_get", WRK_GET),
    ];
    for (name, head) in cases {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(head.len() as u64));
        let mut space = HeaderSpace::new();
        group.bench_function("pushline", |bencher| {
            bencher.iter(|| ours(black_box(head), &mut space));
        });
        group.bench_function("httparse", |bencher| {
            bencher.iter(|| theirs(black_box(head), |_| {}));
        });
        group.bench_function("httparse_and_fields", |bencher| {
            bencher.iter(|| theirs(black_box(head), telling_fields));
        });
        group.finish();
    }
}

criterion_group!(benches, heads);
criterion_main!(benches);
