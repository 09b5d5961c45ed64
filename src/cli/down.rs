//! `mptm down`.

use std::process::ExitCode;

use super::apply::{carry_out, show};
use super::{CliError, Global};
use crate::plan::plan;
use crate::render;
use crate::state::State;

pub fn run(global: &Global, dry_run: bool) -> Result<ExitCode, CliError> {
    let _lock = (!dry_run).then(super::lock);
    let mut kernel = global.kernel()?;
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
