//! What the server will run on, and what that requires of the host.

use super::checks::{finding, mib, unreadable};
use super::settings::{SLOTS_PER_RING_MAX, text};
use super::{DoctorOptions, Finding, Verdict};
use crate::config::DriverWanted;
use crate::host::{EPOLL_WATCHES, Host};
use crate::limits::{
    DESCRIPTORS_PER_WORKER, DESCRIPTORS_RESERVED, SLOTS_RESERVED, WATCHES_PER_WORKER,
};
use crate::ring::{self, KernelVersion, URING_SINCE};
use crate::tools::numbers::grouped;

/// Oldest kernel the server is meant for on epoll, as tried by `scripts/kernel-matrix`.
const EPOLL_SINCE: KernelVersion = KernelVersion { major: 5, minor: 10 };

/// From this kernel on rings are charged to RLIMIT_MEMLOCK (again).
const CHARGING_SINCE: KernelVersion = KernelVersion { major: 6, minor: 14 };

/// Number of the capability that exempts a process from that limit.
const CAP_IPC_LOCK: u32 = 14;

/// Room for the rings of a worker: 4096 submissions take 404 KiB with a completion queue twice as
/// long (measured on 6.18); larger queues and the provided-buffer ring fit in the rest.
const LOCKED_BYTES_PER_WORKER: u64 = 1 << 20;

/// Slots of each worker that are not for subscribers: the server answers 503 from them when full.
const SLOTS_RESERVED_PER_WORKER: u64 = SLOTS_RESERVED as u64;

/// The outcome of trying io_uring here for this many workers, as the server does at start: what
/// exists, or what is missing and the cure.
pub fn try_io_uring(workers: u64) -> Result<String, String> {
    ring::try_io_uring(u16::try_from(workers).unwrap_or(u16::MAX))
        .map(|doorbells| format!("usable, {doorbells:?} doorbells"))
        .map_err(|error| error.to_string())
}

/// Whether `wanted` results in epoll, given the outcome of trying io_uring.
pub fn is_epoll(wanted: DriverWanted, tried: &Result<String, String>) -> bool {
    match wanted {
        DriverWanted::Auto => tried.is_err(),
        DriverWanted::IoUring => false,
        DriverWanted::Epoll => true,
    }
}

/// Subscribers there are descriptors and watches for, as far as the limits can be read.
pub fn capacity(workers: u64, on_epoll: bool, host: &Host) -> Option<u64> {
    let limit = host.limit("Max open files").map(|limit| limit.hard);
    if !on_epoll {
        return limit.map(|limit| workers.saturating_mul(slots(limit)));
    }
    let by_files = limit.map(|limit| limit.saturating_sub(reserved(workers)));
    let watches = host.epoll_watches_max();
    let by_watches = watches.map(|max| max.saturating_sub(watches_reserved(workers)));
    by_files.into_iter().chain(by_watches).min()
}

/// Subscribers one ring has room for under this limit.
fn slots(descriptors_max: u64) -> u64 {
    descriptors_max.min(SLOTS_PER_RING_MAX).saturating_sub(SLOTS_RESERVED_PER_WORKER)
}

/// Descriptors of the process that are not for subscribers, on epoll.
fn reserved(workers: u64) -> u64 {
    let per_worker = DESCRIPTORS_PER_WORKER + SLOTS_RESERVED_PER_WORKER;
    DESCRIPTORS_RESERVED.saturating_add(workers.saturating_mul(per_worker))
}

/// Watches that are not for subscribers.
fn watches_reserved(workers: u64) -> u64 {
    workers.saturating_mul(WATCHES_PER_WORKER + SLOTS_RESERVED_PER_WORKER)
}

/// `tried` is the outcome of [`try_io_uring`].
pub fn findings(
    options: &DoctorOptions,
    host: &Host,
    tried: &Result<String, String>,
) -> Vec<Finding> {
    let wanted = options.driver;
    let mut findings = vec![kernel(wanted, host)];
    if wanted != DriverWanted::Epoll {
        findings.push(io_uring_allowed(wanted, host));
        findings.push(ring(wanted, tried));
    }
    if options.on_epoll {
        findings.push(shared_descriptors(options, host));
        findings.push(epoll_watches(options, host));
    } else {
        findings.push(descriptors_per_ring(options, host));
        findings.push(memlock(options, host));
    }
    findings
}

/// How bad it is for a host to lack io_uring if this driver is wanted.
fn without_io_uring(wanted: DriverWanted) -> Verdict {
    match wanted {
        DriverWanted::IoUring => Verdict::Fail,
        DriverWanted::Auto | DriverWanted::Epoll => Verdict::Weak,
    }
}

