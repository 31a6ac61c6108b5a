//! What the service manager is told (`sd_notify(3)`); nothing if there is none.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Connections are accepted.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; `ready` follows.
pub(super) fn tell_reloading() {
    // `Type=notify-reload` wants to know when that began.
    let since = NotifyState::monotonic_usec_now().ok();
    let state: Vec<_> = [NotifyState::Reloading].into_iter().chain(since).collect();
    tell(&state);
}

/// The server is draining.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The workers respond.
pub(super) fn tell_alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often to tell it that, often enough that one message may be late.
pub(super) fn alive_pause() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|longest| longest / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the service manager can't be told {state:?}: {error}");
    }
}
