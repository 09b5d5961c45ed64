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
        match self {
            // Colours by the renderer; anstream takes them out again where they don't belong.
            Self::Config(diagnostics) => eprintln!("{}", diagnostics.render(true).trim_end()),
            Self::Resolve(errors) => {
                for error in errors.iter().take(SHOWN) {
                    let at = error.at.as_ref().map(ToString::to_string);
                    print_one(&error.what, at.as_deref(), causes(error), error.hint.as_deref());
                }
                if errors.len() > SHOWN {
                    eprintln!("... and {}", count(errors.len() - SHOWN, "more error"));
                }
            }
            Self::Kernel(error) => print_one(&error.what, None, causes(error), error.hint.as_deref()),
            Self::Apply(error) => {
                print_one(&error.source.what, None, causes(&error.source), error.source.hint.as_deref());
                eprintln!("  step: {}", error.step);
                let before = count(error.undone, "step");
                match (error.stuck.is_empty(), error.undone) {
                    (true, 0) => eprintln!("  nothing is changed"),
                    (true, _) => eprintln!("  undone: {before} before it, so nothing is changed"),
                    (false, _) => {
                        eprintln!("  undone: {before} before it, but not all:");
                        error.stuck.iter().for_each(|(step, cause)| eprintln!("    {step}: {cause}"));
                    }
                }
            }
            Self::Other { what, hint } => print_one(what, None, Vec::new(), hint.as_deref()),
        }
    }
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

fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    causes
}

fn print_one(what: &str, at: Option<&str>, causes: Vec<String>, hint: Option<&str>) {
    let because = causes.iter().fold(String::new(), |text, cause| text + ": " + cause);
    eprintln!("{RED}error{RED:#}: {BOLD}{what}{because}{BOLD:#}");
    if let Some(at) = at {
        eprintln!("  --> {at}");
    }
    print_hint(hint);
}

/// Every line of a hint stands under its first.
fn print_hint(hint: Option<&str>) {
    if let Some(hint) = hint {
        eprintln!("  hint: {}", hint.replace('\n', "\n        "));
    }
}
