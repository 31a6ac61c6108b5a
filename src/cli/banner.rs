//! What is printed at start for people: where, how many, and a command to try.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::auth::{AuthSettings, KeySource};
use crate::server::Server;

/// The channel of that command.
const CHANNEL: &str = "news";

/// Where the server listens, on what, and for whom.
pub(super) fn banner(server: &Server, auth: &AuthSettings, is_open: bool) -> String {
    let workers = match server.workers() {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    };
    let (cores, driver) = (server.cores(), server.driver());
    let (room, bound) = (server.shared().connection_count.max(), server.bound());
    let (version, listen, admin) = (env!("CARGO_PKG_VERSION"), server.listen(), server.admin());
    let example = example(listen, auth, is_open);
    let tls = server.listen_tls().map_or(String::new(), |tls| format!(" and https://{tls}"));
    format!(
        "pushline {version} listens on http://{listen}{tls} (admin http://{admin})\n\
         {workers} on {cores} ({driver}); room for {room} connections, bounded by {bound}\n\
         try: {example}"
    )
}

/// Commands for a subscriber and a publisher, with what these settings require of them.
fn example(listen: SocketAddr, auth: &AuthSettings, is_open: bool) -> String {
    let at = reachable(listen);
    if is_open {
        return format!(
            "curl -N 'http://{at}/sse?channel={CHANNEL}' & curl -d hello \
             http://{at}/channels/{CHANNEL}"
        );
    }
    let token = match auth.hmac_secrets.first() {
        Some(secret) => format!("TOKEN=$({}); ", token_command(secret, auth)),
        None => "with a token of yours in TOKEN: ".to_owned(),
    };
    let bearer = "-H \"Authorization: Bearer $TOKEN\"";
    format!(
        "{token}curl -N {bearer} 'http://{at}/sse?channel={CHANNEL}' & curl {bearer} -d hello \
         http://{at}/channels/{CHANNEL}"
    )
}

/// The command that makes a token this server accepts. It names the secret and never shows it.
fn token_command(secret: &KeySource, auth: &AuthSettings) -> String {
    let mut command = format!("pushline token --subscribe {CHANNEL} --publish {CHANNEL}");
    let mut add = |option: &str, value: &str| {
        command.push_str(&format!(" {option} '{}'", value.replace('\'', "'\\''")));
    };
    match (&secret.file, &secret.env) {
        (Some(file), _) => add("--secret-file", &file.to_string_lossy()),
        (None, Some(variable)) if variable != "PUSHLINE_SECRET" => add("--secret-env", variable),
        _ => {}
    }
    let named = [("--kid", &secret.kid)];
    let of_list = [("--audience", auth.audience.first()), ("--issuer", auth.issuer.first())];
    for (option, value) in
        named.map(|(option, value)| (option, value.as_ref())).iter().chain(&of_list)
    {
        if let Some(value) = value {
            add(option, value);
        }
    }
    command
}

/// The address at which a client on this machine reaches it.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example_of(auth: &str, is_open: bool) -> String {
        let config = crate::config::check_text("it", auth).expect("good");
        example(([0, 0, 0, 0], 8080).into(), &config.auth, is_open)
    }

    #[test]
    fn an_open_server_is_tried_without_a_token() {
        let line = example_of("", true);
        assert!(!line.contains("TOKEN") && line.contains("http://127.0.0.1:8080/sse"), "{line}");
    }

    #[test]
    fn the_token_of_the_example_is_one_the_server_takes() {
        let line = example_of("[auth]\nhmac_secrets = [{ env = 'PUSHLINE_SECRET' }]", false);
        let begins = "TOKEN=$(pushline token --subscribe news --publish news); curl -N -H ";
        assert!(line.starts_with(begins), "{line}");
        let line = example_of(
            "[auth]\nhmac_secrets = [{ file = '/a b', kid = 'k' }]\naudience = ['push']",
            false,
        );
        let ends = "--secret-file '/a b' --kid 'k' --audience 'push'); ";
        assert!(line.contains(ends), "{line}");
        let line = example_of("[auth]\njwks_file = '/jwks.json'", false);
        assert!(line.starts_with("with a token of yours in TOKEN: curl"), "{line}");
    }
}
