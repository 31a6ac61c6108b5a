//! The client a proxy speaks for, as named by the headers `X-Forwarded-For` and `Forwarded` (RFC
//! 7239). Each proxy appends the address it sees, so the list is read from its end.

use std::net::IpAddr;

/// The addresses of an `X-Forwarded-For`, nearest first; `None` for a malformed one.
pub fn x_forwarded_for(value: &str) -> impl Iterator<Item = Option<IpAddr>> {
    value.rsplit(',').map(node)
}

/// The addresses of a `Forwarded`'s `for` parameters, nearest first; `None` for one that is hidden
/// or missing (RFC 7239 section 6).
pub fn forwarded(value: &str) -> impl Iterator<Item = Option<IpAddr>> {
    value.rsplit(',').map(|element| element.split(';').find_map(for_of).and_then(node))
}

fn for_of(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=')?;
    name.trim().eq_ignore_ascii_case("for").then_some(value)
}

/// An address, perhaps quoted, in brackets, or with a port (RFC 7239 section 6.1).
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok().map(IpAddr::V6);
    }
    let without_port = match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => address,
        _ => text,
    };
    without_port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: impl Iterator<Item = Option<IpAddr>>) -> Vec<String> {
        found.map(|address| address.map_or("-".into(), |address| address.to_string())).collect()
    }

    #[test]
    fn lists_are_read_from_their_end() {
        let value = "203.0.113.9, 2001:db8::1 ,10.0.0.1:80, [::1]:4711, unknown";
        let found = ["-", "::1", "10.0.0.1", "2001:db8::1", "203.0.113.9"];
        assert_eq!(shown(x_forwarded_for(value)), found);
        let value = "For=\"[2001:db8::17]:4711\";proto=https, for=192.0.2.60;by=10.0.0.1, \
                     for=_hidden, proto=http, for=\"192.0.2.1:80\"";
        let found = ["192.0.2.1", "-", "-", "192.0.2.60", "2001:db8::17"];
        assert_eq!(shown(forwarded(value)), found);
        assert_eq!(shown(x_forwarded_for("")), ["-"]);
    }
}
