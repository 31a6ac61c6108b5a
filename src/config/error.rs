//! What can be wrong with a configuration, and where. All of it is for the operator to cure, and
//! none of it quotes anything from the `[auth]` section except names of keys.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::units::Unfit;
use crate::auth::{AuthConfigError, unreadable};
use crate::proto::name::PatternError;

/// A mistake of the operator's, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The option, variable, or line of a file.
    pub place: Place,
    /// What is wrong there.
    pub fault: Fault,
}

/// Where a mistake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file as a whole.
    File(String),
    /// On a line of a file.
    Line(String, usize),
    /// In an environment variable.
    Variable(String),
    /// In an option of the command line.
    Option(String),
    /// Between settings that may come from several places.
    Together,
}

/// What can be wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file cannot be read.
    Unreadable(io::ErrorKind),
    /// The file is not UTF-8.
    NotText,
    /// The file is longer than any configuration.
    TooLong,
    /// The file is not TOML; what the parser says.
    Syntax(String),
    /// No such key; with the one that was probably meant, if any is near.
    UnknownKey(String, Option<String>),
    /// A key in the wrong place: the key, and where it belongs.
    Misplaced(String, &'static str),
    /// The key takes another kind of value: key, wanted, found.
    WrongType(String, &'static str, &'static str),
    /// The key does not take this value: key, value as it was written, what it takes.
    BadValue(String, String, Unfit),
    /// A `[[channel]]` without its pattern.
    NoPattern,
    /// The name of a `[[channel]]` is not a pattern.
    BadPattern(String, PatternError),
    /// A pattern that an earlier `[[channel]]` has, so this one would never count.
    DuplicatePattern(String),
    /// More `[[channel]]` entries than this.
    TooManyChannels(usize),
    /// A key of `[auth]` does not have the right shape: key, what is wanted.
    AuthShape(&'static str, String),
    /// The access settings are well-formed but wrong.
    Auth(AuthConfigError),
    /// Clients and the operator share one address.
    SameAddress(SocketAddr),
    /// The first key's value is too small for that of the second.
    TooSmallFor(&'static str, &'static str),
    /// The shares of all `[[channel]]` together are more than there is.
    SharesTooLarge(&'static str),
    /// Only one of these can be had.
    Exclusive(&'static str, &'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Line(path, line) => write!(f, "{path}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Option(name) => write!(f, "--{name}"),
            Self::Together => f.write_str("settings"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(kind) => {
                write!(f, "cannot be read: {}", unreadable(*kind))
            }
            Self::NotText => f.write_str("not UTF-8 text"),
            Self::TooLong => f.write_str("too long for a configuration; is it the right file?"),
            Self::Syntax(message) => write!(f, "not TOML: {message}"),
            Self::UnknownKey(name, Some(nearest)) => {
                write!(f, "unknown key {}; did you mean {nearest}?", quoted(name))
            }
            Self::UnknownKey(name, None) => {
                write!(f, "unknown key {}; `pushline config default` lists all keys", quoted(name))
            }
            Self::Misplaced(name, place) => {
                write!(f, "{} does not belong here, but {place}", quoted(name))
            }
            Self::WrongType(key, wanted, found) => {
                write!(f, "{key} is {found}; wanted: {wanted}")
            }
            Self::BadValue(key, text, unfit) => write!(f, "{key} = {text}: {unfit}"),
            Self::NoPattern => f.write_str(
                "[[channel]] without a pattern: an exact channel, *, or something ending in :*",
            ),
            Self::BadPattern(text, error) => write!(f, "pattern {}: {error}", quoted(text)),
            Self::DuplicatePattern(text) => write!(
                f,
                "pattern {} came before, and the first match wins; remove one",
                quoted(text)
            ),
            Self::TooManyChannels(max) => {
                write!(f, "more than {max} [[channel]] entries; use prefixes such as user:*")
            }
            Self::AuthShape(key, wanted) => write!(f, "auth.{key}: {wanted}"),
            Self::Auth(error) => write!(f, "{error}"),
            Self::SameAddress(address) => {
                write!(
                    f,
                    "two of listen, listen_tls and admin are {address}; give each its own port"
                )
            }
            Self::TooSmallFor(small, large) => write!(
                f,
                "{small} cannot hold one event of {large}; raise {small} or lower {large}"
            ),
            Self::Exclusive(one, other) => {
                write!(f, "{one} and {other} are two homes of the log: choose one of them")
            }
            Self::SharesTooLarge(of) => write!(
                f,
                "{of} is less than the {of} of all [[channel]] together; raise it or lower those"
            ),
        }
    }
}

/// Quoted and shortened: a file can hold anything.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    let rest = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{rest}")
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

impl std::error::Error for ConfigError {}

/// All mistakes that were found; there is at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn add(&mut self, place: Place, fault: Fault) {
        self.0.push(ConfigError { place, fault });
    }

    /// `value`, unless there was a mistake.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        // In the order of the file; what is not on a line comes last.
        self.0.sort_by_key(|error| match error.place {
            Place::Line(_, line) => line,
            Place::File(_) | Place::Variable(_) | Place::Option(_) | Place::Together => usize::MAX,
        });
        Err(self)
    }

    /// In the order of the file, then the others.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<AuthConfigError> for ConfigErrors {
    fn from(error: AuthConfigError) -> Self {
        Self(vec![ConfigError { place: Place::Together, fault: Fault::Auth(error) }])
    }
}

impl fmt::Display for ConfigErrors {
    /// One per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
