//! The options of `pushline bench`, as an operator writes them and as the run uses them.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::error::BenchError;
use super::handshakes::KeyExchange;
use crate::tools::wire::tls::Trust;

/// How subscribers listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Sse,
    /// WebSocket, one event per message.
    Ws,
}

/// How subscribers are spread over channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Subscriber `i` subscribes to channel `i % n`.
    Shared(u32),
    /// Each subscriber has a channel of its own.
    Private,
}

impl Channels {
    /// How many channels `connections` subscribers make.
    pub fn count(self, connections: u32) -> u32 {
        match self {
            Self::Shared(count) => count.min(connections),
            Self::Private => connections,
        }
    }

    /// The name of the channel with this index.
    pub fn name(self, index: u32) -> String {
        match self {
            Self::Shared(_) => format!("bench-{index}"),
            Self::Private => format!("user-{index}"),
        }
    }
}

impl std::str::FromStr for Channels {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<u32>()) {
            ("private", _) => Ok(Self::Private),
            (_, Ok(count)) if count > 0 => Ok(Self::Shared(count)),
            _ => Err("a number of channels from 1, or `private`"),
        }
    }
}

impl std::fmt::Display for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shared(count) => write!(f, "{count}"),
            Self::Private => f.write_str("private"),
        }
    }
}

/// Events per second by default: enough to show a course over time, few enough for any server.
const PUBLISH_RATE_DEFAULT: f64 = 10.0;

const OTHER_SERVERS: &str = "\
Other servers are measured with templates. Each event carries a mark that is found in any envelope.

  Centrifugo (uni_sse):
    pushline bench --url http://127.0.0.1:8000 \\
      --subscribe-path '/connection/uni_sse?cf_connect={\"subs\":{\"{channel}\":{}}}' \\
      --publish-url http://127.0.0.1:8000/api/publish --publish-content-type application/json \\
      --publish-body '{\"channel\":\"{channel}\",\"data\":\"{data}\"}' --publish-header 'X-API-Key: KEY'

  Mercure:
    pushline bench --url http://127.0.0.1:3000 \\
      --subscribe-path '/.well-known/mercure?topic={channel}' \\
      --publish-url http://127.0.0.1:3000/.well-known/mercure \\
      --publish-content-type application/x-www-form-urlencoded \\
      --publish-body 'topic={channel}&data={data}' --publish-header 'Authorization: Bearer JWT'";

/// Measure a push server: hold connections, publish, count what arrives.
#[derive(Debug, Clone, Args)]
#[command(after_help = OTHER_SERVERS)]
pub struct BenchArgs {
    /// The server, as http://HOST:PORT or https://HOST:PORT
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    #[command(flatten)]
    trust: Trust,
    /// Over https, what subscribers offer to agree on keys by
    #[arg(long, value_enum, default_value_t = KeyExchange::Hybrid)]
    key_exchange: KeyExchange,
    /// Over https, resume sessions: each subscriber comes with the ticket that an earlier one was
    /// given, as clients do that come back; otherwise every handshake is a full one
    #[arg(long)]
    tickets: bool,
    /// How subscribers listen
    #[arg(long, value_enum, default_value_t = Transport::Sse)]
    transport: Transport,
    /// Subscribers to hold
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Over HTTP/2, many subscribers on each connection (SSE only)
    #[arg(long)]
    http2: bool,
    /// Subscribers on each connection of HTTP/2
    #[arg(long, default_value_t = 100, value_name = "N", requires = "http2",
          value_parser = clap::value_parser!(u32).range(1..))]
    streams: u32,
    /// Channels they are spread over, or `private` for one each
    #[arg(long, default_value = "1", value_name = "N|private")]
    channels: Channels,
    /// Events per second over the duration; with --burst the average of all bursts [default: 10;
    /// with --burst: none, a single burst]
    #[arg(long, value_name = "EVENTS_PER_SECOND")]
    publish_rate: Option<f64>,
    /// Events sent back to back, each waiting for its answer [default: 1]
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
    burst: Option<u32>,
    /// Bytes of data in an event (at least what its run, sequence and time need)
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How long to publish at --publish-rate
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Subscribers to begin per second, over all client processes
    #[arg(long, default_value_t = 20_000, value_name = "PER_SECOND",
          value_parser = clap::value_parser!(u32).range(1..))]
    ramp: u32,
    /// Stay idle this long after connecting, and measure what that costs
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    hold: Duration,
    /// Prolong the idle phase until each connection has seen a heartbeat (two minutes at most)
    #[arg(long)]
    wait_heartbeat: bool,
    /// Hold only: publish nothing
    #[arg(long, conflicts_with_all = ["publish_rate", "burst", "stop_readers"])]
    idle: bool,
    /// Stop the reading processes while events are published, so that the server's cost per
    /// delivery leaves out waking them up (needs --server-pid)
    #[arg(long, requires = "server_pid")]
    stop_readers: bool,
    /// Processes of the server, to measure their CPU time and memory
    #[arg(long, value_delimiter = ',', value_name = "PID")]
    server_pid: Vec<u32>,
    /// Where subscribers listen, for servers with other paths [default: /sse or /ws, with
    /// ?channel={channel}]
    #[arg(long, alias = "path", value_name = "TEMPLATE")]
    subscribe_path: Option<String>,
    /// Where events are published [default: URL/channels/{channel}]
    #[arg(long, value_name = "TEMPLATE")]
    publish_url: Option<String>,
    /// The request body of one event, with {data} and {channel}
    #[arg(long, default_value = "{data}", value_name = "TEMPLATE")]
    publish_body: String,
    /// The content type of that body
    #[arg(long, default_value = "text/plain", value_name = "TYPE")]
    publish_content_type: String,
    /// A header line of publish requests, as a token's; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header_line)]
    publish_header: Vec<String>,
    /// A header line of subscribe requests; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header_line)]
    subscribe_header: Vec<String>,
    /// Write the whole report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the latency distribution and the deliveries over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

