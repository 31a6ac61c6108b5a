use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::proto::cursor::Epoch;
use crate::proto::dialect::Dialect;
use crate::proto::ws::frame::{self, Parsed, Sender};

fn id(seq: u64) -> EventId {
    EventId { epoch: Epoch::from_random(1), seq }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn enveloped(event_type: Option<&str>, data: Data<'_>) -> String {
    written(|out| {
        write_event(
            out,
            &EventView { id: id(5), channel: "a:b", event_type, data, attributes: None },
        )
    })
}

#[test]
fn an_envelope_has_the_documented_fields_in_the_documented_order() {
    let start = format!("{{\"id\":\"{}\",\"channel\":\"a:b\"", id(5));
    let cases: [(Option<&str>, Data<'_>, &str); 5] = [
        (None, Data::Text("hi"), ",\"data\":\"hi\"}"),
        (Some("t\u{e9}"), Data::Text(""), ",\"event\":\"té\",\"data\":\"\"}"),
        (None, Data::Json(" {\"a\":\r\n1} "), ",\"data\": {\"a\":  1} }"),
        (None, Data::Json("null"), ",\"data\":null}"),
        (None, Data::Binary(b"\xff\xfe"), ",\"data_base64\":\"//4=\"}"),
    ];
    for (event_type, data, end) in cases {
        assert_eq!(enveloped(event_type, data), format!("{start}{end}"));
    }
}

#[test]
fn what_only_some_events_have_comes_before_the_data() {
    let attributes = Attributes {
        publisher: Some("j\"ane".into()),
        event_key: Some("price:EUR".into()),
        tombstone: true,
        ephemeral: true,
        ..Attributes::default()
    };
    let view = EventView {
        id: id(5),
        channel: "a:b",
        event_type: None,
        data: Data::Text(""),
        attributes: Some(&attributes),
    };
    let start = format!("{{\"id\":\"{}\",\"channel\":\"a:b\",\"publisher\":\"j\\\"ane\"", id(5));
    let end = ",\"event_key\":\"price:EUR\",\"tombstone\":true,\"ephemeral\":true,\"data\":\"\"}";
    assert_eq!(written(|out| write_event(out, &view)), format!("{start}{end}"));
}

#[test]
fn every_character_that_needs_an_escape_gets_one_wherever_it_stands() {
    for byte in 0..=0x7f_u8 {
        for place in [0, 1, 31, 32, 33, 63, 64, 100] {
            let text = format!("{}{}{}", "x".repeat(place), char::from(byte), "y".repeat(40));
            let json = written(|out| json::write_string(out, &text));
            assert_eq!(serde_json::from_str::<String>(&json).ok(), Some(text), "{byte} at {place}");
        }
    }
}

#[test]
fn a_gap_is_an_event_of_its_own_type() {
    let gap =
        GapView { id: id(3), channel: "c", reason: "epoch", after: "x\"\u{1}", first: Some(id(4)) };
    let json: Json = serde_json::from_str(&written(|out| write_gap(out, &gap))).expect("JSON");
    let expected = serde_json::json!({
        "id": id(3).to_string(), "channel": "c", "event": "pushline.gap",
        "data": {"channel": "c", "reason": "epoch", "after": "x\"\u{1}", "first": id(4).to_string()}
    });
    assert_eq!(json, expected);
}

#[test]
fn a_gap_does_not_echo_a_cursor_at_length() {
    let after = "€".repeat(10_000);
    let gap = GapView { id: id(3), channel: "c", reason: "epoch", after: &after, first: None };
    let json: Json = serde_json::from_str(&written(|out| write_gap_data(out, &gap))).expect("JSON");
    let echoed = json["after"].as_str().expect("a string");
    assert!(after.starts_with(echoed) && echoed.len() > AFTER_BYTES_MAX - 3);
    assert!(echoed.len() <= AFTER_BYTES_MAX);
}

#[test]
fn answers_carry_the_ref_as_it_came() {
    let fields = [
        ("id", Value::Id(id(9))),
        ("subscribers", Value::Number(3)),
        ("channel", Value::Text("a\"b")),
    ];
    assert_eq!(
        written(|out| write_ok(out, Some("\"r\\u0031\""), &fields)),
        format!(
            "{{\"ref\":\"r\\u0031\",\"ok\":true,\"id\":\"{}\",\"subscribers\":3,\
             \"channel\":\"a\\\"b\"}}",
            id(9)
        )
    );
    assert_eq!(written(|out| write_ok(out, None, &[])), "{\"ok\":true}");
}

fn publication<'a>(channel: &'a str, payload: Payload<'a>) -> Publication<'a> {
    let (to_others, also) = (false, Vec::new());
    let (event_type, key, attributes) = (None, None, None);
    Publication { channel: channel.into(), to_others, also, payload, event_type, key, attributes }
}

#[test]
fn every_operation_is_read() {
    let op = |reference, body| Ok(ClientOp { reference, body });
    let subscribe = |after: Option<&'static str>| OpBody::Subscribe {
        channel: "a".into(),
        after: after.map(Cow::from),
    };
    let cases: [(&str, Result<ClientOp<'_>, OpError<'_>>); 10] = [
        (r#"{"op":"subscribe","channel":"a"}"#, op(None, subscribe(None))),
        (
            r#" {"ref" : 7 , "after":"x-1","op":"subscribe","channel":"a"} "#,
            op(Some("7"), subscribe(Some("x-1"))),
        ),
        (r#"{"op":"subscribe","channel":"a","after":null}"#, op(None, subscribe(None))),
        (
            r#"{"op":"unsubscribe","channel":"\u0061","ref":"r\n"}"#,
            op(Some(r#""r\n""#), OpBody::Unsubscribe { channel: "a".into() }),
        ),
        (r#"{"op":"ping","ref":-1.5e3}"#, op(Some("-1.5e3"), OpBody::Ping)),
        (r#"{"op":"ping","future":[{}]}"#, op(None, OpBody::Ping)),
        (r#"{"op":"auth","token":"t.t"}"#, op(None, OpBody::Auth { token: "t.t".into() })),
        (
            r#"{"op":"publish","channel":"c","data":{"b": [1]}}"#,
            op(None, OpBody::Publish(publication("c", Payload::Json(r#"{"b": [1]}"#)))),
        ),
        (
            r#"{"op":"publish","channel":"c","data":"x\ty"}"#,
            op(None, OpBody::Publish(publication("c", Payload::Text("x\ty".into())))),
        ),
        (
            r#"{"op":"publish","channel":"c","data_base64":"//4","event":"e","key":"k","ref":1}"#,
            op(
                Some("1"),
                OpBody::Publish(Publication {
                    event_type: Some("e".into()),
                    key: Some("k".into()),
                    ..publication("c", Payload::Binary(vec![0xff, 0xfe]))
                }),
            ),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_op(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_with_an_operation_is_named_and_the_ref_kept() {
    use Invalid as I;
    let long_ref = format!(r#"{{"op":"ping","ref":"{}"}}"#, "x".repeat(REF_BYTES_MAX));
    let long_type = format!(
        r#"{{"op":"publish","channel":"c","data":1,"event":"{}","ref":2}}"#,
        "x".repeat(TYPE_BYTES_MAX + 1)
    );
    let cases: [(&str, Option<&str>, Invalid); 21] = [
        ("", None, I::Json),
        ("[]", None, I::Json),
        ("{}{}", None, I::Json),
        (r#"{"op":"ping""#, None, I::Json),
        (r#"{"op":1}"#, None, I::Json),
        (r#"{"op":"ping","op":"ping"}"#, None, I::Json),
        (r#"{"ref":1}"#, Some("1"), I::Op),
        (r#"{"op":"Ping","ref":1}"#, Some("1"), I::Op),
        (r#"{"op":"ping","ref":{}}"#, None, I::Ref),
        (r#"{"op":"ping","ref":true}"#, None, I::Ref),
        (&long_ref, None, I::Ref),
        (r#"{"op":"subscribe","ref":1}"#, Some("1"), I::Channel),
        (r#"{"op":"unsubscribe"}"#, None, I::Channel),
        (r#"{"op":"publish","data":1}"#, None, I::Channel),
        (r#"{"op":"publish","channel":"c"}"#, None, I::Data),
        (r#"{"op":"publish","channel":"c","data":1,"data_base64":""}"#, None, I::Data),
        (r#"{"op":"publish","channel":"c","data_base64":"?"}"#, None, I::Base64),
        (
            r#"{"op":"publish","channel":"c","data":1,"event":"pushline.gap"}"#,
            None,
            I::ReservedEventType,
        ),
        (&long_type, Some("2"), I::EventType),
        (r#"{"op":"publish","channel":"c","data":1,"key":""}"#, None, I::Key),
        (r#"{"op":"auth","ref":"x"}"#, Some(r#""x""#), I::Token),
    ];
    for (text, reference, reason) in cases {
        assert_eq!(parse_op(text.as_bytes()), Err(OpError { reference, reason }), "{text}");
    }
    let utf8 = parse_op(b"{\"op\":\"\xff\"}");
    assert_eq!(utf8, Err(OpError { reference: None, reason: I::Utf8 }));
}

#[test]
fn a_line_says_what_to_publish() {
    let line = br#"{"channel":"c","data":null,"event":"e","key":"k"}"#;
    let expected = Publication {
        event_type: Some("e".into()),
        key: Some("k".into()),
        ..publication("c", Payload::Json("null"))
    };
    assert_eq!(parse_publication(line), Ok(expected));
    // A carriage return before the line's end counts as white space.
    let plain = publication("c", Payload::Text("x".into()));
    assert_eq!(parse_publication(b"{\"channel\":\"c\",\"data\":\"x\"}\r"), Ok(plain));
    assert_eq!(parse_publication(b"{\"data\":1}"), Err(Invalid::Channel));
    assert_eq!(parse_publication(b"{\"channel\":\"c\"}"), Err(Invalid::Data));
    assert_eq!(parse_publication(b"\xff"), Err(Invalid::Utf8));
    let misspelt = b"{\"channel\":\"c\",\"evnet\":\"done\",\"data\":1}";
    assert_eq!(parse_publication(misspelt), Err(Invalid::UnknownKey));
    let op = b"{\"op\":\"publish\",\"ref\":1,\"channel\":\"c\",\"evnet\":\"done\",\"data\":1}";
    let refused = OpError { reference: Some("1"), reason: Invalid::UnknownKey };
    assert_eq!(parse_op(op), Err(refused));
    // Half of a surrogate pair is not a character.
    let half = br#"{"channel":"c","data":"\ud800"}"#;
    assert_eq!(parse_publication(half), Err(Invalid::Json));
}

#[test]
fn a_line_may_name_several_channels() {
    let several = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        format!("{{\"channels\":[{}],\"data\":1}}", names.join(","))
    };
    let expected =
        Publication { also: vec!["b".into(), "c".into()], ..publication("a", Payload::Json("1")) };
    assert_eq!(parse_publication(several(&["a", "b", "c"]).as_bytes()), Ok(expected));
    let names: Vec<String> = (0..=100).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    assert!(parse_publication(several(&names[1..]).as_bytes()).is_ok());
    for wrong in [several(&names), several(&[]), several(&["a", "b", "a"])] {
        assert_eq!(parse_publication(wrong.as_bytes()), Err(Invalid::Channels), "{wrong}");
    }
    let both = b"{\"channel\":\"a\",\"channels\":[\"b\"],\"data\":1}";
    assert_eq!(parse_publication(both), Err(Invalid::Channels));
}

#[test]
fn a_line_may_say_what_the_event_replaces_and_that_it_is_not_to_be_kept() {
    let with = |attributes: Attributes| Publication {
        attributes: attributes.boxed(),
        ..publication("c", Payload::Text("".into()))
    };
    let none = Attributes::default();
    let event_key = || Some("price:EUR".into());
    for (line, attributes) in [
        (
            r#","data":"","event_key":"price:EUR""#,
            Attributes { event_key: event_key(), ..none.clone() },
        ),
        (
            r#","event_key":"price:EUR","tombstone":true"#,
            Attributes { event_key: event_key(), tombstone: true, ..none.clone() },
        ),
        (r#","data":"","ephemeral":true"#, Attributes { ephemeral: true, ..none.clone() }),
        (r#","data":"","ephemeral":false,"publisher":"forged""#, none.clone()),
    ] {
        let line = format!("{{\"channel\":\"c\"{line}}}");
        assert_eq!(parse_publication(line.as_bytes()), Ok(with(attributes.clone())), "{line}");
        let op = format!("{{\"op\":\"publish\",{}", &line[1..]);
        let parsed = parse_op(op.as_bytes()).map(|op| op.body);
        assert_eq!(parsed, Ok(OpBody::Publish(with(attributes))), "{op}");
    }
    for (line, expected) in [
        (r#""event_key":"","data":1"#, Invalid::EventKey),
        (r#""tombstone":true"#, Invalid::Tombstone),
        (r#""tombstone":true,"event_key":"k","data":"x""#, Invalid::Tombstone),
        (r#""tombstone":true,"event_key":"k","ephemeral":true"#, Invalid::Tombstone),
        (r#""ephemeral":"yes","data":1"#, Invalid::Json),
    ] {
        let line = format!("{{\"channel\":\"c\",{line}}}");
        assert_eq!(parse_publication(line.as_bytes()), Err(expected), "{line}");
    }
}

#[test]
fn strings_without_escapes_are_not_copied() {
    let line = br#"{"channel":"c","data":"text","event":"e","key":"k"}"#;
    let parsed = parse_publication(line).expect("valid");
    assert!(matches!(parsed.channel, Cow::Borrowed("c")));
    assert!(matches!(parsed.payload, Payload::Text(Cow::Borrowed("text"))));
    assert!(matches!(parsed.event_type, Some(Cow::Borrowed("e"))));
}

#[test]
fn json_nested_without_end_is_an_answer_and_not_a_crash() {
    let depth = 200_000;
    let text = format!(r#"{{"channel":"c","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(matches!(
        parse_publication(text.as_bytes()),
        Ok(Publication { payload: Payload::Json(_), .. }) | Err(Invalid::Json)
    ));
}

#[test]
fn event_types_and_keys_cannot_forge_anything() {
    let longest = "é".repeat(TYPE_BYTES_MAX / 2);
    for good in ["a", "with space", "é€", "pushline", &longest] {
        assert_eq!(event_type(good), Ok(good));
        assert_eq!(key(good), Ok(good));
    }
    let too_long = "x".repeat(TYPE_BYTES_MAX + 1);
    for bad in ["", "a\nb", "a\rb", "\0", "tab\t", "\u{7f}", "\u{85}", &too_long] {
        assert_eq!(event_type(bad), Err(Invalid::EventType), "{bad:?}");
        assert_eq!(key(bad), Err(Invalid::Key), "{bad:?}");
    }
    assert_eq!(event_type("pushline."), Err(Invalid::ReservedEventType));
    assert_eq!(key("pushline.x"), Ok("pushline.x"));
}

#[test]
fn each_dialect_frames_the_same_envelope_its_own_way() {
    let data = "x".repeat(200);
    let event = EventView {
        id: id(5),
        channel: "a:b",
        event_type: None,
        data: Data::Text(&data),
        attributes: None,
    };
    let envelope = enveloped(None, event.data);
    let mut ws = Vec::new();
    Dialect::WsEnvelope.write_event(&mut ws, &event);
    let Parsed::Complete(header, header_bytes) = frame::parse(&ws, Sender::Server) else {
        panic!("no frame");
    };
    assert_eq!(header.opcode, frame::Opcode::Text);
    assert_eq!(&ws[header_bytes..], envelope.as_bytes());
    let sse = written(|out| Dialect::SseEnvelope.write_event(out, &event));
    assert_eq!(sse, format!("id: {}\ndata: {envelope}\n\n", id(5)));
    let bare = written(|out| Dialect::SseBare.write_event(out, &event));
    assert_eq!(bare, format!("id: {}\ndata: {data}\n\n", id(5)));
    let gap = GapView { id: id(3), channel: "c", reason: "epoch", after: "", first: None };
    let mut out = Vec::new();
    assert!(!Dialect::WsBare.tells_gaps(), "it is closed instead");
    for dialect in Dialect::ALL.into_iter().filter(|dialect| dialect.tells_gaps()) {
        dialect.write_gap(&mut out, &gap);
    }
}

proptest! {
    #[test]
    fn any_text_is_escaped_as_json_says(text in any::<String>()) {
        let json = written(|out| json::write_string(out, &text));
        prop_assert_eq!(serde_json::from_str::<String>(&json).ok(), Some(text));
    }

    #[test]
    fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse_op(&line);
        let _ = parse_publication(&line);
    }

    #[test]
    fn what_is_published_comes_out_of_the_envelope(text in any::<String>()) {
        let line = serde_json::json!({"channel": "c", "data": text}).to_string();
        let parsed = parse_publication(line.as_bytes()).expect("valid");
        prop_assert_eq!(parsed.payload, Payload::Text(Cow::from(text.as_str())));
        let out: Json = serde_json::from_str(&enveloped(None, Data::Text(&text))).expect("JSON");
        prop_assert_eq!(out["data"].as_str(), Some(text.as_str()));
    }
}
