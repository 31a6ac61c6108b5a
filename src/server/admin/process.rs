//! What the kernel says of this process: memory, descriptors, CPU time.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// The process at one moment. What the kernel does not show is left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub cpu_s: Option<f64>,
    pub threads: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
}

impl Process {
    pub fn now() -> Self {
        let statm = numbers_of("/proc/self/statm");
        let stat = stat_fields();
        let pages = |place: usize| Some(statm.get(place)? * page_size() as u64);
        let ticks = |number| stat_number(&stat, number);
        let cpu_ticks = ticks(UTIME).zip(ticks(STIME)).map(|(user, system)| user + system);
        Self {
            virtual_bytes: pages(0),
            resident_bytes: pages(1),
            cpu_s: cpu_ticks.map(ticks_to_s),
            threads: stat_number(&stat, NUM_THREADS),
            // Minus the one that counting needs.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|list| list.count() as u64 - 1),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// When the process began, in seconds since 1970 (0 if the kernel does not tell).
pub(super) fn started_unix_s() -> f64 {
    let since_boot = stat_number(&stat_fields(), STARTTIME).map_or(0.0, ticks_to_s);
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime "));
    booted.and_then(|at| at.trim().parse::<f64>().ok()).map_or(0.0, |at| at + since_boot)
}

// Fields of /proc/self/stat as proc_pid_stat(5) numbers them.
const UTIME: usize = 14;
const STIME: usize = 15;
const NUM_THREADS: usize = 20;
const STARTTIME: usize = 22;

/// Fields from the third on: the second, the name, may contain spaces and is in parentheses.
fn stat_fields() -> Vec<String> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    behind_name.split_whitespace().map(Into::into).collect()
}

fn stat_number(fields: &[String], number: usize) -> Option<u64> {
    fields.get(number - 3)?.parse().ok()
}

fn numbers_of(path: &str) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map_while(|word| word.parse().ok()).collect()
}

fn ticks_to_s(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_kernel_says_plausible_things_of_us() {
        let process = Process::now();
        let resident = process.resident_bytes.expect("resident memory");
        assert!(resident > 100_000 && Some(resident) <= process.virtual_bytes);
        assert!(process.threads >= Some(1));
        assert!(process.open_fds >= Some(3) && process.open_fds <= process.max_fds);
        assert!(process.cpu_s.is_some_and(|s| (0.0..3600.0).contains(&s)));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
        let age_s = now - started_unix_s();
        assert!((-2.0..3600.0).contains(&age_s), "started {age_s} s ago");
    }
}
