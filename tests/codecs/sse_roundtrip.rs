//! What a browser makes of our event stream: an EventSource parser written after the algorithm in
//! WHATWG HTML ("Interpreting an event stream") reads what the encoders wrote, and any data comes
//! out as it was published, with LF for line ends.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use pushline::proto::cursor::{Epoch, EventId};
use pushline::proto::data::{Data, EventView};
use pushline::proto::envelope::GapView;
use pushline::proto::sse;

const EPOCH_BITS: u64 = 77;

#[derive(Debug, PartialEq, Eq)]
struct Dispatched {
    event_type: String,
    data: String,
    last_event_id: String,
}

/// The state of the specification's parser.
#[derive(Default)]
struct EventSource {
    data: String,
    event_type: String,
    id_buffer: String,
    retry_ms: Option<u64>,
    dispatched: Vec<Dispatched>,
}

impl EventSource {
    fn read(stream: &[u8]) -> Self {
        let text = String::from_utf8_lossy(stream);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut source = Self::default();
        let mut rest = text;
        // A line without its end is not a line yet.
        while let Some(end) = rest.find(['\n', '\r']) {
            source.line(&rest[..end]);
            let line_end = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
            rest = &rest[end + line_end..];
        }
        assert_eq!(rest, "", "the stream ends inside a line");
        source
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match line.split_once(':') {
            Some(("", _)) => return,
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            "event" => self.event_type = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id_buffer = value.to_owned(),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok();
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        if self.data.is_empty() {
            self.event_type.clear();
            return;
        }
        let mut data = std::mem::take(&mut self.data);
        data.pop();
        let event_type = match std::mem::take(&mut self.event_type) {
            none if none.is_empty() => "message".to_owned(),
            some => some,
        };
        let last_event_id = self.id_buffer.clone();
        self.dispatched.push(Dispatched { event_type, data, last_event_id });
    }
}

fn id(seq: u64) -> EventId {
    EventId { epoch: Epoch::from_random(EPOCH_BITS), seq }
}

fn view<'a>(event_type: Option<&'a str>, data: Data<'a>) -> EventView<'a> {
    EventView { id: id(9), channel: "news", event_type, data, attributes: None }
}

fn only_one(stream: &[u8]) -> Dispatched {
    let mut dispatched = EventSource::read(stream).dispatched;
    assert_eq!(dispatched.len(), 1, "{:?}", stream.escape_ascii().to_string());
    dispatched.remove(0)
}

fn with_line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

#[test]
fn every_kind_of_data_arrives_as_published() {
    for text in [
        "hello",
        "",
        " ",
        "  two",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "a\n",
        "\na",
        "a\rb\r\nc\nd",
        "\r\r\n\n",
        "\u{feff}bom",
        "nul\0nul",
        ":comment",
        "id: 1",
        "data: x\n\nevent: y",
        "\u{2028}\u{85}",
        "é\r€",
    ] {
        let mut stream = Vec::new();
        sse::write_event(&mut stream, &view(Some("kind"), Data::Text(text)));
        let expected = Dispatched {
            event_type: "kind".into(),
            data: with_line_feeds(text),
            last_event_id: id(9).to_string(),
        };
        assert_eq!(only_one(&stream), expected, "{text:?}");
    }
}

#[test]
fn the_wire_is_as_documented() {
    let cases: [(Option<&str>, Data<'_>, &str); 4] = [
        (None, Data::Text("hi"), "data: hi\n\n"),
        (Some("t"), Data::Text("a\nb"), "event: t\ndata: a\ndata: b\n\n"),
        (None, Data::Text(""), "data: \n\n"),
        (None, Data::Binary(&[0xff, 0, 1, 2]), "data: /wABAg==\n\n"),
    ];
    for (event_type, data, wire) in cases {
        let mut stream = Vec::new();
        sse::write_event(&mut stream, &view(event_type, data));
        assert_eq!(String::from_utf8_lossy(&stream), format!("id: {}\n{wire}", id(9)));
    }
}

#[test]
fn an_enveloped_event_is_one_line_of_json() {
    let mut stream = Vec::new();
    sse::write_event_enveloped(&mut stream, &view(Some("t"), Data::Json("{\r\n\"a\": [1,\n2]}")));
    let event = only_one(&stream);
    assert_eq!(event.event_type, "t");
    let expected = serde_json::json!({
        "id": id(9).to_string(), "channel": "news", "event": "t", "data": {"a": [1, 2]}
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&event.data).ok(), Some(expected));
    assert!(!event.data.contains('\n'));
}

#[test]
fn a_gap_tells_what_is_missing_and_moves_the_cursor() {
    let gap = GapView {
        id: id(4),
        channel: "news",
        reason: "evicted",
        after: "old\"\n-1",
        first: Some(id(5)),
    };
    let data = serde_json::json!({
        "channel": "news", "reason": "evicted", "after": "old\"\n-1", "first": id(5).to_string()
    });
    let mut bare = Vec::new();
    sse::write_gap(&mut bare, &gap);
    let event = only_one(&bare);
    assert_eq!(
        (event.event_type.as_str(), event.last_event_id),
        ("pushline.gap", id(4).to_string())
    );
    assert_eq!(serde_json::from_str::<serde_json::Value>(&event.data).ok(), Some(data.clone()));

    let mut enveloped = Vec::new();
    sse::write_gap_enveloped(&mut enveloped, &GapView { first: None, ..gap });
    let event = only_one(&enveloped);
    let envelope: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
    assert_eq!(event.event_type, "pushline.gap");
    assert_eq!(envelope["event"], "pushline.gap");
    assert_eq!(envelope["id"], id(4).to_string());
    assert_eq!(envelope["data"]["after"], data["after"]);
    assert_eq!(envelope["data"]["first"], serde_json::Value::Null);
}

#[test]
fn preamble_and_heartbeats_dispatch_nothing_and_set_retry() {
    let mut stream = Vec::new();
    sse::write_preamble(&mut stream, 2_345, None);
    stream.extend_from_slice(sse::HEARTBEAT);
    sse::write_event(&mut stream, &view(None, Data::Text("one")));
    stream.extend_from_slice(sse::HEARTBEAT);
    sse::write_event(&mut stream, &view(None, Data::Text("two")));
    stream.extend_from_slice(sse::HEARTBEAT);
    let source = EventSource::read(&stream);
    assert_eq!(source.retry_ms, Some(2_345));
    let data: Vec<_> = source.dispatched.iter().map(|event| event.data.as_str()).collect();
    assert_eq!(data, ["one", "two"]);
}

#[test]
fn the_head_opens_a_stream_without_length() {
    let mut head = Vec::new();
    let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
    sse::write_head(&mut head, date, b"Access-Control-Allow-Origin: *\r\n");
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    assert_eq!(response.parse(&head), Ok(httparse::Status::Complete(head.len())));
    assert_eq!((response.version, response.code), (Some(1), Some(200)));
    let value = |name: &str| {
        let header = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        header.map(|h| String::from_utf8_lossy(h.value).into_owned())
    };
    assert_eq!(value("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(value("cache-control").as_deref(), Some("no-cache, no-transform"));
    assert_eq!(value("x-accel-buffering").as_deref(), Some("no"));
    assert_eq!(value("x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(value("connection").as_deref(), Some("close"));
    assert_eq!(value("date").as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(value("access-control-allow-origin").as_deref(), Some("*"));
    assert_eq!(value("content-length").or(value("transfer-encoding")), None);
}

/// Text in which line ends, NUL, BOM and look-alikes of fields are as common as letters.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\r".to_owned()),
        Just("\r\n".to_owned()),
        Just("\0".to_owned()),
        Just("\u{feff}".to_owned()),
        Just(" ".to_owned()),
        Just("id: 7".to_owned()),
        Just(":".to_owned()),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_arrives_with_line_feeds(texts in prop::collection::vec(hostile_text(), 1..4)) {
        let mut stream = Vec::new();
        sse::write_preamble(&mut stream, 1, None);
        for text in &texts {
            sse::write_event(&mut stream, &view(None, Data::Text(text)));
        }
        let source = EventSource::read(&stream);
        let got: Vec<_> = source.dispatched.into_iter().map(|event| event.data).collect();
        let expected: Vec<_> = texts.iter().map(|text| with_line_feeds(text)).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn any_bytes_arrive_as_base64(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut stream = Vec::new();
        sse::write_event(&mut stream, &view(None, Data::Binary(&bytes)));
        prop_assert_eq!(STANDARD.decode(only_one(&stream).data).ok(), Some(bytes));
    }

    #[test]
    fn any_text_survives_the_envelope(text in hostile_text(), kind in "[^\\pC]{1,20}") {
        let mut stream = Vec::new();
        sse::write_event_enveloped(&mut stream, &view(Some(&kind), Data::Text(&text)));
        let event = only_one(&stream);
        let envelope: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        prop_assert_eq!(&event.event_type, &kind);
        prop_assert_eq!(envelope["data"].as_str(), Some(text.as_str()));
        prop_assert_eq!(envelope["event"].as_str(), Some(kind.as_str()));
    }
}
