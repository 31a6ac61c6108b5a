//! The checks of the doctor: each compares one property of the host with what the connections need.

use super::settings::{Change, Effect, FILES_ELSEWHERE, Judged, Setting, settings, text};
use super::{DoctorOptions, Finding, Verdict, driver};
use crate::host::{CgroupMemory, Host};
use crate::tools::numbers::grouped;

/// What the kernel holds for an idle TCP connection on one side: socket, inode, file, dentry, and
/// what waits for its bytes, a poll of io_uring or an item of epoll (half of the 7.1 to 7.8 KB
/// measured for both ends of a pair).
pub(crate) const KERNEL_BYTES_PER_CONNECTION: u64 = 3900;

/// What the server holds for an idle connection on a shared channel.
pub(crate) const SERVER_BYTES_PER_CONNECTION: u64 = 128;

/// Charged to a connection while an event is under way: the kernel counts at least a page.
pub(crate) const SEND_BYTES_PER_CONNECTION: u64 = 4096;

/// The server without connections: rings, history, code.
pub(crate) const SERVER_BYTES: u64 = 512 << 20;

/// Connections this host can hold as it is, including an event under way to all of them.
pub fn capacity(workers: u64, on_epoll: bool, host: &Host) -> u64 {
    let descriptors = driver::capacity(workers, on_epoll, host);
    let files = host.sysctl("fs.file-max").ok().and_then(|numbers| numbers.first().copied());
    let files = files.map(|files| files.saturating_sub(FILES_ELSEWHERE));
    let each =
        KERNEL_BYTES_PER_CONNECTION + SERVER_BYTES_PER_CONNECTION + SEND_BYTES_PER_CONNECTION;
    let group = host.cgroup_memory().map(|group| group.limit_bytes);
    let memory = host.memory_available_bytes().into_iter().chain(group);
    let memory = memory.map(|bytes| bytes.saturating_sub(SERVER_BYTES) / each);
    descriptors.into_iter().chain(files).chain(memory).min().unwrap_or(u64::MAX)
}

/// Free memory against idle connections, and against one event on its way to all of them.
pub fn memory(options: &DoctorOptions, host: &Host) -> Finding {
    match host.memory_available_bytes() {
        None => unreadable("memory available", need_text(options)),
        Some(bytes) => finding(
            "memory available",
            mib(bytes),
            need_text(options),
            enough(bytes, options),
            "more memory, or fewer connections on this host",
        ),
    }
}

/// The same against the limit of the control group, to which the kernel's socket memory is charged.
pub(crate) fn cgroup_memory(options: &DoctorOptions, host: &Host) -> Finding {
    let check = "memory of the control group";
    match host.cgroup_memory() {
        None => finding(check, "no limit", need_text(options), Verdict::Ok, ""),
        Some(CgroupMemory { limit_bytes, file }) => finding(
            check,
            mib(limit_bytes),
            need_text(options),
            enough(limit_bytes, options),
            &format!("raise {} (MemoryMax= of the unit, --memory of a container)", file.display()),
        ),
    }
}

/// The kernel settings of [`settings`].
pub fn sysctls(options: &DoctorOptions, host: &Host) -> Vec<Finding> {
    settings(options.connections).iter().map(|s| sysctl(s, options, host)).collect()
}

fn sysctl(setting: &Setting, options: &DoctorOptions, host: &Host) -> Finding {
    let wanted = setting.wanted_text();
    let (current, raised) = match setting.judge(host) {
        Judged::Absent => {
            let found = "not in this kernel or namespace".to_owned();
            return finding(setting.key, found, wanted, Verdict::Note, "");
        }
        Judged::Unreadable => return unreadable(setting.key, wanted),
        Judged::Enough { current } => {
            return finding(setting.key, text(&current), wanted, Verdict::Ok, "");
        }
        Judged::Unused { current } => {
            let found = format!("{} (tracking nothing)", text(&current));
            return finding(setting.key, found, wanted, Verdict::Note, "");
        }
        Judged::Low { current, raised } => (current, raised),
    };
    let verdict = match setting.effect {
        Effect::Blocks => Verdict::Fail,
        Effect::Hurts => Verdict::Weak,
    };
    let cure = match setting.change {
        Change::Sysctl | Change::SysctlByHost => format!(
            "sysctl -w {}=\"{}\", or pushline tune apply --connections {}",
            setting.key,
            text(&raised),
            options.connections
        ),
        Change::Boot(parameter) => format!("boot with {parameter}={}", text(&raised)),
    };
    finding(setting.key, text(&current), wanted, verdict, &cure)
}

fn idle_bytes(options: &DoctorOptions) -> u64 {
    let each = KERNEL_BYTES_PER_CONNECTION + SERVER_BYTES_PER_CONNECTION;
    SERVER_BYTES.saturating_add(options.connections.saturating_mul(each))
}

fn busy_bytes(options: &DoctorOptions) -> u64 {
    let sends = options.connections.saturating_mul(SEND_BYTES_PER_CONNECTION);
    idle_bytes(options).saturating_add(sends)
}

fn need_text(options: &DoctorOptions) -> String {
    format!("{} idle, {} in a broadcast", mib(idle_bytes(options)), mib(busy_bytes(options)))
}

fn enough(bytes: u64, options: &DoctorOptions) -> Verdict {
    if bytes < idle_bytes(options) {
        Verdict::Fail
    } else if bytes < busy_bytes(options) {
        Verdict::Weak
    } else {
        Verdict::Ok
    }
}

