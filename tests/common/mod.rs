//! What behaviour tests share: a real server in this process, and clients that are blocking, plain
//! and suspicious. Every read has a deadline, so a silent server fails a test instead of hanging
//! it.

// Each test binary uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod browser;
mod core;
pub mod http;
pub mod http2;
pub mod identity;
pub mod nats;
pub mod program;
pub mod proxies;
pub mod redis;
pub mod relay;
mod skip;
pub mod sse;
pub mod ws;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pushline::auth::{AuthSettings, Gate};
use pushline::config::{DriverWanted, KEYS, Settings};
use pushline::server::{Ended, Reloaded, Server, ServerError};
use serde_json::Value;

pub use self::core::{core, core_of};
pub use self::http::{Conn, Response, exchange, fetch, get, post, request};
pub use self::skip::{skip, skip_anywhere};
pub use self::sse::{Sse, SseEvent};

/// How long anything may take before it counts as never. Only a failure takes this long, so there is
/// room for a machine that is slow, shared, and stands still for seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often something that must be quick is tried: a machine that stands still delays some tries, a
/// server that waits for something delays each.
const TRIES: usize = 8;

/// Threads of the server that panicked: the server survives them as well as it can, but a test must
/// not.
static SERVER_PANICS: AtomicUsize = AtomicUsize::new(0);

/// A server on a port of its own, which ends with this value.
pub struct TestServer {
    server: Option<Server>,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
}

impl TestServer {
    /// With the settings of [`settings`].
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With these changes to them.
    pub fn with(change: impl Fn(&mut Settings)) -> Self {
        Self::with_gate(Gate::open, change)
    }

    /// With the `[auth]` section `auth`, whose secrets are in [`auth_env`], and these changes to
    /// the settings.
    pub fn guarded(auth: &str, change: impl Fn(&mut Settings)) -> Self {
        Self::with_gate(|| gate_of(auth), change)
    }

    /// As SIGHUP does, with another `[auth]` section: the settings stay.
    pub fn reload(&mut self, auth: &str) -> Result<Reloaded, ServerError> {
        let server = self.server.as_mut().expect("it runs");
        server.reload(server.settings().clone(), gate_of(auth))
    }

    fn with_gate(gate: impl Fn() -> Gate, change: impl Fn(&mut Settings)) -> Self {
        watch_server_threads();
        for _ in 0..20 {
            let mut chosen = settings();
            change(&mut chosen);
            let gate = gate();
            // On a thread of its own: io_uring leaves work behind on a thread that used a ring,
            // which would interrupt the test's blocking reads.
            let starting = std::thread::spawn(move || Server::start(chosen, gate));
            match starting.join().expect("starting does not panic") {
                Ok(server) => {
                    let (addr, admin) = (server.listen(), server.admin());
                    return Self { server: Some(server), addr, admin };
                }
                // Another process took the port between our choosing it and listening on it.
                Err(ServerError::Bind { .. }) => {}
                Err(error) => panic!("the server does not start: {error}"),
            }
        }
        panic!("no free port in 20 tries");
    }

    /// The `last` id it gives: its epoch is the part before the dash.
    pub fn epoch(&self) -> String {
        let server = self.server.as_ref().expect("it runs");
        server.shared().epoch.to_string()
    }

    /// The id of the event with this place in the log.
    pub fn id(&self, seq: u64) -> String {
        format!("{}-{seq}", self.epoch())
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.server.as_ref().expect("it runs").shared().connection_count.open()
    }

    /// What it is.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// The same, to change it.
    pub fn server_mut(&mut self) -> &mut Server {
        self.server.as_mut().expect("it runs")
    }

    /// Takes the server out, to end it in a way of the test's own.
    pub fn into_server(mut self) -> Server {
        self.server.take().expect("it runs")
    }

    /// Drains it, as SIGTERM does.
    pub fn drain(self) -> Ended {
        let (_keep, cut) = bounded(1);
        self.into_server().drain(&cut)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // As in `with`: off this thread.
            let stopped = std::thread::spawn(move || server.stop()).join();
            assert!(stopped.is_ok() || std::thread::panicking(), "stopping panicked");
        }
        if !std::thread::panicking() {
            assert_no_server_panic();
        }
    }
}

/// A metric's value, by its name and labels as written.
pub fn metric(admin: SocketAddr, key: &str) -> u64 {
    let text = fetch(admin, "GET", "/metrics", &[], None).text();
    let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    values.map(|value| value.parse::<u64>().expect("a count")).sum()
}

