//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use crossbeam_channel::bounded;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::auth::Gate;
use crate::config::Settings;
use crate::load;
use crate::server::Server;

/// Pushline: a push server for SSE and WebSocket on io_uring.
#[derive(Debug, Parser)]
#[command(name = "pushline", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve(Box<ServeArgs>),
    /// Measure a push server.
    Bench(Box<load::BenchArgs>),
    #[command(name = load::CLIENT_COMMAND, hide = true)]
    BenchClient,
}

/// The server's options.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the operator connects.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    admin: SocketAddr,
    /// Threads that own connections: a number, or auto for one per core.
    #[arg(long, default_value = "auto", value_name = "N|auto")]
    workers: String,
    /// Cores to pin workers to, as 0,2,4; auto for all allowed ones; none for no pinning.
    #[arg(long, default_value = "auto", value_name = "LIST|auto|none")]
    cpus: String,
    /// Events a channel keeps.
    #[arg(long, default_value_t = 100, value_name = "N")]
    history_count: u32,
    /// How long a channel keeps an event.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    history_age: Duration,
    /// Memory of all history.
    #[arg(long, default_value = "256MiB", value_parser = parse_size)]
    history_bytes: u64,
    /// How often an idle stream hears from the server.
    #[arg(long, default_value = "25s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,
    /// Connections at most; what descriptors allow if not given.
    #[arg(long, value_name = "N")]
    max_connections: Option<u64>,
    /// Largest event.
    #[arg(long, default_value = "64KiB", value_parser = parse_size)]
    max_event_bytes: u64,
    /// Fragments one WebSocket message may come in.
    #[arg(long, default_value_t = 1024, value_name = "N")]
    max_fragments: u32,
    /// Send buffer of each connection (SO_SNDBUF); the kernel's default if not given.
    #[arg(long, value_parser = parse_size)]
    send_buffer: Option<u64>,
    /// How long draining may take after SIGTERM.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Listen on other addresses than loopback although no keys are configured.
    #[arg(long)]
    open: bool,
}

/// Runs the program; answers its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let outcome = match cli.command {
        Some(Command::Serve(args)) => serve(&args),
        Some(Command::Bench(args)) => bench(*args),
        Some(Command::BenchClient) => load::run_client().map_err(|error| error.to_string()),
        None => serve(&cli.serve),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("pushline: {message}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: load::BenchArgs) -> Result<(), String> {
    let options = args.into_options().map_err(|error| error.to_string())?;
    let report = load::run(options).map_err(|error| error.to_string())?;
    print!("{report}");
    Ok(())
}

fn serve(args: &ServeArgs) -> Result<(), String> {
    let settings = args.settings()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let server = Server::start(settings, Gate::open()).map_err(|error| error.to_string())?;
    println!("{}", server.banner());
    let (tell, told) = bounded(4);
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _ = tell.send(());
        }
    });
    told.recv().map_err(|error| error.to_string())?;
    eprintln!("pushline: draining; a second signal ends at once");
    let ended = server.drain(&told);
    if ended.cut > 0 {
        eprintln!("pushline: cut {} connections", ended.cut);
    }
    Ok(())
}

impl ServeArgs {
    fn settings(&self) -> Result<Settings, String> {
        let mut settings = Settings {
            listen: self.listen,
            admin: self.admin,
            workers: parse_workers(&self.workers)?,
            cpus: parse_cpus(&self.cpus)?,
            history_bytes: self.history_bytes,
            heartbeat: self.heartbeat,
            connections_max: self.max_connections,
            event_bytes_max: self.max_event_bytes as usize,
            fragments_max: self.max_fragments,
            send_buffer: self.send_buffer.map(|bytes| bytes.min(u64::from(u32::MAX)) as u32),
            drain_time: self.drain,
            open: self.open,
            ..Settings::default()
        };
        settings.channel_default.history_count = self.history_count;
        settings.channel_default.history_age = self.history_age;
        Ok(settings)
    }
}

fn parse_workers(text: &str) -> Result<Option<u16>, String> {
    match text {
        "auto" => Ok(None),
        _ => match text.parse() {
            Ok(count @ 1..=1024) => Ok(Some(count)),
            _ => Err(format!("--workers {text}: a number from 1 to 1024, or auto")),
        },
    }
}

fn parse_cpus(text: &str) -> Result<Option<Vec<usize>>, String> {
    match text {
        "auto" => Ok(Some(Vec::new())),
        "none" => Ok(None),
        _ => {
            let cpus: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
            cpus.map(Some).map_err(|_| format!("--cpus {text}: as 0,2,4, or auto, or none"))
        }
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match &text[digits..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("a size is a number with B, KiB, MiB or GiB".into()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| "a size begins with a number")?;
    number.checked_mul(unit).ok_or_else(|| "too large".into())
}
