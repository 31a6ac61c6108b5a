//! Everything around the server: access rules, configuration, the command line, README and tuning.

#[path = "../common/skip.rs"]
mod skip;

mod auth;
mod cli_client;
mod config;
mod readme;
mod skips;
mod tune;
