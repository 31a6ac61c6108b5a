//! `pushline tune`: the kernel settings of [`super::settings`], checked, raised and restored.
//!
//! A value is never lowered. The values from before the first `apply` are kept in a state file, so
//! that `revert` restores exactly those, whatever happened in between.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::driver::{findings, is_epoll, try_io_uring};
use super::settings::{Judged, Setting, settings, text};
use super::{DoctorOptions, Finding, Verdict, cores, nic};
use crate::config::DriverWanted;
use crate::host::Host;

/// The key whose value changes with each boot.
const BOOT_ID: &str = "kernel.random.boot_id";

/// Arguments of `pushline tune`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TuneCommand {
    /// Show each key with what it is and what it should be; exit with 1 if one is too low.
    Check(TuneArgs),
    /// Raise what is too low until the next boot, and keep the old values for revert.
    Apply(TuneArgs),
    /// Write back exactly what apply found.
    Revert(TuneArgs),
}

/// For how many connections, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct TuneArgs {
    /// How many connections the host is to hold
    #[arg(long, value_name = "N", default_value_t = super::CONNECTIONS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=super::CONNECTIONS_MAX))]
    pub connections: u64,
    /// Where old values are kept
    #[arg(long, value_name = "FILE", default_value = "/var/lib/pushline/tune.state")]
    pub state: PathBuf,
    /// Look for proc and sys below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    pub root: PathBuf,
}

/// What was done, to be printed, and whether everything is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// A table, followed by hints.
    pub text: String,
    /// No key is too low, or all were restored.
    pub is_good: bool,
}

/// Why nothing could be done at all.
#[derive(Debug)]
pub enum TuneError {
    /// The state file cannot be read or written.
    State(PathBuf, io::Error),
}

impl fmt::Display for TuneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(path, error) => {
                write!(f, "{}: {error}; without it nothing could be given back", path.display())
            }
        }
    }
}

impl std::error::Error for TuneError {}

/// Carries out the command.
///
/// # Errors
/// The state file failed, and nothing was changed after that.
pub fn run(command: &TuneCommand) -> Result<Tuned, TuneError> {
    match command {
        TuneCommand::Check(args) => Ok(check(args)),
        TuneCommand::Apply(args) => apply(args),
        TuneCommand::Revert(args) => revert(args),
    }
}

fn check(args: &TuneArgs) -> Tuned {
    let host = Host::at(&args.root);
    let mut table = row("key", "current", "wanted", "verdict");
    let mut is_good = true;
    for setting in settings(args.connections) {
        let judged = setting.judge(&host);
        is_good &= !matches!(judged, Judged::Low { .. });
        let (current, verdict) = (current_text(&judged), verdict_text(&setting, &judged));
        table += &row(setting.key, &current, &setting.wanted_text(), &verdict);
    }
    table += &driver_hints(&host, args.connections);
    Tuned { text: table + &nic::hints(&host, &args.root, args.connections), is_good }
}

/// What the server would run on, and what that lacks here; none of it is a key that `apply` raises.
fn driver_hints(host: &Host, connections: u64) -> String {
    let (driver, workers) = (DriverWanted::Auto, cores());
    let tried = try_io_uring(workers);
    let on_epoll = is_epoll(driver, &tried);
    let options = DoctorOptions { connections, workers, driver, on_epoll };
    let mut text =
        format!("\nThe server runs on {} here\n", if on_epoll { "epoll" } else { "io_uring" });
    for Finding { check, found, wanted, verdict, cure } in findings(&options, host, &tried) {
        if verdict >= Verdict::Weak {
            let _ = writeln!(text, "  {verdict}: {check} is {found}, wanted {wanted}: {cure}");
        }
    }
    text
}

fn apply(args: &TuneArgs) -> Result<Tuned, TuneError> {
    let host = Host::at(&args.root);
    let (mut state, dropped) = State::open(&args.state, &host)?;
    let mut table = dropped + &row("key", "before", "after", "verdict");
    for setting in settings(args.connections) {
        let judged = setting.judge(&host);
        table += &match &judged {
            Judged::Low { current, raised } if setting.is_writable() => {
                raise(setting.key, &text(current), &text(raised), &host, &mut state)?
            }
            _ => row(setting.key, &current_text(&judged), "-", &verdict_text(&setting, &judged)),
        };
    }
    Ok(Tuned { text: table + &nic::hints(&host, &args.root, args.connections), is_good: true })
}

