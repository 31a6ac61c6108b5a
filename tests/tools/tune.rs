//! `pushline tune` judges as `pushline doctor` does, raises without ever lowering, and restores
//! exactly what it found: on a made-up host, and on the kernel in a network namespace. All of it
//! through `scripts/tune.sh`, which only calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pushline::config::DriverWanted;
use pushline::host::Host;
use pushline::tools::doctor::checks::sysctls;
use pushline::tools::doctor::settings::settings;
use pushline::tools::doctor::{DoctorOptions, Verdict, sysctl_file};
use pushline::tools::numbers::grouped;

use crate::skip::skip;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tune(arguments: &[&str]) -> Output {
    let mut command = Command::new(repository().join("scripts/tune.sh"));
    command.env("PUSHLINE", env!("CARGO_BIN_EXE_pushline")).args(arguments);
    command.output().expect("tune.sh")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A host made of files, with values as a kernel shows them.
struct Fixture {
    dir: tempfile::TempDir,
}

const ORIGINAL: [(&str, &str); 9] = [
    ("fs.nr_open", "1048576\n"),
    ("fs.file-max", "9223372036854775807\n"),
    ("net.core.somaxconn", "128\n"),
    ("net.ipv4.tcp_syncookies", "1\n"),
    ("net.ipv4.tcp_mem", "50\t9000000\t575802\n"),
    ("net.core.netdev_max_backlog", "1000\n"),
    ("net.ipv4.tcp_max_orphans", "131072\n"),
    ("net.ipv4.tcp_ehash_entries", "-262144\n"),
    ("kernel.random.boot_id", "first\n"),
];

impl Fixture {
    /// Without conntrack.
    fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().expect("scratch directory") };
        for (key, value) in ORIGINAL {
            fixture.write(key, value);
        }
        fixture
    }

    fn file(&self, key: &str) -> PathBuf {
        self.dir.path().join("proc/sys").join(key.replace('.', "/"))
    }

    fn write(&self, key: &str, value: &str) {
        fs::create_dir_all(self.file(key).parent().expect("parent")).expect("directories");
        fs::write(self.file(key), value).expect("value");
    }

    fn value(&self, key: &str) -> String {
        fs::read_to_string(self.file(key)).expect("value").replace('\t', " ").trim().to_owned()
    }

    fn values(&self) -> Vec<String> {
        ORIGINAL.iter().map(|(key, _)| self.value(key)).collect()
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("lib/tune.state")
    }

    fn run(&self, command: &str, connections: &str) -> Output {
        let (root, state) = (self.dir.path().display(), self.state().display().to_string());
        let root = root.to_string();
        tune(&[command, "--connections", connections, "--root", &root, "--state", &state])
    }

    fn succeed(&self, command: &str, connections: &str) -> String {
        let output = self.run(command, connections);
        assert!(output.status.success(), "{command}: {}", text(&output));
        text(&output)
    }
}

#[test]
fn tune_and_doctor_agree_about_each_key() {
    let fixture = Fixture::new();
    fixture.write("net.netfilter.nf_conntrack_max", "100\n");
    fixture.write("net.netfilter.nf_conntrack_count", "0\n");
    let host = Host::at(fixture.dir.path());
    for connections in [1000, 100_000, 1_000_000] {
        let shown = text(&fixture.run("check", &connections.to_string()));
        for finding in sysctls(
            &DoctorOptions { connections, workers: 2, driver: DriverWanted::Auto, on_epoll: false },
            &host,
        ) {
            let row = shown.lines().find(|line| line.starts_with(&finding.check)).expect("a row");
            let is_low = finding.verdict >= Verdict::Weak;
            assert_eq!(row.contains("too low"), is_low, "{row}\n{finding:?}");
            assert!(row.contains(&finding.wanted), "{row}\n{finding:?}");
        }
    }
}

#[test]
fn the_sysctl_file_is_the_one_the_doctor_prints() {
    let file = fs::read_to_string(repository().join("tuning/99-pushline.conf")).expect("conf");
    assert_eq!(file, sysctl_file(100_000), "pushline doctor --sysctl --connections 100000");
}

#[test]
fn the_readme_has_a_row_with_both_values_for_each_key() {
    let readme = fs::read_to_string(repository().join("tuning/README.md")).expect("README");
    for (small, large) in settings(100_000).iter().zip(settings(1_000_000)) {
        let start = format!("| `{}` |", small.key);
        let row = readme.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| {
            panic!("no row of the table begins with {start}");
        });
        for number in small.wanted.iter().chain(&large.wanted) {
            assert!(row.contains(&grouped(*number)), "{number} is not in {row}");
        }
    }
}

#[test]
fn check_names_the_driver_and_its_cure_but_counts_neither_as_a_key() {
    let host = Fixture::new();
    host.succeed("apply", "1000");
    host.write("kernel.io_uring_disabled", "2\n");
    let shown = host.succeed("check", "1000");
    assert!(shown.contains("\nThe server runs on "), "{shown}");
    let line = shown.lines().find(|line| line.contains("kernel.io_uring_disabled is 2"));
    let line = line.unwrap_or_else(|| panic!("not told: {shown}"));
    assert!(line.starts_with("  weak: ") && line.contains("kernel.io_uring_disabled=0"), "{line}");
}

