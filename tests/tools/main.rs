//! Everything around the server: access rules, configuration, the command line, README and tuning.

mod auth;
mod cli_client;
mod config;
mod readme;
mod tune;
