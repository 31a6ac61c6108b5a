//! JSON from clients: operations on a WebSocket, publications as lines.

use std::collections::HashMap;

use pushline::proto::cursor::{Epoch, EventId};
use pushline::proto::data::{Data, EventView};
use pushline::proto::envelope::{self, OpBody, Payload, Publication};
use pushline::proto::reject::Reject;
use serde_json::value::RawValue;

/// An object's fields, each as written: values may be deeper and numbers larger than serde_json can
/// hold, and surrogates may be lone, and it is still JSON.
type Plain<'a> = HashMap<String, &'a RawValue>;

/// serde_json reads what is accepted the same way; and an accepted publication, delivered in an
/// envelope, contains what was published.
pub fn check(input: &[u8]) {
    let plain: Option<Plain<'_>> = serde_json::from_slice(input).ok();
    if let Ok(publication) = envelope::parse_publication(input) {
        let plain = plain.as_ref().expect("what is accepted is an object");
        check_publication(&publication, plain);
        check_delivery(&publication);
    }
    match envelope::parse_op(input) {
        Ok(op) => {
            let plain = plain.as_ref().expect("what is accepted is an object");
            check_op(&op, plain);
            check_reply(op.reference);
        }
        Err(error) => check_reply(error.reference),
    }
}

fn text(plain: &Plain<'_>, field: &str) -> Option<String> {
    serde_json::from_str(plain.get(field)?.get()).expect("a string or null")
}

fn raw<'a>(plain: &Plain<'a>, field: &str) -> Option<&'a str> {
    plain.get(field).map(|raw| raw.get())
}

fn check_op(op: &envelope::ClientOp<'_>, plain: &Plain<'_>) {
    assert_eq!(op.reference, raw(plain, "ref").filter(|raw| *raw != "null"));
    let name = match &op.body {
        OpBody::Subscribe { channel, after } => {
            assert_eq!(Some(channel.as_ref()), text(plain, "channel").as_deref());
            assert_eq!(after.as_deref(), text(plain, "after").as_deref());
            "subscribe"
        }
        OpBody::Unsubscribe { channel } => {
            assert_eq!(Some(channel.as_ref()), text(plain, "channel").as_deref());
            "unsubscribe"
        }
        OpBody::Publish(publication) => {
            check_publication(publication, plain);
            "publish"
        }
        OpBody::Open { channel, stream, .. } => {
            assert_eq!(Some(channel.as_ref()), text(plain, "channel").as_deref());
            assert_eq!(stream.as_deref(), text(plain, "stream").as_deref());
            "open"
        }
        OpBody::Append(publication) => {
            check_publication(publication, plain);
            "append"
        }
        OpBody::End { channel, failed } => {
            assert_eq!(Some(channel.as_ref()), text(plain, "channel").as_deref());
            assert_eq!(*failed, text(plain, "state").as_deref() == Some("error"));
            "end"
        }
        OpBody::Cancel { channel } => {
            assert_eq!(Some(channel.as_ref()), text(plain, "channel").as_deref());
            "cancel"
        }
        OpBody::Presence { channel } => {
            assert_eq!(Some(channel.as_ref()), text(plain, "channel").as_deref());
            "presence"
        }
        OpBody::Ping => "ping",
        OpBody::Auth { token } => {
            assert_eq!(Some(token.as_ref()), text(plain, "token").as_deref());
            "auth"
        }
    };
    assert_eq!(text(plain, "op").as_deref(), Some(name));
}

fn check_publication(publication: &Publication<'_>, plain: &Plain<'_>) {
    let named: Vec<String> = match raw(plain, "channels").filter(|raw| *raw != "null") {
        Some(channels) => serde_json::from_str(channels).expect("a list of names"),
        None => text(plain, "channel").into_iter().collect(),
    };
    let channels = std::iter::once(&publication.channel).chain(&publication.also);
    assert!(channels.map(|name| name.as_ref()).eq(named.iter().map(String::as_str)));
    assert_eq!(publication.to_others, text(plain, "to").as_deref() == Some("others"));
    assert_eq!(publication.event_type.as_deref(), text(plain, "event").as_deref());
    assert_eq!(publication.key.as_deref(), text(plain, "key").as_deref());
    match &publication.payload {
        Payload::Text(data) => assert_eq!(Some(data.as_ref()), text(plain, "data").as_deref()),
        Payload::Json(json) => assert_eq!(Some(*json), raw(plain, "data")),
        Payload::Binary(_) => assert!(text(plain, "data_base64").is_some()),
    }
}

fn check_delivery(publication: &Publication<'_>) {
    let event = EventView {
        id: EventId { epoch: Epoch::from_random(0), seq: 1 },
        channel: &publication.channel,
        event_type: publication.event_type.as_deref(),
        data: match &publication.payload {
            Payload::Text(text) => Data::Text(text),
            Payload::Json(json) => Data::Json(json),
            Payload::Binary(bytes) => Data::Binary(bytes),
        },
        attributes: None,
    };
    let mut wire = Vec::new();
    envelope::write_event(&mut wire, &event);
    assert!(!wire.contains(&b'\n') && !wire.contains(&b'\r'), "an envelope is one line");
    let delivered: Plain<'_> = serde_json::from_slice(&wire).expect("an envelope is JSON");
    assert_eq!(text(&delivered, "id").as_deref(), Some("aaaaaaaa-1"));
    assert_eq!(text(&delivered, "channel").as_deref(), Some(publication.channel.as_ref()));
    assert_eq!(text(&delivered, "event").as_deref(), publication.event_type.as_deref());
    match &publication.payload {
        Payload::Text(data) => {
            assert_eq!(text(&delivered, "data").as_deref(), Some(data.as_ref()));
        }
        Payload::Json(json) => {
            let one_line = json.replace(['\r', '\n'], " ");
            assert_eq!(raw(&delivered, "data"), Some(one_line.as_str()));
        }
        Payload::Binary(bytes) => {
            // A publisher may send back what it was sent.
            let again = envelope::parse_publication(&wire).expect("an envelope can be published");
            assert_eq!(again.payload, Payload::Binary(bytes.clone()));
        }
    }
}

/// A client's `ref` comes back unchanged, whatever it was.
fn check_reply(reference: Option<&str>) {
    let mut wire = Vec::new();
    Reject::bad_request("code", "message").write_op_answer(&mut wire, reference);
    let reply: Plain<'_> = serde_json::from_slice(&wire).expect("a reply is JSON");
    assert_eq!(raw(&reply, "ref"), reference);
}