/// Fails if a thread of any server in this process panicked.
pub fn assert_no_server_panic() {
    assert_eq!(SERVER_PANICS.swap(0, Ordering::SeqCst), 0, "a thread of the server panicked");
}

fn watch_server_threads() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let of_server = thread.name().is_some_and(|name| {
                name.starts_with("worker-") || name == "clerk" || name == "admin"
            });
            if of_server {
                SERVER_PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

/// Two workers on any cores, with ports of the kernel's choice.
pub fn settings() -> Settings {
    Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: Some(2),
        cpus: None,
        // Tests use made-up host names.
        open: true,
        driver: driver_wanted(),
        ..Settings::default()
    }
}

/// As the program has it: `PUSHLINE_DRIVER=epoll cargo test` runs all servers on epoll.
fn driver_wanted() -> DriverWanted {
    let mut settings = Settings::default();
    if let Ok(name) = std::env::var("PUSHLINE_DRIVER") {
        let key = KEYS.iter().find(|key| key.name == "driver").expect("a key");
        key.put(&mut settings, &name).expect("a driver's name");
    }
    settings.driver
}

/// What [`auth_env`] calls `PUSHLINE_SECRET`.
pub const SECRET: &str = "a-secret-of-32-bytes-or-more-for-tests-only";

/// What [`auth_env`] calls `PUSHLINE_PUBLISH_KEY`.
pub const PUBLISH_KEY: &str = "a-publish-key-for-tests-only-0123456789abcdef";

/// Signs claims with [`SECRET`].
pub fn bearer_token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

/// The rules of an `[auth]` section.
pub fn gate_of(auth: &str) -> Gate {
    let auth: AuthSettings = toml::from_str(auth).expect("a well-formed section");
    Gate::from_settings(&auth, &auth_env).expect("good settings")
}

/// The environment of guarded servers: the variables the README names.
pub fn auth_env(name: &str) -> Option<String> {
    match name {
        "PUSHLINE_SECRET" => Some(SECRET.to_owned()),
        "PUSHLINE_PUBLISH_KEY" => Some(PUBLISH_KEY.to_owned()),
        _ => None,
    }
}

/// Publishes text; returns its id.
pub fn publish(addr: SocketAddr, channel: &str, data: &str) -> String {
    let answer = publish_answer(addr, channel, data);
    answer["id"].as_str().expect("an id").to_owned()
}

/// Publishes text; returns the whole answer.
pub fn publish_answer(addr: SocketAddr, channel: &str, data: &str) -> Value {
    let target = format!("/channels/{channel}");
    let response = fetch(addr, "POST", &target, &[], Some(data.as_bytes()));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// `GET /channels/{channel}`.
pub fn describe(addr: SocketAddr, channel: &str) -> Value {
    let response = fetch(addr, "GET", &format!("/channels/{channel}"), &[], None);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// Waits until the channel has this many subscribers.
pub fn await_subscribers(addr: SocketAddr, channel: &str, count: u64) {
    await_that(&format!("{channel} has {count} subscribers"), || {
        describe(addr, channel)["subscribers"] == count
    });
}

/// Polls until `fact` holds; fails after [`PATIENCE`].
pub fn await_that(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Fails unless one of a few tries succeeds: for what a machine that stands still prevents.
pub fn assert_ever(what: &str, attempt: impl FnMut() -> bool) {
    let mut tries = std::iter::repeat_with(attempt).take(TRIES);
    assert!(tries.any(|succeeded| succeeded), "in none of {TRIES} tries: {what}");
}

/// The same for what must take less than this.
pub fn assert_ever_within(time: Duration, mut attempt: impl FnMut()) {
    assert_ever(&format!("it takes less than {time:?}"), || {
        let began = Instant::now();
        attempt();
        began.elapsed() < time
    });
}

/// Where `scripts/test-clients` installs what a system rarely has.
pub fn clients_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients")
}

/// A folder with this script for node, `script.mjs`. Node looks for packages where a script is, and
/// the folder they are installed in may belong to another user.
pub fn folder_of_script(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("script.mjs"), script).expect("it is written");
    let packages = clients_dir().join("node_modules");
    symlink(packages, folder.path().join("node_modules")).expect("a link");
    folder
}

/// A program by its name: from `scripts/test-clients`, the `PATH`, or the administrator's folders.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = ["python/bin", "bin"]
        .into_iter()
        .map(|folder| clients_dir().join(folder))
        .chain(std::env::split_paths(&path))
        .chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The place in the log that an id names.
pub fn seq_of(id: &str) -> u64 {
    let (_, seq) = id.split_once('-').expect("an id has a dash");
    seq.parse().expect("an id ends in a number")
}
