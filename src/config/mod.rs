//! The configuration file: from text to a valid [`Config`], or to all that is wrong with it.
//!
//! [`load()`] reads the file and its drop-ins; [`parse()`] is the rest, and pure: `syntax` makes a tree of each text,
//! `read` goes through its tables and keys, `value`, `address`, `outer` and `options` read single values, and what comes
//! out is `raw`; `validate`, `fit` (keys of one tunnel), `clash` and `segments` (all together) look at the whole. Each stage reports what it finds and lets
//! the next one work with what is left, so that one run shows all errors.

mod address;
mod clash;
mod defaults;
mod diagnostic;
mod fit;
mod keys;
mod load;
pub mod model;
mod options;
mod outer;
mod prefix;
mod print;
mod raw;
mod read;
mod segments;
mod synonyms;
mod syntax;
#[cfg(test)]
mod tests;
mod trust;
mod unicast;
mod validate;
mod value;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use load::{Loaded, Source, has_changed, load, require_trusted};
pub use print::print;
pub use read::{interface_keys, tunnel_keys};

use diagnostic::Report;
use model::Config;
use raw::Raw;

/// Reads texts as one configuration: a name belongs to one of them.
///
/// # Errors
/// All that is wrong, in the order of the texts.
pub fn parse(sources: &[Source]) -> Result<Config, Diagnostics> {
    parse_after(sources, Vec::new())
}

/// The same, after `earlier` errors: with some, the texts are not all there is, so what seems to be missing may not be.
fn parse_after(sources: &[Source], earlier: Vec<Diagnostic>) -> Result<Config, Diagnostics> {
    let unreadable: Vec<usize> = earlier.iter().filter_map(|error| Some(error.span()?.file)).collect();
    let mut report = Report::new(earlier);
    let mut raw = Raw::default();
    for (file, source) in sources.iter().enumerate() {
        if unreadable.contains(&file) {
            continue;
        }
        if let Some(tree) = syntax::whole(source.body()) {
            raw.read(file, tree.get_ref(), &mut report);
            continue;
        }
        let (text, mut broken) = syntax::mend(file, source.body(), &mut report);
        let tree = syntax::tree(file, &text, &mut broken, &mut report);
        let mut found = Report::default();
        raw.read(file, tree.get_ref(), &mut found);
        report.extend(found, |span| !broken.iter().any(|part| part.overlaps(span)));
    }
    let config = validate::config(raw, sources, &mut report);
    let diagnostics = report.into_diagnostics(sources);
    if diagnostics.is_empty() { Ok(config) } else { Err(diagnostics) }
}
