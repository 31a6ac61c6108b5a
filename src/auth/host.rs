//! Which host a request was meant for. A web page can let its own name resolve to 127.0.0.1 (DNS
//! rebinding): a browser then treats what listens there as part of that page's site, and lets it
//! read and do everything. `Host` still names the page's host, and on loopback no name is needed.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Whether a request with this `Host`, on a listener bound to loopback, can only come from this
/// machine: it names an address, `localhost`, or nothing (HTTP/1.0, which no browser speaks).
pub fn is_meant_for_loopback(host: Option<&[u8]>) -> bool {
    let Some(host) = host else { return true };
    let place = |byte| host.iter().position(|&other| other == byte);
    if let [b'[', ..] = host {
        return place(b']').is_some_and(|end| is_one::<Ipv6Addr>(&host[1..end]));
    }
    let (name, _port) = host.split_at(place(b':').unwrap_or(host.len()));
    is_one::<IpAddr>(name) || name.eq_ignore_ascii_case(b"localhost")
}

fn is_one<T: FromStr>(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<T>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_no_site_of_anybody() {
        for (host, expected) in [
            ("127.0.0.1:8081", true),
            ("127.0.0.1", true),
            ("10.0.0.7:8081", true),
            ("[::1]:8081", true),
            ("[::1]", true),
            ("localhost", true),
            ("LocalHost:8081", true),
            ("", false),
            ("evil.example:8081", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8081", false),
            ("evil.example:127.0.0.1", false),
            ("[evil.example]", false),
            ("localhost.", false),
        ] {
            assert_eq!(is_meant_for_loopback(Some(host.as_bytes())), expected, "{host}");
        }
        assert!(is_meant_for_loopback(None));
        assert!(!is_meant_for_loopback(Some(b"\xff")));
    }
}
