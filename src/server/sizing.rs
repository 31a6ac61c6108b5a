//! Defaults that depend on what this process may use of the machine: workers by cores and
//! CPU quota, memory for events by the memory limit.

use crate::config::{Config, Settings};
use crate::host::Host;

use super::ServerError;
use super::threads::allowed_cpus;

/// History and the replicas of all workers together may take one part in this many of the memory
/// limit; the rest is for connections, rings and the kernel's socket buffers, which are charged to
/// the same control group.
const EVENTS_PART: u64 = 2;

/// More workers than any host has cores for.
const WORKERS_MAX: usize = 1024;

/// The reasons for what was decided, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Why there are this many workers.
    pub workers: String,
    /// Why history and replicas are this large.
    pub memory: String,
    /// A setting that was kept although it does not fit.
    pub warning: Option<String>,
}

impl Sizing {
    /// Decides what `config` leaves open, and sets it there.
    ///
    /// # Errors
    /// The kernel does not say which cores there are.
    pub fn decide(config: &mut Config, host: &Host) -> Result<Self, ServerError> {
        let cores = cores(&config.settings, allowed_cpus()?.len());
        Ok(Self::with_cores(config, host, cores))
    }

    fn with_cores(config: &mut Config, host: &Host, cores: usize) -> Self {
        let (count, workers) = workers(&config.settings, host, cores);
        config.settings.workers = Some(count);
        let (memory, warning) = fit_memory(config, host, u64::from(count));
        Self { workers, memory, warning }
    }
}

/// The cores workers run on: those listed, otherwise all allowed ones.
pub(super) fn cores(settings: &Settings, allowed: usize) -> usize {
    let listed = settings.cpus.as_ref().map_or(0, Vec::len);
    let cores = if listed > 0 { listed } else { allowed };
    cores.clamp(1, WORKERS_MAX)
}

fn workers(settings: &Settings, host: &Host, cores: usize) -> (u16, String) {
    if let Some(chosen) = settings.workers {
        return (chosen, "as set".to_owned());
    }
    let one_each = cores as u16;
    match host.cgroup_cpu() {
        // More workers than that would interrupt each other in the middle of a turn.
        Some(quota) if quota.cores.ceil() < f64::from(one_each) => {
            let because =
                format!("a quota of {:.2} cores in {}", quota.cores, quota.file.display());
            (quota.cores.ceil().max(1.0) as u16, because)
        }
        _ => (one_each, "one per core".to_owned()),
    }
}

/// Reduces the defaults if the memory of this process could not hold them.
fn fit_memory(config: &mut Config, host: &Host, workers: u64) -> (String, Option<String>) {
    let Some((limit_bytes, origin)) = memory_limit(host) else {
        return ("as set; the memory of this host is not known".to_owned(), None);
    };
    let share = limit_bytes / EVENTS_PART / (workers + 1);
    // The largest event must fit, with its names, and what was promised to channels.
    let promised = config.settings.channels.iter().map(|(_, of)| of.history_share);
    let promised = promised.fold(0, u64::saturating_add);
    let share = share.max(config.settings.event_bytes_max as u64 * 2).max(promised);
    let share_usize = usize::try_from(share).unwrap_or(usize::MAX);
    // Events that only a store keeps need no memory.
    let has_store = config.settings.has_store();
    let history = if has_store { "history_memory_bytes" } else { "history_bytes" };
    let [of_history, of_channel, of_worker] =
        [history, "replica_bytes", "worker_replica_bytes"].map(|key| !config.is_chosen(key));
    let Settings {
        history_bytes, history_memory_bytes, replica_bytes, worker_replica_bytes, ..
    } = &mut config.settings;
    let in_memory = if has_store { history_memory_bytes } else { history_bytes };
    let mut because = "as set, or by default".to_owned();
    if of_history && *in_memory > share {
        *in_memory = share;
        because = format!("to leave room in {} MiB, {origin}", limit_bytes >> 20);
    }
    if of_channel {
        *replica_bytes = share_usize.min(*replica_bytes);
    }
    if of_worker {
        *worker_replica_bytes = share_usize.min(*worker_replica_bytes);
    }
    (because, excess(&config.settings, workers, limit_bytes, &origin))
}

/// The warning if events alone may take all the memory there is.
fn excess(settings: &Settings, workers: u64, limit_bytes: u64, origin: &str) -> Option<String> {
    let replicas = (settings.replicas_bytes_max() as u64).saturating_mul(workers);
    let events = settings.history_memory_max().saturating_add(replicas);
    (events > limit_bytes).then(|| {
        format!(
            "history and the replicas of {workers} worker(s) may take {} MiB, more than {} MiB, \
             {origin}: lower history_bytes or worker_replica_bytes",
            events >> 20,
            limit_bytes >> 20
        )
    })
}

