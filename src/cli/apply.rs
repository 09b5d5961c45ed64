//! `mptm apply`.

use std::process::ExitCode;

use anstream::{eprintln, print, println};
use anstyle::{AnsiColor, Style};

use super::error::warn;
use super::{ApplyArgs, CliError, Global, Kernel};
use crate::apply;
use crate::plan::{Plan, plan};
use crate::render;
use crate::resolve::{Neighbours, resolve};
use crate::state::State;
use crate::store::Live;

/// `--detailed-exitcode`: there are, or were, changes.
const CHANGES: u8 = 2;

pub fn run(global: &Global, args: &ApplyArgs) -> Result<ExitCode, CliError> {
    let loaded = global.load()?;
    let mut kernel = global.kernel()?;
    let mut live = kernel.read()?;
    let neighbours = if args.dry_run { Neighbours::Look } else { Neighbours::Solicit };
    let resolved =
        resolve(&loaded.config, &kernel.bpf, &kernel.net, &live, neighbours).map_err(CliError::Resolve)?;
    resolved.warnings.iter().for_each(|warning| warn(warning));
    let plan = plan(&resolved.state, &live.state);

    if args.dry_run {
        show(&plan, args.json, &format!("Would do: {}.", render::summary(&plan)));
    } else {
        carry_out(&plan, &resolved.state, &mut kernel, &mut live)?;
        show(&plan, args.json, &format!("Done: {}.", render::summary(&plan)));
    }
    let changes = !plan.is_empty() && args.detailed_exitcode;
    Ok(if changes { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

/// Carries a plan out, then reads the kernel back.
pub fn carry_out(plan: &Plan, desired: &State, kernel: &mut Kernel, live: &mut Live) -> Result<(), CliError> {
    if plan.is_empty() {
        return Ok(());
    }
    apply::apply(plan, &mut kernel.bpf, &mut kernel.net, &mut live.ids)?;
    let rest = crate::plan::plan(desired, &kernel.read()?.state);
    if rest.is_empty() {
        return Ok(());
    }
    Err(CliError::Other {
        what: format!("the kernel is not as it should be after applying:\n{}", text(&rest)),
        hint: Some("something else changes the same objects; apply again, and see `mptm status`".into()),
    })
}

/// Prints a plan: data on standard output, talk on standard error.
pub fn show(plan: &Plan, json: bool, summary: &str) {
    if json {
        println!("{:#}", render::json(plan));
    } else if plan.is_empty() {
        eprintln!("Nothing to do.");
    } else {
        print!("{}", text(plan));
        eprintln!("{summary}");
    }
}

/// A plan's lines, with the signs coloured.
fn text(plan: &Plan) -> String {
    render::lines(plan)
        .into_iter()
        .map(|line| {
            let style: Style = match line.chars().next() {
                Some('+') => AnsiColor::Green.on_default(),
                Some('~') => AnsiColor::Yellow.on_default(),
                Some('-') => AnsiColor::Red.on_default(),
                _ => Style::new(),
            };
            let (sign, rest) = line.split_at(1.min(line.len()));
            format!("{style}{sign}{style:#}{rest}\n")
        })
        .collect()
}
