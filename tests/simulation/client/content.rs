//! Events to publish: every kind of payload, with line ends and quotes in awkward places.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pushline::log::event::Kind;
use serde_json::{Value, json};

use super::Ctx;
use crate::truth::Content;

const TEXTS: [&str; 8] = [
    "",
    "plain",
    "a\nb",
    "a\r\nb\r",
    " leading",
    "\"quoted\\",
    "\u{e4}\u{1f980}\u{2028}",
    ":\n\n:",
];

/// A fresh event for the channel, of which the truth is told.
pub fn make(ctx: &mut Ctx<'_>, channel: String, kinds: &[Kind]) -> Content {
    let tag = ctx.truth.next_tag();
    let kind = kinds[ctx.rng.usize(0..kinds.len())];
    let size = match ctx.rng.u8(0..8) {
        0 => ctx.rng.usize(0..=ctx.plan.data_bytes_max),
        _ => ctx.rng.usize(0..60),
    };
    let text = TEXTS[ctx.rng.usize(0..TEXTS.len())];
    let filler = "x".repeat(size);
    let data = match kind {
        Kind::Text => format!("{tag};{text}{filler}").into_bytes(),
        Kind::Json => {
            let value = json!({ "a": tag, "text": text, "filler": filler });
            if ctx.rng.bool() {
                serde_json::to_vec_pretty(&value).expect("JSON")
            } else {
                value.to_string().into_bytes()
            }
        }
        Kind::Binary => {
            let mut data = format!("{tag};").into_bytes();
            data.extend((0..size).map(|_| ctx.rng.u8(..)));
            data
        }
    };
    let event_type = (ctx.rng.u8(0..4) == 0).then(|| format!("type{}", ctx.rng.u8(0..3)));
    Content { tag, channel, kind, data, event_type, key: None }
}

/// The form that `/publish` and `publish` take.
pub fn fields(content: &Content) -> serde_json::Map<String, Value> {
    let mut fields = serde_json::Map::new();
    fields.insert("channel".into(), content.channel.clone().into());
    match content.kind {
        Kind::Text => fields.insert("data".into(), text(content).into()),
        Kind::Json => {
            fields.insert("data".into(), serde_json::from_str(text(content)).expect("JSON"))
        }
        Kind::Binary => {
            fields.insert("data_base64".into(), BASE64_STANDARD.encode(&content.data).into())
        }
    };
    if let Some(event_type) = &content.event_type {
        fields.insert("event".into(), event_type.clone().into());
    }
    if let Some(key) = &content.key {
        fields.insert("key".into(), key.clone().into());
    }
    fields
}

fn text(content: &Content) -> &str {
    std::str::from_utf8(&content.data).expect("only binary is not text")
}

/// JSON that goes through [`fields`] comes out in serde's own form.
pub fn in_compact_form(mut content: Content) -> Content {
    if content.kind == Kind::Json {
        let value: Value = serde_json::from_slice(&content.data).expect("JSON");
        content.data = value.to_string().into_bytes();
    }
    content
}

/// Panics unless an EventSource's `data` is that of the event.
pub fn check_sse(content: &Content, event: &str, data: &str) {
    assert_eq!(event, content.event_type.as_deref().unwrap_or(""));
    match content.kind {
        Kind::Binary => assert_eq!(data, BASE64_STANDARD.encode(&content.data)),
        Kind::Text | Kind::Json => {
            let lines = text(content).replace("\r\n", "\n").replace('\r', "\n");
            assert_eq!(data, lines);
        }
    }
}

/// Panics unless the envelope contains what was published.
pub fn check_envelope(content: &Content, envelope: &Value) {
    assert_eq!(envelope["channel"], content.channel[..]);
    let event_type = envelope.get("event").and_then(Value::as_str);
    assert_eq!(event_type, content.event_type.as_deref());
    match content.kind {
        Kind::Text => assert_eq!(envelope["data"], text(content)),
        Kind::Json => {
            let value: Value = serde_json::from_str(text(content)).expect("JSON");
            assert_eq!(envelope["data"], value);
        }
        Kind::Binary => {
            assert_eq!(envelope["data_base64"], BASE64_STANDARD.encode(&content.data));
        }
    }
}
