//! Commands that do not run a server.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;

use super::{Cli, environment, say};
use crate::auth::cli::{TokenArgs, sign};
use crate::config::{self, Sources};
use crate::host::Host;
use crate::ring::unix_now;
use crate::tools::bench;
use crate::tools::client;
use crate::tools::doctor::tune::TuneCommand;
use crate::tools::doctor::{self, DoctorArgs, DoctorOptions};

/// What `pushline config` does.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a configuration file, and the keys it names, without starting anything.
    Check {
        /// The file; - for standard input.
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Print a configuration file with every key, its help and its default.
    Default,
}

/// Arguments of `pushline completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell that is to complete commands
    shell: Shell,
}

/// Print the man page: of the program, or of one of its commands.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// A command of the program, instead of the program itself
    command: Option<String>,
}

pub(super) fn config(command: ConfigCommand) -> Result<ExitCode, String> {
    match command {
        ConfigCommand::Default => say(&config::template())?,
        ConfigCommand::Check { file } => check(&file)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// As at start, but without settings from the environment: the server's environment counts, not
/// this shell's. Keys that the file names by variable are still looked up in it.
fn check(file: &Path) -> Result<(), String> {
    let config = if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| format!("standard input: {error}"))?;
        config::check_text("-", &text)
    } else {
        let sources = Sources { file: Some(file.to_owned()), ..Sources::default() };
        config::load(&sources, &|_| None)
    };
    let gate = config.and_then(|config| config.gate(&environment));
    gate.map_err(|errors| errors.to_string())?;
    say(&format!("{}: good\n", file.display()))
}

pub(super) fn subscribe(args: &client::SubArgs) -> Result<ExitCode, String> {
    client::subscribe(args).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn publish(args: &client::PubArgs) -> Result<ExitCode, String> {
    client::publish(args).map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn bench(args: bench::BenchArgs) -> Result<ExitCode, String> {
    let options = args.into_options().map_err(|error| error.to_string())?;
    let report = bench::run(options).map_err(|error| error.to_string())?;
    say(&report.to_string())?;
    if report.delivered_nothing() {
        return Err("no subscriber received an event; do --subscribe-path and --publish-url mean \
                    the same server and channels?"
            .to_owned());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn bench_client() -> Result<ExitCode, String> {
    bench::run_client().map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn doctor(args: &DoctorArgs) -> Result<ExitCode, String> {
    if args.sysctl {
        say(&doctor::sysctl_file(args.connections.unwrap_or(doctor::CONNECTIONS_DEFAULT)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let tried = doctor::try_io_uring(args.workers());
    let host = Host::live();
    let mut report = doctor::run(&DoctorOptions::of(args, &host, &tried), &host, &tried);
    report.findings.extend(args.data_dir.iter().flat_map(|dir| doctor::disk::findings(dir)));
    let of_cluster = doctor::cluster::findings(&args.cluster).map_err(|error| error.to_string())?;
    report.findings.extend(of_cluster);
    say(&report.to_string())?;
    if args.connections.is_none() {
        say("This is for what the host holds as it is; ask for more with --connections N.\n")?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

pub(super) fn tune(command: &TuneCommand) -> Result<ExitCode, String> {
    let tuned = doctor::tune::run(command).map_err(|error| error.to_string())?;
    say(&tuned.text)?;
    Ok(if tuned.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn token(args: &TokenArgs) -> Result<ExitCode, String> {
    if let Some(warning) = args.warning() {
        client::tell(format_args!("{warning}"));
    }
    let token =
        sign(args, &environment, unix_now().as_secs()).map_err(|error| error.to_string())?;
    say(&format!("{token}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, String> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pushline", &mut script);
    say(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &ManArgs) -> Result<ExitCode, String> {
    let mut program = Cli::command();
    // Gives the commands their full names.
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => program
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| format!("there is no command {name}; `pushline help` lists them"))?,
    };
    let title = command.get_display_name().unwrap_or("pushline").to_owned();
    let version = concat!("pushline ", env!("CARGO_PKG_VERSION"));
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command).title(title).source(version).render(&mut page);
    rendered.map_err(|error| format!("the man page: {error}"))?;
    say(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}
