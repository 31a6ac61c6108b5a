//! A scrape, read by a parser that accepts only what format 0.0.4 allows, and expects the labels in
//! the order they were written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::common::get;

#[derive(Debug, Default)]
pub struct Scrape {
    pub types: BTreeMap<String, String>,
    /// By `name{labels}`.
    pub samples: BTreeMap<String, f64>,
}

impl Scrape {
    pub fn of(admin: SocketAddr) -> Self {
        let answer = get(admin, "/metrics");
        assert_eq!(answer.status, 200);
        let content_type = answer.header("content-type");
        assert_eq!(content_type, Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&answer.text())
    }

    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut scrape, mut helped) = (Self::default(), BTreeSet::new());
        let mut present = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a help has words");
                assert!(words.len() > 3 && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type has a kind");
                assert!(helped.contains(name) && is_name(name), "{line}");
                let before = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{line}");
                present = name.to_owned();
            } else {
                let (key, value) = line.rsplit_once(' ').expect("a sample has a value");
                let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
                let suffix = name.strip_prefix(&present).unwrap_or_else(|| panic!("lost: {line}"));
                let histogram = scrape.types[&present] == "histogram";
                let suffixes = if histogram { &["_bucket", "_sum", "_count"][..] } else { &[""] };
                assert!(suffixes.contains(&suffix), "{line}");
                let labels = labels.strip_suffix('}').expect("labels end");
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (key, value) = label.split_once("=\"").expect("a label has a value");
                    let value = value.strip_suffix('"').expect("a label's value ends");
                    assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
                }
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(value >= 0.0, "{line}");
                assert_eq!(scrape.samples.insert(key.to_owned(), value), None, "twice: {line}");
            }
        }
        scrape
    }

    /// One sample.
    pub fn at(&self, key: &str) -> f64 {
        *self.samples.get(key).unwrap_or_else(|| panic!("{key} is not there"))
    }

    /// All samples of a metric that have these labels.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let wanted = |key: &str| {
            let labels = key.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then(|| labels.contains(label))
        };
        let of = self.samples.iter().filter(|(key, _)| wanted(key) == Some(true));
        of.map(|(_, value)| value).sum()
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
