//! How often a client may do, in a second, what costs us more than it costs the client.

use super::super::Cx;
use super::state;
use crate::metrics::Flood;
use crate::proto::h2::ErrorCode;

/// Counts something that a client may do only so often.
pub(super) fn note(cx: &mut Cx<'_>, flood: Flood) -> Result<(), ErrorCode> {
    let second = cx.shared.now.as_secs() as u32;
    let max = max_of(cx, flood);
    match state(cx).floods.note(flood, second, max) {
        false => Ok(()),
        true => Err(flooded(cx, flood)),
    }
}

/// The error that ends a connection for too much of this.
pub(super) fn flooded(cx: &Cx<'_>, flood: Flood) -> ErrorCode {
    count(cx, flood);
    ErrorCode::EnhanceYourCalm
}

pub(super) fn count(cx: &Cx<'_>, flood: Flood) {
    cx.shared.metrics.add_http2_flood(flood);
}

fn max_of(cx: &Cx<'_>, flood: Flood) -> u16 {
    use crate::limits::http2_per_second as max;
    let streams = u16::try_from(cx.shared.settings.http2_streams_max).unwrap_or(u16::MAX);
    match flood {
        Flood::RapidReset => max::RAPID_RESETS,
        // A page that closes, or a proxy whose clients leave, resets all its streams at once.
        Flood::Reset => streams.saturating_mul(2).max(max::RESETS),
        Flood::MadeReset => max::MADE_RESETS,
        Flood::Ping => max::PINGS,
        Flood::Settings => max::SETTINGS,
        Flood::EmptyData => max::EMPTY_DATA,
        Flood::Late | Flood::Ignored => max::IGNORED,
        // These are counted elsewhere.
        Flood::WindowUpdate | Flood::Head | Flood::ClosedWindow | Flood::HeldAnswers => u16::MAX,
    }
}
