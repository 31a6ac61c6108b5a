//! What the service manager is told (`sd_notify(3)`); nothing where there is none.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Connections are accepted.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; ready follows.
pub(super) fn tell_reloading() {
    // `Type=notify-reload` wants to know since when.
    let since = NotifyState::monotonic_usec_now().ok();
    let state: Vec<_> = [NotifyState::Reloading].into_iter().chain(since).collect();
    tell(&state);
}

/// The server drains.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The workers turn.
pub(super) fn tell_alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often it wants to hear that, so that one can be late.
pub(super) fn alive_pause() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|longest| longest / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the service manager can't be told {state:?}: {error}");
    }
}
