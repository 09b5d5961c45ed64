//! `mptm down`.

use std::process::ExitCode;

use super::apply::{carry_out, show};
use super::{CliError, Global};
use crate::plan::plan;
use crate::render;
use crate::state::State;

pub fn run(global: &Global, dry_run: bool) -> Result<ExitCode, CliError> {
    let mut kernel = global.kernel()?;
    let _lock = if dry_run { None } else { Some(kernel.lock(global.wait)?) };
    let mut live = kernel.read()?;
    let nothing = State::default();
    let plan = plan(&nothing, &live.state);
    if dry_run {
        show(&plan, false, &format!("Would do: {}.", render::summary(&plan)))?;
    } else {
        carry_out(&plan, &nothing, &mut kernel, &mut live)?;
        if plan.is_empty() {
            kernel.bpf.clear_leftovers()?;
        }
        show(&plan, false, &format!("Done: {}.", render::summary_done(&plan)))?;
    }
    Ok(ExitCode::SUCCESS)
}
