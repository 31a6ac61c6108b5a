//! `pushline doctor`: whether this host can hold a number of connections, and the cure if not.
//!
//! [`settings`] owns the wanted kernel values, [`checks`] compares them and everything else with
//! what [`crate::host`] says; the driver has a file of its own. Of all this only `tune` changes
//! anything.

pub mod checks;
pub mod cluster;
pub mod disk;
mod driver;
mod nic;
pub mod settings;
pub(crate) mod tune;

use std::fmt;
use std::path::PathBuf;
use std::thread::available_parallelism;

use self::cluster::ClusterArgs;
pub use self::driver::try_io_uring;
use settings::sysctl_conf;

use crate::config::DriverWanted;
use crate::host::Host;
use crate::tools::numbers::grouped;

/// The size `tuning/99-pushline.conf` shows in brackets.
pub(crate) const LARGER_CONNECTIONS: u64 = 1_000_000;

/// Connections asked about by default.
pub(crate) const CONNECTIONS_DEFAULT: u64 = 100_000;

/// Most connections that may be asked for: beyond it the arithmetic says nothing about a real host.
pub(crate) const CONNECTIONS_MAX: u64 = 1_000_000_000;

/// Arguments of `pushline doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// How many connections this host is to hold [default: what it holds as it is, up to 100,000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    pub connections: Option<u64>,
    /// Workers the server will run with; one per core when not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_535))]
    pub workers: Option<u64>,
    /// What the server will run on; auto: io_uring where it works, else epoll.
    #[arg(long, value_enum, default_value_t)]
    pub driver: DriverWanted,
    /// The folder the journal will be in: on what file system it is, and what a sync costs there.
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The broker of many nodes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Print the sysctl.d file for this many connections, and check nothing.
    #[arg(long)]
    pub sysctl: bool,
}

/// What the host is examined for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Connections to hold.
    pub connections: u64,
    /// Workers the server will run with.
    pub workers: u64,
    /// The driver they are to run on.
    pub driver: DriverWanted,
    /// Whether that results in epoll here.
    pub on_epoll: bool,
}

impl DoctorArgs {
    /// Workers the server will run with.
    pub fn workers(&self) -> u64 {
        self.workers.unwrap_or_else(cores)
    }
}

/// Workers a server runs with by default.
fn cores() -> u64 {
    available_parallelism().map_or(1, |cores| cores.get() as u64)
}

impl DoctorOptions {
    /// What was asked for; for what was not, what this host has. `tried` is the outcome of
    /// [`try_io_uring`] (no file shows it).
    pub fn of(args: &DoctorArgs, host: &Host, tried: &Result<String, String>) -> Self {
        let workers = args.workers();
        let on_epoll = driver::is_epoll(args.driver, tried);
        let held = || checks::capacity(workers, on_epoll, host).clamp(1, CONNECTIONS_DEFAULT);
        let connections = args.connections.unwrap_or_else(held);
        Self { connections, workers, driver: args.driver, on_epoll }
    }
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// Could not be read or needs no judgement; shown for completeness.
    Note,
    /// The connections can be held, but something suffers.
    Weak,
    /// The connections cannot be held. The exit code will be 1.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// As an operator calls it: a sysctl, a limit.
    pub check: String,
    /// Its value on this host.
    pub found: String,
    /// The value that it should have.
    pub wanted: String,
    /// How far that is enough.
    pub verdict: Verdict,
    /// What to do about it; empty if nothing.
    pub cure: String,
}

/// What `pushline doctor` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorReport {
    /// What the host was examined for.
    pub options: DoctorOptions,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

/// Examines `host`; `tried` as in [`DoctorOptions::of`].
pub fn run(options: &DoctorOptions, host: &Host, tried: &Result<String, String>) -> DoctorReport {
    let mut findings = driver::findings(options, host, tried);
    findings.push(checks::memory(options, host));
    findings.push(checks::cgroup_memory(options, host));
    findings.extend(checks::sysctls(options, host));
    DoctorReport { options: *options, findings }
}

/// The sysctl.d file for `connections`, as in `tuning/`.
pub fn sysctl_file(connections: u64) -> String {
    sysctl_conf(connections, LARGER_CONNECTIONS)
}

impl DoctorReport {
    /// 1 if at least one finding keeps the connections from being held, otherwise 0.
    pub(crate) fn exit_code(&self) -> u8 {
        u8::from(self.count(Verdict::Fail) > 0)
    }

    /// How many findings had this outcome.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Weak => "weak",
            Self::Fail => "FAIL",
        })
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DoctorOptions { connections, workers, .. } = self.options;
        writeln!(f, "{} connections, {} workers\n", grouped(connections), grouped(workers))?;
        let width = |text: fn(&Finding) -> &String, title: &str| {
            let widths = self.findings.iter().map(|finding| text(finding).chars().count());
            widths.max().unwrap_or(0).max(title.len())
        };
        let checks = width(|finding| &finding.check, "check");
        let found = width(|finding| &finding.found, "found");
        writeln!(f, "{:4}  {:checks$}  {:found$}  wanted", "", "check", "found")?;
        for line in &self.findings {
            let Finding { check, found: current, wanted, verdict, .. } = line;
            writeln!(f, "{verdict:4}  {check:checks$}  {current:found$}  {wanted}")?;
        }
        for finding in self.findings.iter().filter(|finding| !finding.cure.is_empty()) {
            writeln!(f, "\n{}: {}\n    {}", finding.verdict, finding.check, finding.cure)?;
        }
        let (fail, weak) = (self.count(Verdict::Fail), self.count(Verdict::Weak));
        match (fail, weak) {
            (0, 0) => writeln!(f, "\nReady."),
            (0, _) => writeln!(f, "\nThey can be held; {weak} to improve."),
            (_, _) => writeln!(f, "\nThey cannot be held: {fail} to cure, {weak} to improve."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Verdict]) -> DoctorReport {
        let finding = |verdict: &Verdict| Finding {
            check: "thing".into(),
            found: "1".into(),
            wanted: "2".into(),
            verdict: *verdict,
            cure: if *verdict >= Verdict::Weak { "buy another".into() } else { String::new() },
        };
        DoctorReport {
            options: DoctorOptions { connections: 100_000, ..checks::tests::MILLION },
            findings: verdicts.iter().map(finding).collect(),
        }
    }

    #[test]
    fn only_a_failure_makes_the_exit_code_one() {
        assert_eq!(report(&[Verdict::Ok, Verdict::Note, Verdict::Weak]).exit_code(), 0);
        assert_eq!(report(&[Verdict::Ok, Verdict::Fail]).exit_code(), 1);
    }

    #[test]
    fn the_table_names_each_cure_and_ends_with_the_sum() {
        let text = report(&[Verdict::Ok, Verdict::Weak, Verdict::Fail]).to_string();
        assert!(text.starts_with("100,000 connections, 2 workers\n"), "{text}");
        assert_eq!(text.matches("buy another").count(), 2, "{text}");
        assert!(text.ends_with("They cannot be held: 1 to cure, 1 to improve.\n"), "{text}");
        assert!(report(&[Verdict::Ok]).to_string().ends_with("\nReady.\n"));
    }
}