/// The smallest of the host's memory and the limits on this process, and where it was found.
fn memory_limit(host: &Host) -> Option<(u64, String)> {
    let of_host = host.memory_total_bytes().map(|bytes| (bytes, "this host's memory".to_owned()));
    let of_group = host
        .cgroup_memory()
        .map(|limit| (limit.limit_bytes, format!("the limit in {}", limit.file.display())));
    of_host.into_iter().chain(of_group).min_by_key(|(bytes, _)| *bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::check_text;

    const MIB: u64 = 1 << 20;

    /// Decides for a host of 16 GiB and four cores whose control group has these files.
    fn decided(text: &str, files: &[(&str, &str)]) -> (Config, Sizing) {
        let folder = tempfile::tempdir().expect("a folder");
        let common = [
            ("proc/meminfo", "MemTotal: 16777216 kB\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mounts", "cgroup2 /cg cgroup2 rw 0 0\n"),
        ];
        for (path, text) in common.iter().chain(files) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let mut config = check_text("it", text).expect("good");
        let cores = cores(&config.settings, 4);
        let sizing = Sizing::with_cores(&mut config, &Host::at(folder.path()), cores);
        (config, sizing)
    }

    #[test]
    fn without_limits_there_is_a_worker_a_core_and_the_defaults_hold() {
        let (config, sizing) = decided("", &[]);
        let default = Settings::default();
        assert_eq!(config.settings.workers, Some(4));
        assert_eq!(config.settings.history_bytes, default.history_bytes);
        assert_eq!(config.settings.worker_replica_bytes, default.worker_replica_bytes);
        assert_eq!((sizing.workers.as_str(), sizing.warning), ("one per core", None));
    }

    #[test]
    fn a_list_of_cores_makes_a_worker_for_each() {
        assert_eq!(decided("cpus = '0'", &[]).0.settings.workers, Some(1));
        assert_eq!(decided("cpus = '0,2-3'", &[]).0.settings.workers, Some(3));
        assert_eq!(decided("cpus = 'none'", &[]).0.settings.workers, Some(4));
    }

    #[test]
    fn a_quota_bounds_workers_that_nobody_chose() {
        let workers = |text: &str, quota: &str| {
            let (config, sizing) = decided(text, &[("cg/cpu.max", quota)]);
            (config.settings.workers, sizing.workers)
        };
        let half = "a quota of 0.50 cores in /cg/cpu.max".to_owned();
        assert_eq!(workers("", "50000 100000"), (Some(1), half));
        assert_eq!(workers("", "250000 100000").0, Some(3));
        assert_eq!(workers("", "800000 100000").0, Some(4));
        assert_eq!(workers("workers = 8", "50000 100000"), (Some(8), "as set".to_owned()));
    }

    #[test]
    fn events_leave_half_of_the_memory_limit_to_everything_else() {
        let limit = [("cg/memory.max", "536870912"), ("cg/cpu.max", "100000 100000")];
        let (config, sizing) = decided("", &limit);
        let Settings { history_bytes, .. } = config.settings;
        assert_eq!(history_bytes, 128 * MIB);
        let replicas = config.settings.replicas_bytes_max() as u64;
        assert!(history_bytes + replicas <= 256 * MIB, "{replicas}");
        assert!(sizing.memory.contains("512 MiB, the limit in /cg/memory.max"), "{sizing:?}");
        assert_eq!(sizing.warning, None);
    }

    #[test]
    fn history_on_the_disk_needs_no_memory_but_that_of_its_newest_part() {
        let limit = [("cg/memory.max", "536870912"), ("cg/cpu.max", "100000 100000")];
        let text = "data_dir = '/d'\nhistory_bytes = '100GiB'";
        let (config, sizing) = decided(text, &limit);
        let Settings { history_bytes, history_memory_bytes, .. } = config.settings;
        assert_eq!((history_bytes, history_memory_bytes), (100 << 30, 128 * MIB));
        assert_eq!(sizing.warning, None);
    }

    #[test]
    fn what_was_chosen_stays_and_is_warned_of_where_it_cannot_be_held() {
        let limit = [("cg/memory.max", "536870912")];
        let (config, sizing) = decided("history_bytes = '1GiB'", &limit);
        assert_eq!(config.settings.history_bytes, 1024 * MIB);
        assert!(sizing.warning.is_some_and(|told| told.contains("more than 512 MiB")));
    }
}
