//! Deliveries per second over time: what the plot shows and the table's peak.
//!
//! Events are published at a pace, and each is delivered to all subscribers at once. Windows that
//! do not fit that pace would hold now one event and now two, which looks like a comb. So a window
//! holds a whole number of publishes, and its edges fall between two of them.

use std::time::Duration;

/// Windows there should be at least: enough to see a course in.
const WINDOWS: f64 = 100.0;

/// Shortest window of a paced run, in seconds.
const WINDOW_S_MIN: f64 = 0.1;

/// A window of time.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Window {
    /// When it begins, in seconds since the first publish.
    pub from_s: f64,
    /// How long it lasts.
    pub width_s: f64,
    /// Deliveries per second in it.
    pub deliveries_per_s: f64,
}

/// Puts the slots of a timeline, (seconds, deliveries) each `slot_s` wide, into windows. `end_s` is
/// when the last delivery came; `period` is the time between two publishes of a paced run.
pub(super) fn windows(
    timeline: &[(f64, u64)],
    slot_s: f64,
    end_s: f64,
    period: Option<Duration>,
) -> Vec<Window> {
    if timeline.is_empty() {
        return Vec::new();
    }
    let period_s = period.map(|period| period.as_secs_f64());
    let end_s = end_s.max(slot_s);
    let width = width_s(slot_s, end_s, period_s);
    // A publish is in the middle of what precedes the edge and follows it.
    let early = period_s.filter(|period_s| *period_s > slot_s).map_or(0.0, |p| p / 4.0);
    let place = |at: f64| ((at + slot_s / 2.0 + early) / width) as usize;
    let mut counts = vec![0; place(end_s) + 1];
    for (at, count) in timeline {
        let last = counts.len() - 1;
        counts[place(*at).min(last)] += count;
    }
    let window = |(place, count): (usize, u64)| {
        let from_s = (place as f64 * width - early).max(0.0);
        let to_s = (place as f64 + 1.0) * width - early;
        // The last one is only as long as something came, but not so short that it is a spike.
        let shortest = period_s.unwrap_or(slot_s).max(slot_s).min(width);
        let width_s = (to_s.min(end_s) - from_s).max(shortest);
        Window { from_s, width_s, deliveries_per_s: count as f64 / width_s }
    };
    counts.into_iter().enumerate().map(window).filter(|of| of.from_s < end_s).collect()
}

/// The shortest whole number of publishes, or of slots, that is long enough.
fn width_s(slot_s: f64, end_s: f64, period_s: Option<f64>) -> f64 {
    let (unit, least) = match period_s {
        None => (slot_s, end_s / WINDOWS),
        Some(period_s) if period_s > slot_s => (period_s, (end_s / WINDOWS).max(WINDOW_S_MIN)),
        Some(_) => (slot_s, (end_s / WINDOWS).max(WINDOW_S_MIN)),
    };
    unit * (least / unit).ceil().max(1.0)
}

/// The highest rate.
pub(super) fn peak(windows: &[Window]) -> f64 {
    windows.iter().map(|window| window.deliveries_per_s).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT_S: f64 = 0.001;

    /// `per_s` publishes for `seconds`, each delivered to 1,000 within 4 ms.
    fn paced(per_s: f64, seconds: f64) -> (Vec<(f64, u64)>, f64) {
        let publishes = (per_s * seconds) as u32;
        let mut timeline = Vec::new();
        for publish in 0..publishes {
            let at = f64::from(publish) / per_s;
            timeline.extend((0..4).map(|ms| (((at / SLOT_S) as u64 + ms) as f64 * SLOT_S, 250)));
        }
        let end = timeline.last().map_or(0.0, |(at, _)| *at + SLOT_S);
        (timeline, end)
    }

    #[test]
    fn an_even_pace_is_an_even_line() {
        for per_s in [3.0, 7.0, 10.0, 20.0, 33.0, 60.0, 150.0] {
            let (timeline, end_s) = paced(per_s, 5.0);
            let period = Some(Duration::from_secs_f64(1.0 / per_s));
            let windows = windows(&timeline, SLOT_S, end_s, period);
            let (_, whole) = windows.split_last().expect("some");
            for window in &whole[1..] {
                let even = window.deliveries_per_s / (per_s * 1000.0);
                assert!((0.99..1.01).contains(&even), "{per_s}: {window:?}");
            }
        }
    }

    #[test]
    fn each_delivery_is_in_a_window_and_the_peak_is_not_below_the_mean() {
        for (timeline, end_s) in [
            (vec![(0.0, 200), (0.001, 300), (0.003, 500)], 0.0037),
            (vec![(0.0, 5), (0.03, 7), (20.0, 8)], 20.0005),
        ] {
            let windows = windows(&timeline, SLOT_S, end_s, None);
            let sum: f64 = windows.iter().map(|of| of.deliveries_per_s * of.width_s).sum();
            let all: u64 = timeline.iter().map(|(_, count)| count).sum();
            assert!((sum - all as f64).abs() < 1e-6, "{windows:?}");
            assert!(peak(&windows) >= all as f64 / end_s * 0.999, "{windows:?}");
        }
        assert_eq!(windows(&[], SLOT_S, 0.0, None), []);
    }
}
