//! Errors in the file: collecting them, and showing them with the lines that they are about.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::load::Source;

/// Labels in one file that are as many lines apart are shown as one excerpt.
const NEAR: usize = 6;

/// So many errors are shown of one line; the others are counted.
const SHOWN_PER_LINE: usize = 50;

/// A part of a source, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// Index of the source.
    pub file: usize,
    /// Offset of its first byte.
    pub start: usize,
    /// Offset behind its last byte.
    pub end: usize,
}

impl Span {
    pub fn new(file: usize, range: Range<usize>) -> Self {
        Self { file, start: range.start, end: range.end }
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.file == other.file && self.start <= other.end && other.start <= self.end
    }
}

/// One error: what is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    title: String,
    primary: Option<(Span, String)>,
    secondary: Vec<(Span, String)>,
    help: Option<String>,
}

impl Diagnostic {
    /// About something that is not in a text.
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), primary: None, secondary: Vec::new(), help: None }
    }

    /// About a part of a text; the label stands next to the caret.
    pub(super) fn at(span: Span, title: impl Into<String>, label: impl Into<String>) -> Self {
        Self { primary: Some((span, label.into())), ..Self::new(title) }
    }

    /// Another place that has to do with it.
    pub(super) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.secondary.push((span, label.into()));
        self
    }

    /// A way out.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What is wrong, without the place.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where, if it is about a part of a text.
    pub(super) fn span(&self) -> Option<Span> {
        self.primary.as_ref().map(|(span, _)| *span)
    }
}

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    list: Vec<Diagnostic>,
    incomplete: bool,
}

impl Report {
    /// Goes on after errors of reading.
    pub fn new(earlier: Vec<Diagnostic>) -> Self {
        Self { incomplete: !earlier.is_empty(), list: earlier }
    }

    pub fn error(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Part of the configuration could not be read: it is not known what else it says.
    pub fn mark_incomplete(&mut self) {
        self.incomplete = true;
    }

    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Takes over those errors of another report whose place is wanted.
    pub fn extend(&mut self, other: Self, wanted: impl Fn(Span) -> bool) {
        self.list.extend(other.list.into_iter().filter(|diagnostic| diagnostic.span().is_none_or(&wanted)));
    }

    /// In the order of the places; what is said twice of one place (a default that two tunnels take) once.
    pub fn into_diagnostics(mut self, sources: &[Source]) -> Diagnostics {
        self.list.sort_by_key(Diagnostic::span);
        let mut seen = HashSet::new();
        self.list.retain(|diagnostic| seen.insert((diagnostic.title.clone(), diagnostic.span())));
        Diagnostics { list: self.list, sources: sources.to_vec() }
    }
}

/// All that is wrong with a configuration. Displayed without colours.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    sources: Vec<Source>,
}

impl Diagnostics {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// For reading: each with its lines and carets, an empty line between; with ANSI colours or without.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        let lines: Vec<Lines<'_>> = self.sources.iter().map(|source| Lines::new(source.body())).collect();
        let mut out = String::new();
        // Showing a line costs time by its length: a long line with an error in each part would take minutes.
        let mut shown: HashMap<(usize, usize), usize> = HashMap::new();
        for diagnostic in &self.list {
            if let Some(span) = diagnostic.span()
                && let Some(text) = lines.get(span.file)
            {
                let count = shown.entry((span.file, text.line(span.start))).or_default();
                *count += 1;
                if *count > SHOWN_PER_LINE {
                    continue;
                }
            }
            if !out.is_empty() {
                out.push('\n');
            }
            let mut rendered = renderer.render(&[self.group(diagnostic, &lines)]);
            if let Some(help) = &diagnostic.help {
                let help = Group::with_title(Level::HELP.primary_title(help.as_str()));
                rendered = rendered + "\n" + &renderer.render(&[help]);
            }
            // An empty line of source would else leave blanks at the line's end.
            for line in rendered.lines() {
                out.push_str(line.trim_end());
                out.push('\n');
            }
        }
        let mut more: Vec<_> = shown.into_iter().filter(|(_, count)| *count > SHOWN_PER_LINE).collect();
        more.sort_unstable();
        for ((file, line), count) in more {
            let (name, line, count) = (&self.sources[file].name, line + 1, count - SHOWN_PER_LINE);
            let title = format!("{count} more in line {line} of {name}");
            out +=
                &format!("\n{}\n", renderer.render(&[Group::with_title(Level::ERROR.primary_title(title))]));
        }
        out
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic, lines: &[Lines<'a>]) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(diagnostic.title.as_str()));
        let primary = diagnostic.primary.iter().map(|label| (AnnotationKind::Primary, label));
        let secondary = diagnostic.secondary.iter().map(|label| (AnnotationKind::Context, label));
        let mut excerpts: Vec<Excerpt<'a>> = Vec::new();
        for (kind, (span, label)) in primary.chain(secondary) {
            let Some(text) = lines.get(span.file) else { continue };
            let (first, last) = (text.line(span.start), text.line(span.start));
            let range = span.start..text.clamp(first, span.end);
            match excerpts.iter_mut().find(|excerpt| excerpt.file == span.file && excerpt.is_near(first)) {
                Some(excerpt) => {
                    excerpt.first = excerpt.first.min(first);
                    excerpt.last = excerpt.last.max(last);
                    excerpt.labels.push((kind, range, label));
                }
                None => {
                    excerpts.push(Excerpt {
                        file: span.file,
                        first,
                        last,
                        labels: vec![(kind, range, label)],
                    });
                }
            }
        }
        for excerpt in excerpts {
            let text = &lines[excerpt.file];
            let part = text.start(excerpt.first)..text.end(excerpt.last);
            let snippet = Snippet::source(&text.text[part.clone()])
                .path(&*self.sources[excerpt.file].name)
                .line_start(excerpt.first + 1);
            group =
                group.element(snippet.annotations(excerpt.labels.into_iter().map(|(kind, range, label)| {
                    kind.span(range.start - part.start..range.end - part.start).label(label)
                })));
        }
        group
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Lines of one source, and what is said about them. Rendering costs time by the text that it is given: so it gets
/// no more than these.
struct Excerpt<'a> {
    file: usize,
    first: usize,
    last: usize,
    labels: Vec<(AnnotationKind, Range<usize>, &'a str)>,
}

impl Excerpt<'_> {
    fn is_near(&self, line: usize) -> bool {
        line + NEAR >= self.first && line <= self.last + NEAR
    }
}

/// A text by its lines, counted from 0.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line that an offset is in.
    pub fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn start(&self, line: usize) -> usize {
        self.starts[line]
    }

    /// Behind its last character; the line end does not belong to it.
    fn end(&self, line: usize) -> usize {
        let end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        if self.text[self.start(line)..end].ends_with('\r') { end - 1 } else { end }
    }

    /// What goes on over several lines is marked on its first.
    fn clamp(&self, line: usize, end: usize) -> usize {
        end.min(self.end(line))
    }
}