#[test]
fn check_says_what_is_low_and_changes_nothing() {
    let host = Fixture::new();
    let before = host.values();
    let output = host.run("check", "100000");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let shown = text(&output);
    let line = |key: &str| shown.lines().find(|l| l.starts_with(key)).expect(key).to_owned();
    assert!(line("net.core.somaxconn").ends_with("too low"), "{shown}");
    assert!(line("fs.file-max").ends_with("ok"), "{shown}");
    assert!(line("net.netfilter.nf_conntrack_max").ends_with("skipped"), "{shown}");
    assert!(shown.contains("loopback only"), "{shown}");
    assert_eq!(host.values(), before);
    assert!(!host.state().exists());
}

/// Values with which kernels start: for few connections there is nothing to tune.
#[test]
fn a_host_as_it_was_installed_is_good_for_a_thousand() {
    let host = Fixture::new();
    host.write("net.core.somaxconn", "4096\n");
    host.write("net.ipv4.tcp_mem", "90000\t120000\t180000\n");
    host.succeed("check", "1000");
}

#[test]
fn apply_raises_number_by_number_and_satisfies_check() {
    let host = Fixture::new();
    host.succeed("apply", "100000");
    assert_eq!(host.value("net.core.somaxconn"), "8192");
    assert_eq!(host.value("net.ipv4.tcp_mem"), "100000 9000000 575802");
    assert_eq!(host.value("fs.file-max"), "9223372036854775807");
    assert_eq!(host.value("net.ipv4.tcp_ehash_entries"), "-262144");
    host.succeed("check", "100000");
}

#[test]
fn revert_after_several_applies_restores_what_the_first_one_found() {
    let host = Fixture::new();
    let before = host.values();
    host.succeed("apply", "100000");
    let once = host.values();
    host.succeed("apply", "100000");
    assert_eq!(host.values(), once, "a second apply changes nothing");
    host.succeed("apply", "1000000");
    assert_ne!(host.values(), once);
    host.succeed("revert", "100000");
    assert_eq!(host.values(), before);
    assert!(!host.state().exists());
    assert!(host.succeed("revert", "100000").contains("nothing to revert"));
    assert_eq!(host.values(), before);
}

#[test]
fn state_of_an_earlier_boot_is_dropped() {
    let host = Fixture::new();
    host.succeed("apply", "100000");
    host.write("kernel.random.boot_id", "second\n");
    host.write("net.core.somaxconn", "7000\n");
    host.succeed("revert", "100000");
    assert_eq!(host.value("net.core.somaxconn"), "7000", "not what the other boot had");
}

#[test]
fn bad_arguments_are_refused_before_anything_is_done() {
    let host = Fixture::new();
    for connections in ["0", "-1", "ten", "1e6", "1000000001", ""] {
        assert_eq!(host.run("apply", connections).status.code(), Some(2), "{connections:?}");
    }
    assert_eq!(tune(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(tune(&[]).status.code(), Some(2));
    assert_eq!(host.value("net.core.somaxconn"), "128");
}

/// The same on the kernel itself, where only `net.*` keys differ from the host's.
#[test]
fn a_network_namespace_is_checked_raised_and_reverted() {
    let unshared = Command::new("unshare").args(["-n", "true"]).output();
    if !unshared.is_ok_and(|output| output.status.success()) {
        return skip("root and unshare", "run as root");
    }
    let dir = tempfile::tempdir().expect("scratch directory");
    let script = r#"
        set -eu
        tune() { "$1" "$2" --connections 1000000 --state "$STATE" --root "$ROOT"; }
        shown() { cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/tcp_syncookies; }
        # Only the namespace's own keys: fs.* is the host's.
        mkdir -p "$ROOT/proc/sys/kernel"
        ln -s /proc/sys/net "$ROOT/proc/sys/net"
        ln -s /proc/sys/kernel/random "$ROOT/proc/sys/kernel/random"
        echo 200 >/proc/sys/net/core/somaxconn
        echo 0 >/proc/sys/net/ipv4/tcp_syncookies
        tune "$TUNE" check && exit 10
        [ "$(shown)" = "$(printf '200\n0')" ] || exit 11
        tune "$TUNE" apply
        tune "$TUNE" apply
        [ "$(shown)" = "$(printf '65536\n1')" ] || exit 12
        tune "$TUNE" revert
        [ "$(shown)" = "$(printf '200\n0')" ] || exit 13
        tune "$TUNE" revert
        [ "$(shown)" = "$(printf '200\n0')" ] || exit 14
    "#;
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", script])
        .env("TUNE", repository().join("scripts/tune.sh"))
        .env("PUSHLINE", env!("CARGO_BIN_EXE_pushline"))
        .env("STATE", dir.path().join("tune.state"))
        .env("ROOT", dir.path().join("root"))
        .output()
        .expect("unshare");
    assert!(output.status.success(), "{:?}\n{}", output.status, text(&output));
    // Read-only in a namespace, or absent, or high enough: in no case fatal.
    let shown = text(&output);
    let mut rows = shown.lines().filter(|line| line.contains("nf_conntrack_max"));
    assert!(rows.any(|row| row.ends_with("skipped") || row.ends_with("ok")), "{shown}");
}
