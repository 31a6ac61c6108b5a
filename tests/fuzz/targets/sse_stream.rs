//! Event streams, read by our own tools.

use pushline::tools::wire::sse::{EventStream, Item};

use super::split::split;

/// Cuts make no difference, and a stream reads as in WHATWG HTML ("Interpreting an event stream"),
/// followed word for word.
pub fn check(input: &[u8]) {
    let Some(split) = split(input) else { return };
    let whole = read(&[split.whole]);
    assert_eq!(read(&split.pieces), whole);
    assert_eq!(plainly(split.whole), whole);
}

fn read(pieces: &[&[u8]]) -> Vec<String> {
    let mut stream = EventStream::default();
    let mut items = Vec::new();
    for piece in pieces {
        let fed = stream.feed(piece, |item| items.push(describe(&item)));
        fed.expect("no input is that long");
    }
    items
}

fn describe(item: &Item<'_>) -> String {
    match item {
        Item::Event(event) => show(event.id, event.event_type, event.data),
        Item::Retry(pause) => format!("retry {}", pause.as_millis()),
        Item::Comment(text) => format!(":{text}"),
    }
}

fn show(id: &str, event_type: &str, data: &str) -> String {
    format!("{id:?} {event_type:?} {data:?}")
}

fn plainly(stream: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut items, mut rest) = (Vec::new(), text);
    let (mut id, mut event_type, mut data) = (String::new(), String::new(), String::new());
    while let Some(end) = rest.find(['\n', '\r']) {
        let line = &rest[..end];
        rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
        if line.is_empty() {
            if let Some(data) = data.strip_suffix('\n') {
                let named = if event_type.is_empty() { "message" } else { &event_type };
                items.push(show(&id, named, data));
            }
            event_type.clear();
            data.clear();
            continue;
        }
        if line.starts_with(':') {
            items.push(line.to_owned());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data.extend([value, "\n"]),
            "event" => event_type = value.to_owned(),
            "id" if !value.contains('\0') => id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                if let Ok(pause_ms) = value.parse::<u64>() {
                    items.push(format!("retry {pause_ms}"));
                }
            }
            _ => {}
        }
    }
    items
}
