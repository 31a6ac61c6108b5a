//! Each limit on real sockets: a clear refusal, a metric that counts it, and acceptance once there
//! is room again. (Times of heads, bodies and idle connections, and connections in all, are in
//! `http_surface`; the policies for slow readers in `slow_consumers`; history's memory in
//! `sse_streams`.)

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::http::Chunked;
use crate::common::program::free_ports;
use crate::common::sse::expect_empty_stream;
use crate::common::ws::{CLOSE, RawWs, TEXT, frame, header};
use crate::common::{
    Conn, Response, Sse, TestServer, await_that, fetch, metric, post, request, seq_of,
};
use crate::start::driver::has_io_uring;
use pushline::config::ClientAddress;
use pushline::limits::{DESCRIPTORS_PER_WORKER, DESCRIPTORS_RESERVED, SLOTS_RESERVED};
use socket2::{Domain, Socket, Type};

fn expect_refusal(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.error_code()), (status, code.to_owned()));
    assert!(response.header("retry-after").is_some(), "it says when to come back");
}

fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("a loopback address");
    socket.connect(&addr.into()).expect("the server accepts");
    socket.into()
}

fn served(stream: TcpStream) -> Conn {
    let mut conn = Conn::over(stream);
    conn.send(request("GET", "/", &[], None));
    assert_eq!(conn.response().status, 200);
    conn
}

#[test]
fn connections_of_one_address() {
    let server = TestServer::with(|settings| settings.address_connections_max = Some(2));
    let [crowded, other] = [Ipv4Addr::new(127, 0, 0, 8), Ipv4Addr::new(127, 0, 0, 9)];
    let held = [(); 2].map(|()| served(connect_from(crowded, server.addr)));
    let mut refused = Conn::over(connect_from(crowded, server.addr));
    expect_refusal(&refused.response(), 503, "too_many_from_address");
    refused.expect_end();
    served(connect_from(other, server.addr));
    let key = "pushline_connection_refusals_total{reason=\"address\"}";
    assert_eq!(metric(server.admin, key), 1);
    drop((held, refused));
    await_that("the places are free again", || server.open() == 0);
    served(connect_from(crowded, server.addr));
}

/// A page that comes while the server is full must come back by itself: to an EventSource any
/// status but 200 is final (WHATWG HTML 9.2.3).
#[test]
fn an_event_source_there_is_no_room_for_is_told_when_to_come_back() {
    let server = TestServer::with(|settings| settings.connections_max = Some(1));
    let held = served(TcpStream::connect(server.addr).expect("the server accepts"));
    let accept = [("Accept", "text/html, text/event-stream;q=0.9")];
    let mut browser = Conn::open(server.addr);
    browser.send(request("GET", "/sse?channel=c", &accept, None));
    expect_empty_stream(&mut browser, "too_many_connections");
    let honest = |method: &str, target: &str, headers: &[(&str, &str)]| {
        fetch(server.addr, method, target, headers, None)
    };
    let without_accept = honest("GET", "/sse?channel=c", &[("Accept", "*/*")]);
    expect_refusal(&without_accept, 503, "too_many_connections");
    expect_refusal(&honest("GET", "/ws?channel=c", &accept), 503, "too_many_connections");
    expect_refusal(&honest("POST", "/channels/c", &accept), 503, "too_many_connections");
    drop((held, browser));
    await_that("there is room again", || honest("GET", "/", &[]).status == 200);
}

/// A server that trusts 127.0.0.1 to name clients in this way.
fn behind_proxies(client_address: ClientAddress) -> TestServer {
    TestServer::with(|settings| {
        settings.address_connections_max = Some(1);
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        settings.client_address = client_address;
    })
}

/// The answer to a connection from `source` that begins with these bytes; it stays open.
fn said_by(server: &TestServer, source: Ipv4Addr, bytes: &[u8]) -> (Conn, u16) {
    let mut conn = Conn::over(connect_from(source, server.addr));
    conn.send(bytes);
    let status = conn.response().status;
    (conn, status)
}

