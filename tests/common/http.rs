//! A raw HTTP/1.1 client: sends what it is told, byte for byte, and reads answers strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use pushline::tools::wire::head::Head;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::PATIENCE;

/// A connection that counts its bytes.
pub struct Conn {
    pub stream: TcpStream,
    /// What has come and was not taken yet.
    pub buffer: Vec<u8>,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Conn {
    pub fn open(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).expect("the server accepts"))
    }

    /// With a receive buffer of about this many bytes, so that it is soon full.
    pub fn open_narrow(addr: SocketAddr, recv_buffer_bytes: usize) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(recv_buffer_bytes).expect("a receive buffer");
        socket.connect(&SockAddr::from(addr)).expect("the server accepts");
        Self::over(socket.into())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, buffer: Vec::new(), sent_bytes: 0, received_bytes: 0 }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.stream.write_all(bytes).expect("the server reads");
        self.sent_bytes += bytes.len() as u64;
    }

    /// Sends each byte in a packet of its own, as far as the kernel allows.
    pub fn send_per_byte(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// Half-closes: we send no more, but still read.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("a connection to half-close");
    }

    /// One read; how many bytes came. A test that started the server owns a ring of its own, whose
    /// completions interrupt a read that has a timeout: that is neither a failure nor an end.
    fn read(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        let count = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&piece[..count]);
        self.received_bytes += count as u64;
        Ok(count)
    }

    /// Reads what there is; returns false at the end of the stream.
    pub fn fill(&mut self) -> bool {
        match self.read() {
            Ok(count) => count > 0,
            Err(error) if is_timeout(&error) => panic!(
                "the server says nothing; so far: {:?}",
                String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(2000)])
            ),
            Err(error) => panic!("reading: {error}"),
        }
    }

    /// The same if the connection may be cut in any way: a reset is an end too.
    pub fn fill_or_cut(&mut self) -> bool {
        match self.read() {
            Ok(count) => count > 0,
            Err(error) => {
                assert!(!is_timeout(&error), "the server says nothing");
                false
            }
        }
    }

    /// Reads everything up to and including `end`.
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut from = 0;
        loop {
            let found = self.buffer[from..].windows(end.len()).position(|window| window == end);
            if let Some(place) = found {
                return self.buffer.drain(..from + place + end.len()).collect();
            }
            from = self.buffer.len().saturating_sub(end.len() - 1);
            assert!(
                self.fill(),
                "the stream ended before {:?}: {:?}",
                String::from_utf8_lossy(end),
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "the stream ended after {} of {count}", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads everything up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Checks that the stream ends, with nothing before its end.
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "before the end: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Checks that the connection ends, in whatever way (a reset counts), with nothing more before
    /// that.
    pub fn expect_gone(&mut self) {
        if self.buffer.is_empty() {
            self.fill_or_cut();
        }
        assert!(self.buffer.is_empty(), "{:?}", String::from_utf8_lossy(&self.buffer));
    }

    /// Whether nothing comes for this long (the only way to see that something does not happen is
    /// to wait).
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        let outcome = self.read();
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        outcome.is_err_and(|error| is_timeout(&error))
    }

    /// The next answer, including interim ones.
    pub fn response(&mut self) -> Response {
        let mut response = self.response_head();
        if let Some(length) = response.header("content-length") {
            let length = length.parse().expect("a length");
            response.body = self.exactly(length);
        }
        response
    }

    /// The head of the next answer. Whatever follows is kept.
    pub fn response_head(&mut self) -> Response {
        let bytes = self.until(b"\r\n\r\n");
        let text = std::str::from_utf8(&bytes).expect("a head is text");
        let mut lines = text.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        assert!(status_line.starts_with("HTTP/1.1 "), "{status_line:?}");
        assert!(lines.all(|line| line.contains(": ")), "{text:?}");
        let (head, _) = Head::parse(&bytes).expect("a head").expect("a whole one");
        let fields = head.fields();
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Response { status: head.status, headers: headers.collect(), body: Vec::new() }
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The `code` of an error, after checking that it is one.
    pub fn error_code(&self) -> String {
        let json = self.json();
        let error = &json["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        error["code"].as_str().expect("a code").to_owned()
    }
}

/// A request with `Host`, and with `Content-Length` if it has a body.
pub fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// One request on a connection of its own.
pub fn fetch(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Response {
    let mut conn = Conn::open(addr);
    conn.send(request(method, target, headers, body));
    if method == "HEAD" { conn.response_head() } else { conn.response() }
}

/// `GET`, on a connection of its own.
pub fn get(addr: SocketAddr, target: &str) -> Response {
    fetch(addr, "GET", target, &[], None)
}

/// Publishes on this connection, which stays open.
pub fn post(conn: &mut Conn, channel: &str, body: &[u8]) -> Response {
    conn.send(request("POST", &format!("/channels/{channel}"), &[], Some(body)));
    conn.response()
}

/// The answer to these bytes, which ends their connection.
pub fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Response {
    let mut conn = Conn::open(addr);
    conn.send(bytes);
    let response = conn.response();
    conn.expect_end();
    response
}

/// A chunked body being sent.
pub struct Chunked {
    pub conn: Conn,
}

impl Chunked {
    pub fn open(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut conn = Conn::open(addr);
        let mut all = vec![("Transfer-Encoding", "chunked")];
        all.extend_from_slice(headers);
        conn.send(request("POST", target, &all, None));
        Self { conn }
    }

    pub fn chunk(&mut self, data: impl AsRef<[u8]>) {
        let data = data.as_ref();
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\r\n");
        self.conn.send(bytes);
    }

    pub fn finish(mut self) -> Response {
        self.conn.send("0\r\n\r\n");
        self.conn.response()
    }
}

pub fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
