//! The README is true: its commands, in its order, against one server, as a reader would type
//! them; the options, files and metrics it names are there.
//!
//! `STEPS` says what each code block must lead to, so a new block without an entry fails. The
//! section on access has tests of its own (`tests/server/access`). A tool that is not installed is
//! skipped, loudly; with `PUSHLINE_NO_SKIP=1` that is a failure.

mod page;
mod run;

use std::path::Path;

use page::{Block, Page};
use run::Host;

use crate::skip::skip;

/// How a block is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// To its end.
    Once,
    /// Until the README's end: it subscribes to this channel, and prints something later.
    Follow(&'static str),
    /// The same of a server that it starts, with TLS.
    Tls,
    /// Not run here, for this reason.
    Not(&'static str),
    /// A configuration file: it is checked.
    Config,
    /// Operations on a `pushline.v1` WebSocket: each is answered.
    Operations,
}

use How::{Config, Follow, Not, Once, Operations, Tls};

/// Section, language, what to do, and what must be in the output.
type Step = (&'static str, &'static str, How, &'static [&'static str]);

const STEPS: &[Step] = &[
    ("Run", "sh", Not("the server runs already, and these are the tests"), &[]),
    ("First push", "sh", Follow("news"), &["id: ", "data: hello"]),
    ("First push", "sh", Once, &["\"channel\":\"news\"", "\"subscribers\":1"]),
    ("First push", "js", Follow("news"), &["-", " hello"]),
    ("First push", "js", Follow("news"), &["hello from here"]),
    ("First push", "sh", Not("reads a file until the end of time; `log_tail` does it"), &[]),
    ("First push", "sh", Follow("logs"), &["a line of the log"]),
    ("First push", "sh", Tls, &["id: ", "data: hello"]),
    ("In a browser", "html", Not("`tests/browsers` opens it"), &[]),
    ("SSE or WebSocket", "json", Operations, &[]),
    ("Resume and gaps", "sh", Follow("news"), &["data: hello", "data: hello from here"]),
    ("Resume and gaps", "", Not("it shows what a gap looks like"), &[]),
    ("Publishing", "sh", Once, &["\"channel\":\"match:7\"", "\"subscribers\":0"]),
    ("Publishing", "sh", Once, &["\"published\":2"]),
    ("Publishing", "python", Once, &["\"channel\":\"news\""]),
    ("Publishing", "js", Once, &[]),
    ("Settings", "sh", Once, &["pushline.toml: good"]),
    ("Settings", "toml", Config, &[": good"]),
    ("Operating", "sh", Once, &["ready", "pushline_build_info", "\"connections\":[{\"id\":"]),
];

#[test]
fn each_code_block_does_what_it_says() {
    let page = Page::read();
    let blocks: Vec<&Block> = page.blocks.iter().filter(|of| of.section != "Access").collect();
    let found: Vec<_> = blocks.iter().map(|of| (&*of.section, &*of.language)).collect();
    let known: Vec<_> = STEPS.iter().map(|(section, language, ..)| (*section, *language)).collect();
    assert_eq!(found, known, "say in STEPS what a new block must lead to");
    let mut host = Host::start();
    for (block, (_, _, how, expected)) in blocks.into_iter().zip(STEPS) {
        match how {
            Not(_) => {}
            Once => host.run(block, expected),
            Follow(channel) => host.follow(block, channel, expected),
            Tls => host.try_tls(block, expected),
            Config => host.check_config(block, expected),
            Operations => host.operate(block),
        }
        if block.text.contains("tail -F") {
            host.log_tail(block);
        }
    }
    host.see_what_followers_printed();
}

#[test]
fn the_scripts_it_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = Page::read();
    let names: Vec<&str> = page.words_that_begin_with(&["scripts/", "tuning/", ".ci/", "tests/"]);
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        // A suite may be a file or a folder.
        assert!(root.join(name).exists(), "{name} is not there");
    }
}

#[test]
fn the_options_and_subcommands_it_names_are_there() {
    let page = Page::read();
    let mut help = run::output(&["--help"]);
    for command in page.subcommands() {
        help.push_str(&run::output(&[&command, "--help"]));
    }
    let options: Vec<&str> = page.words_that_begin_with(&["--"]);
    assert!(options.len() > 5, "{options:?}");
    for option in options.into_iter().filter(|option| !OF_OTHERS.contains(option)) {
        assert!(help.contains(option), "no command has {option}");
    }
}

/// Options of cargo, curl and the scripts.
const OF_OTHERS: [&str; 8] = [
    "--release",
    "--target-dir",
    "--path",
    "--test",
    "--data-binary",
    "--seeds",
    "--from",
    "--connections",
];

#[test]
fn the_defaults_in_its_table_are_those_of_the_program() {
    let template = run::output(&["config", "default"]);
    let page = Page::read();
    let rows = page.table("Settings");
    assert!(rows.len() > 5, "{rows:?}");
    for row in rows {
        let keys = row[0].split(", ").map(|key| key.trim_matches('`'));
        for (key, value) in keys.zip(row[1].split(", ").chain(std::iter::repeat("auto"))) {
            let line = template.lines().find(|line| line.starts_with(&format!("{key} = ")));
            let line = line.unwrap_or_else(|| panic!("no key {key}"));
            assert!(line.contains(value), "{line}: the README says {value}");
        }
    }
}

#[test]
fn its_metrics_are_all_there_are() {
    let page = Page::read();
    let cells = page.table("Operating").into_iter().map(|row| row[1].clone());
    let mut named: Vec<String> = cells
        .flat_map(|cell| {
            page::code_spans(&cell).map(|name| format!("pushline_{name}")).collect::<Vec<_>>()
        })
        .collect();
    named.sort();
    let host = Host::start();
    let mut found: Vec<String> = host
        .scrape()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .filter(|name| name.starts_with("pushline_"))
        .collect();
    found.sort();
    assert_eq!(named, found);
}

/// A tool, or `None` with a loud message.
fn tool(name: &str, arguments: &[&str], cure: &str) -> bool {
    let is_there = run::works(name, arguments);
    if !is_there {
        skip(name, cure);
    }
    is_there
}

/// The line at start and the notes on containers say what the table of both drivers says.
#[test]
fn what_epoll_costs_is_told_by_the_figures_of_the_table() {
    let page = Page::read();
    let times = |row: &str, place: usize| 1.0 / page.last_numbers(row)[place];
    let said = format!(
        "a broadcast to readers on the server's own cores takes {:.1} times the CPU, connecting \
         {:.1} times, a POST {:.1} times",
        times("| broadcast to readers on the same cores", 0),
        times("| connect; POST to one of them", 0),
        times("| connect; POST to one of them", 1),
    );
    for file in ["src/server/driver.rs", "tuning/containers.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).expect("it is there").replace('\\', " ");
        let text: Vec<&str> = text.split_whitespace().collect();
        assert!(text.join(" ").contains(&said), "{file} does not say: {said}");
    }
}
