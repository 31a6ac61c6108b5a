//! What the host says about itself in `/proc` and `/sys`, read below a root that tests can replace.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The sysctl that bounds how many sockets a user's processes may watch by epoll.
pub(crate) const EPOLL_WATCHES: &str = "fs.epoll.max_user_watches";

/// The files of a host.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// Soft and hard value of a resource limit; `u64::MAX` is "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force now.
    pub soft: u64,
    /// The limit to which the process may raise it.
    pub hard: u64,
}

/// The tightest memory limit above this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMemory {
    /// The most that the processes below may use together.
    pub limit_bytes: u64,
    /// Where it is set, so that the operator can change it.
    pub file: PathBuf,
}

/// The tightest CPU quota above this process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CgroupCpu {
    /// CPU time, in cores.
    pub cores: f64,
    /// Where it is set.
    pub file: PathBuf,
}

impl Host {
    /// This machine.
    pub fn live() -> Self {
        Self::at("/")
    }

    /// A tree with `proc` and `sys` below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The numbers of a sysctl, without their sign: a network namespace shows the size of a table
    /// it shares as a negative number.
    ///
    /// # Errors
    /// `NotFound` if this kernel or namespace has no such key.
    pub fn sysctl(&self, key: &str) -> io::Result<Vec<u64>> {
        let text = self.sysctl_text(key)?;
        let number = |word: &str| {
            word.parse::<i128>().ok().and_then(|n| u64::try_from(n.unsigned_abs()).ok())
        };
        text.split_whitespace()
            .map(number)
            .collect::<Option<_>>()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// A sysctl as it is shown.
    pub fn sysctl_text(&self, key: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.sysctl_file(key))?.trim().to_owned())
    }

    /// Sockets one user may have watched by epoll, in all processes together.
    pub(crate) fn epoll_watches_max(&self) -> Option<u64> {
        self.sysctl(EPOLL_WATCHES).ok()?.first().copied()
    }

    /// Needs root; lasts until the machine starts again.
    pub fn put_sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        fs::write(self.sysctl_file(key), format!("{value}\n"))
    }

    fn sysctl_file(&self, key: &str) -> PathBuf {
        self.root.join("proc/sys").join(key.replace('.', "/"))
    }

    /// `uname -r`.
    pub(crate) fn kernel_release(&self) -> io::Result<String> {
        Ok(self.read("proc/sys/kernel/osrelease")?.trim().to_owned())
    }

    /// A line of `/proc/self/limits`, by its name there ("Max open files").
    pub fn limit(&self, name: &str) -> Option<Limit> {
        let limits = self.read("proc/self/limits").ok()?;
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let mut values = line.split_whitespace().map(|word| match word {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        Some(Limit { soft: values.next()??, hard: values.next()?? })
    }

    /// Whether the capability of this number is in effect for this process.
    pub(crate) fn has_capability(&self, number: u32) -> bool {
        let effective = || -> Option<u64> {
            let status = self.read("proc/self/status").ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        effective().is_some_and(|bits| bits >> number & 1 == 1)
    }

    /// `MemAvailable`, in bytes.
    pub(crate) fn memory_available_bytes(&self) -> Option<u64> {
        self.meminfo_bytes("MemAvailable:")
    }

    /// `MemTotal`, in bytes.
    pub(crate) fn memory_total_bytes(&self) -> Option<u64> {
        self.meminfo_bytes("MemTotal:")
    }

    /// The tightest memory limit of the control groups this process is in, of either version, if
    /// there is one.
    pub(crate) fn cgroup_memory(&self) -> Option<CgroupMemory> {
        let limit = |group: Cgroup| {
            let file = group.dir.join(match group.version {
                CgroupVersion::Two => "memory.max",
                CgroupVersion::One => "memory.limit_in_bytes",
            });
            let limit_bytes = self.read_absolute(&file)?.trim().parse().ok()?;
            // Version 1 shows "none" as the largest multiple of a page.
            (limit_bytes < u64::MAX / 4).then_some(CgroupMemory { limit_bytes, file })
        };
        let limits = self.cgroups("memory").into_iter().filter_map(limit);
        limits.min_by_key(|limit| limit.limit_bytes)
    }

    /// The tightest CPU quota of the control groups this process is in, of either version, if there
    /// is one.
    pub(crate) fn cgroup_cpu(&self) -> Option<CgroupCpu> {
        let quota = |group: Cgroup| {
            let read = |name: &str| self.read_absolute(&group.dir.join(name));
            let (name, quota, period) = match group.version {
                CgroupVersion::Two => {
                    let text = read("cpu.max")?;
                    let (quota, period) = text.split_once(' ')?;
                    ("cpu.max", quota.to_owned(), period.to_owned())
                }
                CgroupVersion::One => {
                    ("cpu.cfs_quota_us", read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
                }
            };
            // No quota is `max` in version 2 and -1 in version 1: neither is a u32.
            let (quota_us, period_us): (u32, u32) =
                (quota.trim().parse().ok()?, period.trim().parse().ok()?);
            let cores = f64::from(quota_us) / f64::from(period_us.max(1));
            Some(CgroupCpu { cores, file: group.dir.join(name) })
        };
        let quotas = self.cgroups("cpu").into_iter().filter_map(quota);
        quotas.min_by(|a, b| a.cores.total_cmp(&b.cores))
    }

    /// Our groups of this controller and all groups above them, as each of them limits us. A
    /// container may see the host's path in `/proc/self/cgroup`; then only the mount's own root
    /// exists here.
    fn cgroups(&self, controller: &str) -> Vec<Cgroup> {
        let groups = self.read("proc/self/cgroup").unwrap_or_default();
        let mounts = self.read("proc/self/mounts").unwrap_or_default();
        let mut found = Vec::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(mount), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let version = match kind {
                "cgroup2" => CgroupVersion::Two,
                "cgroup" if has(options, controller) => CgroupVersion::One,
                _ => continue,
            };
            let Some(group) = group_path(&groups, version, controller) else { continue };
            let (mount, bottom) = (Path::new(mount), Path::new(mount).join(group));
            let dirs = bottom.ancestors().take_while(|dir| dir.starts_with(mount));
            found.extend(dirs.map(|dir| Cgroup { version, dir: dir.to_owned() }));
        }
        found
    }

    fn meminfo_bytes(&self, name: &str) -> Option<u64> {
        let meminfo = self.read("proc/meminfo").ok()?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
        Some(kib.saturating_mul(1024))
    }

    fn read_absolute(&self, path: &Path) -> Option<String> {
        fs::read_to_string(self.root.join(path.strip_prefix("/").ok()?)).ok()
    }

    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(path))
    }
}

