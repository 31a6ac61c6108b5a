//! What a connection may do, and how that is replaced while it lasts.

use std::sync::Arc;

use super::state::Session;
use super::{Cx, Shared, checks};
use crate::auth::{Denied, Grant};
use crate::proto::identity::Identity;
use crate::worker::effect::Effect;

/// What a connection may do.
#[derive(Clone, Debug)]
pub(super) enum Permission {
    /// Everything: the server is open.
    All,
    /// What its grant says.
    Granted(Arc<Grant>),
    /// Nothing at all.
    Nothing,
}

impl Permission {
    pub fn may_publish(&self, channel: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grant) => grant.may_publish(channel),
            Self::Nothing => false,
        }
    }

    pub fn may_cancel(&self, channel: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grant) => grant.may_cancel(channel),
            Self::Nothing => false,
        }
    }

    pub fn may_subscribe(&self, channel: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grant) => grant.may_subscribe(channel),
            Self::Nothing => false,
        }
    }
}

impl Session {
    /// The second of unix time in which the session's grant runs out.
    pub(super) fn expires_at_unix_s(&self) -> Option<u32> {
        let at = self.grant()?.expires_at_unix_s()?;
        u32::try_from(at).ok()
    }

    /// Whether the session's grant runs out in this second, and no other.
    pub fn expires_at(&self, unix_s: u32) -> bool {
        self.expires_at_unix_s() == Some(unix_s)
    }

    /// Who the connection's token says it is.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.grant().and_then(|grant| grant.identity())
    }

    fn check_subject(&self, grant: &Grant) -> Result<(), Denied> {
        match self.grant().and_then(|old| old.subject()) {
            Some(subject) if grant.subject() != Some(subject) => Err(Denied::OtherSubject),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Whether the present rules would let a connection with this grant in again.
    pub(super) fn vouches_for(&self, grant: Option<&Arc<Grant>>) -> bool {
        let grant = grant.map(|grant| &**grant);
        self.gate.stands_by(grant) && !grant.is_some_and(|grant| self.revoked.covers(grant))
    }

    pub(super) fn not_revoked(&self, grant: Arc<Grant>) -> Result<Arc<Grant>, Denied> {
        if self.revoked.covers(&grant) { Err(Denied::Revoked) } else { Ok(grant) }
    }
}

impl Cx<'_> {
    /// What the connection may do.
    pub(super) fn permission(&self) -> Permission {
        match self.session.grant() {
            _ if self.shared.gate.is_open() => Permission::All,
            Some(grant)
                if !grant.is_expired(self.shared.unix_s)
                    && self.shared.vouches_for(Some(grant)) =>
            {
                Permission::Granted(grant.clone())
            }
            _ => Permission::Nothing,
        }
    }

    /// Whether the connection may read the channel.
    pub(super) fn check_subscribe(&self, channel: &str) -> Result<(), Denied> {
        match self.permission().may_subscribe(channel) {
            true => Ok(()),
            false => Err(Denied::SubscribeForbidden),
        }
    }

    /// Whether the connection may publish to the channel.
    pub(super) fn check_publish(&self, channel: &str) -> Result<(), Denied> {
        match self.permission().may_publish(channel) {
            true => Ok(()),
            false => Err(Denied::PublishForbidden),
        }
    }
}

/// Ends the stream when its grant does. (A request needs no such entry: it is over by then.)
pub(super) fn await_expiry(cx: &mut Cx<'_>) {
    if let Some(at) = cx.session.expires_at_unix_s() {
        cx.push(Effect::ExpireAt(at));
    }
}

/// Whether there may be any channel the connection may publish to.
pub(super) fn may_publish_somewhere(cx: &Cx<'_>) -> bool {
    let grant = cx.session.grant();
    cx.shared.gate.is_open() || grant.is_some_and(|grant| grant.may_publish_somewhere())
}

/// Replaces the grant of a running connection by that of a new token.
pub(super) fn refresh_grant(cx: &mut Cx<'_>, token: &str) -> Result<(), Denied> {
    let checked = cx.shared.gate.authenticate_token(token, cx.shared.unix_s);
    if checked.is_err() && !cx.shared.gate.cost_of_token(token).is_zero() {
        checks::count_failure(cx);
    }
    replace_grant(cx, checked?)
}

/// As `refresh_grant`, for a token already checked. It must have the same subject, if the old
/// one named one, and allow every channel the connection reads; otherwise nothing changes.
pub(super) fn replace_grant(cx: &mut Cx<'_>, grant: Arc<Grant>) -> Result<(), Denied> {
    cx.session.check_subject(&grant)?;
    // Another worker may have checked it, by rules that have since changed.
    if !cx.shared.gate.stands_by(Some(&grant)) {
        return Err(Denied::UnknownKey);
    }
    let grant = cx.shared.not_revoked(grant)?;
    if !cx.world.all_channels(&|channel| grant.may_subscribe(channel)) {
        return Err(Denied::SubscribeForbidden);
    }
    put_grant(cx, grant);
    Ok(())
}

/// Replaces the grant by what the backend says of the connection by now. What it reads already
/// it goes on to read.
pub(super) fn renew_grant(cx: &mut Cx<'_>, grant: Arc<Grant>) -> Result<(), Denied> {
    cx.session.check_subject(&grant)?;
    let grant = cx.shared.not_revoked(grant)?;
    put_grant(cx, grant);
    Ok(())
}

fn put_grant(cx: &mut Cx<'_>, grant: Arc<Grant>) {
    let before = cx.session.expires_at_unix_s();
    cx.session.grant = Some(grant);
    if cx.session.expires_at_unix_s() != before {
        await_expiry(cx);
    }
}
