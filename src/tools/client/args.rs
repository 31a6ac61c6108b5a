//! The options of `pushline sub` and `pushline pub`.

use std::borrow::Cow;

use clap::Args;

use super::error::ClientError;
use super::server::Server;
use crate::proto::envelope;
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::tools::bench::Transport;
use crate::tools::wire::tls::Trust;

/// Where the token is looked for by default.
const TOKEN_VARIABLE: &str = "PUSHLINE_TOKEN";

/// Longest key: the server takes 128 bytes, and a line's number and a dash have up to 21.
const KEY_BYTES_MAX: usize = 100;

/// The server, and the credentials.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The server, as http://HOST:PORT or https://HOST:PORT
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "PUSHLINE_URL")]
    pub url: String,
    #[command(flatten)]
    pub trust: Trust,
    /// Environment variable that holds the token [default: PUSHLINE_TOKEN, if it is set]
    #[arg(long, value_name = "NAME")]
    pub token_env: Option<String>,
}

/// Print what is published to channels; reconnect and resume as long as it takes.
#[derive(Debug, Clone, Args)]
pub struct SubArgs {
    /// Channels to subscribe to
    #[arg(required = true, value_name = "CHANNEL", value_parser = parse_channel)]
    pub channels: Vec<String>,
    #[command(flatten)]
    pub server: ServerArgs,
    /// How to listen
    #[arg(long, value_enum, default_value_t = Transport::Sse)]
    pub transport: Transport,
    /// Begin after this event id, or with `earliest` [default: with what comes from now on]
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
    /// Print a JSON object per event: id, channel, event, data (or data_base64). A gap is one
    /// too, with the event `pushline.gap`; without this it is told on standard error alone
    #[arg(long)]
    pub json: bool,
}

/// Publish to a channel: DATA as one event, or each line of standard input as it comes.
#[derive(Debug, Clone, Args)]
pub struct PubArgs {
    /// Channel to publish to
    #[arg(value_parser = parse_channel)]
    pub channel: String,
    /// The event's data; without it, lines are read from standard input
    pub data: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Type of the event (SSE `event:`)
    #[arg(long, value_name = "TYPE", value_parser = parse_event_type)]
    pub event: Option<String>,
    /// Idempotency key: a repeat is not published again. Of lines it is the beginning, their
    /// number follows [default: random]
    #[arg(long, value_parser = parse_key)]
    pub key: Option<String>,
    /// What the data is: text/*, application/json or application/octet-stream
    #[arg(long, default_value = "text/plain", value_name = "TYPE", value_parser = parse_media)]
    pub content_type: String,
}

impl ServerArgs {
    /// The server they name, with the token of the environment.
    pub(super) fn server(&self) -> Result<Server, ClientError> {
        let name = self.token_env.as_deref().unwrap_or(TOKEN_VARIABLE);
        let token = std::env::var(name).ok().filter(|token| !token.is_empty());
        if token.is_none() && self.token_env.is_some() {
            return Err(ClientError::TokenMissing(name.to_owned()));
        }
        // A line end in a token would forge headers.
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(ClientError::TokenInvalid(name.to_owned()));
        }
        Server::parse(&self.url, token, &self.trust)
    }
}

fn parse_channel(text: &str) -> Result<String, Cow<'static, str>> {
    channel_name(text.as_bytes()).map(str::to_owned).map_err(|error| Reject::from(error).message)
}

fn parse_event_type(text: &str) -> Result<String, Cow<'static, str>> {
    envelope::event_type(text).map(str::to_owned).map_err(|error| Reject::from(error).message)
}

fn parse_key(text: &str) -> Result<String, Cow<'static, str>> {
    // For lines, a number follows it.
    if text.len() > KEY_BYTES_MAX {
        return Err("a key is at most 100 bytes here".into());
    }
    envelope::key(text).map(str::to_owned).map_err(|error| Reject::from(error).message)
}

fn parse_media(text: &str) -> Result<String, &'static str> {
    match text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => Ok(text.to_owned()),
        false => Err("a media type is visible ASCII"),
    }
}