/// In MiB, or in KiB where that would be 0.
pub(super) fn mib(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", grouped(bytes >> 10)),
        _ => format!("{} MiB", grouped(bytes >> 20)),
    }
}

pub(super) fn unreadable(check: &str, wanted: String) -> Finding {
    finding(check, "cannot be read", wanted, Verdict::Note, "")
}

/// A finding; the cure is dropped if nothing needs curing.
pub(super) fn finding(
    check: &str,
    found: impl Into<String>,
    wanted: impl Into<String>,
    verdict: Verdict,
    cure: &str,
) -> Finding {
    let cure = if verdict >= Verdict::Weak { cure.to_owned() } else { String::new() };
    Finding { check: check.to_owned(), found: found.into(), wanted: wanted.into(), verdict, cure }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;
    use crate::config::DriverWanted;
    use crate::tools::doctor::run;

    /// A healthy host for a million connections on two workers, with the given files replaced;
    /// an empty text removes the file.
    pub(crate) fn host(replaced: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().expect("scratch directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("directories");
            fs::write(path, text).expect("file");
        };
        for setting in settings(1_000_000) {
            put(&format!("proc/sys/{}", setting.key.replace('.', "/")), &setting.wanted_text());
        }
        put("proc/sys/kernel/osrelease", "6.12.1-amd64\n");
        put("proc/sys/kernel/io_uring_disabled", "0\n");
        put(
            "proc/self/limits",
            "Max open files 1024 1048576 files\nMax locked memory 1 unlimited bytes\n",
        );
        put("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable:   12582912 kB\n");
        put("proc/self/cgroup", "0::/\n");
        put("proc/self/mounts", "cgroup2 /cg cgroup2 rw 0 0\n");
        for (path, text) in replaced {
            put(path, text);
            if text.is_empty() {
                fs::remove_file(dir.path().join(path)).expect("remove");
            }
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    pub(crate) const MILLION: DoctorOptions = DoctorOptions {
        connections: 1_000_000,
        workers: 2,
        driver: DriverWanted::Auto,
        on_epoll: false,
    };

    /// The findings that are not ok when these files are replaced.
    pub(crate) fn findings(replaced: &[(&str, &str)]) -> Vec<Finding> {
        let (_dir, host) = host(replaced);
        let report = run(&MILLION, &host, &Ok("all there".into()));
        report.findings.into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
    }

    pub(crate) fn only(replaced: &[(&str, &str)]) -> Finding {
        let mut findings = findings(replaced);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }

    #[test]
    fn a_tuned_host_is_ready() {
        assert_eq!(findings(&[]), []);
    }

    #[test]
    fn memory_below_idle_fails_and_below_a_broadcast_is_weak() {
        let available =
            |kib: &str| only(&[("proc/meminfo", &format!("MemAvailable: {kib} kB\n"))]).verdict;
        // 512 MiB + 1 M x 4,028 B = 4,353 MiB idle, and 3,906 MiB more in a broadcast.
        assert_eq!(available("4000000"), Verdict::Fail);
        assert_eq!(available("6000000"), Verdict::Weak);
    }

    #[test]
    fn a_tight_control_group_fails_and_names_its_file() {
        let finding = only(&[("cg/memory.max", "1073741824\n")]);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.cure.contains("/cg/memory.max"), "{}", finding.cure);
    }

    #[test]
    fn a_low_file_max_blocks_and_a_low_accept_queue_hurts() {
        assert_eq!(only(&[("proc/sys/fs/file-max", "1000000")]).verdict, Verdict::Fail);
        let finding = only(&[("proc/sys/net/core/somaxconn", "4096")]);
        assert_eq!(finding.verdict, Verdict::Weak);
        assert!(finding.cure.contains("net.core.somaxconn=\"65536\""), "{}", finding.cure);
    }

    #[test]
    fn a_cure_lowers_no_number_that_is_higher_already() {
        let finding = only(&[("proc/sys/net/ipv4/tcp_mem", "2000000 3000000 100\n")]);
        assert!(finding.cure.contains("=\"2000000 3000000 2000000\""), "{}", finding.cure);
    }

    #[test]
    fn the_size_of_the_socket_table_is_cured_at_boot() {
        let finding = only(&[("proc/sys/net/ipv4/tcp_ehash_entries", "-262144\n")]);
        assert_eq!(finding.cure, "boot with thash_entries=1048576");
    }

    #[test]
    fn absent_conntrack_is_only_noted() {
        let finding = only(&[("proc/sys/net/netfilter/nf_conntrack_max", "")]);
        assert_eq!((finding.verdict, finding.cure.as_str()), (Verdict::Note, ""));
    }

    #[test]
    fn conntrack_counts_only_where_it_tracks() {
        let verdict = |count: &str| {
            only(&[
                ("proc/sys/net/netfilter/nf_conntrack_max", "262144"),
                ("proc/sys/net/netfilter/nf_conntrack_count", count),
            ])
            .verdict
        };
        assert_eq!(verdict("7"), Verdict::Weak);
        assert_eq!(verdict("0"), Verdict::Note);
    }

    #[test]
    fn a_host_without_files_is_noted_not_panicked_over() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let report = run(&MILLION, &Host::at(dir.path()), &Ok("all there".into()));
        assert!(report.findings.iter().all(|f| f.verdict <= Verdict::Note), "{report}");
    }
}
