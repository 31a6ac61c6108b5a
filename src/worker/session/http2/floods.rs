//! How often a client may do, in a second, what costs us more than it costs the client.

use super::super::Cx;
use super::state;
use crate::metrics::{FLOODS, Flood};
use crate::proto::h2::ErrorCode;

/// How often a connection has done each of these lately: the counts are halved every second.
#[derive(Debug, Default)]
pub(super) struct Floods {
    second: u32,
    counts: [u16; FLOODS.len()],
}

impl Floods {
    /// Counts one more. Returns whether that is too many.
    fn note(&mut self, flood: Flood, second: u32, max: u16) -> bool {
        let elapsed = second.wrapping_sub(self.second);
        if elapsed > 0 {
            self.second = second;
            self.counts.iter_mut().for_each(|count| *count >>= elapsed.min(15));
        }
        let count = &mut self.counts[flood as usize];
        *count = count.saturating_add(1);
        *count > max
    }
}

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
    cx.shared.metrics.http2_floods[flood as usize].add(1);
    ErrorCode::EnhanceYourCalm
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
        Flood::WindowUpdate | Flood::Head | Flood::ClosedWindow => u16::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_now_and_then_is_no_flood() {
        let mut floods = Floods::default();
        for second in 0..1000 {
            assert!((0..50).all(|_| !floods.note(Flood::Ping, second, 100)), "second {second}");
        }
        let mut floods = Floods::default();
        assert_eq!((0..).take_while(|_| !floods.note(Flood::Ping, 7, 100)).count(), 100);
        assert!(!floods.note(Flood::Settings, 7, 100), "each kind has a count of its own");
        assert!(!floods.note(Flood::Ping, 8, 100), "a second later half of it is forgotten");
    }
}
