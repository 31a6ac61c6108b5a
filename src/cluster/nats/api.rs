//! JetStream's API, which is JSON in requests and answers: the part that a node needs. Sans-IO.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::codec::Subjects;
use crate::cluster::Identity;
use crate::cluster::follower::StreamState;

/// Where the stream's metadata says how often it has lost events.
const GENERATION: &str = "pushline-generation";

/// `err_code` if there is no such stream.
pub const STREAM_NOT_FOUND: u64 = 10_059;
/// `err_code` if another node has just created the stream with other bounds.
pub const STREAM_IN_USE: u64 = 10_058;

/// `err_code` if there are too few servers for the replicas, as while they start.
pub const NO_PEERS: u64 = 10_005;

/// Idle time after which the broker sends a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long the broker keeps the consumer of a node that is gone.
const NODE_IDLE: Duration = Duration::from_secs(30);

/// Why a request to the broker failed.
#[derive(Debug, PartialEq, Eq)]
pub enum ApiError {
    /// There was no answer in time, or no server that could answer.
    Away,
    Refused {
        /// JetStream's `err_code`.
        code: u64,
        description: String,
    },
    /// An answer we do not understand.
    Malformed(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str(
                "JetStream does not answer; is it on (nats-server -js), and does it have a leader?",
            ),
            Self::Refused { code, description } => write!(f, "{description} ({code})"),
            Self::Malformed(what) => write!(f, "an answer of JetStream can't be read: {what}"),
        }
    }
}

impl std::error::Error for ApiError {}

/// The bounds the stream gets, in JetStream's terms.
#[derive(Clone, Debug)]
pub struct StreamBounds {
    /// Bytes of all messages.
    pub bytes_max: u64,
    /// How long one is kept.
    pub age_max: Duration,
    /// On how many servers it is.
    pub replicas: u64,
}

/// How long an idempotency key is remembered. A stream can't remember one for longer than it keeps the
/// event.
pub const KEYS_TIME: Duration = Duration::from_secs(120);

/// A stream as the broker shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamInfo {
    /// All of its configuration.
    pub config: Value,
    #[serde(default)]
    cluster: Value,
    created: String,
    state: State,
}

#[derive(Clone, Debug, Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    #[serde(default)]
    num_deleted: u64,
    #[serde(default)]
    deleted: Vec<u64>,
}

impl StreamInfo {
    /// The state that a [`Follower`](crate::cluster::follower::Follower) compares.
    pub fn state(&self, name: &str) -> StreamState {
        let generation = self.config["metadata"][GENERATION].as_str();
        StreamState {
            identity: Identity {
                name: name.to_owned(),
                created: self.created.clone(),
                generation: generation.and_then(|text| text.parse().ok()).unwrap_or(0),
            },
            first: self.state.first_seq,
            last: self.state.last_seq,
        }
    }

    /// The message after which a node begins to read. From there on there are about as many messages
    /// as `bytes_max` holds, and no hole: the channel of a message that is gone is not known.
    pub fn begin_behind(&self, bytes_max: u64) -> u64 {
        let State { messages, bytes, first_seq, last_seq, num_deleted, ref deleted } = self.state;
        let oldest = first_seq.saturating_sub(1);
        let share = bytes_max as f64 / bytes.max(1) as f64;
        let fit = if share >= 1.0 { messages } else { (messages as f64 * share) as u64 };
        let last_hole = match num_deleted {
            0 => 0,
            count if count == deleted.len() as u64 => deleted.iter().copied().max().unwrap_or(0),
            _ => last_seq,
        };
        oldest.max(last_seq.saturating_sub(fit)).max(last_hole)
    }

    /// How the stream differs from what we would create, in words; and what makes it unusable, if
    /// anything does.
    pub fn differences(&self, bounds: &StreamBounds) -> (Vec<String>, Option<String>) {
        let config = &self.config;
        let number = |key: &str| config[key].as_i64().unwrap_or(0);
        let mut soft = Vec::new();
        let mut compare = |what: &str, found: i64, wanted: u64| {
            if found != wanted as i64 {
                soft.push(format!("{what} is {found}, the settings say {wanted}"));
            }
        };
        compare("max_bytes", number("max_bytes"), bounds.bytes_max);
        compare("max_age (ns)", number("max_age"), nanos(bounds.age_max));
        compare("num_replicas", number("num_replicas"), bounds.replicas);
        (soft, self.obstacle())
    }

