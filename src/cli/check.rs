//! `mptm check`.

use std::process::ExitCode;

use anstream::{eprintln, print};

use super::{CliError, Global};
use crate::config;

pub fn run(global: &Global, print_it: bool) -> Result<ExitCode, CliError> {
    let loaded = global.load()?;
    if print_it {
        print!("{}", config::print(&loaded.config));
    } else {
        eprintln!(
            "{}: {} interfaces and {} tunnels, no errors",
            global.config.display(),
            loaded.config.interfaces.len(),
            loaded.config.tunnels.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}
