//! Who is on a channel: `GET /channels/{channel}/presence`, and the operation `presence`.

use super::answer::Content;
use super::state::Protocol;
use super::{Cx, describe};
use crate::log::message::{MemberList, NoMembers};
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

/// Asks the log who is on a channel.
pub(super) fn ask(cx: &mut Cx<'_>, segment: &str) {
    match describe::readable_channel(cx, segment) {
        Ok(channel) => {
            cx.await_log();
            cx.push(Effect::ListMembers { channel, then: AfterList::Respond });
        }
        Err(reject) => cx.reject(reject),
    }
}

/// The same as an operation.
pub(super) fn ws_ask(cx: &mut Cx<'_>, reference: Option<&str>, channel: &str) {
    let channel = match channel_name(channel.as_bytes()) {
        Ok(channel) => channel,
        Err(error) => return cx.op_error(reference, error),
    };
    if let Err(denied) = cx.check_subscribe(channel) {
        return cx.op_error(reference, denied);
    }
    let then = AfterList::Acknowledge(reference.map(Into::into));
    cx.push(Effect::ListMembers { channel: channel.into(), then });
}

/// The log answered.
pub fn members_listed(
    cx: &mut Cx<'_>,
    channel: &str,
    members: Result<MemberList, NoMembers>,
    then: &AfterList,
) {
    let members = match members {
        Ok(members) => members,
        Err(why) => return refuse(cx, why, then),
    };
    let view = MembersView {
        channel,
        id: EventId { epoch: cx.shared.epoch, seq: members.head_seq },
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
            cx.respond(Status::Ok, &content, &[("Cache-Control", b"no-store")]);
        }
        AfterList::Acknowledge(reference) if cx.session.protocol == Protocol::Ws => {
            let reference = reference.as_deref();
            let write = |out: &mut Vec<u8>| write_members_answer(out, reference, &view);
            frame::write_text_with(cx.out(), write);
        }
        AfterList::Acknowledge(_) => {}
    }
}

fn refuse(cx: &mut Cx<'_>, why: NoMembers, then: &AfterList) {
    let reject = match why {
        NoMembers::Off => NO_PRESENCE,
        NoMembers::Behind => BEHIND,
    };
    match then {
        AfterList::Respond => cx.reject(reject),
        AfterList::Acknowledge(to) => cx.op_error(to.as_deref(), reject),
    }
}