    /// Why it can't be the log, if that is so.
    pub fn obstacle(&self) -> Option<String> {
        let config = &self.config;
        let of_subject = config["max_msgs_per_subject"].as_i64().unwrap_or(0);
        let retention = config["retention"].as_str().unwrap_or("limits");
        let why = if of_subject > 0 {
            "max_msgs_per_subject is set: it takes events out of the middle"
        } else if retention != "limits" {
            "its retention is not `limits`"
        } else {
            return None;
        };
        Some(why.to_owned())
    }

    /// Servers of the stream that don't have all of it.
    pub fn replicas_behind(&self) -> Vec<String> {
        let behind = |replica: &&Value| replica["current"] == json!(false);
        let replicas = self.cluster["replicas"].as_array();
        let behind = replicas.into_iter().flatten().filter(behind);
        behind.filter_map(|replica| replica["name"].as_str().map(str::to_owned)).collect()
    }
}

/// A request: its subject and its body.
pub type Request = (String, String);

/// Requests about one stream.
#[derive(Clone, Debug)]
pub struct Api {
    stream: String,
}

impl Api {
    /// Requests about the stream of this name.
    pub fn new(stream: &str) -> Self {
        Self { stream: stream.to_owned() }
    }

    fn request(&self, what: &str, body: &Value) -> Request {
        (format!("$JS.API.{what}.{}", self.stream), body.to_string())
    }

    /// Asks for the stream's state.
    pub fn info(&self) -> Request {
        self.request("STREAM.INFO", &json!({ "deleted_details": true }))
    }

    pub fn create(&self, bounds: &StreamBounds) -> Request {
        let StreamBounds { bytes_max, age_max, replicas } = bounds;
        let body = json!({
            "name": self.stream,
            "subjects": [Subjects::all(&self.stream)],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": replicas,
            "max_bytes": bytes_max,
            "max_age": nanos(*age_max),
            "duplicate_window": nanos(KEYS_TIME.min(*age_max)),
            "allow_direct": true,
        });
        self.request("STREAM.CREATE", &body)
    }

    /// Writes into the stream that it has lost events once more.
    pub fn raise_generation(&self, info: StreamInfo, seen: &Identity) -> Request {
        let mut config = info.config;
        if !config["metadata"].is_object() {
            config["metadata"] = json!({});
        }
        config["metadata"][GENERATION] = json!((seen.generation + 1).to_string());
        self.request("STREAM.UPDATE", &config)
    }

    /// Asks for the next messages of one subject, from this place on. A server before 2.11 answers with
    /// one.
    pub fn batch_of(&self, subject: &str, from: u64, count_max: u64, bytes_max: u64) -> Request {
        let body = json!({
            "seq": from,
            "next_by_subj": subject,
            "batch": count_max,
            "max_bytes": bytes_max.max(1),
        });
        (format!("$JS.API.DIRECT.GET.{}", self.stream), body.to_string())
    }

    /// Has the stream's messages sent to a subject, from this place on.
    pub fn follow(&self, deliver_to: &str, from: u64) -> Request {
        let body = json!({
            "stream_name": self.stream,
            "config": {
                "deliver_subject": deliver_to,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from.max(1),
                "ack_policy": "none",
                "max_deliver": 1,
                "replay_policy": "instant",
                "flow_control": true,
                "idle_heartbeat": nanos(HEARTBEAT),
                "inactive_threshold": nanos(NODE_IDLE),
                "num_replicas": 1,
                "mem_storage": true,
            },
        });
        self.request("CONSUMER.CREATE", &body)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(i64::MAX as u64)
}

/// Reads an answer. An empty one means that no server could answer.
///
/// # Errors
/// See [`ApiError`].
pub fn answer<T: for<'de> Deserialize<'de>>(payload: &[u8]) -> Result<T, ApiError> {
    if payload.is_empty() {
        return Err(ApiError::Away);
    }
    let malformed = |error: serde_json::Error| ApiError::Malformed(error.to_string());
    let answer: Value = serde_json::from_slice(payload).map_err(malformed)?;
    if let Some(error) = answer.get("error") {
        // There is no leader (10008, 10009), or it is being elected.
        if error["code"].as_u64() == Some(503) {
            return Err(ApiError::Away);
        }
        return Err(ApiError::Refused {
            code: error["err_code"].as_u64().unwrap_or(0),
            description: error["description"].as_str().unwrap_or("no reason given").to_owned(),
        });
    }
    serde_json::from_value(answer).map_err(malformed)
}
