//! Readers of what the server writes, based on the specifications and on none of the server's own
//! code.

/// An HTTP/1.1 response's head.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Takes a complete head off the front of `input`, if there is one.
    pub fn take(input: &mut Vec<u8>) -> Option<Self> {
        let end = input.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = String::from_utf8(input.drain(..end + 4).collect()).expect("a head is text");
        let mut lines = text[..end].split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status = status.and_then(|line| line[..3].parse().ok()).expect("a status line");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header line");
            (name.to_ascii_lowercase(), value.to_string())
        };
        Some(Self { status, headers: lines.map(header).collect() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice");
        value
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

/// A whole response with a length.
#[derive(Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

/// Reads the responses of one connection.
#[derive(Debug, Default)]
pub struct Responses {
    head: Option<Head>,
}

impl Responses {
    /// Takes the next complete response off the front of `input`.
    pub fn take(&mut self, input: &mut Vec<u8>) -> Option<Response> {
        if self.head.is_none() {
            self.head = Head::take(input);
            if self.head.as_ref()?.status == 100 {
                self.head = None;
                return self.take(input);
            }
        }
        let length = self.head.as_ref()?.header("content-length").expect("a length");
        let length = length.parse().expect("a number");
        if input.len() < length {
            return None;
        }
        let body = input.drain(..length).collect();
        self.head.take().map(|head| Response { head, body })
    }
}

/// An event as an EventSource dispatches it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dispatched {
    pub id: String,
    pub event: String,
    pub data: String,
}

/// WHATWG HTML, section 9.2.6, for streams that end their lines in LF alone.
#[derive(Debug, Default)]
pub struct EventStream {
    event: String,
    data: String,
    /// The id with which a reconnect would ask.
    pub last_id: String,
    pub retry_ms: Option<u64>,
}

impl EventStream {
    /// Takes all complete lines off the front of `input`.
    pub fn take(&mut self, input: &mut Vec<u8>) -> Vec<Dispatched> {
        let end = input.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text: Vec<u8> = input.drain(..end).collect();
        let text = String::from_utf8(text).expect("a stream is UTF-8");
        assert!(!text.contains('\r'), "CR ends a line");
        text.split_terminator('\n').filter_map(|line| self.line(line)).collect()
    }

    fn line(&mut self, line: &str) -> Option<Dispatched> {
        if line.is_empty() {
            let (event, mut data) =
                (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
            return data.pop().map(|_| Dispatched { id: self.last_id.clone(), event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => {}
            "event" => self.event = value.into(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" => self.last_id = value.into(),
            "retry" => self.retry_ms = Some(value.parse().expect("digits")),
            _ => panic!("a field nobody knows: {line:?}"),
        }
        None
    }
}

/// What a server says on a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// RFC 6455 section 5.2, the client's side. The server does not fragment.
#[derive(Debug, Default)]
pub struct Frames {
    closed: bool,
}

impl Frames {
    /// Takes the next complete frame off the front of `input`.
    pub fn take(&mut self, input: &mut Vec<u8>) -> Option<Message> {
        assert!(!self.closed || input.is_empty(), "bytes behind a close frame: {input:?}");
        let (&first, &second) = (input.first()?, input.get(1)?);
        assert_eq!(first & 0xf0, 0x80, "final, nothing reserved: {first:#x}");
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (start, length) = match second {
            126 => (4, u64::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)),
            short => (2, u64::from(short)),
        };
        let least = [0, 0, 0, 0, 126, 0, 0, 0, 0, 0, 65_536];
        assert!(length >= least[start], "the shortest form of a length");
        let end = start + usize::try_from(length).ok()?;
        let payload = input.get(start..end)?.to_vec();
        input.drain(..end);
        let opcode = first & 0xf;
        assert!(opcode < 8 || payload.len() <= 125, "a control frame is short");
        Some(match opcode {
            1 => Message::Text(String::from_utf8(payload).expect("text is UTF-8")),
            2 => Message::Binary(payload),
            8 => {
                self.closed = true;
                let code = payload.get(..2).and_then(|code| code.try_into().ok());
                Message::Close(code.map(u16::from_be_bytes))
            }
            9 => Message::Ping(payload),
            10 => Message::Pong(payload),
            other => panic!("opcode {other}"),
        })
    }
}

/// A client's frame: masked, in one piece.
pub fn frame(opcode: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