fn kernel(wanted: DriverWanted, host: &Host) -> Finding {
    let since = match wanted {
        DriverWanted::Epoll => EPOLL_SINCE,
        DriverWanted::Auto | DriverWanted::IoUring => URING_SINCE,
    };
    let release = host.kernel_release();
    let verdict = match release.as_deref().ok().and_then(version) {
        None => Verdict::Note,
        Some(version) if version >= since => Verdict::Ok,
        Some(_) => without_io_uring(wanted),
    };
    finding(
        "kernel",
        release.unwrap_or_else(|error| error.to_string()),
        format!("{}.{} or newer", since.major, since.minor),
        verdict,
        "install a newer kernel: io_uring needs 6.1 (Debian 12 has it), and epoll is meant for \
         5.10 and newer",
    )
}

/// Whether the administrator lets this process use io_uring at all.
fn io_uring_allowed(wanted: DriverWanted, host: &Host) -> Finding {
    let found = host.sysctl("kernel.io_uring_disabled");
    let (text, verdict) = match found.as_deref() {
        Ok([0]) => ("0".to_owned(), Verdict::Ok),
        Ok([1]) => ("1: only CAP_SYS_ADMIN and kernel.io_uring_group".to_owned(), Verdict::Weak),
        Ok(numbers) => (text(numbers), without_io_uring(wanted)),
        // Kernels before 6.6 have no such switch: it is allowed.
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

fn ring(wanted: DriverWanted, tried: &Result<String, String>) -> Finding {
    let all = "all the driver uses";
    match (tried, wanted) {
        (Ok(found), _) => finding("io_uring", found, all, Verdict::Ok, ""),
        (Err(message), DriverWanted::IoUring) => {
            finding("io_uring", "not usable", all, Verdict::Fail, message)
        }
        (Err(message), _) => {
            let cure = format!("{message}; until then the server runs on epoll");
            finding("io_uring", "not usable", all, without_io_uring(wanted), &cure)
        }
    }
}

/// Descriptors per ring, and the connections that makes.
fn descriptors_per_ring(options: &DoctorOptions, host: &Host) -> Finding {
    let check = "connections (descriptors per ring)";
    let DoctorOptions { connections, workers, .. } = *options;
    let Some(limit) = host.limit("Max open files") else {
        return unreadable(check, grouped(connections));
    };
    let slots = slots(limit.hard);
    let capacity = workers.saturating_mul(slots);
    let verdict = if capacity >= connections { Verdict::Ok } else { Verdict::Fail };
    finding(
        check,
        format!("{workers} x {} = {}", grouped(slots), grouped(capacity)),
        grouped(connections),
        verdict,
        &cure_per_ring(options, slots),
    )
}

fn cure_per_ring(options: &DoctorOptions, slots: u64) -> String {
    let DoctorOptions { connections, workers, .. } = *options;
    let nofile = connections.div_ceil(workers.max(1)) + SLOTS_RESERVED_PER_WORKER;
    let raise = format!("LimitNOFILE={nofile} (ulimit -Hn) with {workers} workers");
    let spread = format!("--workers {} under this limit", connections.div_ceil(slots.max(1)));
    match (nofile <= SLOTS_PER_RING_MAX, slots > 0) {
        (true, true) => format!("{raise}, or {spread}"),
        (true, false) => raise,
        (false, _) => format!(
            "a ring holds at most {}: --workers {} and LimitNOFILE={SLOTS_PER_RING_MAX}",
            grouped(SLOTS_PER_RING_MAX),
            connections.div_ceil(SLOTS_PER_RING_MAX - SLOTS_RESERVED_PER_WORKER),
        ),
    }
}

/// On epoll all workers share the descriptors of the process.
fn shared_descriptors(options: &DoctorOptions, host: &Host) -> Finding {
    let check = "connections (descriptors of the process)";
    let DoctorOptions { connections, workers, .. } = *options;
    let Some(limit) = host.limit("Max open files") else {
        return unreadable(check, grouped(connections));
    };
    let reserved = reserved(workers);
    let capacity = limit.hard.saturating_sub(reserved);
    let verdict = if capacity >= connections { Verdict::Ok } else { Verdict::Fail };
    finding(
        check,
        format!("{} - {} = {}", grouped(limit.hard), grouped(reserved), grouped(capacity)),
        grouped(connections),
        verdict,
        &format!(
            "LimitNOFILE={} (ulimit -Hn, docker run --ulimit nofile=)",
            // Workers get equal shares, of whole connections.
            connections + reserved + workers
        ),
    )
}

/// Sockets that one user may have watched, in all processes together.
fn epoll_watches(options: &DoctorOptions, host: &Host) -> Finding {
    let DoctorOptions { connections, workers, .. } = *options;
    let need = connections.saturating_add(watches_reserved(workers));
    let Some(max) = host.epoll_watches_max() else {
        return unreadable(EPOLL_WATCHES, grouped(need));
    };
    finding(
        EPOLL_WATCHES,
        grouped(max),
        grouped(need),
        if max >= need { Verdict::Ok } else { Verdict::Fail },
        &format!("sysctl -w {EPOLL_WATCHES}={need}: 208 B of the kernel's memory each"),
    )
}

/// Locked memory: since 6.14 the memory of rings is charged to the user's limit, unless the process
/// has `CAP_IPC_LOCK`; from 5.12 until then it was not. The limit is per user, over all processes.
fn memlock(options: &DoctorOptions, host: &Host) -> Finding {
    let need_bytes = options.workers.saturating_mul(LOCKED_BYTES_PER_WORKER);
    let wanted = format!("{} (rings, since kernel 6.14)", mib(need_bytes));
    let Some(limit) = host.limit("Max locked memory") else {
        return unreadable("memlock", wanted);
    };
    let charged =
        host.kernel_release().ok().and_then(|r| version(&r)).is_none_or(|v| v >= CHARGING_SINCE);
    let exempt = host.has_capability(CAP_IPC_LOCK);
    let mut found = if limit.hard == u64::MAX { "unlimited".to_owned() } else { mib(limit.hard) };
    if exempt {
        found.push_str(", exempt by CAP_IPC_LOCK");
    }
    let short = charged && !exempt && limit.hard < need_bytes;
    let verdict = if short { without_io_uring(options.driver) } else { Verdict::Ok };
    let cure = format!(
        "LimitMEMLOCK=infinity in the unit, or memlock {} (KiB) in limits.conf: a ring is refused \
         with ENOMEM",
        need_bytes >> 10
    );
    finding("memlock", found, wanted, verdict, &cure)
}

/// The version of a kernel release, if it begins with one.
fn version(release: &str) -> Option<KernelVersion> {
    Some(KernelVersion::of(release)).filter(|version| version.major > 0)
}

#[cfg(test)]
mod tests {
    use super::super::checks::tests::{MILLION, findings as failing, host, only};
    use super::super::cluster::ClusterArgs;
    use super::super::{DoctorArgs, run};
    use super::*;

    const SWITCH: &str = "proc/sys/kernel/io_uring_disabled";

    /// The driver's findings on a host with these files replaced, where io_uring is refused.
    fn refused(driver: DriverWanted, replaced: &[(&str, &str)]) -> Vec<Finding> {
        let (_dir, host) = host(replaced);
        let tried = Err("allow it: so".into());
        let on_epoll = is_epoll(driver, &tried);
        findings(&DoctorOptions { driver, on_epoll, ..MILLION }, &host, &tried)
    }

    fn verdict_of(findings: &[Finding], check: &str) -> Verdict {
        let found = findings.iter().find(|finding| finding.check == check);
        found.expect("it is checked").verdict
    }

    #[test]
    fn an_old_kernel_is_weak_and_fails_who_must_have_io_uring() {
        let old = [("proc/sys/kernel/osrelease", "5.15.0-91-generic\n")];
        assert_eq!(only(&old).verdict, Verdict::Weak);
        assert_eq!(failing(&[("proc/sys/kernel/osrelease", "6.1.0-47-cloud-amd64")]), []);
        assert_eq!(failing(&[("proc/sys/kernel/osrelease", "10.0.0")]), []);
        let verdict = |driver, replaced| verdict_of(&refused(driver, replaced), "kernel");
        assert_eq!(verdict(DriverWanted::IoUring, &old), Verdict::Fail);
        assert_eq!(verdict(DriverWanted::Epoll, &old), Verdict::Ok);
        let older = [("proc/sys/kernel/osrelease", "4.19.0-1-amd64\n")];
        assert_eq!(verdict(DriverWanted::Epoll, &older), Verdict::Weak);
    }

    #[test]
    fn a_switched_off_io_uring_is_weak_and_a_missing_switch_is_well() {
        assert_eq!(only(&[(SWITCH, "2")]).verdict, Verdict::Weak);
        assert_eq!(only(&[(SWITCH, "1")]).verdict, Verdict::Weak);
        assert_eq!(failing(&[(SWITCH, "")]), []);
        let strict = refused(DriverWanted::IoUring, &[(SWITCH, "2")]);
        assert_eq!(verdict_of(&strict, "kernel.io_uring_disabled"), Verdict::Fail);
    }

    #[test]
    fn a_refused_io_uring_is_weak_with_its_cure_and_fails_who_must_have_it() {
        let (_dir, host) = host(&[]);
        let refusal = Err("no MSG_RING: newer kernel".to_owned());
        let report = run(&MILLION, &host, &refusal);
        let text = report.to_string();
        assert!(text.contains("no MSG_RING: newer kernel; until then"), "{text}");
        assert_eq!(verdict_of(&report.findings, "io_uring"), Verdict::Weak);
        let must = DoctorOptions { driver: DriverWanted::IoUring, ..MILLION };
        assert_eq!(run(&must, &host, &refusal).exit_code(), 1);
        assert_eq!(run(&must, &host, &Ok("MSG_RING".into())).exit_code(), 0);
    }

    #[test]
    fn on_epoll_workers_share_the_descriptors_and_sockets_are_watched() {
        let plenty = [("proc/sys/fs/epoll/max_user_watches", "1811240\n")];
        let all = refused(DriverWanted::Auto, &plenty);
        let descriptors = all.iter().find(|of| of.check.contains("process")).expect("checked");
        assert_eq!(descriptors.found, "1,048,576 - 204 = 1,048,372");
        assert_eq!(descriptors.verdict, Verdict::Ok);
        assert_eq!(verdict_of(&all, EPOLL_WATCHES), Verdict::Ok);
        let few = [
            ("proc/self/limits", "Max open files 1000000 1000000 files\n"),
            ("proc/sys/fs/epoll/max_user_watches", "1000000\n"),
        ];
        let all = refused(DriverWanted::Epoll, &few);
        let cures: Vec<&str> = all.iter().map(|of| of.cure.as_str()).collect();
        assert!(cures.iter().any(|cure| cure.contains("LimitNOFILE=1000206")), "{cures:?}");
        assert!(cures.iter().any(|cure| cure.contains("max_user_watches=1000134")), "{cures:?}");
        assert!(all.iter().all(|of| !of.check.contains("io_uring")), "it is not wanted: {all:?}");
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
        let options = DoctorOptions { connections: 1_048_513, workers: 1, ..MILLION };
        let finding = descriptors_per_ring(&options, &host);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(finding.cure.contains("--workers 2 "), "{}", finding.cure);
    }

    #[test]
    fn a_million_on_many_workers_outgrow_the_usual_locked_memory_since_6_14() {
        let limits = "Max open files 20000 20000 files\nMax locked memory 8388608 8388608 bytes\n";
        let verdict = |driver, release: &str, capabilities: &str| {
            let (_dir, host) = host(&[
                ("proc/self/limits", limits),
                ("proc/sys/kernel/osrelease", release),
                ("proc/self/status", capabilities),
            ]);
            memlock(&DoctorOptions { workers: 54, driver, ..MILLION }, &host).verdict
        };
        let (none, ipc_lock) = ("CapEff:\t0000000000000000\n", "CapEff:\t0000000000004000\n");
        let (must, auto) = (DriverWanted::IoUring, DriverWanted::Auto);
        assert_eq!(verdict(must, "6.18.44", none), Verdict::Fail);
        assert_eq!(verdict(auto, "6.18.44", none), Verdict::Weak, "it would run on epoll");
        assert_eq!(verdict(must, "6.18.44", ipc_lock), Verdict::Ok);
        assert_eq!(verdict(must, "6.12.1", none), Verdict::Ok);
    }

    #[test]
    fn a_host_is_judged_by_what_it_holds_if_nobody_says_how_many() {
        let limits = "Max open files 1024 20000 files\nMax locked memory 65536 65536 bytes\n";
        let (_dir, host) = host(&[("proc/self/limits", limits)]);
        let driver = DriverWanted::Auto;
        let (connections, workers, data_dir) = (None, Some(2), None);
        let cluster = ClusterArgs::default();
        let args = DoctorArgs { connections, workers, driver, data_dir, cluster, sysctl: false };
        let all_there = Ok("all there".into());
        let options = DoctorOptions::of(&args, &host, &all_there);
        assert_eq!(options.connections, 39_872);
        let descriptors = descriptors_per_ring(&options, &host);
        assert_eq!(descriptors.verdict, Verdict::Ok);
        assert_eq!(memlock(&options, &host).found, "64 KiB");
        let refused = Err("refused".into());
        assert_eq!(DoctorOptions::of(&args, &host, &refused).connections, 20_000 - 204);
        let asked = DoctorArgs { connections: Some(50_000), ..args };
        assert_eq!(DoctorOptions::of(&asked, &host, &all_there).connections, 50_000);
    }
}