impl BenchArgs {
    /// Checks the options against each other and fills in what follows from them.
    pub fn into_options(self) -> Result<BenchOptions, BenchError> {
        self.check()?;
        let base = self.url.trim_end_matches('/').to_owned();
        let (subscribe_path, publish) = (self.subscribe_path(), self.publish_plan());
        Ok(BenchOptions {
            publish_url: self.publish_url.unwrap_or_else(|| format!("{base}/channels/{{channel}}")),
            url: base,
            trust: self.trust,
            key_exchange: self.key_exchange,
            tickets: self.tickets,
            transport: self.transport,
            streams: self.http2.then_some(self.streams),
            connections: self.connections,
            channels: self.channels,
            publish,
            burst: self.burst.unwrap_or(1),
            size_bytes: self.size,
            ramp_per_s: self.ramp,
            hold: self.hold,
            heartbeats: if self.wait_heartbeat { Heartbeats::Await } else { Heartbeats::Count },
            readers: if self.stop_readers { Readers::Stopped } else { Readers::Awake },
            server_pids: self.server_pid,
            subscribe_path,
            publish_body: self.publish_body,
            publish_content_type: self.publish_content_type,
            publish_header_lines: self.publish_header.concat(),
            subscribe_header_lines: self.subscribe_header.concat(),
            json: self.json,
            plot: self.plot,
        })
    }

    fn check(&self) -> Result<(), BenchError> {
        let rate_ok = self.publish_rate.is_none_or(|rate| rate.is_finite() && rate > 0.0);
        if !rate_ok {
            return Err(BenchError::Options("--publish-rate must be above 0 (see --idle)"));
        }
        if self.http2 && self.transport == Transport::Ws {
            return Err(BenchError::Options("--http2 is for --transport sse"));
        }
        Ok(())
    }

    /// The path with a place for the channel.
    fn subscribe_path(&self) -> String {
        let default = match self.transport {
            Transport::Sse => "/sse",
            Transport::Ws => "/ws",
        };
        let path = self.subscribe_path.as_deref().unwrap_or(default);
        let separator = if path.contains('?') { '&' } else { '?' };
        match path.contains("{channel}") {
            true => path.to_owned(),
            false => format!("{path}{separator}channel={{channel}}"),
        }
    }

    fn publish_plan(&self) -> PublishPlan {
        match (self.publish_rate, self.burst) {
            _ if self.idle => PublishPlan::Nothing,
            (None, Some(_)) => PublishPlan::OneBurst,
            (rate, _) => PublishPlan::Paced {
                events_per_s: rate.unwrap_or(PUBLISH_RATE_DEFAULT),
                duration: self.duration,
            },
        }
    }
}

/// A header line with its line end.
fn header_line(text: &str) -> Result<String, &'static str> {
    let wanted = "wanted: a header line, as 'Authorization: Bearer TOKEN'";
    let (name, value) = text.split_once(':').ok_or(wanted)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_value = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let fits = !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(is_value);
    if fits { Ok(format!("{name}: {}\r\n", value.trim())) } else { Err(wanted) }
}

/// What is published, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PublishPlan {
    /// Hold only.
    Nothing,
    /// One burst, as fast as the server answers.
    OneBurst,
    /// Bursts at an even pace, so that the average is this rate.
    Paced {
        /// The average over all bursts.
        events_per_s: f64,
        duration: Duration,
    },
}

/// Whether the idle phase waits for heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeats {
    /// Count those that come.
    Count,
    /// Continue until each connection has seen one.
    Await,
}

/// What the reading processes do while events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// They read: latency is true, and the server pays for waking them.
    Awake,
    /// They are stopped and read afterwards: latency says nothing.
    Stopped,
}

