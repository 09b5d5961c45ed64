//! `mptm dump`.

use std::process::ExitCode;

use super::error::warn;
use super::{CliError, Global, print};
use crate::config;
use crate::dump::dump;
use crate::kernel::Network as _;

pub fn run(global: &Global) -> Result<ExitCode, CliError> {
    let kernel = global.kernel()?;
    let live = kernel.read_current(&global.pin)?;
    if live.state.data_plane.is_none() {
        warn(&format!("there is no data plane in {}: the dump is empty", global.pin.display()));
    }
    let dump = dump(&live.state, |peer| kernel.net.link(&peer.netns, &peer.name).ok()??.mac);
    for left_out in &dump.left_out {
        warn(&format!("left out: {left_out}"));
    }
    print(&config::print(&dump.config))?;
    Ok(ExitCode::SUCCESS)
}
