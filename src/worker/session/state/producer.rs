//! A stream's body on its way in: what was read of it, and where in the stream that belongs.

use std::sync::Arc;

use bytes::Bytes;

use crate::log::event::{Kind, Publication};
use crate::proto::attributes::Attributes;
use crate::proto::http::body::BodyDecoder;
use crate::proto::reject::Reject;
use crate::proto::stream::tokens::{Form, Reader, Token};
use crate::proto::stream::{End, Mark, Part};

/// A stream's body on its way in.
#[derive(Debug)]
pub struct Producer {
    pub decoder: BodyDecoder,
    reader: Reader,
    pub form: Form,
    pub channel: Box<str>,
    pub id: Arc<str>,
    /// Which of the stream's producers this is; 0: the log has not said so yet.
    pub attempt: u64,
    /// The log has been asked to open the stream, and has not refused.
    pub asked: bool,
    /// Where in the stream the body begins: tokens, or bytes of text.
    pub offset: u64,
    /// How much of the body the stream has already, in the same unit.
    pub skip: u64,
    /// What was read and is not at the log (or was refused by it for now).
    pub batch: Vec<Publication>,
    /// Why the stream ends, once that is decided.
    pub end: Option<End>,
    /// The producer's answer, if it is not how far the stream came.
    pub failed: Option<Reject>,
}

impl Producer {
    /// Of a body that begins at `offset` in the stream.
    pub fn new(
        (decoder, form): (BodyDecoder, Form),
        channel: Box<str>,
        id: Arc<str>,
        offset: u64,
    ) -> Self {
        Self {
            decoder,
            reader: Reader::new(form),
            form,
            channel,
            id,
            attempt: 0,
            asked: true,
            offset,
            skip: 0,
            batch: Vec::new(),
            end: None,
            failed: None,
        }
    }

    /// Bytes of memory of what has come.
    pub fn held_bytes(&self) -> usize {
        let batched: usize = self.batch.iter().map(Publication::held_bytes).sum();
        self.reader.held_bytes() + batched
    }

    /// Whether it waits for its peer rather than for the log.
    pub fn awaits_peer(&self) -> bool {
        self.end.is_none() && self.batch.is_empty()
    }

    pub fn mark(&self, part: Part) -> Mark {
        Mark { id: self.id.clone(), part, at: self.attempt }
    }

    /// Reads tokens into `batch`. Returns how many bytes it used.
    pub fn read(&mut self, bytes: &[u8], event_bytes_max: usize) -> Result<usize, Reject> {
        let (mut used, mut tokens, mut read) = (0, Vec::new(), Ok(()));
        while used < bytes.len() && !self.decoder.is_done() && read.is_ok() {
            let decoded = self.decoder.decode(&bytes[used..])?;
            used += decoded.consumed;
            read = self.reader.take(decoded.payload, event_bytes_max, &mut tokens);
        }
        if self.decoder.is_done() && read.is_ok() {
            read = self.reader.finish(&mut tokens);
            self.end = Some(End::Done);
        }
        self.add(tokens);
        if let Err(reject) = read {
            self.fail(End::Error, reject);
        }
        Ok(used)
    }

    /// Decides that the stream ends for this reason.
    pub fn fail(&mut self, end: End, reject: Reject) {
        self.end = Some(end);
        self.failed = Some(reject);
    }

    /// Turns tokens into publications, without those that the stream has already.
    fn add(&mut self, tokens: Vec<Token>) {
        for Token { event_type, is_json, text } in tokens {
            let Some(text) = self.skip_known(text) else { continue };
            self.batch.push(Publication {
                channel: self.channel.clone(),
                kind: if is_json { Kind::Json } else { Kind::Text },
                data: Bytes::from(text),
                event_type,
                key: None,
                attributes: Attributes::of_stream(self.mark(Part::Token)),
            });
        }
    }

    /// The part of a token that the stream does not have yet.
    fn skip_known(&mut self, mut text: String) -> Option<String> {
        if self.skip == 0 {
            return Some(text);
        }
        if self.form != Form::Text {
            self.skip -= 1;
            return None;
        }
        let known = usize::try_from(self.skip).map_or(text.len(), |skip| skip.min(text.len()));
        // A producer may resume with other text than before, so a character may not end here.
        let known = text.ceil_char_boundary(known);
        self.skip = self.skip.saturating_sub(known as u64);
        text.drain(..known);
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::head::Framing;

    #[test]
    fn tokens_of_one_byte_are_charged_for_what_they_take() {
        let body = (BodyDecoder::new(Framing::Chunked), Form::Lines);
        let mut producer = Producer::new(body, "chat:7".into(), "msg".into(), 0);
        let chunk = format!("{:x}\r\n{}\r\n", 2_000, "1\n".repeat(1_000));
        producer.read(chunk.as_bytes(), 64).expect("lines");
        assert_eq!(producer.batch.len(), 1_000);
        let least = size_of::<Publication>() + size_of::<Attributes>();
        assert!(producer.held_bytes() >= 1_000 * least, "{}", producer.held_bytes());
    }
}
