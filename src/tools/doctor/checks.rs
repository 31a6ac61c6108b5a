//! The checks of the doctor: each compares one thing of the host with what the connections need.

use super::settings::{
    Change, Effect, FILES_ELSEWHERE, Judged, SLOTS_PER_RING_MAX, Setting, settings, text,
};
use super::{DoctorOptions, Finding, Verdict};
use crate::host::{CgroupMemory, Host};
use crate::tools::numbers::grouped;

/// Oldest kernel the driver works on: fire-and-forget sends were verified from here on.
pub const KERNEL_MIN: (u64, u64) = (6, 1);

/// From this kernel on rings are charged to RLIMIT_MEMLOCK (again).
pub const KERNEL_CHARGING: (u64, u64) = (6, 14);

/// Bit of the capability that exempts from it.
const CAP_IPC_LOCK: u32 = 14;

/// Room for the rings of a worker: 4096 submissions take 404 KiB with a completion queue of twice
/// as many (measured, 6.18); larger queues and the provided-buffer ring fit in the rest.
pub const LOCKED_BYTES_PER_WORKER: u64 = 1 << 20;

/// Slots of each ring that are no subscriber's: the server answers 503 from them when it is full.
pub const SLOTS_RESERVED_PER_RING: u64 = 64;

/// What the kernel keeps for an idle TCP connection on one side: socket, inode, file, dentry and
/// the poll of the armed receive (half of the 7.1 to 7.8 KB measured for both ends of a pair).
pub const KERNEL_BYTES_PER_CONNECTION: u64 = 3900;

/// What the server keeps for an idle connection on a shared channel.
pub const SERVER_BYTES_PER_CONNECTION: u64 = 128;

/// Charged to a connection while an event is on its way: the kernel counts a page at least.
pub const SEND_BYTES_PER_CONNECTION: u64 = 4096;

/// The server without connections: rings, history, code.
pub const SERVER_BYTES: u64 = 512 << 20;

/// The kernel's version.
pub fn kernel(host: &Host) -> Finding {
    let (major, minor) = KERNEL_MIN;
    let release = host.kernel_release();
    let verdict = match release.as_deref().ok().and_then(version) {
        None => Verdict::Note,
        Some(version) if version >= KERNEL_MIN => Verdict::Ok,
        Some(_) => Verdict::Fail,
    };
    finding(
        "kernel",
        release.unwrap_or_else(|error| error.to_string()),
        format!("{major}.{minor} or newer"),
        verdict,
        "install a newer kernel (Debian 12 has 6.1): the sends need it",
    )
}

/// Whether the administrator lets this process use io_uring at all.
pub fn io_uring_allowed(host: &Host) -> Finding {
    let found = host.sysctl("kernel.io_uring_disabled");
    let (text, verdict) = match found.as_deref() {
        Ok([0]) => ("0".to_owned(), Verdict::Ok),
        Ok([1]) => ("1: only CAP_SYS_ADMIN and kernel.io_uring_group".to_owned(), Verdict::Weak),
        Ok(numbers) => (text(numbers), Verdict::Fail),
        // Kernels before 6.6 have no such switch: allowed.
        Err(_) => ("no such switch".to_owned(), Verdict::Ok),
    };
    finding(
        "kernel.io_uring_disabled",
        text,
        "0",
        verdict,
        "sysctl -w kernel.io_uring_disabled=0, or 1 with kernel.io_uring_group set to a group the \
         server is in",
    )
}

/// What trying io_uring gave: what is there, or what is missing and the cure in one message.
pub fn ring(tried: Result<String, String>) -> Finding {
    let wanted = "all the driver uses";
    match tried {
        Ok(found) => finding("io_uring", found, wanted, Verdict::Ok, ""),
        Err(message) => finding("io_uring", "not usable", wanted, Verdict::Fail, &message),
    }
}

/// Connections this host holds as it is, an event on its way to all of them included.
pub fn capacity(workers: u64, host: &Host) -> u64 {
    let descriptors =
        host.limit("Max open files").map(|limit| workers.saturating_mul(slots(limit.hard)));
    let files = host.sysctl("fs.file-max").ok().and_then(|numbers| numbers.first().copied());
    let files = files.map(|files| files.saturating_sub(FILES_ELSEWHERE));
    let each =
        KERNEL_BYTES_PER_CONNECTION + SERVER_BYTES_PER_CONNECTION + SEND_BYTES_PER_CONNECTION;
    let group = host.cgroup_memory().map(|group| group.limit_bytes);
    let memory = host.memory_available_bytes().into_iter().chain(group);
    let memory = memory.map(|bytes| bytes.saturating_sub(SERVER_BYTES) / each);
    descriptors.into_iter().chain(files).chain(memory).min().unwrap_or(u64::MAX)
}