fn clients(server: &TestServer) -> Vec<String> {
    let page = fetch(server.admin, "GET", "/v1/connections", &[], None).json();
    let clients = page["connections"].as_array().expect("a list").iter();
    let mut clients: Vec<String> =
        clients.map(|entry| entry["client"].as_str().expect("an address").into()).collect();
    clients.sort();
    clients
}

const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 8);

#[test]
fn a_connection_counts_for_whom_the_proxy_protocol_names() {
    let server = behind_proxies(ClientAddress::ProxyProtocol);
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let v1 = |client: &str| format!("PROXY {client} 1 2\r\n{get}").into_bytes();
    let (_kept, status) = said_by(&server, PROXY, &v1("TCP4 192.0.2.1 192.0.2.9"));
    assert_eq!(status, 200);
    let (_kept, status) = said_by(&server, PROXY, &v1("TCP6 2001:db8::1 ::1"));
    assert_eq!(status, 200);
    assert_eq!(clients(&server), ["192.0.2.1", "2001:db8::1"]);
    // The same client by version 2, and another address of the same /64.
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x09\0\x01\0\x02",
        get.as_bytes(),
    ];
    assert_eq!(said_by(&server, PROXY, &v2.concat()).1, 503);
    assert_eq!(said_by(&server, PROXY, &v1("TCP6 2001:db8::2 ::1")).1, 503);
    // The proxy itself is not a client, however often it checks whether we are alive.
    let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], get.as_bytes()].concat();
    let _checks = [(); 3].map(|()| {
        let (kept, status) = said_by(&server, PROXY, &local);
        assert_eq!(status, 200);
        kept
    });
    // An untrusted peer is a client, and its header a bad request.
    assert_eq!(said_by(&server, STRANGER, &v1("TCP4 192.0.2.7 192.0.2.9")).1, 400);
    // A trusted proxy that does not name a client is cut.
    let mut silent = Conn::over(connect_from(PROXY, server.addr));
    silent.send(get);
    silent.expect_gone();
}

#[test]
fn a_request_counts_for_whom_a_trusted_proxys_header_names() {
    for (way, name, client) in [
        (ClientAddress::XForwardedFor, "X-Forwarded-For", "203.0.113.1, 192.0.2.1, 127.0.0.1"),
        (ClientAddress::Forwarded, "Forwarded", "for=203.0.113.1, for=\"192.0.2.1:80\""),
    ] {
        let server = behind_proxies(way);
        let get = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{name}: {client}\r\n\r\n");
        let (mut kept, status) = said_by(&server, PROXY, get.as_bytes());
        assert_eq!(status, 200);
        assert_eq!(clients(&server), ["192.0.2.1"]);
        kept.send(&get);
        assert_eq!(kept.response().status, 200, "the same connection is no second one");
        assert_eq!(said_by(&server, PROXY, get.as_bytes()).1, 503);
        let (_kept, status) = said_by(&server, STRANGER, get.as_bytes());
        assert_eq!(status, 200, "it counts for itself, whatever it says");
        assert_eq!(clients(&server), ["127.0.0.8", "192.0.2.1"]);
    }
}

#[test]
fn new_connections_a_second() {
    const RATE: u32 = 5;
    let server = TestServer::with(|settings| {
        settings.workers = Some(1);
        settings.accept_rate = Some(RATE);
    });
    let mut conns: Vec<Conn> = (0..4 * RATE).map(|_| Conn::open(server.addr)).collect();
    let mut refused = 0;
    for conn in &mut conns {
        conn.send(request("GET", "/", &[], None));
        let response = conn.response();
        if response.status != 200 {
            expect_refusal(&response, 503, "too_fast");
            refused += 1;
        }
    }
    assert!(refused > 0 && refused <= 3 * RATE, "{refused}");
    let key = "pushline_connection_refusals_total{reason=\"rate\"}";
    assert_eq!(metric(server.admin, key), u64::from(refused));
    await_that("the bucket fills again", || {
        fetch(server.addr, "GET", "/", &[], None).status == 200
    });
}

