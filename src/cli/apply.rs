//! `mptm apply`.

use std::panic;
use std::process::ExitCode;
use std::thread;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use terminal_size::terminal_size;

use super::error::{warn, warn_all};
use super::rejected::Rejected;
use super::saved::{self, Saved};
use super::{ApplyArgs, CliError, Global, Kernel, confirm, print};
use crate::apply;
use crate::config::{self, Loaded, Source};
use crate::plan::{Plan, plan};
use crate::render;
use crate::resolve::{Neighbours, resolve};
use crate::state::State;
use crate::store::{self, Live};

/// `--detailed-exitcode`: there are, or were, changes.
const CHANGES: u8 = 2;

/// How often a file is applied that changes while it is.
const ROUNDS: usize = 5;

pub fn run(global: &Global, args: &ApplyArgs) -> Result<ExitCode, CliError> {
    let saved = args.plan.as_deref().map(Saved::read).transpose()?;
    // What is piped in may take its time; a file is read when nobody else is at work any more, so that it is the newest.
    let piped = global.reads_stdin().then(|| global.load_trusted()).transpose()?;
    let mut kernel = global.kernel()?;
    let _lock = if args.dry_run { None } else { Some(kernel.lock(global.wait)?) };
    let (loaded, live) = look(global, &kernel, piped)?;
    let done = if args.dry_run {
        // What will be done must be known to the end.
        let keep = args.out.is_some() || saved.is_some();
        let neighbours = if keep { Neighbours::Solicit } else { Neighbours::Look };
        let desired = means(global, &loaded, &live, &kernel, neighbours)?;
        let planned = Planned::make(desired, live);
        if let Some(saved) = &saved {
            saved.check(global, &loaded, &planned)?;
        }
        if let Some(path) = &args.out {
            saved::write(path, global, &loaded, &planned)?;
        }
        show(&planned.plan, args.json, &format!("Would do: {}.", render::summary(&planned.plan)))?;
        planned.plan
    } else if let Some(seconds) = args.confirm {
        confirm::apply(global, loaded, live, &mut kernel, saved.as_ref(), seconds, args.json)?
    } else {
        let mut done = Plan::default();
        let result = until_it_is_the_newest(global, loaded, live, &mut kernel, saved.as_ref(), &mut done)
            .and_then(|sources| {
                Rejected::at(&kernel)?.accept(&sources);
                Ok(())
            });
        // What is done stays done, and is shown, even if what the file has become meanwhile is wrong.
        if result.is_ok() || !done.is_empty() {
            show(&done, args.json, &format!("Done: {}.", render::summary_done(&done)))?;
        }
        result?;
        done
    };
    let changes = !done.is_empty() && args.detailed_exitcode;
    Ok(if changes { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

/// Reads the file, unless it was piped in, and the kernel: both at once, since neither depends on the other.
fn look(global: &Global, kernel: &Kernel, piped: Option<Loaded>) -> Result<(Loaded, Live), CliError> {
    if let Some(loaded) = piped {
        return Ok((loaded, kernel.read()?));
    }
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("read".into()).spawn_scoped(scope, || kernel.read());
        let loaded = global.load_trusted();
        let live = match reader {
            Ok(reader) => reader.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
            Err(_) => kernel.read(),
        };
        Ok((loaded?, live?))
    })
}

/// Applies a file, and then looks at it again: whoever has edited it meanwhile may have been told that it is applied. A
/// saved plan is for this file only. `live` is what is there. The answer is what was applied in the end.
pub fn until_it_is_the_newest(
    global: &Global,
    mut loaded: Loaded,
    mut live: Live,
    kernel: &mut Kernel,
    saved: Option<&Saved>,
    done: &mut Plan,
) -> Result<Vec<Source>, CliError> {
    let file = global.config.display();
    let mut sources = Vec::new();
    for _ in 0..ROUNDS {
        let desired = means(global, &loaded, &live, kernel, Neighbours::Solicit)?;
        kernel.prepare(&desired, &live);
        let mut planned = Planned::make(desired, live);
        if let Some(saved) = saved {
            saved.check(global, &loaded, &planned)?;
        }
        carry_out(&planned.plan, &planned.desired, kernel, &mut planned.live)?;
        done.steps.extend(planned.plan.steps);
        if saved.is_some() || !config::has_changed(&global.config, &loaded.sources) {
            return Ok(loaded.sources);
        }
        eprintln!("{file} has changed meanwhile: applying it again.");
        sources = loaded.sources;
        (loaded, live) = look(global, kernel, None)?;
    }
    warn(&format!("{file} changes faster than it can be applied: apply it again"));
    Ok(sources)
}

/// A plan, and what it was made from.
pub struct Planned {
    /// What to do.
    pub plan: Plan,
    /// What there should be.
    pub desired: State,
    /// What there is.
    pub live: Live,
}

impl Planned {
    /// Plans how what is there becomes what should be.
    fn make(desired: State, live: Live) -> Self {
        Self { plan: plan(&desired, &live.state), desired, live }
    }
}

/// What the file says there should be on this machine, where `live` is what there is.
fn means(
    global: &Global,
    loaded: &Loaded,
    live: &Live,
    kernel: &Kernel,
    neighbours: Neighbours,
) -> Result<State, CliError> {
    let resolved =
        resolve(&loaded.config, &kernel.bpf, &kernel.net, live, neighbours).map_err(CliError::Resolve)?;
    warn_all(&resolved.warnings);
    if resolved.state == State::default() && live.state != State::default() {
        let file = global.config.display();
        warn(&format!(
            "{file} names no interface and no tunnel: all that mptm made goes, as with `mptm down`"
        ));
    }
    Ok(resolved.state)
}

/// Carries a plan out, then reads the kernel back: what it has changed, or all if that is much. Whoever was killed during
/// an earlier one may have left the packet path waiting for an end, which even an empty plan brings, unless all goes.
pub fn carry_out(plan: &Plan, desired: &State, kernel: &mut Kernel, live: &mut Live) -> Result<(), CliError> {
    if *desired != State::default() {
        kernel.bpf.end_interrupted_change()?;
    }
    if plan.is_empty() {
        return Ok(());
    }
    let mut contents = None;
    apply::apply_and(plan, &mut kernel.bpf, &mut kernel.net, &mut live.ids, &mut |bpf, ids| {
        contents = Some(store::contents_are_as_in(desired, bpf, ids));
    })?;
    if store::is_carried_out(plan, desired, &kernel.bpf, &kernel.net, &live.ids, contents)? {
        return Ok(());
    }
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
pub fn show(plan: &Plan, json: bool, summary: &str) -> Result<(), CliError> {
    if json {
        return print(&format!("{:#}\n", render::json(plan)));
    }
    if plan.is_empty() {
        eprintln!("Nothing to do.");
        return Ok(());
    }
    print(&text(plan))?;
    eprintln!("{summary}");
    Ok(())
}

/// A plan's lines, with the signs coloured, folded for the terminal if there is one.
fn text(plan: &Plan) -> String {
    let width = terminal_size().map(|(width, _)| usize::from(width.0));
    render::lines(plan)
        .into_iter()
        .map(|line| {
            let style: Style = match line.chars().next() {
                Some('+') => AnsiColor::Green.on_default(),
                Some('~') => AnsiColor::Yellow.on_default(),
                Some('-') => AnsiColor::Red.on_default(),
                _ => Style::new(),
            };
            let folded = width.map_or_else(|| line.clone(), |width| fold(&line, width));
            let (sign, rest) = folded.split_at(1.min(folded.len()));
            format!("{style}{sign}{style:#}{rest}\n")
        })
        .collect()
}

/// Breaks a line after its commas so that it fits, where it can; what follows is indented.
fn fold(line: &str, width: usize) -> String {
    const INDENT: &str = "\n    ";
    let mut folded = String::new();
    let mut column = 0;
    for part in line.split_inclusive(", ") {
        let length = part.trim_end().chars().count();
        if column > 0 && column + length > width {
            folded.truncate(folded.trim_end().len());
            folded += INDENT;
            column = INDENT.len() - 1;
        }
        folded += part;
        column += part.chars().count();
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_after_commas_only_where_it_must() {
        assert_eq!(fold("+ tunnel a: id 1, mtu 1450", 80), "+ tunnel a: id 1, mtu 1450");
        assert_eq!(fold("+ tunnel a: id 1, mtu 1450", 20), "+ tunnel a: id 1,\n    mtu 1450");
        assert_eq!(fold("+ averylongnamewithoutacomma", 10), "+ averylongnamewithoutacomma");
    }
}
