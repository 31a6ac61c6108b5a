//! Paths that are mapped to a channel's stream, as `/api/chat/{id}/stream=chat:{id}`, for clients that
//! were not made for Pushline.

use std::fmt;

use super::name::{NAME_BYTES_MAX, channel_name, channel_segment};

/// One mapping: a path with a variable segment to a channel with the same in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    path: [Box<str>; 2],
    name: Box<str>,
    channel: [Box<str>; 2],
}

impl PathMap {
    /// `None` if there is not exactly one variable in braces on each side, or no path on the left.
    pub fn parse(text: &str) -> Option<Self> {
        let (path, channel) = text.split_once('=')?;
        let (path, name) = around_variable(path)?;
        let (channel, same) = around_variable(channel)?;
        let is_segment = path[0].ends_with('/') && (path[1].is_empty() || path[1].starts_with('/'));
        let example = [&*channel[0], "x", &*channel[1]].concat();
        let is_fit = path[0].starts_with('/') && is_segment && name == same;
        (is_fit && channel_name(example.as_bytes()).is_ok()).then(|| Self {
            path,
            name: name.into(),
            channel,
        })
    }

    /// The channel a path is mapped to.
    pub fn channel_of(&self, path: &str) -> Option<String> {
        let segment = path.strip_prefix(&*self.path[0])?.strip_suffix(&*self.path[1])?;
        let mut buffer = [0; NAME_BYTES_MAX];
        let segment = channel_segment(segment, &mut buffer).ok()?;
        let channel = [&*self.channel[0], segment, &*self.channel[1]].concat();
        channel_name(channel.as_bytes()).ok()?;
        Some(channel)
    }
}

impl fmt::Display for PathMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, name, channel } = self;
        write!(f, "{}{{{name}}}{}={}{{{name}}}{}", path[0], path[1], channel[0], channel[1])
    }
}

/// The text before and after the one variable, and its name.
fn around_variable(text: &str) -> Option<([Box<str>; 2], &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, behind) = rest.split_once('}')?;
    let is_only = !name.is_empty() && !behind.contains(['{', '}']);
    is_only.then(|| ([before.into(), behind.into()], name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_channel_if_its_segment_may_be_part_of_a_name() {
        let map = PathMap::parse("/api/chat/{id}/stream=chat:{id}").expect("a mapping");
        assert_eq!(map.to_string(), "/api/chat/{id}/stream=chat:{id}");
        let channel = |path: &str| map.channel_of(path);
        assert_eq!(channel("/api/chat/a-1/stream").as_deref(), Some("chat:a-1"));
        assert_eq!(channel("/api/chat/a%3A1/stream").as_deref(), Some("chat:a:1"));
        for path in
            ["/api/chat//stream", "/api/chat/a/b/stream", "/api/chat/a", "/api/chat/%20/stream"]
        {
            assert_eq!(channel(path), None, "{path}");
        }
        let long = format!("/api/chat/{}/stream", "a".repeat(NAME_BYTES_MAX));
        assert_eq!(channel(&long), None);
    }

    #[test]
    fn a_mapping_has_one_variable_on_each_side() {
        for text in
            ["/a=b", "/{a}=b", "/{a}={b}", "/{a}/{a}={a}", "a/{a}={a}", "/x{a}={a}", "/{a}= {a}"]
        {
            assert_eq!(PathMap::parse(text), None, "{text}");
        }
    }
}
