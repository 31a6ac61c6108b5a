//! `pushline token`: makes a token for development, the way an application's backend would.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::source::{Env, Place};
use super::{AuthConfigError, AuthFault, BadPatterns, KeySource, Patterns, keys};

/// Make an HS256 token for development, and print it.
///
/// The secret is read from a file or an environment variable, never from the command line, where
/// every user of the machine could see it.
#[derive(Args, Debug, Clone)]
pub struct TokenArgs {
    /// A channel or pattern to subscribe to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub subscribe: Vec<String>,
    /// A channel or pattern to publish to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub publish: Vec<String>,
    /// How long the token is good for
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1h",
        value_parser = parse_time
    )]
    pub expires_in: Duration,
    /// Who it is for, the claim `sub`
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// The claim `aud`
    #[arg(long, value_name = "NAME")]
    pub audience: Option<String>,
    /// The claim `iss`
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,
    /// The id of the secret, if the server knows several
    #[arg(long, value_name = "ID")]
    pub kid: Option<String>,
    /// The file that holds the secret
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    pub secret_file: Option<PathBuf>,
    /// The environment variable that holds the secret
    #[arg(long, value_name = "NAME", default_value = "PUSHLINE_SECRET")]
    pub secret_env: String,
}

fn parse_time(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "wanted: a time with its unit, as 30s, 15m or 7d")
}

/// Why no token was made. The user's to cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// The secret cannot be read, or is one that the server would refuse.
    Secret(AuthConfigError),
    /// A pattern that the server would refuse, and the option it was given with.
    Pattern(&'static str, String),
    /// More patterns than the server takes, and the option they were given with.
    TooManyPatterns(&'static str),
    /// The claims cannot be written down.
    Unsigned,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(error) => error.fmt(f),
            Self::Pattern(option, text) => {
                write!(f, "{option} {text:?}: not a channel, `*`, or something ending in `:*`")
            }
            Self::TooManyPatterns(option) => {
                write!(f, "{option}: {}", AuthFault::TooManyPatterns)
            }
            Self::Unsigned => f.write_str("the token cannot be signed"),
        }
    }
}

impl std::error::Error for TokenError {}

#[derive(Serialize)]
struct Claims<'a> {
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    pushline: Rights<'a>,
}

#[derive(Serialize)]
struct Rights<'a> {
    subscribe: &'a [String],
    publish: &'a [String],
}

impl TokenArgs {
    /// What is likely not meant: a token without any rights.
    pub fn warning(&self) -> Option<&'static str> {
        (self.subscribe.is_empty() && self.publish.is_empty()).then_some(
            "this token allows nothing that anonymous clients may not do; add --subscribe PATTERN \
             or --publish PATTERN",
        )
    }
}

/// Signs a token as asked. It is refused here if a server would refuse it.
pub fn sign(args: &TokenArgs, env: Env<'_>, now_unix_s: u64) -> Result<String, TokenError> {
    for (option, patterns) in [("--subscribe", &args.subscribe), ("--publish", &args.publish)] {
        Patterns::parse(patterns).map_err(|bad| match bad {
            BadPatterns::Malformed { index } => {
                TokenError::Pattern(option, patterns[index].clone())
            }
            BadPatterns::TooMany => TokenError::TooManyPatterns(option),
        })?;
    }
    let source = match &args.secret_file {
        Some(file) => KeySource { file: Some(file.clone()), ..KeySource::default() },
        None => KeySource { env: Some(args.secret_env.clone()), ..KeySource::default() },
    };
    let material = Place::from(&source).fetch("the secret", env).map_err(TokenError::Secret)?;
    let secret = material.without_line_break();
    keys::check_secret(secret).map_err(|fault| TokenError::Secret(material.error(fault)))?;
    let claims = Claims {
        exp: now_unix_s.saturating_add(args.expires_in.as_secs()),
        sub: args.subject.as_deref(),
        aud: args.audience.as_deref(),
        iss: args.issuer.as_deref(),
        pushline: Rights { subscribe: &args.subscribe, publish: &args.publish },
    };
    let header = Header { kid: args.kid.clone(), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
        .map_err(|_| TokenError::Unsigned)
}
