//! What a command says when it fails, on standard error: the object, the operation, the cause, and the way out.

use std::error::Error;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};

use super::count;
use crate::apply::ApplyError;
use crate::config::Diagnostics;
use crate::kernel::KernelError;
use crate::resolve::ResolveError;

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const BOLD: Style = Style::new().bold();

/// How many errors or warnings of one kind a person reads.
pub const SHOWN: usize = 20;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The file is wrong.
    #[error("the configuration is wrong")]
    Config(Diagnostics),
    /// The file is right, but not for this machine as it is.
    #[error("the configuration does not fit this machine")]
    Resolve(Vec<ResolveError>),
    /// The kernel refused a question.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel refused a change.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Something else.
    #[error("{what}")]
    Other {
        /// What.
        what: String,
        /// A way out.
        hint: Option<String>,
    },
}

impl CliError {
    /// Writes it to standard error.
    pub fn print(&self) {
        // Colours are taken out again where they don't belong.
        eprintln!("{}", self.text());
    }

    /// All of it, with colours.
    pub fn text(&self) -> String {
        match self {
            Self::Config(diagnostics) => diagnostics.render(true).trim_end().to_owned(),
            Self::Resolve(errors) => {
                let mut texts: Vec<String> = errors.iter().take(SHOWN).map(resolve_text).collect();
                if errors.len() > SHOWN {
                    texts.push(format!("... and {}", count(errors.len() - SHOWN, "more error")));
                }
                texts.join("\n")
            }
            Self::Kernel(error) => text(&error.what, None, &causes(error), error.hint.as_deref()),
            Self::Apply(error) => apply_text(error),
            Self::Other { what, hint } => text(what, None, &[], hint.as_deref()),
        }
    }
}

fn resolve_text(error: &ResolveError) -> String {
    let at = error.at.as_ref().map(ToString::to_string);
    text(&error.what, at.as_deref(), &causes(error), error.hint.as_deref())
}

fn apply_text(error: &ApplyError) -> String {
    let mut text = text(&error.source.what, None, &causes(&error.source), error.source.hint.as_deref());
    text += &format!("\n  step: {}\n", error.step);
    let before = count(error.undone, "step");
    match (error.stuck.is_empty(), error.undone) {
        (true, 0) => text += "  nothing is changed",
        (true, _) => text += &format!("  undone: {before} before it, so nothing is changed"),
        (false, _) => {
            text += &format!("  undone: {before} before it, but not all:");
            error.stuck.iter().for_each(|(step, cause)| text += &format!("\n    {step}: {cause}"));
        }
    }
    text
}

/// A warning, in the manner of errors.
pub fn warn(what: &str) {
    eprintln!("{YELLOW}warning{YELLOW:#}: {what}");
}

/// As many warnings as a person reads.
pub fn warn_all(warnings: &[String]) {
    warnings.iter().take(SHOWN).for_each(|warning| warn(warning));
    if warnings.len() > SHOWN {
        warn(&format!("and {}", count(warnings.len() - SHOWN, "more warning")));
    }
}

/// What is below an error, outermost first.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    causes
}

/// The object, the cause, where it is written, and the way out.
fn text(what: &str, at: Option<&str>, causes: &[String], hint: Option<&str>) -> String {
    let because = causes.iter().fold(String::new(), |text, cause| text + ": " + cause);
    let mut text = format!("{RED}error{RED:#}: {BOLD}{what}{because}{BOLD:#}");
    if let Some(at) = at {
        text += &format!("\n  --> {at}");
    }
    if let Some(hint) = hint {
        // Every line of a hint stands under its first.
        text += &format!("\n  hint: {}", hint.replace('\n', "\n        "));
    }
    text
}
