//! `pushline serve`: start, reload on SIGHUP, drain on SIGTERM or when another process takes over.

use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never, select, tick};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{info, warn};

use super::banner::banner;
use super::logging::Logging;
use super::options::ServeArgs;
use super::{environment, manager};
use crate::auth::AuthSettings;
use crate::config::{self, Config, LogFormat, Settings, Sources};
use crate::host::Host;
use crate::server::{Inherited, Reloaded, Server, ServerError, Sizing, Successor};
use crate::tools::client;

/// Signals waiting to be handled; more of one kind would say nothing new.
const SIGNALS_MAX: usize = 4;

/// How often to check whether workers are even, if they may not be.
const BALANCE_PAUSE: Duration = Duration::from_secs(1);

/// Time between two checks for renewed certificates.
const CERTIFICATE_PAUSE: Duration = Duration::from_secs(2);

/// Runs the server until it is told to stop.
pub(super) fn serve(args: ServeArgs) -> Result<(), String> {
    // Must come before any thread starts that might read the environment, which it changes.
    let managed = Inherited::from_manager().map_err(|error| error.to_string())?;
    let (take_over, accept_loss) = (args.take_over, args.accept_loss);
    let sources = args.into_sources(&environment);
    let (mut config, mut sizing) = load(&sources)?;
    config.settings.accept_loss = accept_loss;
    let logging = Logging::start(&config.settings.log_lines);
    let signals = listen_to_signals()?;
    let is_managed = managed.is_some();
    let mut inherited = match managed {
        None if take_over => Inherited::from_predecessor(&config.settings),
        managed => Ok(managed),
    };
    loop {
        let server = start(config, &sources, &sizing, inherited)?;
        let run = run(server, &sources, &logging, &signals)?;
        match run {
            Run::Over => return Ok(()),
            // The service manager has the sockets, and gives them to the next process.
            Run::LogEnded(why) if is_managed => return Err(why),
            Run::LogEnded(why) => warn!("{why}"),
        }
        (config, sizing) = load(&sources)?;
        inherited = Ok(None);
    }
}

/// Starts the server, and says what it is.
fn start(
    config: Config,
    sources: &Sources,
    sizing: &Sizing,
    inherited: Result<Option<Inherited>, ServerError>,
) -> Result<Server, String> {
    let gate = config.gate(&environment).map_err(|errors| errors.to_string())?;
    let is_open = gate.is_open();
    let server = inherited
        .and_then(|inherited| Server::start_with(config.settings, gate, inherited))
        .map_err(|error| error.to_string())?;
    // JSON lines are for programs, which find the same facts in them.
    if server.settings().log_lines.format == LogFormat::Text {
        client::tell_plainly(&banner(&server, &config.auth, is_open));
    }
    state_facts(&server, sources, sizing, is_open);
    warn_of_misspelt_variables(&config.auth);
    manager::tell_ready();
    Ok(server)
}

/// How the server ended.
enum Run {
    /// It was told to.
    Over,
    /// Its log has ended, for this reason: there is another one.
    LogEnded(String),
}

/// Reads all settings, and decides those that were not set.
fn load(sources: &Sources) -> Result<(Config, Sizing), String> {
    let mut config = config::load(sources, &environment).map_err(|errors| errors.to_string())?;
    let sizing = Sizing::decide(&mut config, &Host::live()).map_err(|error| error.to_string())?;
    Ok((config, sizing))
}

/// Signals, by what they ask for.
struct Asked {
    reload: Receiver<()>,
    end: Receiver<()>,
}

fn listen_to_signals() -> Result<Asked, String> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|error| format!("signals: {error}"))?;
    let (tell_reload, reload) = bounded(SIGNALS_MAX);
    let (tell_end, end) = bounded(SIGNALS_MAX);
    let forward = move || {
        for signal in signals.forever() {
            let lane = if signal == SIGHUP { &tell_reload } else { &tell_end };
            // Full: it has been asked for often enough.
            let _ = lane.try_send(());
        }
    };
    let named = thread::Builder::new().name("signals".into());
    let failed = |error| ServerError::io("starting the signals' thread", error).to_string();
    named.spawn(forward).map_err(failed)?;
    Ok(Asked { reload, end })
}