/// Keeps the old value first, so that whatever happens next can be undone.
fn raise(
    key: &str,
    old: &str,
    new: &str,
    host: &Host,
    state: &mut State,
) -> Result<String, TuneError> {
    state.keep(key, old)?;
    if host.put_sysctl(key, new).is_err() {
        state.forget(key)?;
        return Ok(row(key, old, "-", "read-only here: skipped"));
    }
    let now = host.sysctl(key).map_or_else(|_| "absent".to_owned(), |numbers| text(&numbers));
    let verdict =
        if now == new { "raised".to_owned() } else { format!("kernel did not take {new}") };
    Ok(row(key, old, &now, &verdict))
}

fn revert(args: &TuneArgs) -> Result<Tuned, TuneError> {
    let host = Host::at(&args.root);
    let (mut state, dropped) = State::open(&args.state, &host)?;
    if state.values.is_empty() {
        let text = format!("{dropped}nothing to revert: no {}\n", args.state.display());
        return Ok(Tuned { text, is_good: true });
    }
    let mut table = dropped + &row("key", "before", "after", "verdict");
    let mut is_good = true;
    for (key, old) in state.values.clone() {
        let current = host.sysctl(&key).map_or_else(|_| "absent".to_owned(), |n| text(&n));
        let is_put = host.put_sysctl(&key, &old).is_ok();
        if is_put && host.sysctl(&key).is_ok_and(|numbers| text(&numbers) == old) {
            table += &row(&key, &current, &old, "restored");
            state.forget(&key)?;
        } else {
            table += &row(&key, &current, "-", &format!("FAILED: should be {old}"));
            is_good = false;
        }
    }
    Ok(Tuned { text: table, is_good })
}

fn current_text(judged: &Judged) -> String {
    match judged {
        Judged::Absent => "absent".to_owned(),
        Judged::Unreadable => "cannot be read".to_owned(),
        Judged::Enough { current } | Judged::Unused { current } | Judged::Low { current, .. } => {
            text(current)
        }
    }
}

fn verdict_text(setting: &Setting, judged: &Judged) -> String {
    match judged {
        Judged::Absent => "not in this kernel or namespace: skipped".to_owned(),
        Judged::Unreadable => "skipped".to_owned(),
        Judged::Unused { .. } => "tracking nothing: skipped".to_owned(),
        Judged::Enough { .. } => "ok".to_owned(),
        Judged::Low { .. } => match setting.boot_parameter() {
            Some(parameter) => {
                format!("too low, set at boot: {parameter}={}", setting.wanted_text())
            }
            None => "too low".to_owned(),
        },
    }
}

fn row(key: &str, first: &str, second: &str, verdict: &str) -> String {
    format!("{key:<32} {first:<28} {second:<24} {verdict}\n")
}

/// Values from before the first `apply` of this boot: a line `boot ID`, then `KEY VALUE`.
#[derive(Debug)]
struct State {
    path: PathBuf,
    boot_id: String,
    values: Vec<(String, String)>,
}

impl State {
    /// What is kept, and a line to print if it is from an earlier boot: those values are gone.
    fn open(path: &Path, host: &Host) -> Result<(Self, String), TuneError> {
        let boot_id = host.sysctl_text(BOOT_ID).unwrap_or_else(|_| "unknown".to_owned());
        let mut state = Self { path: path.to_owned(), boot_id, values: Vec::new() };
        let kept = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            kept => kept.map_err(|error| state.failed(error))?,
        };
        let mut lines = kept.lines().filter_map(|line| line.split_once(' '));
        match lines.next() {
            None => {}
            Some(("boot", id)) if id == state.boot_id => {
                state.values = lines.map(|(key, value)| (key.into(), value.into())).collect();
            }
            Some(_) => {
                fs::remove_file(path).map_err(|error| state.failed(error))?;
                let told = "is of an earlier boot, whose values are gone: dropped";
                return Ok((state, format!("{} {told}\n", path.display())));
            }
        }
        Ok((state, String::new()))
    }

    /// Keeps a value, unless an earlier one of the key is kept: a second `apply`, for another size,
    /// must not mistake our own value for the host's.
    fn keep(&mut self, key: &str, old: &str) -> Result<(), TuneError> {
        if self.values.iter().any(|(known, _)| known == key) {
            return Ok(());
        }
        self.values.push((key.to_owned(), old.to_owned()));
        self.write()
    }

    fn forget(&mut self, key: &str) -> Result<(), TuneError> {
        self.values.retain(|(known, _)| known != key);
        self.write()
    }

    fn write(&self) -> Result<(), TuneError> {
        if self.values.is_empty() {
            return fs::remove_file(&self.path).map_err(|error| self.failed(error));
        }
        let mut kept = format!("boot {}\n", self.boot_id);
        for (key, value) in &self.values {
            let _ = writeln!(kept, "{key} {value}");
        }
        let folder = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        folder.and_then(|()| fs::write(&self.path, kept)).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> TuneError {
        TuneError::State(self.path.clone(), error)
    }
}
