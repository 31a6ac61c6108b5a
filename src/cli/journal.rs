//! `pushline journal`: looks at a journal, whether or not a server holds it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};

use super::say;
use crate::journal::record::{Record, RecordPublication};
use crate::journal::view::view;
use crate::log::event::Kind;
use crate::proto::cursor::{Epoch, EventId};
use crate::proto::data::{Data, EventView};
use crate::proto::envelope::{RESERVED_PREFIX, write_event};

/// Lines are written once there are this many bytes of them.
const WRITTEN_AT_ONCE: usize = 64 * 1024;

/// Characters of an event's data in a row of the dump.
const DATA_SHOWN: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum JournalCommand {
    /// Read a journal as a start would, change nothing, and say what is in it; 1 if it is damaged.
    Check(JournalArgs),
    /// Print its events for people to read, a line each, cut to a terminal's width.
    Dump(JournalArgs),
    /// Print its events, a JSON object a line, as `POST /publish` takes them.
    Export(JournalArgs),
}

#[derive(Args, Debug)]
pub(super) struct JournalArgs {
    /// The `data_dir` of the server.
    #[arg(value_name = "FOLDER")]
    dir: PathBuf,
}

pub(super) fn journal(command: JournalCommand) -> Result<ExitCode, String> {
    match command {
        JournalCommand::Check(args) => check(&args.dir)?,
        JournalCommand::Dump(args) => print_events(&args.dir, write_row)?,
        JournalCommand::Export(args) => print_events(&args.dir, write_line)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(dir: &Path) -> Result<(), String> {
    let epoch = epoch_of(dir)?;
    let (mut first, mut last) = (None, None);
    let found = view(dir, |record| {
        first.get_or_insert(record.seq);
        last = Some(record.seq);
    });
    let found = found.map_err(|error| error.to_string())?;
    let (bytes, segments) = found.writer.size();
    let id = |seq: Option<u64>| {
        seq.map_or_else(|| "none".to_owned(), |seq| EventId { epoch, seq }.to_string())
    };
    say(&format!(
        "{} events in {segments} segments of {bytes} bytes\nfirst {}, last {}\n\
         {} bytes of an unfinished write at the end\n",
        found.events,
        id(first),
        id(last),
        found.cut_bytes,
    ))
}

/// Prints what `write` makes of each event.
fn print_events(dir: &Path, write: fn(&mut Vec<u8>, Epoch, &Record)) -> Result<(), String> {
    let epoch = epoch_of(dir)?;
    let (mut lines, mut said) = (Vec::new(), Ok(()));
    let found = view(dir, |record| {
        write(&mut lines, epoch, &record);
        if lines.len() >= WRITTEN_AT_ONCE && said.is_ok() {
            said = say_bytes(&mut lines);
        }
    });
    found.map_err(|error| error.to_string())?;
    said.and_then(|()| say_bytes(&mut lines))
}

fn epoch_of(dir: &Path) -> Result<Epoch, String> {
    let bits = crate::journal::epoch_bits(dir).map_err(|error| error.to_string())?;
    Ok(Epoch::from_random(bits))
}

/// What only a server says (that a stream opens, for example) is left out: the one that these are
/// published to will say it where it is true.
fn write_line(lines: &mut Vec<u8>, epoch: Epoch, record: &Record) {
    let RecordPublication { channel, kind, data, event_type, attributes, .. } = &record.publication;
    // The server's own events are not for publishing: the members of then are not those of now.
    if event_type.as_deref().is_some_and(|name| name.starts_with(RESERVED_PREFIX)) {
        return;
    }
    // Text that was read back is valid UTF-8.
    let text = std::str::from_utf8(data).unwrap_or_default();
    let data = match kind {
        Kind::Text => Data::Text(text),
        Kind::Json => Data::Json(text),
        Kind::Binary => Data::Binary(data),
    };
    let id = EventId { epoch, seq: record.seq };
    let (event_type, attributes) = (event_type.as_deref(), attributes.as_deref());
    write_event(lines, &EventView { id, channel, event_type, data, attributes });
    lines.push(b'\n');
}

/// Its id, when it was ordered, what it says of itself, and the beginning of its data.
fn write_row(lines: &mut Vec<u8>, epoch: Epoch, record: &Record) {
    let RecordPublication { channel, kind, data, event_type, key, attributes } =
        &record.publication;
    let id = EventId { epoch, seq: record.seq };
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(record.unix_ms)).unwrap_or(UNIX_EPOCH);
    let mut row = format!("{id}  {}  {channel}", humantime::format_rfc3339_millis(at));
    let of_event = [("type", event_type), ("idempotency-key", key)];
    let of_attributes = attributes.as_deref();
    let more = of_attributes.map(|of| [("publisher", &of.publisher), ("key", &of.event_key)]);
    for (name, text) in of_event.into_iter().chain(more.into_iter().flatten()) {
        row.extend(text.iter().map(|text| format!("  {name}={text:?}")));
    }
    let flags = of_attributes.filter(|of| of.tombstone).map(|_| "  tombstone");
    row.extend(flags);
    let shown: String = String::from_utf8_lossy(data).chars().take(DATA_SHOWN).collect();
    let kind = format!("{kind:?}").to_lowercase();
    row += &format!("  {kind}, {} bytes: {shown:?}\n", data.len());
    lines.extend_from_slice(row.as_bytes());
}

fn say_bytes(lines: &mut Vec<u8>) -> Result<(), String> {
    let text = String::from_utf8_lossy(lines);
    say(&text)?;
    lines.clear();
    Ok(())
}