/// It cannot be known beforehand whose lane is full: what matters is that a refusal is complete,
/// and that what was accepted arrives.
#[test]
fn events_that_wait_for_a_worker() {
    let server = TestServer::with(|settings| {
        settings.workers = Some(1);
        settings.lane_events = 1;
    });
    let mut reader = Sse::open(server.addr, "channel=c");
    let mut publishers: Vec<Conn> = (0..32).map(|_| Conn::open(server.addr)).collect();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    await_that("a publish finds the lane full", || {
        for publisher in &mut publishers {
            publisher.send(request("POST", "/channels/c", &[], Some(b"x")));
        }
        for answer in publishers.iter_mut().map(Conn::response) {
            if answer.status == 200 {
                accepted.push(seq_of(answer.json()["id"].as_str().expect("an id")));
            } else {
                expect_refusal(&answer, 503, "busy");
                refused += 1;
            }
        }
        refused > 0
    });
    accepted.sort_unstable();
    let arrived = reader.events(accepted.len()).into_iter().map(|event| seq_of(&event.id));
    assert_eq!(arrived.collect::<Vec<_>>(), accepted);
    assert!(metric(server.admin, "pushline_log_refusals_total{reason=\"busy\"}") >= refused);
}

/// Publishes faster than three times a second, as long as this thread does not stand still; returns
/// how many were taken, and the refusal.
fn post_until_refused(conn: &mut Conn) -> (usize, Response) {
    let mut answers = (0..1000).map(|_| post(conn, "c", b"x")).enumerate();
    answers.find(|(_, answer)| answer.status != 200).expect("a thousand in a row are too many")
}

#[test]
fn publishes_of_one_connection_a_second() {
    let server = TestServer::with(|settings| settings.connection_publish_rate = Some(3));
    let mut conn = Conn::open(server.addr);
    let (taken, refused) = post_until_refused(&mut conn);
    assert!(taken >= 3, "{taken}");
    expect_refusal(&refused, 429, "publish_rate");
    assert_eq!(post(&mut Conn::open(server.addr), "c", b"of another").status, 200);
    await_that("it may again", || post(&mut conn, "c", b"x").status == 200);
}

/// A body of lines is charged by what goes to the log at once, not by the line.
#[test]
fn lines_are_no_publishes_of_one_connection_each() {
    let server = TestServer::with(|settings| settings.connection_publish_rate = Some(3));
    let lines = "{\"channel\":\"c\",\"data\":1}\n".repeat(300);
    let mut conn = Conn::open(server.addr);
    conn.send(request("POST", "/publish", &[], Some(lines.as_bytes())));
    let answer = conn.response();
    assert_eq!((answer.status, &answer.json()["published"]), (200, &300.into()));
}

#[test]
fn publishes_of_one_channel_a_second() {
    let server = TestServer::with(|settings| settings.channel_default.publish_rate = Some(3));
    let mut conn = Conn::open(server.addr);
    let (taken, refused) = post_until_refused(&mut conn);
    assert!(taken >= 3, "{taken}");
    expect_refusal(&refused, 429, "publish_rate");
    assert!(metric(server.admin, "pushline_log_refusals_total{reason=\"rate\"}") > 0);
    assert_eq!(post(&mut conn, "another", b"x").status, 200);
    await_that("it may again", || post(&mut conn, "c", b"x").status == 200);
}

