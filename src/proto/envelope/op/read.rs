//! Reads an operation, or a line of `POST /publish`.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::check;
use super::{
    CHANNELS_MAX, ClientOp, Invalid, OpBody, OpError, Payload, Publication, REF_BYTES_MAX,
};
use crate::proto::attributes::Attributes;

/// Padding is accepted and not required: the length says the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads one operation. Unknown keys are ignored, so that newer clients can talk to us, except in a
/// publication, where a misspelt `event` would be silently lost.
pub fn parse_op(text: &[u8]) -> Result<ClientOp<'_>, OpError<'_>> {
    let refuse = |reference, reason| OpError { reference, reason };
    let fields: Fields<'_> = parse(text).map_err(|reason| refuse(None, reason))?;
    let reference = reference(fields.reference).map_err(|reason| refuse(None, reason))?;
    let body = body(fields).map_err(|reason| refuse(reference, reason))?;
    let is_publication = matches!(body, OpBody::Publish(_) | OpBody::Append(_));
    if is_publication && serde_json::from_slice::<PublishKeys>(text).is_err() {
        return Err(refuse(reference, Invalid::UnknownKey));
    }
    Ok(ClientOp { reference, body })
}

/// Reads one line of NDJSON: `{"channel","data","event"?,"key"?}`, or `channels`, or `data_base64`;
/// and `event_key`, `tombstone` and `ephemeral`, if the event has them.
pub fn parse_publication(line: &[u8]) -> Result<Publication<'_>, Invalid> {
    let text = utf8(line)?;
    match serde_json::from_str::<Line<'_>>(text) {
        Ok(line) => publication(line.into()),
        Err(_) if serde_json::from_str::<Fields<'_>>(text).is_ok() => Err(Invalid::UnknownKey),
        Err(_) => Err(Invalid::Json),
    }
}

/// All fields a line may have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    /// Accepted so that a received event can be published again as it is; its id belongs to the log
    /// it came from.
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    channels: Option<Vec<Text<'a>>>,
    /// `null` is a value here.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Text<'a>>,
    #[serde(borrow)]
    event: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    to: Option<Text<'a>>,
    /// Ignored: a token that was received is an event like any other when it is published again.
    #[serde(rename = "stream")]
    _stream: Option<IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
    #[serde(rename = "tokens")]
    _tokens: Option<IgnoredAny>,
    /// Ignored: the server decides whom it was published by.
    #[serde(rename = "publisher")]
    _publisher: Option<IgnoredAny>,
    #[serde(borrow)]
    event_key: Option<Text<'a>>,
    tombstone: Option<bool>,
    ephemeral: Option<bool>,
}

impl<'a> From<Line<'a>> for Fields<'a> {
    fn from(line: Line<'a>) -> Self {
        let Line { channel, channels, data, data_base64, event, key, to, .. } = line;
        let Line { event_key, tombstone, ephemeral, .. } = line;
        Self {
            channel,
            channels,
            data,
            data_base64,
            event,
            key,
            to,
            event_key,
            tombstone,
            ephemeral,
            ..Self::default()
        }
    }
}

/// The keys of a publishing operation, whatever their values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read is of interest")]
struct PublishKeys {
    id: Option<IgnoredAny>,
    op: Option<IgnoredAny>,
    #[serde(rename = "ref")]
    reference: Option<IgnoredAny>,
    channel: Option<IgnoredAny>,
    channels: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
    data_base64: Option<IgnoredAny>,
    event: Option<IgnoredAny>,
    key: Option<IgnoredAny>,
    to: Option<IgnoredAny>,
    publisher: Option<IgnoredAny>,
    stream: Option<IgnoredAny>,
    offset: Option<IgnoredAny>,
    tokens: Option<IgnoredAny>,
    event_key: Option<IgnoredAny>,
    tombstone: Option<IgnoredAny>,
    ephemeral: Option<IgnoredAny>,
}

/// All fields an operation or a publication may have.
#[derive(Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    op: Option<Text<'a>>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    channels: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
    /// `null` is a value here.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Text<'a>>,
    #[serde(borrow)]
    event: Option<Text<'a>>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    to: Option<Text<'a>>,
    #[serde(borrow)]
    event_key: Option<Text<'a>>,
    tombstone: Option<bool>,
    ephemeral: Option<bool>,
    #[serde(borrow)]
    stream: Option<Text<'a>>,
    offset: Option<u64>,
    #[serde(borrow)]
    state: Option<Text<'a>>,
    #[serde(borrow)]
    token: Option<Text<'a>>,
}

/// A string, borrowed if it has no escapes (a bare `Option<Cow>` would always be copied).
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn present<'de, D: Deserializer<'de>>(source: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(source).map(Some)
}

fn parse(text: &[u8]) -> Result<Fields<'_>, Invalid> {
    serde_json::from_str(utf8(text)?).map_err(|_| Invalid::Json)
}

fn utf8(text: &[u8]) -> Result<&str, Invalid> {
    simdutf8::basic::from_utf8(text).map_err(|_| Invalid::Utf8)
}

