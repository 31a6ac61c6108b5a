//! The server's options, made from the definitions of the keys.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::auth::Env;
use crate::config::{self, KEYS, Key, Settings, Sources};

/// The option for a restart without a refused connection.
const TAKE_OVER: &str = "take-over";
const ACCEPT_LOSS: &str = "accept-loss";

/// The option that names the configuration file, and the variable that may.
const CONFIG: &str = "config";
const CONFIG_VARIABLE: &str = "PUSHLINE_CONFIG";

/// What the command line said about the server.
#[derive(Clone, Debug, Default)]
pub(super) struct ServeArgs {
    /// Whether to take over from the running server.
    pub take_over: bool,
    /// Whether to use a damaged journal anyway.
    pub accept_loss: bool,
    file: Option<PathBuf>,
    options: Vec<(&'static Key, String)>,
}

impl ServeArgs {
    /// The sources of the settings.
    pub fn into_sources(self, env: Env<'_>) -> Sources {
        let of_variable = || env(CONFIG_VARIABLE).filter(|path| !path.is_empty());
        let file = self.file.or_else(|| of_variable().map(PathBuf::from));
        let file = file.or_else(config::default_file);
        Sources { file, options: self.options }
    }
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(format!(
                "The configuration file; `pushline config default` prints one [env: \
                 {CONFIG_VARIABLE}] [default: {}, whichever is there first]",
                config::DEFAULT_FILES
                    .map(|path| format!("./{path}").replace(".//", "/"))
                    .join(" or ")
            ));
        let take_over = Arg::new(TAKE_OVER).long(TAKE_OVER).action(ArgAction::SetTrue).help(
            "Take the port over from the server that listens there, which then drains: a restart \
             without a refused connection",
        );
        let accept_loss = Arg::new(ACCEPT_LOSS).long(ACCEPT_LOSS).action(ArgAction::SetTrue).help(
            "Go on without what can't be read of a damaged journal; every client that returns is \
             told that events may be missing",
        );
        command.arg(config).arg(take_over).arg(accept_loss).args(KEYS.iter().map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.accept_loss = matches.get_flag(ACCEPT_LOSS);
        self.take_over = matches.get_flag(TAKE_OVER);
        self.file = matches.get_one::<PathBuf>(CONFIG).cloned();
        let given = |key: &&Key| matches.value_source(key.name) == Some(ValueSource::CommandLine);
        self.options = KEYS
            .iter()
            .filter(given)
            .filter_map(|key| Some((key, matches.get_one::<String>(key.name)?.clone())))
            .collect();
        Ok(())
    }
}

fn option(key: &'static Key) -> Arg {
    // Only checks whether it is accepted; the settings are put together later.
    let check = |text: &str| match key.put(&mut Settings::default(), text) {
        Ok(()) => Ok(text.to_owned()),
        Err(unfit) => Err(unfit),
    };
    let arg = Arg::new(key.name)
        .long(key.flag())
        .value_name(key.value)
        .value_parser(check)
        .help(format!("{} [env: {}]", key.help, key.variable()))
        .help_heading(key.group.title())
        .default_value(key.default_text());
    if key.is_switch() {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        arg
    }
}
