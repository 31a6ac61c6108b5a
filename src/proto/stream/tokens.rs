//! A producer's body, cut into tokens as it arrives. Bytes of a token that is not complete yet are
//! kept: the beginning of a line, of an event, of a character.

use std::mem::take;

use crate::proto::envelope::{self, Invalid};
use crate::proto::event_stream::{Event, EventStream, Item};
use crate::proto::reject::Reject;

/// The data of the last event of a model's stream, which is no token.
const DONE: &str = "[DONE]";

/// How a body is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `text/event-stream`: each event is a token.
    Events,
    /// NDJSON: each line is a token.
    Lines,
    /// Any other text: the characters that arrive together are a token.
    Text,
}

/// A piece of the text to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The type it had in an event stream.
    pub event_type: Option<Box<str>>,
    /// Whether it is a JSON value.
    pub is_json: bool,
    /// Its data.
    pub text: String,
}

/// Reads one body.
#[derive(Debug)]
pub struct Reader {
    form: Form,
    events: EventStream,
    /// The beginning of a line or of a character.
    rest: Vec<u8>,
    /// `[DONE]` was read: what follows is not part of the stream.
    is_done: bool,
}

impl Reader {
    /// For a body of this form.
    pub fn new(form: Form) -> Self {
        Self { form, events: EventStream::default(), rest: Vec::new(), is_done: false }
    }

    /// Bytes of memory of the incomplete token.
    pub(crate) fn held_bytes(&self) -> usize {
        self.rest.capacity() + self.events.held_bytes()
    }

    /// Appends the tokens that `bytes` complete. None is larger than `bytes_max`.
    ///
    /// # Errors
    /// The body does not have its form. The tokens before the fault are among `tokens`.
    pub fn take(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
        tokens: &mut Vec<Token>,
    ) -> Result<(), Reject> {
        match self.form {
            Form::Events => self.take_events(bytes, bytes_max, tokens)?,
            Form::Lines => self.take_lines(bytes, tokens)?,
            Form::Text => self.take_text(bytes, bytes_max, tokens)?,
        }
        let longest = tokens.iter().map(|token| token.text.len()).max().unwrap_or(0);
        if longest.max(self.rest.len()) > bytes_max || self.events.held_bytes() > 2 * bytes_max {
            return Err(too_large(bytes_max));
        }
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// It ends within a character, or its last line is no JSON.
    pub fn finish(&mut self, tokens: &mut Vec<Token>) -> Result<(), Reject> {
        let rest = take(&mut self.rest);
        match self.form {
            // An event without its blank line is none (WHATWG HTML 9.2.6).
            Form::Events => Ok(()),
            Form::Lines => line(&rest, tokens),
            Form::Text if rest.is_empty() => Ok(()),
            Form::Text => Err(NOT_UTF8),
        }
    }

    fn take_events(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
        tokens: &mut Vec<Token>,
    ) -> Result<(), Reject> {
        let (is_done, mut refused) = (&mut self.is_done, None);
        let fed = self.events.feed(bytes, |item| {
            let Item::Event(event) = item else { return };
            *is_done |= event.data == DONE;
            if *is_done || refused.is_some() {
                return;
            }
            match of_event(event) {
                Ok(token) => tokens.push(token),
                Err(reason) => refused = Some(reason),
            }
        });
        fed.map_err(|_| too_large(bytes_max))?;
        refused.map_or(Ok(()), |reason| Err(reason.into()))
    }

    fn take_lines(&mut self, mut bytes: &[u8], tokens: &mut Vec<Token>) -> Result<(), Reject> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            match self.rest.is_empty() {
                true => line(&bytes[..end], tokens)?,
                false => {
                    self.rest.extend_from_slice(&bytes[..end]);
                    line(&take(&mut self.rest), tokens)?;
                }
            }
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn take_text(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
        tokens: &mut Vec<Token>,
    ) -> Result<(), Reject> {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            // More bytes may complete the character.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        };
        let rest = self.rest.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut self.rest, rest));
        let mut text = text.map_err(|_| NOT_UTF8)?;
        while text.len() > bytes_max {
            let at = text.floor_char_boundary(bytes_max.max(4));
            let behind = text.split_off(at);
            tokens.push(of_text(std::mem::replace(&mut text, behind)));
        }
        if !text.is_empty() {
            tokens.push(of_text(text));
        }
        Ok(())
    }
}

fn of_text(text: String) -> Token {
    Token { event_type: None, is_json: false, text }
}

fn of_event(event: Event<'_>) -> Result<Token, Invalid> {
    let event_type = match event.event_type {
        "message" => None,
        named => Some(envelope::event_type(named)?.into()),
    };
    Ok(Token { event_type, ..of_text(event.data.to_owned()) })
}