fn reference(raw: Option<&RawValue>) -> Result<Option<&str>, Invalid> {
    let Some(text) = raw.map(RawValue::get) else { return Ok(None) };
    let is_scalar = text.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
    if !is_scalar || text.len() > REF_BYTES_MAX {
        return Err(Invalid::Ref);
    }
    Ok(Some(text))
}

fn body<'a>(fields: Fields<'a>) -> Result<OpBody<'a>, Invalid> {
    let Some(Text(op)) = &fields.op else { return Err(Invalid::Op) };
    let channel = |of: Option<Text<'a>>| of.map(|text| text.0).ok_or(Invalid::Channel);
    match op.as_ref() {
        "subscribe" => Ok(OpBody::Subscribe {
            channel: channel(fields.channel)?,
            after: fields.after.map(|after| after.0),
        }),
        "unsubscribe" => Ok(OpBody::Unsubscribe { channel: channel(fields.channel)? }),
        "presence" => Ok(OpBody::Presence { channel: channel(fields.channel)? }),
        "publish" => publication(fields).map(OpBody::Publish),
        "open" => Ok(OpBody::Open {
            channel: channel(fields.channel)?,
            stream: fields.stream.map(stream_name).transpose()?,
            offset: fields.offset,
        }),
        "append" => stream_token(fields).map(OpBody::Append),
        "end" => Ok(OpBody::End {
            failed: match fields.state.as_ref().map(|state| &*state.0) {
                None | Some("done") => false,
                Some("error") => true,
                Some(_) => return Err(Invalid::State),
            },
            channel: channel(fields.channel)?,
        }),
        "cancel" => Ok(OpBody::Cancel { channel: channel(fields.channel)? }),
        "ping" => Ok(OpBody::Ping),
        "auth" => Ok(OpBody::Auth { token: fields.token.ok_or(Invalid::Token)?.0 }),
        _ => Err(Invalid::Op),
    }
}

fn publication(fields: Fields<'_>) -> Result<Publication<'_>, Invalid> {
    let (channel, also) = channels(fields.channel, fields.channels)?;
    let attributes = Attributes {
        event_key: fields.event_key.map(|text| text.0.into()),
        tombstone: fields.tombstone == Some(true),
        ephemeral: fields.ephemeral == Some(true),
        ..Attributes::default()
    };
    let payload = match (fields.data, fields.data_base64) {
        (None, None) if attributes.tombstone => Payload::Text("".into()),
        (Some(raw), None) => payload(raw.get())?,
        (None, Some(text)) => {
            Payload::Binary(BASE64.decode(text.0.as_bytes()).map_err(|_| Invalid::Base64)?)
        }
        (None, None) | (Some(_), Some(_)) => return Err(Invalid::Data),
    };
    let event_type = fields.event.map(|text| text.0);
    if let Some(text) = &event_type {
        check::event_type(text)?;
    }
    let key = fields.key.map(|text| text.0);
    if let Some(text) = &key {
        check::key(text)?;
    }
    check::attributes(&attributes, payload.is_empty())?;
    let to_others = match fields.to.as_ref().map(|to| &*to.0) {
        None | Some("all") => false,
        Some("others") => true,
        Some(_) => return Err(Invalid::To),
    };
    let attributes = attributes.boxed();
    Ok(Publication { channel, to_others, also, payload, event_type, key, attributes })
}

fn stream_name(text: Text<'_>) -> Result<Cow<'_, str>, Invalid> {
    check::key(&text.0)?;
    Ok(text.0)
}

fn stream_token(fields: Fields<'_>) -> Result<Publication<'_>, Invalid> {
    let token = publication(fields)?;
    let is_plain = token.also.is_empty()
        && !token.to_others
        && token.key.is_none()
        && token.attributes.is_none();
    match token.payload {
        Payload::Text(_) | Payload::Json(_) if is_plain => Ok(token),
        _ => Err(Invalid::StreamToken),
    }
}

/// The first channel, and the others.
fn channels<'a>(
    one: Option<Text<'a>>,
    several: Option<Vec<Text<'a>>>,
) -> Result<(Cow<'a, str>, Vec<Cow<'a, str>>), Invalid> {
    let several = match (one, several) {
        (Some(Text(channel)), None) => return Ok((channel, Vec::new())),
        (None, Some(several)) => several,
        (None, None) => return Err(Invalid::Channel),
        (Some(_), Some(_)) => return Err(Invalid::Channels),
    };
    let is_new =
        |(place, name): (usize, &Text<'_>)| several[..place].iter().all(|of| of.0 != name.0);
    if several.len() > CHANNELS_MAX || !several.iter().enumerate().all(is_new) {
        return Err(Invalid::Channels);
    }
    let mut names = several.into_iter().map(|text| text.0);
    Ok((names.next().ok_or(Invalid::Channels)?, names.collect()))
}

fn payload(raw: &str) -> Result<Payload<'_>, Invalid> {
    if !raw.starts_with('"') {
        return Ok(Payload::Json(raw));
    }
    let text: Text<'_> = serde_json::from_str(raw).map_err(|_| Invalid::Json)?;
    Ok(Payload::Text(text.0))
}
