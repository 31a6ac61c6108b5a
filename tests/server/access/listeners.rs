//! Which addresses the server listens on, and what it requires for that.

use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::common::settings;
use pushline::auth::Gate;
use pushline::server::{Server, ServerError};

/// Without keys, this machine only; the message names the cures.
#[test]
fn an_open_server_refuses_to_listen_beyond_loopback() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let mut chosen = settings();
        (chosen.listen, chosen.open) = (listen.parse().expect("an address"), false);
        let Err(error) = Server::start(chosen, Gate::open()) else {
            panic!("it listens on {listen} for everyone");
        };
        assert!(matches!(error, ServerError::OpenToTheWorld { .. }), "{error}");
        let message = error.to_string();
        for cure in [listen, "[auth]", "127.0.0.1", "--open"] {
            assert!(message.contains(cure), "{message}");
        }
    }
}

#[test]
fn with_keys_or_when_told_so_it_listens_anywhere() {
    let everywhere = "0.0.0.0:0".parse().expect("an address");
    let told = TestServer::with(|settings| {
        settings.listen = everywhere;
        settings.open = true;
    });
    let guarded = TestServer::guarded(&readme_auth(), |settings| settings.listen = everywhere);
    for server in [&told, &guarded] {
        assert!(server.addr.ip().is_unspecified());
    }
}

/// Without a key the operator's listener requires no credentials.
#[test]
fn the_operators_listener_refuses_to_leave_loopback_without_a_key() {
    let mut chosen = settings();
    chosen.admin = "0.0.0.0:0".parse().expect("an address");
    chosen.open = false;
    let Err(error) = Server::start(chosen, Gate::open()) else { panic!("anybody may cut") };
    let message = error.to_string();
    for cure in ["0.0.0.0:0", "admin_key_file", "127.0.0.1", "--open"] {
        assert!(message.contains(cure), "{message}");
    }
    let short = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(short.path(), "short\n").expect("it can be written");
    let mut chosen = settings();
    chosen.admin_key_file = Some(short.path().to_owned());
    let Err(error) = Server::start(chosen, Gate::open()) else { panic!("a key anybody guesses") };
    assert!(error.to_string().contains("openssl rand"), "{error}");
}

#[test]
fn with_a_key_the_operator_shows_it_and_a_supervisor_need_not() {
    const KEY: &str = "the-operators-key-for-tests-only-0123456789";
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(file.path(), format!("{KEY}\n")).expect("it can be written");
    let server = TestServer::with(|settings| {
        settings.admin = "0.0.0.0:0".parse().expect("an address");
        settings.admin_key_file = Some(file.path().to_owned());
    });
    let admin = SocketAddr::from(([127, 0, 0, 1], server.admin.port()));
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(crate::common::fetch(admin, "GET", probe, &[], None).status, 200, "{probe}");
    }
    let wrong = bearer(&KEY.replace('k', "q"));
    for (method, target) in
        [("GET", "/metrics"), ("GET", "/v1/connections"), ("DELETE", "/v1/connections/0-0-0")]
    {
        for headers in [&[][..], &[("Authorization", &*wrong)]] {
            let response = crate::common::fetch(admin, method, target, headers, None);
            assert_eq!(outcome(&response), refused(401, "key"), "{method} {target}");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        }
    }
    let right = bearer(KEY);
    let headers = [("Authorization", &*right)];
    assert_eq!(crate::common::fetch(admin, "GET", "/metrics", &headers, None).status, 200);
}

/// Without a key the operator's listener requires no credentials: only on loopback unless told
/// otherwise, and then the log says what that means.
#[test]
fn the_operators_listener_is_loopback_and_says_so_when_it_is_not() {
    assert!(settings().admin.ip().is_loopback());
    assert!(pushline::config::Settings::default().admin.ip().is_loopback());
    let said_with = |admin: &str| {
        let log = tempfile::NamedTempFile::new().expect("a scratch file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_pushline"))
            .args(["--listen", "127.0.0.1:0", "--admin", admin, "--workers", "1"])
            .args(["--cpus", "none", "--open"])
            .stdout(std::process::Stdio::null())
            .stderr(log.reopen().expect("the scratch file"))
            .spawn()
            .expect("the program starts");
        let said = || std::fs::read_to_string(log.path()).expect("the log");
        let deadline = Instant::now() + crate::common::PATIENCE;
        while !said().contains("no keys are configured") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        said()
    };
    let warning = "anyone who reaches the operator's listener";
    let (outside, inside) = (said_with("0.0.0.0:0"), said_with("127.0.0.1:0"));
    assert!(outside.contains(warning), "{outside}");
    assert!(inside.contains("listening for the operator") && !inside.contains(warning), "{inside}");
}

/// The operator's paths are not on the clients' listener.
#[test]
fn the_clients_listener_has_nothing_of_the_operators() {
    let server = TestServer::start();
    for target in ["/metrics", "/v1/connections", "/v1/channels", "/healthz", "/readyz"] {
        let response = crate::common::fetch(server.addr, "GET", target, &[], None);
        assert_eq!(outcome(&response), refused(404, "not_found"), "{target}");
    }
    let cut = crate::common::fetch(server.addr, "DELETE", "/v1/connections/0-0-1", &[], None);
    assert!(matches!(cut.status, 404 | 501), "{}", cut.status);
}
