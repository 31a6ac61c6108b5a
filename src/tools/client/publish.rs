//! `pushline pub`: one event, or lines as they come.

use std::io::{self, Write};
use std::time::Duration;

use super::args::PubArgs;
use super::connection;
use super::error::ClientError;
use super::server::encode;
use super::stdin_lines;

/// Longest wait for the answer to a single event.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Publishes as the arguments say. The answer to a single event is printed.
///
/// # Errors
/// What could not be published, and why.
pub fn publish(args: &PubArgs) -> Result<(), ClientError> {
    match &args.data {
        Some(data) => publish_one(args, data),
        None => stdin_lines::publish_lines(args),
    }
}

fn publish_one(args: &PubArgs, data: &str) -> Result<(), ClientError> {
    let server = args.server.server()?;
    let mut lines =
        format!("Content-Type: {}\r\nContent-Length: {}\r\n", args.content_type, data.len());
    for (name, value) in [("Event-Type", &args.event), ("Idempotency-Key", &args.key)] {
        if let Some(value) = value {
            lines.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let target = format!("/channels/{}", encode(&args.channel));
    let mut request = server.request("POST", &target, &lines);
    request.extend_from_slice(data.as_bytes());
    let mut connection = connection::open(&server, Some(ANSWER_TIME_MAX))?;
    connection.socket.write_all(&request)?;
    let answer = connection::answer(&mut connection)?;
    if answer.success()?.id.is_none() {
        return Err(ClientError::not_understood("its answer names no event"));
    }
    let mut out = io::stdout().lock();
    let printed = out.write_all(&answer.body).and_then(|()| out.write_all(b"\n"));
    match printed {
        // It is published; the reader of our output has gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(ClientError::Output),
    }
}
