//! Who is on a channel: `GET /channels/{channel}/presence`, and the operation `presence`.

use super::answer::Content;
use super::{Cx, Protocol, Sessions};
use crate::log::message::{Members, NoMembers};
use crate::proto::cursor::EventId;
use crate::proto::envelope::{MembersView, write_members, write_members_answer};
use crate::proto::http::response::Status;
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::proto::ws::frame;
use crate::worker::effect::{AfterList, Effect};

/// Bytes after which a list is cut off. Then it says so.
const LIST_BYTES_MAX: usize = 1 << 20;

const NO_PRESENCE: Reject = Reject::new(
    Status::NotFound,
    "presence_off",
    "this channel has no presence: set presence = true in its [[channel]]",
);

const BEHIND: Reject = Reject::new(
    Status::ServiceUnavailable,
    "node_behind",
    "this node has just started and does not know the members on other nodes yet; try again",
);

impl Sessions {
    /// Asks the log who is on a channel.
    pub(super) fn presence(&mut self, cx: &mut Cx<'_>, segment: &str) {
        match self.readable_channel(cx.index(), segment) {
            Ok(channel) => {
                self.await_log(cx.index());
                cx.push(Effect::ListMembers { channel, then: AfterList::Respond });
            }
            Err(reject) => self.reject(cx, reject),
        }
    }

    /// The same as an operation.
    pub(super) fn ws_presence(&mut self, cx: &mut Cx<'_>, reference: Option<&str>, channel: &str) {
        let channel = match channel_name(channel.as_bytes()) {
            Ok(channel) => channel,
            Err(error) => return self.ws_reject(cx, reference, error),
        };
        if let Err(denied) = self.check_subscribe(cx.index(), channel) {
            return self.ws_reject(cx, reference, denied);
        }
        let then = AfterList::Acknowledge(reference.map(Into::into));
        cx.push(Effect::ListMembers { channel: channel.into(), then });
    }

    /// The log answered.
    pub fn members_listed(
        &mut self,
        cx: &mut Cx<'_>,
        channel: &str,
        members: Result<Members, NoMembers>,
        then: &AfterList,
    ) {
        let members = match members {
            Ok(members) => members,
            Err(why) => return self.refuse_list(cx, why, then),
        };
        let view = MembersView {
            channel,
            id: EventId { epoch: self.epoch, seq: members.head_seq },
            count: members.count,
            members: &members.listed,
            nodes: &members.nodes,
            bytes_max: LIST_BYTES_MAX,
        };
        match then {
            AfterList::Respond => {
                let mut body = Vec::new();
                write_members(&mut body, &view);
                let content = Content { content_type: "application/json", bytes: &body };
                self.respond(cx, Status::Ok, &content, &[("Cache-Control", b"no-store")]);
            }
            AfterList::Acknowledge(reference) if self.protocol(cx.index()) == Protocol::Ws => {
                let reference = reference.as_deref();
                let write = |out: &mut Vec<u8>| write_members_answer(out, reference, &view);
                frame::write_text_with(cx.out(), write);
            }
            AfterList::Acknowledge(_) => {}
        }
    }

    fn refuse_list(&mut self, cx: &mut Cx<'_>, why: NoMembers, then: &AfterList) {
        let reject = match why {
            NoMembers::Off => NO_PRESENCE,
            NoMembers::Behind => BEHIND,
        };
        match then {
            AfterList::Respond => self.reject(cx, reject),
            AfterList::Acknowledge(to) => self.ws_reject(cx, to.as_deref(), reject),
        }
    }
}