/// Subscribers one ring has room for under this limit.
fn slots(descriptors_max: u64) -> u64 {
    descriptors_max.min(SLOTS_PER_RING_MAX).saturating_sub(SLOTS_RESERVED_PER_RING)
}

/// Descriptors per ring, and the connections that makes.
pub fn descriptors(options: &DoctorOptions, host: &Host) -> Finding {
    let DoctorOptions { connections, workers } = *options;
    let Some(limit) = host.limit("Max open files") else {
        return unreadable("connections (descriptors per ring)", grouped(connections));
    };
    let slots = slots(limit.hard);
    let capacity = workers.saturating_mul(slots);
    let verdict = if capacity >= connections { Verdict::Ok } else { Verdict::Fail };
    finding(
        "connections (descriptors per ring)",
        format!("{workers} x {} = {}", grouped(slots), grouped(capacity)),
        grouped(connections),
        verdict,
        &descriptors_cure(options, slots),
    )
}

fn descriptors_cure(options: &DoctorOptions, slots: u64) -> String {
    let DoctorOptions { connections, workers } = *options;
    let nofile = connections.div_ceil(workers.max(1)) + SLOTS_RESERVED_PER_RING;
    let raise = format!("LimitNOFILE={nofile} (ulimit -Hn) with {workers} workers");
    let spread = format!("--workers {} under this limit", connections.div_ceil(slots.max(1)));
    match (nofile <= SLOTS_PER_RING_MAX, slots > 0) {
        (true, true) => format!("{raise}, or {spread}"),
        (true, false) => raise,
        (false, _) => format!(
            "a ring holds at most {}: --workers {} and LimitNOFILE={SLOTS_PER_RING_MAX}",
            grouped(SLOTS_PER_RING_MAX),
            connections.div_ceil(SLOTS_PER_RING_MAX - SLOTS_RESERVED_PER_RING),
        ),
    }
}

