//! The configuration as an operator meets it: a file, the environment and options; which overrides
//! which; how mistakes are reported, without ever quoting a secret; and reloading by SIGHUP.

mod layers;
mod messages;
mod reload;
mod tools;

use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use pushline::config::{Config, ConfigErrors, KEYS, Key, Sources, load};
use tempfile::NamedTempFile;

/// The program, with nothing of this test's own environment that would be a setting.
fn pushline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushline"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PUSHLINE_") {
            command.env_remove(name);
        }
    }
    command
}

/// `pushline config check -` with this file.
fn check(text: &str) -> Output {
    let mut child = pushline()
        .args(["config", "check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// A configuration file.
fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a scratch file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// Puts a file, variables and options together.
fn assemble(
    text: &str,
    variables: &[(&str, &str)],
    options: &[(&'static Key, &str)],
) -> Result<Config, ConfigErrors> {
    let file = file(text);
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let options = options.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
    let sources = Sources { file: Some(file.path().to_owned()), options };
    load(&sources, &|name| variables.get(name).map(|text| (*text).to_owned()))
}

/// A value that the key accepts and that is not its default.
fn another(key: &Key) -> &'static str {
    match key.value {
        "ADDRESS" => "127.0.0.1:9",
        "FOLDER|none" => "/var/lib/pushline",
        "all|latest" => "latest",
        "none|subject" => "subject",
        "sync|os" => "os",
        "FILE|none" => "/run/admin.key",
        "ADDRESS|none" => "127.0.0.1:9",
        "FILES|none" => "/a.pem,/b.pem",
        "1.2|1.3" => "1.3",
        "LEVEL" => "debug",
        "N" | "N|auto" | "LIST|auto|none" => "7",
        "NETWORKS|none" => "10.0.0.0/8",
        "URLS|none" => "nats://10.0.0.1",
        "REDIS|none" => "redis://10.0.0.1",
        "PATHS|none" => "/chat/{id}=chat:{id}",
        "NAME" => "EVENTS",
        "1-5|auto" => "3",
        "SIZE" | "SIZE|auto" => "2MiB",
        "TIME" => "33s",
        "true|false" if key.default_text() == "true" => "false",
        "true|false" | "true|false|auto" => "true",
        "auto|io_uring|epoll" => "epoll",
        "hash|cpu" => "cpu",
        "x-forwarded-for|forwarded|proxy-protocol" => "forwarded",
        "skip|disconnect" => "disconnect",
        "text|json" => "json",
        value => panic!("{}: say here which {value} to try", key.name),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
