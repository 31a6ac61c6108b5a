//! What a server's answers say. No I/O.

use std::time::Duration;

use serde::Deserialize;

use super::error::{ClientError, Refused};
use crate::tools::wire::head::Head;

/// An answer with its body.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

/// The parts of our JSON answers that a client uses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    /// Of `POST /publish`: lines ordered.
    pub published: Option<usize>,
    /// Of `POST /publish`: the line that was refused.
    pub line: Option<u64>,
    /// Of `POST /channels/{channel}`: the event's.
    pub id: Option<String>,
    /// Of `GET` and `POST /channels/{channel}`.
    pub channel: Option<String>,
    /// Of `GET /channels/{channel}`.
    pub last_id: Option<String>,
    error: Option<ErrorFacts>,
}

#[derive(Debug, Deserialize)]
struct ErrorFacts {
    message: String,
}

impl Answer {
    /// Whether the server did what was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.head.status)
    }

    /// What the body says; nothing if it is not one of ours.
    pub fn facts(&self) -> Facts {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What the body of a success says. Any web server answers 200, but only ours says this.
    ///
    /// # Errors
    /// The answer is a refusal, or not a Pushline server's.
    pub fn success(&self) -> Result<Facts, ClientError> {
        if !self.is_success() {
            return Err(ClientError::Refused(self.refused()));
        }
        expect_media(&self.head, "application/json")?;
        serde_json::from_slice(&self.body)
            .map_err(|_| ClientError::not_understood("its answer is not our JSON"))
    }

    /// This answer as a refusal.
    pub fn refused(&self) -> Refused {
        let said = self.facts().error.map(|error| error.message);
        Refused {
            status: self.head.status,
            message: said.unwrap_or_else(|| self.foreign_refusal()),
            retry_after: self.retry_after(),
        }
    }

    /// How long to wait before another attempt.
    fn retry_after(&self) -> Option<Duration> {
        self.head.field("retry-after")?.parse().ok().map(Duration::from_secs)
    }

    /// What to say about a refusal, which a Pushline server would have explained.
    fn foreign_refusal(&self) -> String {
        match (self.head.field("location"), self.head.media_type()) {
            (Some(place), _) => format!("the server redirects to {place}; is the URL right?"),
            (None, media) if media.is_empty() => "the server refused without a word".to_owned(),
            (None, media) => {
                format!("refused with {media}, not by a Pushline server; is the URL right?")
            }
        }
    }
}

/// Checks that the body is of this type.
pub(super) fn expect_media(head: &Head, wanted: &str) -> Result<(), ClientError> {
    match head.media_type() {
        found if found == wanted => Ok(()),
        found => {
            let found = if found.is_empty() { "a body without a type".to_owned() } else { found };
            Err(ClientError::not_understood(format!("it answered {found}, not {wanted}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n";
        let (head, _) = Head::parse(head).expect("valid").expect("whole");
        let body = br#"{"error":{"code":"busy","message":"too much at once"}}"#.to_vec();
        let refused = Answer { head, body }.refused();
        assert_eq!((refused.status, &*refused.message), (503, "too much at once"));
        assert_eq!(refused.retry_after, Some(Duration::from_secs(2)));
    }
}