fn line(line: &[u8], tokens: &mut Vec<Token>) -> Result<(), Reject> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(line).map_err(|_| NOT_UTF8)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| NOT_JSON)?;
    tokens.push(Token { is_json: true, ..of_text(text.to_owned()) });
    Ok(())
}

const NOT_UTF8: Reject = Reject::bad_request("not_utf8", "the stream is not valid UTF-8");
const NOT_JSON: Reject =
    Reject::bad_request("not_json", "a line of the stream is not one JSON value");

fn too_large(bytes_max: usize) -> Reject {
    Reject {
        status: crate::proto::http::response::Status::ContentTooLarge,
        code: "event_too_large",
        message: format!(
            "a token is larger than this server takes: max_event_bytes is {bytes_max}"
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(form: Form, pieces: &[&[u8]]) -> (Vec<Token>, Result<(), Reject>) {
        let (mut reader, mut tokens) = (Reader::new(form), Vec::new());
        for piece in pieces {
            if let Err(reject) = reader.take(piece, 1 << 10, &mut tokens) {
                return (tokens, Err(reject));
            }
        }
        let end = reader.finish(&mut tokens);
        (tokens, end)
    }

    fn texts(form: Form, pieces: &[&[u8]]) -> Vec<String> {
        let (tokens, end) = read(form, pieces);
        assert_eq!(end, Ok(()));
        tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn events_are_tokens_and_done_is_none() {
        let body =
            b": hi\nevent: delta\ndata: a\ndata: b\n\ndata: {}\n\ndata: [DONE]\n\ndata: c\n\n";
        let (tokens, end) = read(Form::Events, &[body]);
        assert_eq!(end, Ok(()));
        assert_eq!(tokens[0].event_type.as_deref(), Some("delta"));
        assert_eq!(tokens.iter().map(|token| &*token.text).collect::<Vec<_>>(), ["a\nb", "{}"]);
    }

    #[test]
    fn a_reserved_type_and_a_line_that_is_no_json_are_refused_behind_the_tokens_before_them() {
        let forged = b"data: a\n\nevent: pushline.stream\ndata: {}\n\n";
        let (tokens, end) = read(Form::Events, &[forged]);
        assert_eq!((tokens.len(), end.map_err(|no| no.code)), (1, Err("reserved_event_type")));
        let (tokens, end) = read(Form::Lines, &[b"1\n[\n"]);
        assert_eq!((tokens.len(), end.map_err(|no| no.code)), (1, Err("not_json")));
    }

    #[test]
    fn text_is_never_cut_within_a_character() {
        let text = "a\u{e4}\u{20ac}\u{1f600}";
        for at in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            assert_eq!(texts(Form::Text, &[first, second]).concat(), text, "at {at}");
        }
        assert_eq!(
            read(Form::Text, &[&text.as_bytes()[..2]]).1.map_err(|no| no.code),
            Err("not_utf8")
        );
        assert_eq!(read(Form::Text, &[b"\xff"]).1.map_err(|no| no.code), Err("not_utf8"));
    }

    #[test]
    fn what_is_too_large_for_one_event_is_cut_as_text_and_refused_in_other_forms() {
        let long = "\u{20ac}".repeat(1000);
        let pieces = texts(Form::Text, &[long.as_bytes()]);
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() <= 1 << 10));
        assert_eq!(pieces.concat(), long);
        for form in [Form::Lines, Form::Events] {
            let body = format!("data: {long}\n\n");
            let end = read(form, &[&body.as_bytes()[..body.len() - 2]]).1;
            assert_eq!(end.map_err(|no| no.code), Err("event_too_large"));
        }
    }

    proptest! {
        #[test]
        fn tokens_are_the_same_however_the_body_is_cut(
            lines in prop::collection::vec("[a-z\u{e4}\u{1f600}]{1,9}", 1..8),
            cuts in prop::collection::vec(1usize..12, 0..24),
        ) {
            let ndjson: String = lines.iter().map(|line| format!("\"{line}\"\n")).collect();
            let events: String = lines.iter().map(|line| format!("data: {line}\r\n\r\n")).collect();
            for (form, body) in [(Form::Lines, ndjson), (Form::Events, events)] {
                let (mut pieces, mut rest) = (Vec::new(), body.as_bytes());
                for cut in &cuts {
                    let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                    pieces.push(piece);
                    rest = behind;
                }
                pieces.push(rest);
                prop_assert_eq!(texts(form, &pieces), texts(form, &[body.as_bytes()]));
            }
        }
    }
}