fn run(
    mut server: Server,
    sources: &Sources,
    logging: &Logging,
    asked: &Asked,
) -> Result<Run, String> {
    let lost = server.lost().clone();
    let balance = if server.needs_balance() { tick(BALANCE_PAUSE) } else { never() };
    let renewal = if server.has_certificates() { tick(CERTIFICATE_PAUSE) } else { never() };
    let watchdog = manager::alive_pause().map_or_else(never, tick);
    let successors = server.successors().clone();
    let successor = loop {
        select! {
            recv(balance) -> _ => server.keep_balance(),
            recv(renewal) -> _ => refresh_certificates(&mut server),
            recv(watchdog) -> _ => if server.workers_turn() { manager::tell_alive() },
            recv(asked.reload) -> _ => {
                manager::tell_reloading();
                reload_and_say(&mut server, sources, logging);
                manager::tell_ready();
            }
            recv(successors) -> successor => break successor.ok(),
            recv(asked.end) -> _ => break None,
            recv(lost) -> thread => match thread {
                Ok(lost) if lost.begins_again() => {
                    server.stop();
                    return Ok(Run::LogEnded(lost.to_string()));
                }
                thread => return thread.map_or(Ok(Run::Over), |lost| Err(lost.to_string())),
            },
        }
    };
    end(server, successor, asked);
    lost.try_recv().map_or(Ok(Run::Over), |lost| Err(lost.to_string()))
}

/// Lets connections go, and the listeners to the process that takes over, if there is one.
fn end(server: Server, successor: Option<Successor>, asked: &Asked) {
    manager::tell_stopping();
    let ended = match successor {
        Some(successor) => {
            info!("another process takes over; draining");
            server.hand_over(&successor, &asked.end)
        }
        None => {
            info!("draining; a second signal ends at once");
            server.drain(&asked.end)
        }
    };
    info!(cut = ended.cut, "ended");
}

fn refresh_certificates(server: &mut Server) {
    match server.refresh_certificates() {
        Ok(false) => {}
        Ok(true) => info!("certificates have changed, and were read again"),
        Err(error) => {
            warn!("certificates have changed, and those read before stay in use: {error}")
        }
    }
}

fn reload_and_say(server: &mut Server, sources: &Sources, logging: &Logging) {
    match reload(server, sources) {
        Ok(reloaded) => {
            logging.set_level(server.settings().log_lines.level);
            tell_of_wanting_room(server);
            if reloaded.needs_restart.is_empty() {
                info!("reloaded: {reloaded}");
            } else {
                warn!("reloaded: {reloaded}");
            }
        }
        Err(message) => warn!("not reloaded, nothing has changed: {message}"),
    }
}

/// Reads and checks everything before applying anything.
fn reload(server: &mut Server, sources: &Sources) -> Result<Reloaded, String> {
    let (config, _) = load(sources)?;
    let gate = config.gate(&environment).map_err(|errors| errors.to_string())?;
    let Config { settings, .. } = config;
    server.reload(settings, gate).map_err(|error| error.to_string())
}

fn tell_of_wanting_room(server: &Server) {
    if server.wanting() > 0 {
        let connections = server.shared().connection_count.max();
        warn!(
            connections,
            "max_connections asks for more than there are descriptors for; `pushline doctor \
             --connections N` names the cure"
        );
    }
}

/// Logs one line for each fact worth knowing when reading the log later.
fn state_facts(server: &Server, sources: &Sources, sizing: &Sizing, is_open: bool) {
    let Settings { heartbeat, history_bytes, channels, .. } = server.settings();
    info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "started");
    if cfg!(panic = "unwind") {
        warn!("this build unwinds, as for tests and benches; `cargo build --release` aborts");
    }
    match &sources.file {
        Some(path) => {
            info!(path = %path.display(), channel_rules = channels.len(), "configuration")
        }
        None => info!(looked_for = %config::DEFAULT_FILES.join(", "), "no configuration file"),
    }
    info!(address = %server.listen(), "listening for clients");
    if let Some(address) = server.listen_tls() {
        info!(%address, "listening for clients with TLS");
    }
    info!(address = %server.admin(), "listening for the operator");
    if !server.admin().ip().is_loopback() && server.settings().admin_key_file.is_none() {
        warn!("anyone who reaches the operator's listener can see and cut every connection");
    }
    info!(workers = server.workers(), on = %server.cores(), because = %sizing.workers, "workers");
    info!(name = %server.driver(), "driver");
    if let Some(note) = server.driver_note() {
        warn!("{note}");
    }
    let worker_replica_bytes = server.settings().replicas_bytes_max();
    info!(history_bytes, worker_replica_bytes, because = %sizing.memory, "memory for events");
    if let Some(warning) = &sizing.warning {
        warn!("{warning}");
    }
    let connections = server.shared().connection_count.max();
    info!(connections, bounded_by = %server.bound(), "capacity");
    tell_of_wanting_room(server);
    info!(heartbeat = ?heartbeat, "streams");
    tell_who_may_connect(is_open);
}

fn tell_who_may_connect(is_open: bool) {
    if is_open {
        warn!(
            "no keys are configured: everyone who can connect may publish and read, under any \
             subject (tokens are not checked)"
        );
    } else {
        info!("clients need a token or a key, except for what auth.anonymous allows");
    }
}

fn warn_of_misspelt_variables(auth: &AuthSettings) {
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, meant) in config::misspelt_variables(variables, auth) {
        warn!("{name} is not a setting; did you mean {meant}?");
    }
}