#[test]
fn channels_in_all() {
    let server = TestServer::with(|settings| settings.channels_max = 2);
    let mut conn = Conn::open(server.addr);
    assert_eq!(post(&mut conn, "a", b"x").status, 200);
    let mut kept = RawWs::bare(server.addr, "channel=b");
    expect_refusal(&post(&mut conn, "c", b"x"), 503, "too_many_channels");
    let refused = fetch(server.addr, "GET", "/sse?channel=c", &[], None);
    expect_refusal(&refused, 503, "too_many_channels");
    let mut browser = Conn::open(server.addr);
    browser.send(request("GET", "/sse?channel=c", &[("Accept", "text/event-stream")], None));
    expect_empty_stream(&mut browser, "too_many_channels");
    assert!(metric(server.admin, "pushline_log_refusals_total{reason=\"channels\"}") >= 2);
    assert_eq!(post(&mut conn, "b", b"those there are go on").status, 200);
    assert_eq!(kept.answer().payload, b"those there are go on");
}

/// The program with fewer descriptors, and so with smaller tables.
struct Small {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
}

impl Small {
    fn start(descriptors: u64, driver: &str) -> Self {
        let port = free_ports(2);
        let [addr, admin] =
            [port, port + 1].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let line = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        let child = Command::new("sh")
            .args(["-c", &line, env!("CARGO_BIN_EXE_pushline"), "--workers", "1"])
            .args(["--driver", driver])
            .args(["--listen", &addr.to_string(), "--admin", &admin.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        await_that("it listens", || TcpStream::connect(addr).is_ok());
        Self { child, addr, admin }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections that a small table of descriptors has room for.
const ROOM: u64 = 28;

/// The table of descriptors is full: new connections are answered from the slots reserved for that;
/// when those are taken too, they wait for one; and once connections leave, all is as before. Each
/// time the kernel finds the table full, it closes one connection without an answer.
fn fill_the_descriptor_table(driver: &str, descriptors: u64) {
    let server = Small::start(descriptors, driver);
    let room = metric(server.admin, "pushline_connections_max");
    assert!(room > 16, "{room}");
    await_that("the first look is gone", || {
        metric(server.admin, "pushline_connections{transport=\"http\",worker=\"0\"}") == 0
    });
    let held: Vec<Conn> = (0..room)
        .map(|_| served(TcpStream::connect(server.addr).expect("the server accepts")))
        .collect();
    // They do not leave when told to, so that the reserved slots are taken, too, and then by others.
    let mut refused: Vec<Conn> = (0..2 * SLOTS_RESERVED).map(|_| Conn::open(server.addr)).collect();
    let mut told = 0;
    for conn in &mut refused {
        // A connection that was closed without an answer may show here.
        let _ = conn.stream.write_all(&request("GET", "/", &[], None));
    }
    for conn in &mut refused {
        while conn.fill_or_cut() {}
        if conn.buffer.starts_with(b"HTTP/1.1 503 ") {
            expect_refusal(&conn.response(), 503, "too_many_connections");
            told += 1;
        }
    }
    assert!(told > refused.len() * 9 / 10, "{told} of {}", refused.len());
    let key = "pushline_connection_refusals_total{reason=\"room\"}";
    assert_eq!(metric(server.admin, key), told as u64);
    drop((held, refused));
    await_that("there is room again", || fetch(server.addr, "GET", "/", &[], None).status == 200);
    let again: Vec<Conn> = (0..room / 2)
        .map(|_| served(TcpStream::connect(server.addr).expect("the server accepts")))
        .collect();
    assert_eq!(again.len() as u64, room / 2);
}

#[test]
fn a_full_descriptor_table() {
    if has_io_uring() {
        // A ring has a table of its own.
        fill_the_descriptor_table("io_uring", u64::from(SLOTS_RESERVED) + ROOM);
    }
}

#[test]
fn a_full_descriptor_table_on_epoll() {
    let others = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_WORKER;
    fill_the_descriptor_table("epoll", others + u64::from(SLOTS_RESERVED) + ROOM);
}

/// Bodies and messages that have begun share a bound; those that hold most go first, and the others
/// never notice.
#[test]
fn unfinished_input_of_all_connections_together() {
    const BODY: usize = 15 << 10;
    let server = TestServer::with(|settings| {
        settings.workers = Some(1);
        settings.event_bytes_max = 16 << 10;
        settings.worker_input_bytes = 256 << 10;
    });
    let part_of_post = |conn: &mut Conn| {
        let head =
            format!("POST /channels/c HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n");
        conn.send(head);
        conn.send(vec![b'x'; BODY - 1]);
    };
    let mut modest: Vec<Conn> = (0..8).map(|_| Conn::open(server.addr)).collect();
    modest.iter_mut().for_each(part_of_post);
    let mut greedy: Vec<RawWs> =
        (0..6).map(|n| RawWs::bare(server.addr, &format!("channel=g{n}"))).collect();
    for ws in &mut greedy {
        ws.send([&header(true, TEXT, 45 << 10, 0x80)[..], &[0; 4], &[b'x'; 40 << 10]].concat());
    }
    let overloaded = "pushline_closes_total{reason=\"overloaded\"}";
    await_that("some are cut", || {
        let silent = |ws: &mut RawWs| ws.conn.is_silent_for(Duration::from_millis(1));
        greedy.iter_mut().map(silent).filter(|silent| !silent).count() > 1
    });
    for ws in greedy.iter_mut().filter(|ws| !ws.conn.buffer.is_empty()) {
        assert_eq!(ws.answer().close(), (1013, "overloaded".to_owned()));
        ws.send(vec![b'x'; 5 << 10]);
        ws.send(frame(true, CLOSE, &1013u16.to_be_bytes()));
        ws.conn.expect_gone();
    }
    await_that("they are gone", || metric(server.admin, overloaded) > 1);
    for conn in &mut modest {
        conn.send("x");
        assert_eq!(conn.response().status, 200);
    }
}

/// An NDJSON publisher that is cut for what it holds is told how far it got.
#[test]
fn a_line_that_holds_too_much_ends_its_body_with_a_summary() {
    let server = TestServer::with(|settings| {
        settings.workers = Some(1);
        settings.event_bytes_max = 64 << 10;
        settings.worker_input_bytes = 64 << 10;
    });
    // At least a message with the largest event fits, which takes six times its size; two take
    // more.
    let mut publishers: Vec<Chunked> =
        (0..4).map(|_| Chunked::open(server.addr, "/publish", &[])).collect();
    for publisher in &mut publishers {
        publisher.chunk("{\"channel\":\"c\",\"data\":1}\n{\"channel\":\"c\",\"data\":\"");
        publisher.chunk("x".repeat(140 << 10));
    }
    await_that("one is refused", || {
        let refused =
            |publisher: &mut Chunked| !publisher.conn.is_silent_for(Duration::from_millis(1));
        publishers.iter_mut().any(refused)
    });
    let refused = publishers.iter_mut().find(|publisher| !publisher.conn.buffer.is_empty());
    let response = refused.expect("one is refused").conn.response();
    assert_eq!((response.status, response.error_code()), (503, "input_full".to_owned()));
    assert_eq!((&response.json()["published"], &response.json()["line"]), (&1.into(), &2.into()));
}

/// No client can keep others out by opening connections and sending nothing.
#[test]
fn a_full_table_makes_room_at_the_cost_of_the_client_that_was_silent_for_longest() {
    let server = TestServer::with(|settings| {
        settings.connections_max = Some(4);
        // Each worker knows only its own oldest.
        settings.workers = Some(1);
    });
    let mut stream = Sse::open(server.addr, "channel=c");
    let mut silent: Vec<Conn> = Vec::new();
    for count in 2..=4 {
        let mut conn = Conn::open(server.addr);
        conn.send("G");
        silent.push(conn);
        await_that("it is counted", || server.open() == count);
    }
    // A newcomer may still make its request.
    await_that("there is room", || fetch(server.addr, "GET", "/", &[], None).status == 200);
    silent[0].expect_gone();
    silent[2].send("ET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(silent[2].response().status, 200);
    crate::common::publish(server.addr, "c", "still here");
    assert_eq!(stream.event().data, "still here");
}
