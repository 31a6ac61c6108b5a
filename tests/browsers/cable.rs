//! A server in a network namespace of its own, at the other end of a cable that a test can cut without
//! either end being told.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tempfile::NamedTempFile;

use crate::common::program::Program;
use crate::common::skip;

/// Of the addresses for tests between two devices, which no network has (RFC 2544).
const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);
const PORT: u16 = 8080;

/// Two network devices and the namespace of one; they end with the value.
pub struct Cable {
    namespace: String,
    device: String,
    /// The operator's listener is not on loopback there, and wants one.
    key: NamedTempFile,
}

impl Cable {
    /// `None` after a skip.
    pub fn plug_in() -> Option<Self> {
        let id = std::process::id();
        let (namespace, device) = (&format!("pushline-{id}"), &format!("pl{id}"));
        let key = NamedTempFile::new().expect("a file");
        std::fs::write(&key, "a-key-that-is-never-asked-for-0123456789").expect("it is written");
        let cable = Self { namespace: namespace.clone(), device: device.clone(), key };
        let orders = [
            format!("netns add {namespace}"),
            format!("link add {device} type veth peer name away netns {namespace}"),
            format!("addr add {HERE}/30 dev {device}"),
            format!("link set {device} up"),
            format!("-n {namespace} addr add {THERE}/30 dev away"),
            format!("-n {namespace} link set away up"),
            format!("-n {namespace} link set lo up"),
        ];
        for order in orders {
            if let Err(told) = ip(&order) {
                skip("root, ip and a network namespace", told.trim());
                return None;
            }
        }
        Some(cable)
    }

    /// A server at the other end.
    pub fn serve(&self, options: &[&str]) -> Program {
        let addresses = [PORT, PORT + 1].map(|port| SocketAddr::from((THERE, port)));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, env!("CARGO_BIN_EXE_pushline")]);
        let key = self.key.path().to_str().expect("text");
        Program::run(command, addresses, &[options, &["--admin-key-file", key]].concat())
    }

    /// `down` or `up`, at the far end.
    pub fn set(&self, state: &str) {
        ip(&format!("-n {} link set away {state}", self.namespace)).expect("it is ours");
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Its devices go with it, and the other end with them.
        let _ = ip(&format!("netns del {}", self.namespace));
        let _ = ip(&format!("link del {}", self.device));
    }
}

fn ip(order: &str) -> Result<(), String> {
    let told = Command::new("ip").args(order.split(' ')).output();
    let told = told.map_err(|error| error.to_string())?;
    if told.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&told.stderr).into()) }
}
