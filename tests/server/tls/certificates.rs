//! Which certificate is shown, files that change, and certificates of clients.

use rustls::DEFAULT_VERSIONS;

use super::{Client, STREAM, post, serve};
use crate::common::identity::{Authority, Identity};
use crate::common::{TestServer, await_subscribers, publish, settings};

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let [first, second] = [["a.example"], ["b.example"]].map(|names| Identity::new(&names));
    let (_server, at) = serve(&first, |settings| second.serve(settings));
    for (identity, name) in [(&first, "a.example"), (&second, "b.example")] {
        let config = identity.client(DEFAULT_VERSIONS);
        assert!(Client::connect(at, config.clone(), name).is_ok(), "{name}");
        let other = if name == "a.example" { "b.example" } else { "a.example" };
        assert!(Client::connect(at, config, other).is_err(), "{name} for {other}");
    }
}

#[test]
fn renewed_files_are_used_for_new_connections_and_streams_live_on() {
    let [old, new] = [(); 2].map(|()| Identity::new(&["localhost"]));
    let (mut server, at) = serve(&old, |_| {});
    let mut stream =
        Client::connect(at, old.client(DEFAULT_VERSIONS), "localhost").expect("a handshake");
    stream.send(STREAM);
    await_subscribers(server.addr, "news", 1);
    assert!(!server.server_mut().refresh_certificates().expect("nothing has changed"));
    old.become_as(&new);
    assert!(server.server_mut().refresh_certificates().expect("they fit"));
    assert!(Client::connect(at, new.client(DEFAULT_VERSIONS), "localhost").is_ok());
    assert!(Client::connect(at, old.client(DEFAULT_VERSIONS), "localhost").is_err());
    publish(server.addr, "news", "still there");
    stream.until("data: still there");
}

#[test]
fn files_that_do_not_fit_are_refused_and_the_old_ones_stay() {
    let [old, new] = [(); 2].map(|()| Identity::new(&["localhost"]));
    let (mut server, at) = serve(&old, |_| {});
    let mut wrong = settings();
    old.serve(&mut wrong);
    wrong.tls.keys = vec![new.key_file()];
    let told =
        server.server_mut().reload(wrong, pushline::auth::Gate::open()).expect_err("two pairs");
    assert!(told.to_string().contains("is not that of the certificate"), "{told}");
    std::fs::copy(new.certificate_file(), old.certificate_file()).expect("copied");
    let told = server.server_mut().refresh_certificates().expect_err("two pairs");
    assert!(told.to_string().contains("is not that of the certificate"), "{told}");
    assert!(Client::connect(at, old.client(DEFAULT_VERSIONS), "localhost").is_ok());
}

#[test]
fn a_client_certificate_publishes_as_a_key_does() {
    let identity = Identity::new(&["localhost"]);
    let authority = Authority::new();
    let auth = format!(
        "anonymous = {{ subscribe = ['*'] }}\n\
         client_certificates = {{ ca = '{}', publish = ['invoice:*'] }}",
        authority.file().display()
    );
    let server = TestServer::guarded(&auth, |settings| identity.serve(settings));
    let at = server.server().listen_tls().expect("a TLS listener");
    let with = || Client::connect(at, identity.client_of(&authority), "localhost").expect("shown");
    let without = Client::connect(at, identity.client(DEFAULT_VERSIONS), "localhost");
    assert_eq!(with().ask(&post("invoice:1", "paid")).0, 200);
    assert_eq!(with().ask(&post("news", "not ours")).0, 403);
    assert!(without.expect("a handshake").ask(&post("invoice:1", "forged")).0 >= 401);
    let stranger = Client::connect(at, identity.client_of(&Authority::new()), "localhost");
    // With TLS 1.3 a client learns with its first read that its certificate is not taken.
    assert!(stranger.is_err() || stranger.is_ok_and(Client::sees_refusal));
}
