//! Where log lines go: to standard error, as text for people or as JSON.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel, LogLines};

/// A handle on what a reload can change.
pub(super) struct Logging(reload::Handle<LevelFilter, Registry>);

impl Logging {
    /// Starts writing lines.
    pub fn start(lines: &LogLines) -> Self {
        let (filter, handle) = reload::Layer::new(filter(lines.level));
        let format = fmt::layer().with_writer(io::stderr).with_target(false);
        let format = match lines.format {
            LogFormat::Text => format.with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => format.json().flatten_event(true).with_ansi(false).boxed(),
        };
        // An embedding program, or an earlier call, may have set up logging already: then it is up
        // to them.
        let _ = tracing_subscriber::registry().with(filter).with(format).try_init();
        Self(handle)
    }

    /// Sets the level from now on.
    pub fn set_level(&self, level: LogLevel) {
        // Fails only if standard error is closed.
        let _ = self.0.modify(|current| *current = filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
