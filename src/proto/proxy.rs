//! The PROXY protocol, versions 1 and 2: what a proxy says about its client before anything the
//! client says (HAProxy's `proxy-protocol.txt`). Only the client's address is read; TLVs are
//! skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest line of version 1, including its CRLF (section 2.1).
const V1_BYTES_MAX: usize = 107;
const V1_BEGIN: &[u8] = b"PROXY ";

/// What version 2 begins with (section 2.2).
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes up to and including the length of the rest.
const V2_FIXED_BYTES: usize = 16;
/// Addresses and TLVs: room for several certificates' worth of what proxies tell.
const V2_REST_BYTES_MAX: usize = 4096;

/// What was found at the beginning of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An incomplete header.
    Partial,
    /// A whole header.
    Complete {
        /// The client the proxy speaks for; `None` if it speaks for itself or does not know.
        source: Option<IpAddr>,
        /// The header's length in bytes.
        length: usize,
    },
}

/// Not a header of either version, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads the header at the beginning of a connection.
///
/// # Errors
/// The bytes begin with something else, so their sender must not be trusted.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    match bytes.first() {
        None => Ok(Parsed::Partial),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let seen = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    if !begins(seen, V1_BEGIN) {
        return Err(Malformed);
    }
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() < V1_BYTES_MAX { Ok(Parsed::Partial) } else { Err(Malformed) };
    };
    let line = std::str::from_utf8(&seen[V1_BEGIN.len()..end]).map_err(|_| Malformed)?;
    Ok(Parsed::Complete { source: source_of_line(line)?, length: end + 2 })
}

/// Protocol, addresses and ports, each after one space.
fn source_of_line(line: &str) -> Result<Option<IpAddr>, Malformed> {
    let words: Vec<&str> = line.split(' ').collect();
    let [protocol, source, destination, ports @ ..] = &words[..] else {
        return if words[0] == "UNKNOWN" { Ok(None) } else { Err(Malformed) };
    };
    let address = |text: &str| -> Result<IpAddr, Malformed> { text.parse().map_err(|_| Malformed) };
    let is_port = |text: &&str| text.parse::<u16>().is_ok();
    let source = match *protocol {
        "UNKNOWN" => return Ok(None),
        "TCP4" | "TCP6" => address(source)?,
        _ => return Err(Malformed),
    };
    let of_family = |address: IpAddr| address.is_ipv4() == (*protocol == "TCP4");
    if ports.len() != 2 || !ports.iter().all(is_port) {
        return Err(Malformed);
    }
    let fits = of_family(source) && of_family(address(destination)?);
    if fits { Ok(Some(source)) } else { Err(Malformed) }
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if !begins(bytes, V2_BEGIN) {
        return Err(Malformed);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(Parsed::Partial);
    };
    let [command, family, high, low] = [fixed[12], fixed[13], fixed[14], fixed[15]];
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_REST_BYTES_MAX || !matches!(command, LOCAL | PROXY) {
        return Err(Malformed);
    }
    let Some(addresses) = rest.get(..length) else { return Ok(Parsed::Partial) };
    let source = match (command, family) {
        (PROXY, TCP4) if length >= 12 => addresses.first_chunk().map(|b| Ipv4Addr::from(*b).into()),
        (PROXY, TCP6) if length >= 36 => {
            addresses.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into())
        }
        (PROXY, TCP4 | TCP6) => return Err(Malformed),
        // The proxy's own health check, or a client that is not a TCP socket.
        _ => None,
    };
    Ok(Parsed::Complete { source, length: V2_FIXED_BYTES + length })
}

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Whether the bytes begin with this, as far as both go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [V2_BEGIN, &[command, family], &length, rest].concat()
    }

    /// The header is found whatever follows it, and is incomplete at every cut.
    fn expect(header: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().expect("an address"));
        let complete = Ok(Parsed::Complete { source, length: header.len() });
        assert_eq!(parse(header), complete, "{}", header.escape_ascii());
        assert_eq!(parse(&[header, b"GET / HTTP/1.1\r\n"].concat()), complete);
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(Parsed::Partial), "{end}");
        }
    }

    #[test]
    fn a_proxy_tells_its_clients_address() {
        expect(b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", Some("192.0.2.7"));
        expect(b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", Some("2001:db8::7"));
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        expect(&v2(PROXY, TCP4, &v4), Some("192.0.2.7"));
        let tlv = [0x04, 0, 1, 0xff];
        expect(&v2(PROXY, TCP4, &[&v4[..], &tlv].concat()), Some("192.0.2.7"));
        expect(&v2(PROXY, TCP6, &[7; 36]), Some("707:707:707:707:707:707:707:707"));
    }

    #[test]
    fn a_proxy_may_speak_for_nobody() {
        expect(b"PROXY UNKNOWN\r\n", None);
        expect(b"PROXY UNKNOWN ffff:f:f::1 ffff::2 65535 65535\r\n", None);
        expect(&v2(LOCAL, 0, &[]), None);
        expect(&v2(LOCAL, TCP4, &[1; 12]), None);
        expect(&v2(PROXY, 0, &[1; 3]), None);
        expect(&v2(PROXY, 0x31, &[1; 216]), None);
    }

    #[test]
    fn anything_else_is_refused() {
        let mut bad: Vec<Vec<u8>> = [
            "GET / HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 56324 70000\r\n",
            "PROXY TCP4 192.0.2.7  10.0.0.1 56324 443\r\n",
            "PROXY TCP4 2001:db8::7 ::1 56324 443\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            "PROXY \r\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into();
        bad.push([V1_BEGIN, &[b'x'; V1_BYTES_MAX]].concat());
        bad.push(v2(0x22, TCP4, &[1; 12]));
        bad.push(v2(0x11, TCP4, &[1; 12]));
        bad.push(v2(PROXY, TCP4, &[1; 11]));
        bad.push(v2(PROXY, TCP6, &[1; 35]));
        bad.push(v2(PROXY, TCP4, &[1; V2_REST_BYTES_MAX + 1]));
        for bytes in bad {
            assert_eq!(parse(&bytes), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }
}
