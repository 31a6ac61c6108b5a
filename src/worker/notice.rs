//! What the log says: events to be fanned out, answers to be handed to who asked.

use super::answer::Content;
use super::core::Core;
use super::pending::Pending;
use crate::log::message::{Description, Notice, RequestBody, Ticket};
use crate::proto::cursor::EventId;
use crate::proto::http::response::Status;
use crate::proto::name::{NAME_BYTES_MAX, channel_segment};
use crate::ring::Token;

impl Core {
    /// Takes one notice.
    pub fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Event(event) => self.event(event),
            Notice::Letter(letter) => self.letter(letter),
            Notice::Joined { ticket, head_seq, channels } => {
                if let Pending::Join(join) = self.answered(ticket) {
                    self.joined(join, head_seq, channels);
                }
            }
            Notice::Page { ticket, page } => {
                if let Pending::Read { token } = self.answered(ticket) {
                    self.page(token, ticket, page);
                }
            }
            Notice::JoinRefused { ticket, refusal } => {
                if let Pending::Join(join) = self.answered(ticket) {
                    self.join_refused(join, refusal);
                }
            }
            Notice::Published { ticket, outcome, unaccepted } => {
                if let Pending::Publish { token, then } = self.answered(ticket) {
                    self.published(token, then, &outcome, unaccepted);
                }
            }
            Notice::Described { ticket, description } => {
                if let Pending::Describe { token, channel } = self.answered(ticket) {
                    self.described(token, &channel, &description);
                }
            }
        }
    }

    /// The ticket for a request whose answer is for this.
    pub(super) fn wait_for(&mut self, pending: Pending) -> Ticket {
        Ticket(self.pending.insert(pending) as u32)
    }

    fn answered(&mut self, Ticket(ticket): Ticket) -> Pending {
        self.at_log -= 1;
        self.pending.remove(ticket as usize)
    }

    // --- GET /channels/{channel} ---

    /// Asks the log for a channel's state.
    pub(super) fn describe(&mut self, index: u32, segment: &str) {
        let mut buffer = [0; NAME_BYTES_MAX];
        let channel = match channel_segment(segment, &mut buffer) {
            Ok(channel) => channel,
            Err(error) => return self.reject(index, error),
        };
        if let Err(denied) = self.check_subscribe(index, channel) {
            return self.reject(index, denied);
        }
        let token = self.token(index);
        let pending = Pending::Describe { token, channel: channel.into() };
        let ticket = self.wait_for(pending);
        self.await_log(index);
        self.ask_for(index, RequestBody::Describe { ticket, channel: channel.into() });
    }

    fn described(&mut self, token: Token, channel: &str, description: &Description) {
        if !self.is_current(token) {
            return;
        }
        let index = token.slot;
        self.work(index).outstanding -= 1;
        let epoch = self.setup.epoch;
        let id = |seq: Option<u64>| match seq {
            Some(seq) => format!("\"{}\"", EventId { epoch, seq }),
            None => "null".into(),
        };
        let body = format!(
            "{{\"channel\":\"{channel}\",\"last_id\":{},\"first_id\":{},\"events\":{},\
             \"subscribers\":{}}}",
            id(description.last_seq),
            id(description.first_seq),
            description.events,
            description.subscribers,
        );
        let content = Content { content_type: "application/json", bytes: body.as_bytes() };
        // It is old when the next event comes.
        self.respond(index, Status::Ok, &content, &[("Cache-Control", b"no-store")]);
        self.take_carry(index);
    }
}
