//! What the kernel says about the server and the machine, from `/proc`.

use std::{fs, io};

use super::error::BenchError;

/// The kernel's unit of `utime` and `stime` in `/proc/PID/stat`: USER_HZ is 100 on all
/// architectures this runs on.
const TICK_NS: u64 = 10_000_000;

/// What the server and the machine had used at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// CPU time of all threads of the server, from the scheduler's own nanosecond count.
    pub cpu_ns: u64,
    /// The same from user plus system ticks.
    pub cpu_ticks_ns: u64,
    /// Times a thread of the server has gone to sleep, so that it had to be woken.
    pub sleeps: u64,
    /// The server's resident memory.
    pub rss_bytes: u64,
    /// `MemAvailable` of the machine.
    pub available_bytes: u64,
    /// `Slab` of the machine: where sockets, and most of what belongs to them, live.
    pub slab_bytes: u64,
    /// TCP sockets in use.
    pub tcp_sockets: u64,
    /// Memory in TCP buffers.
    pub tcp_buffer_bytes: u64,
}

impl Sample {
    /// Reads it all now; `pids` are the server's processes.
    pub fn take(pids: &[u32]) -> Result<Self, BenchError> {
        let mut sample = Self::default();
        for pid in pids {
            let failed = |error| BenchError::Server(*pid, error);
            sample.cpu_ns += cpu_ns(*pid).map_err(failed)?;
            sample.cpu_ticks_ns += cpu_ticks(*pid).map_err(failed)? * TICK_NS;
            sample.sleeps += sleeps(*pid).map_err(failed)?;
            sample.rss_bytes += rss_bytes(*pid).map_err(failed)?;
        }
        // Without these (not Linux as we know it) the columns stay 0.
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        sample.available_bytes = field(&meminfo, "MemAvailable:").unwrap_or(0) * 1024;
        sample.slab_bytes = field(&meminfo, "Slab:").unwrap_or(0) * 1024;
        let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let tcp = sockstat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
        sample.tcp_sockets = field(tcp, "inuse").unwrap_or(0);
        let page_bytes = rustix::param::page_size() as u64;
        sample.tcp_buffer_bytes = field(tcp, " mem").unwrap_or(0) * page_bytes;
        Ok(sample)
    }
}

/// CPU time of the processes' threads in nanoseconds; 0 for one that is gone.
pub(super) fn cpu_ns_of_all(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| cpu_ns(*pid).unwrap_or(0)).sum()
}

fn cpu_ns(pid: u32) -> io::Result<u64> {
    sum_of_threads(pid, "schedstat", first_number)
}

fn sleeps(pid: u32) -> io::Result<u64> {
    sum_of_threads(pid, "status", |status| field(status, "\nvoluntary_ctxt_switches:"))
}

/// The sum of what `number` finds in this file of each thread.
fn sum_of_threads(pid: u32, file: &str, number: fn(&str) -> Option<u64>) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let text = fs::read_to_string(task?.path().join(file)).unwrap_or_default();
        sum += number(&text).unwrap_or(0);
    }
    Ok(sum)
}

fn cpu_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    stat_ticks(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `utime` plus `stime`: fields 14 and 15, counted behind the name, which may hold anything.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The state letter of a process (`T`: stopped).
pub(super) fn state(pid: u32) -> io::Result<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let letter = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    letter.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Resident memory of a process. The roll-up is exact; `statm` lags behind on recent kernels.
pub(super) fn rss_bytes(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = field(&rollup, "Rss:").ok_or(io::ErrorKind::InvalidData)?;
    Ok(kib * 1024)
}

/// The number behind `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let at = text.find(name)?;
    first_number(&text[at + name.len()..])
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn ticks_are_found_behind_any_process_name() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0";
        assert_eq!(stat_ticks(stat), Some(42));
        assert_eq!(stat_ticks("12 (a"), None);
    }

    #[test]
    fn numbers_are_found_behind_their_names() {
        let line = "TCP: inuse 12 orphan 0 tw 3 alloc 14 mem 5";
        assert_eq!(field(line, "inuse"), Some(12));
        assert_eq!(field(line, " mem"), Some(5));
        assert_eq!(field(line, "none"), None);
    }

    #[test]
    fn this_process_can_be_sampled() {
        let sample = Sample::take(&[std::process::id()]).unwrap();
        assert!(sample.cpu_ns > 0);
        assert!(sample.rss_bytes > 100_000);
        assert!(sample.available_bytes > 1_000_000);
    }

    /// Of a child, because the sums of this process fall whenever another test's thread ends.
    #[test]
    fn each_time_a_process_has_gone_to_sleep_is_counted() {
        let mut echo = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat is everywhere");
        let slept = |echo: &Child| Sample::take(&[echo.id()]).unwrap().sleeps;
        let before = slept(&echo);
        // It may find the next byte before it has gone to sleep, so one exchange need not count.
        while slept(&echo) < before + 10 {
            let mut byte = [0];
            echo.stdin.as_mut().unwrap().write_all(&byte).unwrap();
            echo.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        }
        drop(echo.stdin.take());
        echo.wait().unwrap();
    }

    #[test]
    fn a_missing_process_is_named() {
        assert!(matches!(Sample::take(&[u32::MAX]), Err(BenchError::Server(u32::MAX, _))));
    }
}
