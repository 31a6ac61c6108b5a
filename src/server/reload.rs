//! Applying new settings and access rules while running.

use std::fmt;
use std::sync::Arc;

use super::clerk::LogCommand;
use super::{Server, ServerError, keep_to_this_machine};
use crate::auth::Gate;
use crate::config::{Change, KEYS, Settings};
use crate::worker::command::Command;

/// The outcome of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values were applied.
    pub applied: Vec<&'static str>,
    /// Keys whose new values need a restart.
    pub needs_restart: Vec<&'static str>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("access rules and keys read again")?;
        if !self.applied.is_empty() {
            write!(f, "; changed: {}", self.applied.join(", "))?;
        }
        if !self.needs_restart.is_empty() {
            write!(f, "; unchanged until a restart: {}", self.needs_restart.join(", "))?;
        }
        Ok(())
    }
}

impl Server {
    /// Applies new settings and access rules. Settings that need a restart are left unchanged.
    ///
    /// # Errors
    /// The new rules would leave the server open to the world, or a certificate cannot be used; then
    /// nothing has changed.
    pub fn reload(&mut self, wanted: Settings, gate: Gate) -> Result<Reloaded, ServerError> {
        let (settings, reloaded) = merge(&self.settings, wanted.with_demos());
        let gate = self.backend.serve(keep_to_this_machine(&settings, gate)?);
        self.backend.start(&gate, &self.to_workers)?;
        let settings = Arc::new(settings);
        if let Some(tls) = &mut self.tls {
            tls.reload(&settings, gate.client_ca())?;
        }
        self.shared.connection_count.limit(self.room.within(settings.connections_max));
        // Disconnected: the log has ended, and the server with it.
        let _ = self.log_commands.send(LogCommand::Apply(Box::new(settings.log_settings())));
        self.settings = settings.clone();
        let gate = Arc::new(gate);
        self.to_workers.send_all(|| Command::Settings(settings.clone()));
        self.to_workers.send_all(|| Command::Gate(gate.clone()));
        Ok(reloaded)
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// The wanted settings, except those that can only change at a restart.
fn merge(current: &Settings, mut wanted: Settings) -> (Settings, Reloaded) {
    let mut reloaded = Reloaded::default();
    for key in KEYS {
        let value = key.show(current);
        if key.show(&wanted) == value {
            continue;
        }
        match key.change {
            Change::Reload => reloaded.applied.push(key.name),
            Change::Restart => {
                let kept = key.put(&mut wanted, &value);
                debug_assert!(kept.is_ok(), "{} = {value}: what is shown can be put", key.name);
                reloaded.needs_restart.push(key.name);
            }
        }
    }
    if wanted.channels != current.channels {
        reloaded.applied.push("channel");
    }
    (wanted, reloaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let current = Settings::default();
        let mut wanted = Settings { workers: Some(7), ..Settings::default() };
        wanted.channel_default.history_count = 5;
        let (merged, reloaded) = merge(&current, wanted);
        assert_eq!(merged.workers, None);
        assert_eq!(merged.channel_default.history_count, 5);
        assert_eq!(reloaded.applied, ["history_count"]);
        assert_eq!(reloaded.needs_restart, ["workers"]);
        assert_eq!(
            reloaded.to_string(),
            "access rules and keys read again; changed: history_count; \
             unchanged until a restart: workers"
        );
    }
}
