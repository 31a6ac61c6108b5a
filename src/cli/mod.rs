//! The command line: arguments in, exit code out. 0: done; 1: it failed, and one message on
//! standard error says why; 2: the arguments were wrong.

mod logging;
mod options;
mod serve;
mod tools;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::options::ServeArgs;
use self::tools::{CompletionsArgs, ConfigCommand};
use crate::auth::cli::TokenArgs;
use crate::doctor::DoctorArgs;
use crate::load;

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
    Serve(ServeArgs),
    /// Check or print a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Find out whether this host can hold that many connections, and what to change if not.
    Doctor(DoctorArgs),
    Token(TokenArgs),
    /// Measure a push server.
    Bench(Box<load::BenchArgs>),
    #[command(name = load::CLIENT_COMMAND, hide = true)]
    BenchClient,
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
    /// Print the man page.
    Man,
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
    let outcome = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::serve(args).map(|()| ExitCode::SUCCESS),
        Command::Config(command) => tools::config(command),
        Command::Doctor(args) => tools::doctor(&args),
        Command::Token(args) => tools::token(&args),
        Command::Bench(args) => tools::bench(*args),
        Command::BenchClient => tools::bench_client(),
        Command::Completions(args) => tools::completions(&args),
        Command::Man => tools::man(),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("pushline: {message}");
        ExitCode::FAILURE
    })
}

/// An environment variable, if it is set and text.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no failure.
fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("output: {error}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