/// Locked memory: since 6.14 the memory of rings is charged to the user's limit, unless the process
/// has `CAP_IPC_LOCK`; between 5.12 and that it was not. The limit is per user, over all processes.
pub fn memlock(options: &DoctorOptions, host: &Host) -> Finding {
    let need_bytes = options.workers.saturating_mul(LOCKED_BYTES_PER_WORKER);
    let wanted = format!("{} (rings, since kernel 6.14)", mib(need_bytes));
    let Some(limit) = host.limit("Max locked memory") else {
        return unreadable("memlock", wanted);
    };
    let charged =
        host.kernel_release().ok().and_then(|r| version(&r)).is_none_or(|v| v >= KERNEL_CHARGING);
    let exempt = host.has_capability(CAP_IPC_LOCK);
    let mut found = if limit.hard == u64::MAX { "unlimited".to_owned() } else { mib(limit.hard) };
    if exempt {
        found.push_str(", exempt by CAP_IPC_LOCK");
    }
    let short = charged && !exempt && limit.hard < need_bytes;
    let verdict = if short { Verdict::Fail } else { Verdict::Ok };
    let cure = format!(
        "LimitMEMLOCK=infinity in the unit, or memlock {} (KiB) in limits.conf: a ring is refused \
         with ENOMEM",
        need_bytes >> 10
    );
    finding("memlock", found, wanted, verdict, &cure)
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

/// The same against the limit of the control group: socket memory of the kernel is charged to it.
pub fn cgroup_memory(options: &DoctorOptions, host: &Host) -> Finding {
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
fn mib(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", grouped(bytes >> 10)),
        _ => format!("{} MiB", grouped(bytes >> 20)),
    }
}

/// `major.minor` at the beginning of a kernel release.
fn version(release: &str) -> Option<(u64, u64)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn unreadable(check: &str, wanted: String) -> Finding {
    finding(check, "cannot be read", wanted, Verdict::Note, "")
}

/// A finding; the cure is dropped where there is nothing to cure.
fn finding(
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
mod tests {
    use std::fs;

    use super::*;
    use crate::tools::doctor::{DoctorArgs, run};

    /// A healthy host for a million connections on two workers, with the given files replaced;
    /// an empty text removes the file.
    fn host(replaced: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
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

    const MILLION: DoctorOptions = DoctorOptions { connections: 1_000_000, workers: 2 };

    /// The findings that are not ok when these files are replaced.
    fn findings(replaced: &[(&str, &str)]) -> Vec<Finding> {
        let (_dir, host) = host(replaced);
        let report = run(&MILLION, &host, Vec::new());
        report.findings.into_iter().filter(|finding| finding.verdict != Verdict::Ok).collect()
    }

    fn only(replaced: &[(&str, &str)]) -> Finding {
        let mut findings = findings(replaced);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }

    #[test]
    fn a_tuned_host_is_ready() {
        assert_eq!(findings(&[]), []);
    }

    #[test]
    fn an_old_kernel_fails() {
        let finding = only(&[("proc/sys/kernel/osrelease", "5.15.0-91-generic\n")]);
        assert_eq!((finding.check.as_str(), finding.verdict), ("kernel", Verdict::Fail));
        assert_eq!(findings(&[("proc/sys/kernel/osrelease", "6.1.0-47-cloud-amd64")]), []);
        assert_eq!(findings(&[("proc/sys/kernel/osrelease", "10.0.0")]), []);
    }

    #[test]
    fn a_switched_off_io_uring_fails_and_a_missing_switch_does_not() {
        let switch = "proc/sys/kernel/io_uring_disabled";
        assert_eq!(only(&[(switch, "2")]).verdict, Verdict::Fail);
        assert_eq!(only(&[(switch, "1")]).verdict, Verdict::Weak);
        assert_eq!(findings(&[(switch, "")]), []);
    }

    #[test]
    fn too_few_descriptors_fail_with_both_cures() {
        let finding = only(&[(
            "proc/self/limits",
            "Max open files 20000 20000 files\n\
                                                   Max locked memory 1 unlimited bytes\n",
        )]);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert_eq!(finding.found, "2 x 19,936 = 39,872");
        assert!(finding.cure.contains("LimitNOFILE=500064"), "{}", finding.cure);
        assert!(finding.cure.contains("--workers 51 "), "{}", finding.cure);
    }

    #[test]
    fn a_ring_is_never_credited_with_more_than_the_kernel_gives() {
        let (_dir, host) = host(&[("proc/self/limits", "Max open files 1 unlimited files\n")]);
        let options = DoctorOptions { connections: 1_048_513, workers: 1 };
        let finding = descriptors(&options, &host);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.cure.contains("--workers 2 "), "{}", finding.cure);
    }

    #[test]
    fn a_million_on_many_workers_outgrow_the_usual_locked_memory_since_6_14() {
        let limits = "Max open files 20000 20000 files\nMax locked memory 8388608 8388608 bytes\n";
        let verdict = |release: &str, capabilities: &str| {
            let (_dir, host) = host(&[
                ("proc/self/limits", limits),
                ("proc/sys/kernel/osrelease", release),
                ("proc/self/status", capabilities),
            ]);
            memlock(&DoctorOptions { connections: 1_000_000, workers: 54 }, &host).verdict
        };
        let (none, ipc_lock) = ("CapEff:\t0000000000000000\n", "CapEff:\t0000000000004000\n");
        assert_eq!(verdict("6.18.44", none), Verdict::Fail);
        assert_eq!(verdict("6.18.44", ipc_lock), Verdict::Ok);
        assert_eq!(verdict("6.12.1", none), Verdict::Ok);
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
    fn what_the_ring_says_is_part_of_the_verdict() {
        let (_dir, host) = host(&[]);
        let report = run(&MILLION, &host, vec![ring(Err("no MSG_RING: newer kernel".into()))]);
        assert_eq!(report.exit_code(), 1);
        assert!(report.to_string().contains("no MSG_RING: newer kernel"), "{report}");
        assert_eq!(run(&MILLION, &host, vec![ring(Ok("MSG_RING".into()))]).exit_code(), 0);
    }

    #[test]
    fn a_host_is_judged_by_what_it_holds_if_nobody_says_how_many() {
        let limits = "Max open files 1024 20000 files\nMax locked memory 65536 65536 bytes\n";
        let (_dir, host) = host(&[("proc/self/limits", limits)]);
        let args = DoctorArgs { connections: None, workers: Some(2), sysctl: false };
        let options = DoctorOptions::of(&args, &host);
        assert_eq!(options.connections, 39_872);
        let descriptors = descriptors(&options, &host);
        assert_eq!(descriptors.verdict, Verdict::Ok);
        assert_eq!(memlock(&options, &host).found, "64 KiB");
        let asked = DoctorArgs { connections: Some(50_000), ..args };
        assert_eq!(DoctorOptions::of(&asked, &host).connections, 50_000);
    }

    #[test]
    fn a_host_without_files_is_noted_not_panicked_over() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let report = run(&MILLION, &Host::at(dir.path()), Vec::new());
        assert!(report.findings.iter().all(|f| f.verdict <= Verdict::Note), "{report}");
    }
}
