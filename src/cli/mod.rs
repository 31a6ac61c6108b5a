//! The command line: arguments in, exit code out. 0: done; 1: failed, and one message on standard
//! error says why; 2: the arguments were wrong.

mod banner;
mod journal;
mod logging;
mod manager;
mod options;
mod serve;
mod tls;
mod tools;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::journal::JournalCommand;
use self::options::ServeArgs;
use self::tls::TlsCommand;
use self::tools::{CompletionsArgs, ConfigCommand, ManArgs};
use crate::auth::cli::TokenArgs;
use crate::tools::bench;
use crate::tools::client;
use crate::tools::doctor::DoctorArgs;
use crate::tools::doctor::tune::TuneCommand;

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
    /// Find out whether this host can hold a number of connections, and what to change if not.
    Doctor(DoctorArgs),
    /// Check, raise or give back the kernel settings for a number of connections.
    #[command(subcommand)]
    Tune(TuneCommand),
    /// Look at a journal.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Make a certificate for a first trial
    #[command(subcommand)]
    Tls(TlsCommand),
    Token(TokenArgs),
    Sub(client::SubArgs),
    Pub(client::PubArgs),
    /// Measure a push server.
    Bench(Box<bench::BenchArgs>),
    #[command(name = bench::CLIENT_COMMAND, hide = true)]
    BenchClient,
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Runs the program and returns its exit code.
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
        Command::Tune(command) => tools::tune(&command),
        Command::Journal(command) => journal::journal(command),
        Command::Tls(command) => tls::tls(command),
        Command::Token(args) => tools::token(&args),
        Command::Sub(args) => tools::subscribe(&args),
        Command::Pub(args) => tools::publish(&args),
        Command::Bench(args) => tools::bench(*args),
        Command::BenchClient => tools::bench_client(),
        Command::Completions(args) => tools::completions(&args),
        Command::Man(args) => tools::man(&args),
    };
    outcome.unwrap_or_else(|message| {
        client::tell(format_args!("{message}"));
        ExitCode::FAILURE
    })
}

/// An environment variable, if it is set and valid UTF-8.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Writes to standard output. It is no failure if the reader has seen enough (`| head`).
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
    use crate::config::{self, KEYS};

    /// Every option, with and without `serve`, in both spellings.
    #[test]
    fn every_key_can_be_set_by_its_option() {
        for key in KEYS {
            let text = match key.value {
                "ADDRESS" => "127.0.0.1:9",
                "FILE|none" => "/run/admin.key",
                "ADDRESS|none" => "127.0.0.1:9",
                "FILES|none" => "/a.pem,/b.pem",
                "FOLDER|none" => "/var/lib/pushline",
                "LEVEL" => "debug",
                "NETWORKS|none" => "10.0.0.0/8",
                "URLS|none" => "nats://10.0.0.1",
                "REDIS|none" => "redis://10.0.0.1",
                "PATHS|none" => "/chat/{id}=chat:{id}",
                "NAME" => "EVENTS",
                "1-5|auto" => "3",
                "N" | "N|auto" | "LIST|auto|none" => "7",
                "SIZE" | "SIZE|auto" => "2MiB",
                "TIME" => "33s",
                "true|false" if key.default_text() == "true" => "false",
                "true|false" => "true",
                words => words.split('|').nth(1).expect("two words"),
            };
            assert_ne!(key.default_text(), text, "{}", key.name);
            let option = format!("--{}={text}", key.flag());
            let spellings = match (key.is_switch(), option.split_once('=')) {
                (true, Some((name, _))) if text == "true" => [vec![name], vec![&*option]],
                // Without a value it is switched on.
                (true, _) => [vec![&*option], vec![&*option]],
                (_, Some((name, value))) => [vec![name, value], vec![&*option]],
                (_, None) => unreachable!("it was put in above"),
            };
            for spelling in spellings {
                for command in [vec!["pushline"], vec!["pushline", "serve"]] {
                    let cli = Cli::try_parse_from(command.iter().chain(&spelling)).expect(&option);
                    let args = match cli.command {
                        Some(Command::Serve(args)) => args,
                        _ => cli.serve,
                    };
                    let config = config::load(&args.into_sources(&|_| None), &|_| None);
                    let settings = config.expect("good settings").settings;
                    assert_eq!(key.show(&settings), text, "{option}");
                }
            }
        }
    }

    #[test]
    fn what_an_option_does_not_take_is_a_usage_error_that_says_what_it_takes() {
        let cli = Cli::try_parse_from(["pushline", "--heartbeat", "25"]).expect_err("no unit");
        assert_eq!(cli.exit_code(), 2);
        let told = cli.to_string();
        assert!(told.contains("--heartbeat") && told.contains("a time from 1s to 1h"), "{told}");
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
