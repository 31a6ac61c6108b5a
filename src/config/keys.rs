//! What a key is, and what follows from its definition: where and how it can be set.

use super::units::Unfit;
use super::{ChannelSettings, Settings, define};

/// All keys, in the order in which help and the file show them.
pub static KEYS: &[Key] = &define::all();

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, as in the file.
    pub name: &'static str,
    /// The placeholder for its value in help.
    pub value: &'static str,
    /// Its section in help and in the file.
    pub group: Group,
    /// Whether it can change while the server runs.
    pub change: Change,
    /// A line for `--help` and the configuration file.
    pub help: &'static str,
    pub(super) field: Field,
}

/// Whether a key can change while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A reload applies it.
    Reload,
    /// It keeps its value from the start.
    Restart,
}

/// Keys that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where it listens, and for whom.
    Listen,
    /// Certificates, versions and tickets.
    Tls,
    /// How many workers, on which cores and driver.
    Workers,
    /// What connections may do.
    Connections,
    /// How long things take.
    Times,
    /// What applies to channels that no pattern matches.
    Channels,
    /// What events and readers may take of memory.
    Limits,
    /// What survives the process.
    Journal,
    /// Which lines are written, and how.
    Logs,
    /// How long token streams and their producers may pause.
    Streams,
    /// The broker, and who this node is there.
    Cluster,
}

impl Group {
    /// As written above the keys in the configuration file and in `--help`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Listen => "Addresses",
            Self::Tls => "TLS",
            Self::Workers => "Workers",
            Self::Connections => "Connections",
            Self::Times => "Times",
            Self::Channels => "Channels (what no [[channel]] says otherwise)",
            Self::Limits => "Limits",
            Self::Journal => "Journal",
            Self::Logs => "Logs",
            Self::Streams => "Token streams",
            Self::Cluster => "Many nodes",
        }
    }
}

/// Where a key's value is kept, and how it is read and shown. `put` accepts whatever `show`
/// returns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// For the server as a whole.
    Server { put: fn(&mut Settings, &str) -> Result<(), Unfit>, show: fn(&Settings) -> String },
    /// May also be set in `[[channel]]`.
    Channel {
        put: fn(&mut ChannelSettings, &str) -> Result<(), Unfit>,
        show: fn(&ChannelSettings) -> String,
    },
    /// For the server as a whole; in `[[channel]]`, the part of it that those channels get.
    Shared {
        put: fn(&mut Settings, &str) -> Result<(), Unfit>,
        show: fn(&Settings) -> String,
        put_share: fn(&mut ChannelSettings, &str) -> Result<(), Unfit>,
    },
}

impl Key {
    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The keys that may be set in `[[channel]]`.
    pub fn of_channels() -> impl Iterator<Item = &'static Self> {
        KEYS.iter().filter(|key| !matches!(key.field, Field::Server { .. }))
    }

    /// Sets the key.
    ///
    /// # Errors
    /// The value is not acceptable; nothing has changed.
    pub fn put(&self, settings: &mut Settings, text: &str) -> Result<(), Unfit> {
        match self.field {
            Field::Server { put, .. } | Field::Shared { put, .. } => put(settings, text),
            Field::Channel { put, .. } => put(&mut settings.channel_default, text),
        }
    }

    /// Its value, in the form it is written.
    pub fn show(&self, settings: &Settings) -> String {
        match self.field {
            Field::Server { show, .. } | Field::Shared { show, .. } => show(settings),
            Field::Channel { show, .. } => show(&settings.channel_default),
        }
    }

    /// Sets it for the channels of a pattern.
    pub(super) fn put_channel(&self, of: &mut ChannelSettings, text: &str) -> Result<(), Unfit> {
        match self.field {
            Field::Channel { put, .. } | Field::Shared { put_share: put, .. } => put(of, text),
            Field::Server { .. } => Err(Unfit::wants("a key of a channel")),
        }
    }

    /// The default, as an operator would write it.
    pub fn default_text(&self) -> String {
        self.show(&Settings::default())
    }

    /// Its option on the command line.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable that sets it: `PUSHLINE_` and the name in capitals.
    pub fn variable(&self) -> String {
        variable(self.name)
    }

    /// Whether it is true or false, so that its option needs no value.
    pub fn is_switch(&self) -> bool {
        self.value == "true|false"
    }
}

/// The environment variable of a key with this path.
pub(super) fn variable(path: &str) -> String {
    format!("PUSHLINE_{}", path.replace('.', "_").to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_put_and_changes_nothing() {
        for key in KEYS {
            let mut settings = Settings::default();
            let text = key.show(&settings);
            key.put(&mut settings, &text).expect(key.name);
            for other in KEYS {
                assert_eq!(other.show(&settings), other.default_text(), "{}", key.name);
            }
        }
    }

    #[test]
    fn names_are_names_and_said_once() {
        let mut names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
        for key in KEYS {
            assert!(
                key.name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{}",
                key.name
            );
            assert!(key.help.ends_with('.') && !key.help.contains('\n'), "{}", key.name);
        }
    }
}
