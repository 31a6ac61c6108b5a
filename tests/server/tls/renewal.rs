//! The program takes renewed certificates by itself, and others when it is told to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;
use rustls::DEFAULT_VERSIONS;

use super::Client;
use crate::common::await_that;
use crate::common::identity::Identity;
use crate::start::Program;

/// The links that certbot switches to each new pair.
fn link(live: &Path, identity: &Identity) {
    for (file, name) in
        [(identity.key_file(), "key.pem"), (identity.certificate_file(), "cert.pem")]
    {
        let new = live.join("new");
        symlink(file, &new).expect("linked");
        fs::rename(new, live.join(name)).expect("switched");
    }
}

fn config(live: &Path, identity: [&Path; 2]) -> std::path::PathBuf {
    let path = live.join("pushline.toml");
    let [cert, key] = identity.map(Path::display);
    let text = format!("listen_tls = '127.0.0.1:0'\n[tls]\ncert = ['{cert}']\nkey = ['{key}']\n");
    fs::write(&path, text).expect("written");
    path
}

#[test]
fn the_program_takes_files_that_a_link_is_switched_to() {
    let [old, new] = [(); 2].map(|()| Identity::new(&["localhost"]));
    let live = tempfile::tempdir().expect("a folder");
    link(live.path(), &old);
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| live.path().join(name));
    let config = config(live.path(), [&certificate, &key]);
    let program = Program::start(&["--config", config.to_str().expect("text")]);
    let at = program.address("listening for clients with TLS");
    let serves = |identity: &Identity| {
        Client::connect(at, identity.client(DEFAULT_VERSIONS), "localhost").is_ok()
    };
    assert!(serves(&old) && !serves(&new));
    link(live.path(), &new);
    await_that("the new one is shown", || serves(&new));
    assert!(!serves(&old));
}

#[test]
fn the_program_takes_other_files_when_it_is_told_to_read_its_settings_again() {
    let [old, new] = [(); 2].map(|()| Identity::new(&["localhost"]));
    let folder = tempfile::tempdir().expect("a folder");
    let write = |of: &Identity| config(folder.path(), [&of.certificate_file(), &of.key_file()]);
    let program = Program::start(&["--config", write(&old).to_str().expect("text")]);
    let at = program.address("listening for clients with TLS");
    let serves = |identity: &Identity| {
        Client::connect(at, identity.client(DEFAULT_VERSIONS), "localhost").is_ok()
    };
    assert!(serves(&old));
    write(&new);
    program.signal(Signal::HUP);
    await_that("the new one is shown", || serves(&new));
    assert!(!serves(&old));
}