/// One run, checked: what [`super::run`] takes.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// The server, `http://host:port`.
    pub url: String,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// What subscribers offer to agree on keys by, over `https`.
    pub key_exchange: KeyExchange,
    /// Whether subscribers resume sessions of earlier ones.
    pub tickets: bool,
    /// How subscribers listen.
    pub transport: Transport,
    /// For HTTP/2: how many subscribers share a connection.
    pub streams: Option<u32>,
    /// Subscribers to hold.
    pub connections: u32,
    /// How they are spread over channels.
    pub channels: Channels,
    /// What is published, and when.
    pub publish: PublishPlan,
    /// Events sent back to back.
    pub burst: u32,
    /// Bytes of data per event.
    pub size_bytes: usize,
    /// Subscribers to begin per second.
    pub ramp_per_s: u32,
    /// How long to stay idle after connecting.
    pub hold: Duration,
    /// Whether the idle phase waits for heartbeats.
    pub heartbeats: Heartbeats,
    /// What the readers do while events are published.
    pub readers: Readers,
    /// Processes of the server; empty if it is not on this machine.
    pub server_pids: Vec<u32>,
    /// Path template with `{channel}`.
    pub subscribe_path: String,
    /// URL template with `{channel}`.
    pub publish_url: String,
    /// Body template with `{data}` and `{channel}`.
    pub publish_body: String,
    /// Content type of the body.
    pub publish_content_type: String,
    /// Further header lines of a publish, each with its line end.
    pub publish_header_lines: String,
    /// The same of a subscription.
    pub subscribe_header_lines: String,
    /// Where the JSON report goes.
    pub json: Option<PathBuf>,
    /// Where the plot goes.
    pub plot: Option<PathBuf>,
}

impl BenchOptions {
    /// Time between two bursts of a paced run.
    pub fn period(&self) -> Option<Duration> {
        match self.publish {
            PublishPlan::Paced { events_per_s, .. } => {
                Some(Duration::from_secs_f64(f64::from(self.burst) / events_per_s))
            }
            PublishPlan::Nothing | PublishPlan::OneBurst => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn options(line: &str) -> BenchOptions {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().bench.into_options().unwrap()
    }

    #[test]
    fn the_defaults_are_ten_seconds_of_events_to_a_thousand_subscribers_of_one_channel() {
        let options = options("");
        assert_eq!(options.connections, 1000);
        let duration = Duration::from_secs(10);
        assert_eq!(options.publish, PublishPlan::Paced { events_per_s: 10.0, duration });
        assert_eq!(options.period(), Some(Duration::from_millis(100)));
        assert_eq!(options.subscribe_path, "/sse?channel={channel}");
        assert_eq!(options.publish_url, "http://127.0.0.1:8080/channels/{channel}");
    }

    #[test]
    fn a_rival_is_described_by_templates() {
        let options = options(
            "--url http://h:1/ --transport ws --subscribe-path /sub/{channel} \
             --publish-url http://h:2/pub/{channel} --channels private",
        );
        assert_eq!(options.url, "http://h:1");
        assert_eq!(options.subscribe_path, "/sub/{channel}");
        assert_eq!(options.publish_url, "http://h:2/pub/{channel}");
        assert_eq!(options.channels.count(7), 7);
    }

    #[test]
    fn a_burst_by_itself_is_the_only_one() {
        let options = options("--burst 20");
        assert_eq!((options.publish, options.burst), (PublishPlan::OneBurst, 20));
        assert_eq!(options.period(), None);
    }

    #[test]
    fn http2_carries_a_hundred_unless_another_number_is_given() {
        assert_eq!(options("").streams, None);
        assert_eq!(options("--http2").streams, Some(100));
        assert_eq!(options("--http2 --streams 7").streams, Some(7));
        let line = ["bench", "--http2", "--transport", "ws"];
        assert!(Line::try_parse_from(line).unwrap().bench.into_options().is_err());
    }

    #[test]
    fn a_path_without_a_channel_gets_the_query() {
        assert_eq!(options("--path /events").subscribe_path, "/events?channel={channel}");
        assert_eq!(options("--path /events?a=b").subscribe_path, "/events?a=b&channel={channel}");
    }

    #[test]
    fn header_lines_are_whole_and_cannot_forge_others() {
        let lines = options("--publish-header X-API-Key:k --publish-header A:b");
        assert_eq!(lines.publish_header_lines, "X-API-Key: k\r\nA: b\r\n");
        for bad in ["", "no colon", ": v", "a b: v", "a: b\r\nc: d"] {
            assert!(header_line(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for line in
            ["--idle --burst 2", "--stop-readers", "--channels 0", "--connections 0", "--streams 9"]
        {
            let words = std::iter::once("bench").chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
    }
}
