//! Puts the configuration together from all the places it can come from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::error::{ConfigErrors, Fault, Place};
use super::file::{self, CHANNEL, Entry, Origin, Written};
use super::keys::{KEYS, Key, variable};
use super::suggest::nearest;
use super::{ClusterSettings, Settings, access};
use crate::auth::{AuthSettings, Env, Gate};
use crate::log::policy::POLICIES_MAX;
use crate::proto::name::Pattern;

/// Longest file that is read: all keys, channel rules and access rules there can be take less.
/// Keeps a wrong path (a log, a device) from filling memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The most an event takes besides its data: names, ids and its place in history.
const EVENT_EXTRA_BYTES: u64 = 1024;

/// Where a configuration file is looked for if none is named; the first that exists counts.
pub const DEFAULT_FILES: [&str; 2] = ["pushline.toml", "/etc/pushline/pushline.toml"];

/// The file to read if none is named. One that exists but cannot be read counts, so that the
/// operator is told.
pub fn default_file() -> Option<PathBuf> {
    first_there(DEFAULT_FILES.map(PathBuf::from))
}

fn first_there(places: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    places.into_iter().find(|path| !matches!(path.try_exists(), Ok(false)))
}

/// Where settings come from, besides the environment.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The options of the command line.
    pub options: Vec<(&'static Key, String)>,
}

/// What the file, the environment and the command line say together.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the server runs with.
    pub settings: Settings,
    /// Who may do what.
    pub auth: AuthSettings,
    /// Names of the keys the operator has set.
    pub(super) chosen: Vec<&'static str>,
}

impl Config {
    /// Whether the operator has set this key, so that we must not change it.
    pub fn is_chosen(&self, name: &str) -> bool {
        self.chosen.contains(&name)
    }

    /// The access rules, with keys read from their sources.
    ///
    /// # Errors
    /// A key that cannot be read or used, or a rule that contradicts another.
    pub fn gate(&self, env: Env<'_>) -> Result<Gate, ConfigErrors> {
        Ok(Gate::from_settings(&self.auth, env)?)
    }
}

/// Reads the file and the environment, and applies the options last.
///
/// # Errors
/// Every mistake found.
pub fn load(sources: &Sources, env: Env<'_>) -> Result<Config, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let (path, text) = match &sources.file {
        None => (String::new(), String::new()),
        Some(path) => {
            let name = path.display().to_string();
            match read_file(path) {
                Ok(text) => (name, text),
                Err(fault) => {
                    errors.add(Place::File(name), fault);
                    return Err(errors);
                }
            }
        }
    };
    assemble(&path, &text, &sources.options, env, errors)
}

/// Reads the text of a file alone; `name` stands for it in messages.
///
/// # Errors
/// Every mistake found.
pub fn check_text(name: &str, text: &str) -> Result<Config, ConfigErrors> {
    assemble(name, text, &[], &|_| None, ConfigErrors::default())
}

/// Variables that are no setting but nearly named like one, with that setting's name. Others that
/// begin with `PUSHLINE_` may belong to another program, and those named in `auth` hold a key.
pub fn misspelt_variables(
    names: impl Iterator<Item = String>,
    auth: &AuthSettings,
) -> Vec<(String, String)> {
    let mut known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    known.extend(access::AUTH_KEYS.iter().map(access::AuthKey::variable));
    known.extend([variable(CHANNEL), variable("config")]);
    known.extend(auth.variables().map(str::to_owned));
    let prefix = variable("");
    let suspects = names.filter(|name| name.starts_with(&prefix) && !known.contains(name));
    suspects
        .filter_map(|name| {
            let keys = known.iter().filter_map(|known| known.strip_prefix(&prefix));
            let keys: Vec<String> = keys.map(str::to_ascii_lowercase).collect();
            let meant = nearest(&name[prefix.len()..], keys.iter().map(String::as_str))?;
            Some((name.clone(), variable(meant)))
        })
        .collect()
}

fn read_file(path: &Path) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Fault::Unreadable(error.kind()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    String::from_utf8(bytes).map_err(|_| Fault::NotText)
}

