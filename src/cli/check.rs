//! `mptm check`.

use std::process::ExitCode;

use anstream::eprintln;

use super::{CliError, Global, count, print};
use crate::config;

pub fn run(global: &Global, print_it: bool) -> Result<ExitCode, CliError> {
    let loaded = global.load()?;
    if print_it {
        print(&config::print(&loaded.config))?;
    } else {
        eprintln!(
            "{}: {} and {}, no errors",
            global.config.display(),
            count(loaded.config.interfaces.len() + loaded.config.patterns.len(), "interface"),
            count(loaded.config.tunnels.len(), "tunnel")
        );
    }
    Ok(ExitCode::SUCCESS)
}
