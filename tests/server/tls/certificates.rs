//! Which certificate is shown, files that change, and certificates of clients.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use pushline::auth::Gate;
use rustix::fs::{CWD, FileType, Mode, mknodat};
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
fn a_certificate_for_a_trial_is_made_once_and_its_key_is_for_its_owner_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let make = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pushline"));
        command.args(["tls", "self-signed"]).arg(folder.path()).output().expect("it runs")
    };
    assert!(make().status.success());
    assert_eq!(key.metadata().expect("a key").mode() & 0o777, 0o600);
    let server = TestServer::with(|settings| {
        settings.listen_tls = Some(([127, 0, 0, 1], 0).into());
        settings.tls.certificates = vec![certificate.clone()];
        settings.tls.keys = vec![key.clone()];
    });
    assert!(server.server().listen_tls().is_some(), "they fit");
    let before = fs::read(&key).expect("a key");
    let again = make();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("is kept"), "{again:?}");
    assert_eq!(fs::read(&key).expect("a key"), before);
}

/// As with files of an archive that a link is switched to: each was written long ago.
#[test]
fn another_file_in_place_of_one_is_seen_whenever_it_was_written() {
    let [old, new] = [(); 2].map(|()| Identity::new(&["localhost"]));
    let (mut server, at) = serve(&old, |_| {});
    for (from, to) in
        [(new.certificate_file(), old.certificate_file()), (new.key_file(), old.key_file())]
    {
        let written = to.metadata().and_then(|file| file.modified()).expect("a file");
        File::open(&from).and_then(|file| file.set_modified(written)).expect("set");
        fs::rename(from, to).expect("renamed");
    }
    assert!(server.server_mut().refresh_certificates().expect("they fit"));
    assert!(Client::connect(at, new.client(DEFAULT_VERSIONS), "localhost").is_ok());
}

/// As when a tool renews files, and a signal has them read before it is done.
#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    let [old, new] = [(); 2].map(|()| Identity::new(&["localhost"]));
    let keys = [&old, &new].map(|identity| fs::read(identity.key_file()).expect("a key"));
    let (mut server, at) = serve(&old, |_| {});
    // Reading it waits for its writer; by then, the certificate has been read.
    let pipe = old.folder().join("key.pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let mut settings = server.server().settings().clone();
    settings.tls.keys = vec![pipe.clone()];
    let (tell_read, read) = crossbeam_channel::bounded(1);
    let renewed = new.certificate_file();
    std::thread::spawn(move || {
        let write = |key: &[u8], before: &dyn Fn()| {
            let mut pipe = File::options().write(true).open(&pipe).expect("a reader");
            before();
            pipe.write_all(key).expect("written");
        };
        write(&keys[0], &|| fs::rename(&renewed, old.certificate_file()).expect("renamed"));
        read.recv().expect("it is read");
        write(&keys[1], &|| {});
    });
    server.server_mut().reload(settings, Gate::open()).expect("the old pair");
    tell_read.send(()).expect("it waits for that");
    assert!(server.server_mut().refresh_certificates().expect("the new pair"));
    assert!(Client::connect(at, new.client(DEFAULT_VERSIONS), "localhost").is_ok());
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