fn assemble(
    path: &str,
    text: &str,
    options: &[(&'static Key, String)],
    env: Env<'_>,
    mut errors: ConfigErrors,
) -> Result<Config, ConfigErrors> {
    let env = |name: &str| env(name).filter(|text| !text.is_empty());
    let document = file::read(path, text, &mut errors);
    let of_env = KEYS.iter().filter_map(|key| {
        let place = Place::Variable(key.variable());
        env(&key.variable()).map(|text| Written::as_text(key, text, place))
    });
    let of_options = options
        .iter()
        .map(|(key, text)| Written::as_text(key, text.clone(), Place::Option(key.flag())));
    let mut settings = Settings::default();
    let mut chosen = Vec::new();
    let all = document.values.into_iter().chain(of_env).chain(of_options);
    for Written { key, text, shown, place } in all {
        match key.put(&mut settings, &text) {
            Ok(()) => chosen.push(key.name),
            Err(unfit) => errors.add(place, Fault::BadValue(key.name.to_owned(), shown, unfit)),
        }
    }
    let entries = match env(&variable(CHANNEL)) {
        Some(text) => channels_of_variable(&text, &mut errors),
        None => document.channels,
    };
    put_channels(&mut settings, entries, &mut errors);
    let auth = access::read(document.auth, &env, &mut errors);
    check_together(&mut settings, &mut errors);
    errors.or(Config { settings, auth, chosen })
}

fn channels_of_variable(text: &str, errors: &mut ConfigErrors) -> Vec<Entry> {
    let name = variable(CHANNEL);
    match DeValue::parse(text) {
        Ok(value) => file::channels(value, Origin::Variable(&name), errors),
        Err(error) => {
            errors.add(Place::Variable(name), Fault::Syntax(error.message().to_owned()));
            Vec::new()
        }
    }
}

/// Comes after all else, so that what a `[[channel]]` leaves out is the general value.
fn put_channels(settings: &mut Settings, entries: Vec<Entry>, errors: &mut ConfigErrors) {
    if let Some(one_too_many) = entries.get(POLICIES_MAX) {
        errors.add(one_too_many.place.clone(), Fault::TooManyChannels(POLICIES_MAX));
    }
    for entry in entries {
        let mut of = settings.channel_default.clone();
        for Written { key, text, shown, place } in entry.values {
            if let Err(unfit) = key.put_channel(&mut of, &text) {
                errors.add(place, Fault::BadValue(format!("channel.{}", key.name), shown, unfit));
            }
        }
        match Pattern::parse(&entry.pattern) {
            Err(error) => errors.add(entry.place, Fault::BadPattern(entry.pattern, error)),
            Ok(pattern) if settings.channels.iter().any(|(earlier, _)| *earlier == pattern) => {
                errors.add(entry.place, Fault::DuplicatePattern(entry.pattern));
            }
            Ok(pattern) => settings.channels.push((pattern, of)),
        }
    }
}

/// Checks what no setting can check alone.
fn check_together(settings: &mut Settings, errors: &mut ConfigErrors) {
    let Settings { listen, admin, .. } = *settings;
    if listen == admin && listen.port() != 0 {
        errors.add(Place::Together, Fault::SameAddress(listen));
    }
    if let Some(tls) = settings.listen_tls.filter(|tls| [listen, admin].contains(tls))
        && tls.port() != 0
    {
        errors.add(Place::Together, Fault::SameAddress(tls));
    }
    let event_bytes = settings.event_bytes_max as u64 + EVENT_EXTRA_BYTES;
    if settings.history_bytes < event_bytes {
        errors.add(Place::Together, Fault::TooSmallFor("history_bytes", "max_event_bytes"));
    }
    let shares = settings.channels.iter().map(|(_, of)| of.history_share);
    if shares.fold(0, u64::saturating_add) > settings.history_bytes {
        errors.add(Place::Together, Fault::SharesTooLarge("history_bytes"));
    }
    let ClusterSettings { nats, redis, .. } = &settings.cluster;
    let homes = [
        ("data_dir", settings.data_dir.is_some()),
        ("cluster.nats", !nats.is_empty()),
        ("cluster.redis", !redis.is_empty()),
    ];
    let mut chosen = homes.into_iter().filter(|(_, is_chosen)| *is_chosen);
    if let (Some((one, _)), Some((other, _))) = (chosen.next(), chosen.next()) {
        errors.add(Place::Together, Fault::Exclusive(one, other));
    }
    // History is the operator's budget; this only has to hold what is under way.
    settings.replica_bytes = settings.replica_bytes.max(event_bytes as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_is_there_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let [near, far] = ["near", "far"].map(|name| folder.path().join(name));
        let first = || first_there([near.clone(), far.clone()]);
        assert_eq!(first(), None);
        std::fs::write(&far, "").expect("written");
        assert_eq!(first(), Some(far.clone()));
        std::fs::write(&near, "").expect("written");
        assert_eq!(first(), Some(near.clone()));
    }
}
