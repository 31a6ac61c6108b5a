//! The proxy configurations of `tuning/proxies`, each run by the real program as shipped, except
//! for addresses and certificate.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::identity::Identity;
use super::program::free_ports;
use super::{await_that, installed, skip};

/// A proxy: its program, its file in `tuning/proxies`, and what is replaced in that.
pub struct Kind {
    program: &'static str,
    file: &'static str,
    /// What is in the file, and what it becomes: `PORT` and `DIR` are replaced in it.
    changes: &'static [(&'static str, &'static str)],
    arguments: &'static [&'static str],
    /// Where to get it.
    cure: &'static str,
}

impl Kind {
    /// The same proxy with further replacements.
    pub const fn with(self, changes: &'static [(&'static str, &'static str)]) -> Self {
        Self { changes, ..self }
    }
}

pub const NGINX: Kind = Kind {
    program: "nginx",
    file: "nginx.conf",
    changes: &[("listen 443", "listen 127.0.0.1:PORT")],
    arguments: &["-c", "FILE", "-e", "stderr", "-g", "daemon off; pid DIR/pid; error_log stderr;"],
    cure: "install it",
};

/// One of those that can speak HTTP/2 to a server.
pub const NGINX_MAINLINE: Kind =
    Kind { program: "nginx-mainline", cure: "scripts/test-clients", ..NGINX };

pub const HAPROXY: Kind = Kind {
    program: "haproxy",
    file: "haproxy.cfg",
    changes: &[("bind :443", "bind 127.0.0.1:PORT")],
    arguments: &["-db", "-f", "FILE"],
    cure: "install it",
};

pub const CADDY: Kind = Kind {
    program: "caddy",
    file: "Caddyfile",
    changes: &[
        ("admin localhost:2019", "admin off\n\tauto_https disable_redirects"),
        ("push.example.com {", "https://localhost:PORT {\n\tbind 127.0.0.1"),
    ],
    arguments: &["run", "--adapter", "caddyfile", "--config", "FILE"],
    cure: "scripts/test-clients",
};

pub const ENVOY: Kind = Kind {
    program: "envoy",
    file: "envoy.yaml",
    changes: &[("address: 0.0.0.0, port_value: 443", "address: 127.0.0.1, port_value: PORT")],
    arguments: &[
        "--disable-hot-restart",
        "--log-level",
        "error",
        "--concurrency",
        "1",
        "-c",
        "FILE",
    ],
    cure: "scripts/test-clients",
};

/// Replaced in all files: the server's address, and where nginx writes, which by default only root
/// may.
const ALWAYS: [(&str, &str); 3] = [
    (
        "\nhttp {",
        "\nhttp { access_log DIR/log; client_body_temp_path DIR; proxy_temp_path DIR; \
         fastcgi_temp_path DIR; uwsgi_temp_path DIR; scgi_temp_path DIR;",
    ),
    ("127.0.0.1:8080", "127.0.0.1:SERVER"),
    ("127.0.0.1, port_value: 8080", "127.0.0.1, port_value: SERVER"),
];

/// A running proxy; it ends with the value.
pub struct Proxy {
    child: Child,
    port: u16,
    _identity: Identity,
}

impl Proxy {
    /// Starts one in front of a server; `None` after a skip.
    pub fn start(kind: &Kind, server: SocketAddr) -> Option<Self> {
        let Some(program) = installed(kind.program) else {
            skip(kind.program, kind.cure);
            return None;
        };
        let port = free_ports(1);
        let identity = Identity::new(&["localhost"]);
        let dir = identity.folder();
        let part = |name: &str| std::fs::read_to_string(dir.join(name)).expect("it was made");
        std::fs::write(dir.join("both.pem"), part("cert.pem") + &part("key.pem")).expect("written");
        let file = dir.join(kind.file);
        std::fs::write(&file, configuration(kind, dir, port, server)).expect("written");
        let (dir_text, file_text) = (dir.display().to_string(), file.display().to_string());
        let arguments =
            kind.arguments.iter().map(|a| a.replace("DIR", &dir_text).replace("FILE", &file_text));
        let child = Command::new(program)
            .args(arguments)
            .env("HOME", dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        let mut proxy = Self { child, port, _identity: identity };
        await_that(&format!("{} listens", kind.program), || {
            let ended = proxy.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{} ended at once: {ended:?}", kind.program);
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(proxy)
    }

    /// Where browsers reach the server through it, without the scheme.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A killed nginx leaves its workers behind.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The file as it is shipped, for this port, this server and the certificate in `dir`.
fn configuration(kind: &Kind, dir: &Path, port: u16, server: SocketAddr) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/proxies").join(kind.file);
    let mut text = std::fs::read_to_string(shipped).expect("it is shipped");
    for (from, to) in kind.changes {
        assert!(text.contains(from), "{}: no {from:?} to replace", kind.file);
        text = text.replace(from, &to.replace("PORT", &port.to_string()));
    }
    let dir = dir.display().to_string();
    for (from, to) in ALWAYS {
        let to = to.replace("SERVER", &server.port().to_string()).replace("DIR", &dir);
        text = text.replace(from, &to);
    }
    text.replace("/etc/pushline/tls", &dir)
}