/// A control group this process is in.
#[derive(Debug)]
struct Cgroup {
    version: CgroupVersion,
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CgroupVersion {
    One,
    Two,
}

/// Our group's path without its leading slash: in the unified hierarchy (`0::/path`) or in that of
/// the controller (`4:memory:/path`).
fn group_path(groups: &str, version: CgroupVersion, controller: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let ours = match version {
            CgroupVersion::Two => controllers.is_empty(),
            CgroupVersion::One => has(controllers, controller),
        };
        ours.then(|| path.trim_start_matches('/').to_owned())
    })
}

fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host made of the given files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().expect("scratch directory");
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("directories");
            fs::write(path, text).expect("file");
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    const MOUNTS_1: &str = "cgroup /cg/memory cgroup rw,relatime,memory 0 0\n\
                            cgroup2 /cg/unified cgroup2 rw 0 0\n";

    #[test]
    fn sysctl_reads_several_numbers_and_drops_the_sign() {
        let (_dir, host) = host(&[
            ("proc/sys/net/ipv4/tcp_mem", "1\t2\t3\n"),
            ("proc/sys/net/ipv4/tcp_ehash_entries", "-262144\n"),
            ("proc/sys/fs/file-max", "9223372036854775807\n"),
            ("proc/sys/net/core/default_qdisc", "fq\n"),
        ]);
        assert_eq!(host.sysctl("net.ipv4.tcp_mem").ok(), Some(vec![1, 2, 3]));
        assert_eq!(host.sysctl("net.ipv4.tcp_ehash_entries").ok(), Some(vec![262_144]));
        assert_eq!(host.sysctl("fs.file-max").ok(), Some(vec![i64::MAX as u64]));
        assert!(host.sysctl("net.core.default_qdisc").is_err());
        let absent = host.sysctl("net.netfilter.nf_conntrack_max").expect_err("absent");
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn limits_are_read_with_unlimited_as_the_maximum() {
        let (_dir, host) = host(&[(
            "proc/self/limits",
            "Limit        Soft Limit   Hard Limit   Units\n\
             Max open files            1024     20000      files\n\
             Max locked memory         8388608  unlimited  bytes\n",
        )]);
        assert_eq!(host.limit("Max open files"), Some(Limit { soft: 1024, hard: 20_000 }));
        assert_eq!(
            host.limit("Max locked memory"),
            Some(Limit { soft: 8_388_608, hard: u64::MAX })
        );
        assert_eq!(host.limit("Max nothing"), None);
    }

    #[test]
    fn the_tightest_group_above_us_counts_in_version_1() {
        let (_dir, host) = host(&[
            ("proc/self/cgroup", "4:memory:/a/b\n0::/\n"),
            ("proc/self/mounts", MOUNTS_1),
            ("cg/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cg/memory/a/memory.limit_in_bytes", "1000000\n"),
            ("cg/memory/a/b/memory.limit_in_bytes", "2000000\n"),
        ]);
        let memory = host.cgroup_memory().expect("limited");
        assert_eq!(memory.limit_bytes, 1_000_000);
        assert_eq!(memory.file, Path::new("/cg/memory/a/memory.limit_in_bytes"));
    }

    #[test]
    fn the_tightest_group_above_us_counts_in_version_2() {
        let (_dir, host) = host(&[
            ("proc/self/cgroup", "0::/system.slice/pushline.service\n"),
            ("proc/self/mounts", "cgroup2 /cg cgroup2 rw 0 0\n"),
            ("cg/system.slice/memory.max", "max\n"),
            ("cg/system.slice/pushline.service/memory.max", "4294967296\n"),
        ]);
        assert_eq!(host.cgroup_memory().map(|m| m.limit_bytes), Some(4 << 30));
    }

    #[test]
    fn a_path_of_the_host_falls_back_to_the_mount_in_a_container() {
        let (_dir, host) = host(&[
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("proc/self/mounts", MOUNTS_1),
            ("cg/memory/memory.limit_in_bytes", "500\n"),
        ]);
        assert_eq!(host.cgroup_memory().map(|m| m.limit_bytes), Some(500));
    }

    #[test]
    fn the_tightest_cpu_quota_counts_in_both_versions() {
        let (_dir, host_2) = host(&[
            ("proc/self/cgroup", "0::/system.slice/a\n"),
            ("proc/self/mounts", "cgroup2 /cg cgroup2 rw 0 0\n"),
            ("cg/system.slice/cpu.max", "max 100000\n"),
            ("cg/system.slice/a/cpu.max", "150000 100000\n"),
        ]);
        let quota = host_2.cgroup_cpu().expect("limited");
        assert_eq!((quota.cores, quota.file), (1.5, "/cg/system.slice/a/cpu.max".into()));
        let (_dir, host_1) = host(&[
            ("proc/self/cgroup", "3:cpu,cpuacct:/b\n"),
            ("proc/self/mounts", "cgroup /cg/cpu cgroup rw,cpu,cpuacct 0 0\n"),
            ("cg/cpu/cpu.cfs_quota_us", "-1\n"),
            ("cg/cpu/cpu.cfs_period_us", "100000\n"),
            ("cg/cpu/b/cpu.cfs_quota_us", "50000\n"),
            ("cg/cpu/b/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(host_1.cgroup_cpu().map(|quota| quota.cores), Some(0.5));
        let (_dir, free) = host(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mounts", "cgroup2 /cg cgroup2 rw 0 0\n"),
            ("cg/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(free.cgroup_cpu(), None);
    }

    #[test]
    fn no_limit_is_none() {
        let (_dir, host) = host(&[
            ("proc/self/cgroup", "4:memory:/\n0::/\n"),
            ("proc/self/mounts", MOUNTS_1),
            ("cg/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(host.cgroup_memory(), None);
    }
}
