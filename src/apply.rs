//! Carrying out a plan: all of it, or, after an error, none of it.

use std::fmt;

use crate::kernel::{DataPlane as Bpf, KernelError, Network};
use crate::plan::{Change, Plan, Step};
use crate::render;
use crate::store::{self, Ids};

/// A plan that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub struct ApplyError {
    /// The step that failed, as the plan prints it.
    pub step: String,
    /// Its place in the plan, from 0.
    pub index: usize,
    /// Why.
    #[source]
    pub source: KernelError,
    /// How many steps had been done before it, and were undone.
    pub undone: usize,
    /// What could not be undone: the step, and why.
    pub stuck: Vec<(String, KernelError)>,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.step)?;
        if self.stuck.is_empty() {
            match self.undone {
                0 => write!(f, "; nothing is changed"),
                1 => write!(f, "; nothing is changed (1 step before it was undone)"),
                undone => write!(f, "; nothing is changed ({undone} steps before it were undone)"),
            }
        } else {
            write!(f, "; of the steps before it, {} were undone; these could not be:", self.undone)?;
            self.stuck.iter().try_for_each(|(step, error)| write!(f, "\n  {step}: {error}"))
        }
    }
}

/// Carries out all steps in order; after an error, undoes those done, in reverse.
///
/// # Errors
/// The first step that fails.
pub fn apply(plan: &Plan, bpf: &mut dyn Bpf, net: &mut dyn Network, ids: &mut Ids) -> Result<(), ApplyError> {
    apply_and(plan, bpf, net, ids, &mut |_, _| {})
}

/// As `apply`; `filled` is called when the maps of a new data plane hold all that they will hold, and its programs are still
/// being loaded.
///
/// # Errors
/// As for `apply`.
pub fn apply_and(
    plan: &Plan,
    bpf: &mut dyn Bpf,
    net: &mut dyn Network,
    ids: &mut Ids,
    filled: &mut dyn FnMut(&dyn Bpf, &Ids),
) -> Result<(), ApplyError> {
    let (mut done, mut unsettled) = (0, None);
    while done < plan.steps.len() {
        if !plan.steps[done].only_fills() {
            settle(plan, unsettled.take(), bpf, net, ids, filled)?;
        }
        if matches!(&plan.steps[done], Step::DataPlane(change) if matches!(**change, Change::Add(_))) {
            unsettled = Some(done);
        }
        match store::execute_some(&plan.steps[done..], bpf, net, ids) {
            Ok(more) => done += more,
            Err((more, source)) => return Err(undo(&plan.steps[..=done + more], source, bpf, net, ids)),
        }
    }
    settle(plan, unsettled, bpf, net, ids, filled)
}

/// Waits for the data plane that this step has begun to make. If that fails, what was put into it is gone with it.
fn settle(
    plan: &Plan,
    step: Option<usize>,
    bpf: &mut dyn Bpf,
    net: &mut dyn Network,
    ids: &mut Ids,
    filled: &mut dyn FnMut(&dyn Bpf, &Ids),
) -> Result<(), ApplyError> {
    let Some(step) = step else { return Ok(()) };
    filled(bpf, ids);
    bpf.settle().map_err(|source| undo(&plan.steps[..=step], source, bpf, net, ids))
}

/// Undoes steps, the last of which failed and may be half done.
fn undo(
    steps: &[Step],
    source: KernelError,
    bpf: &mut dyn Bpf,
    net: &mut dyn Network,
    ids: &mut Ids,
) -> ApplyError {
    let (failed, done) = match steps.split_last() {
        Some((failed, done)) => (Some(failed), done),
        None => (None, steps),
    };
    let mut error = ApplyError {
        step: failed.map(render::step).unwrap_or_default(),
        index: done.len(),
        source,
        undone: 0,
        stuck: Vec::new(),
    };
    // Making and replacing a data plane is all or nothing by itself.
    if let Some(step) = failed.filter(|step| !matches!(step, Step::DataPlane(_)))
        && let Err(cause) = store::revert(step, bpf, net, ids)
    {
        error.stuck.push((render::step(step), cause));
    }
    for step in done.iter().rev() {
        match store::execute(&step.clone().inverse(), bpf, net, ids) {
            Ok(()) => error.undone += 1,
            Err(cause) => error.stuck.push((render::step(step), cause)),
        }
    }
    error
}
