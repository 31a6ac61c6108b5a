//! `pushline config default`: a whole configuration file, made from the definitions.

use std::fmt::Write;

use super::access::AUTH_KEYS;
use super::file::{AUTH, CHANNEL, PATTERN};
use super::keys::{Change, KEYS, Key, variable};

/// Every key with its help and its default. Keys without a default, and tables that may be
/// repeated, are shown as commented examples.
pub fn template() -> String {
    let mut out = String::from(
        "# Pushline. Every key with its default; leave out what you do not change.\n\
         # Read from --config, PUSHLINE_CONFIG, ./pushline.toml or /etc/pushline/pushline.toml:\n\
         # the first of them that there is.\n\
         # An option of the command line wins over the environment, and that over this file.\n\
         # On SIGHUP the file is read again; keys marked (restart) change only at a restart.\n\n",
    );
    let mut group = None;
    for key in KEYS {
        if group != Some(key.group) {
            group = Some(key.group);
            let _ = writeln!(out, "# --- {} ---", key.group.title());
        }
        let restart = if key.change == Change::Restart { " (restart)" } else { "" };
        comment(&mut out, &format!("{}{restart}", key.help));
        let _ = writeln!(out, "# --{}, {}", key.flag(), key.variable());
        let _ = writeln!(out, "{} = {}\n", key.name, bare_or_literal(&key.default_text()));
    }
    channel_example(&mut out);
    access(&mut out);
    out
}

fn channel_example(out: &mut String) {
    out.push_str("# --- Channels by pattern ---\n");
    comment(
        out,
        "May come several times; the first that matches a channel holds for it, and what it \
         leaves out is as above. A pattern is an exact channel, *, or ends in :* (all below).",
    );
    let _ = writeln!(out, "# {}, as an array of such tables", variable(CHANNEL));
    let _ = writeln!(out, "#[[{CHANNEL}]]\n#{PATTERN} = \"chat:*\"");
    for key in Key::of_channels() {
        let _ = writeln!(out, "#{} = {}", key.name, bare_or_literal(&key.default_text()));
    }
    out.push('\n');
}

fn access(out: &mut String) {
    out.push_str("# --- Who may do what ---\n");
    comment(
        out,
        "Without any key and without anonymous everyone may do everything, and the server listens \
         on loopback alone. A secret comes from exactly one of file, env and value.",
    );
    let _ = writeln!(out, "[{AUTH}]");
    for key in AUTH_KEYS {
        comment(out, key.help);
        let _ = writeln!(out, "# {}", key.variable());
        if let Some(default) = key.default {
            let _ = writeln!(out, "{} = {default}", key.name);
        }
        if key.default != Some(key.example) {
            let _ = writeln!(out, "#{} = {}", key.name, key.example);
        }
        out.push('\n');
    }
    // The file ends with one line end.
    out.pop();
}

/// Writes comment lines of at most 100 columns.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > 100 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

/// Numbers, true and false bare; all else in quotes.
fn bare_or_literal(text: &str) -> String {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || text == "true" || text == "false" { text.to_owned() } else { literal(text) }
}

/// A TOML string.
pub(super) fn literal(text: &str) -> String {
    toml::Value::from(text).to_string()
}
