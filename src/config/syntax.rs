//! From text to a tree, whatever is wrong with the text: what TOML itself has to say.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::diagnostic::{Diagnostic, Report, Span};
use super::value::short;

/// The tree of a text in which nothing is wrong.
pub(super) fn whole(text: &str) -> Option<Spanned<DeTable<'_>>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    errors.is_empty().then_some(tree)
}

/// Blanks out what makes the rest unreadable, after reporting it: table lines that are wrong, and lists and tables
/// without an end, each up to the next table line. Also where that is: what is said of it would be wrong. All else
/// stays where it was.
pub(super) fn mend<'i>(file: usize, text: &'i str, report: &mut Report) -> (Cow<'i, str>, Vec<Span>) {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return (Cow::Borrowed(text), Vec::new());
    }
    report.mark_incomplete();
    let syntax = Syntax::new(file, text, tree.get_ref());
    let mut broken: Vec<Span> = Vec::new();
    let mut ends = HashSet::new();
    for error in &errors {
        let span = Span::new(file, error.span().unwrap_or(0..0));
        let line = syntax.line(span);
        let header = text[line.start..line.end].trim_start().starts_with('[');
        let section = |start| syntax.headers.next(start).unwrap_or(text.len());
        let (start, end, diagnostic) = if let Some(start) = syntax.unclosed(error) {
            let (what, closer) = if text[start..].starts_with('[') { ("list", "]") } else { ("table", "}") };
            let opener = Span { start, end: start + 1, ..span };
            let label = format!("its `{closer}` is missing");
            (start, section(start), Diagnostic::at(opener, format!("{what} without an end"), label))
        } else if header && DeTable::parse(&text[line.start..line.end]).is_err() {
            (line.start, section(line.start), syntax.other(error, span))
        } else if error.message().starts_with("key with no value") {
            // The tree would end here, but what follows can be read.
            (line.start, line.end, syntax.other(error, span))
        } else {
            continue;
        };
        let part = Span { file, start, end };
        if ends.insert(end) {
            report.error(diagnostic);
            broken.push(part);
        }
    }
    let mut bytes = text.as_bytes().to_vec();
    for part in &broken {
        bytes[part.start..part.end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        // A list's line would else lack its value.
        let line = syntax.line(*part);
        bytes[line.start..part.start].fill(b' ');
    }
    (String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned), broken)
}

/// The tree of what can be read; to the parts that cannot, it adds the lines that have errors.
pub(super) fn tree<'i>(
    file: usize,
    text: &'i str,
    broken: &mut Vec<Span>,
    report: &mut Report,
) -> Spanned<DeTable<'i>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return tree;
    }
    let syntax = Syntax::new(file, text, tree.get_ref());
    let mut lines: HashSet<Span> = HashSet::new();
    for error in &errors {
        let span = Span::new(file, error.span().unwrap_or(0..0));
        if error.message().starts_with("duplicate key") {
            if let Some(diagnostic) = syntax.duplicate(span) {
                report.error(diagnostic);
            }
            continue;
        }
        // One mistake may make several errors of one line; the first is the best.
        let line = syntax.line(span);
        if lines.insert(line) {
            report.error(syntax.other(error, span));
        }
    }
    broken.extend(lines);
    tree
}

/// What is known when an error is put in words.
struct Syntax<'a, 'i> {
    file: usize,
    text: &'i str,
    tree: &'a DeTable<'i>,
    headers: Headers,
    /// Where the lists and inline tables are, in order; those within others left out.
    brackets: Vec<Range<usize>>,
}

impl<'a, 'i> Syntax<'a, 'i> {
    fn new(file: usize, text: &'i str, tree: &'a DeTable<'i>) -> Self {
        let mut brackets = Vec::new();
        tree.values().for_each(|value| find_brackets(text, value, &mut brackets));
        brackets.sort_by_key(|range| range.start);
        Self { file, text, tree, headers: Headers::new(text), brackets }
    }

    /// The line in which a span begins.
    fn line(&self, span: Span) -> Span {
        let start = self.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[span.start..].find('\n').map_or(self.text.len(), |at| span.start + at);
        Span { start, end, ..span }
    }

    /// Where the list or table begins that has no end, if the error comes from one: it goes on to the end of the
    /// text, or at least over the next table line.
    fn unclosed(&self, error: &Error) -> Option<usize> {
        let (message, at) = (error.message(), error.span()?.start);
        let index = self.brackets.partition_point(|range| range.start < at).checked_sub(1)?;
        let Range { start, end } = self.brackets[index];
        let to_the_end =
            message.starts_with("unclosed array") || message.starts_with("unclosed inline table");
        let over_a_table = (message.contains("inline table") || message.contains("between key-value pairs"))
            && self.headers.next(start).is_some_and(|header| header <= at);
        (to_the_end && at == end || over_a_table && at <= end).then_some(start)
    }

    /// A key or a table that is there already. That the keys of a second table are there, too, needs no saying.
    fn duplicate(&self, span: Span) -> Option<Diagnostic> {
        let name = &self.text[span.start..span.end];
        let header = self.headers.before(span.start);
        if let Some(header) = header
            && let Some(first) = self.headers.first.get(&header.path)
            && first.start < header.start
        {
            let title = format!("[{}] is written twice", short(&header.path.join(".")));
            let diagnostic = Diagnostic::at(span, title, "put all its keys under one of them");
            let first = Span { file: self.file, ..*first };
            return (span.start < header.end).then(|| diagnostic.also(first, "first here"));
        }
        let diagnostic =
            Diagnostic::at(span, format!("key `{}` is written twice", short(name)), "leave one of them");
        let mut table = Some(self.tree);
        for part in header.map_or(&[][..], |header| &header.path) {
            table =
                table.and_then(|table| table.get(part.as_str())).and_then(|value| value.get_ref().as_table());
        }
        let key = name.trim_matches(['"', '\'']);
        Some(match table.and_then(|table| table.get_key_value(key)) {
            Some((key, _)) if key.span().start < span.start => {
                diagnostic.also(Span::new(self.file, key.span()), "first here")
            }
            _ => diagnostic,
        })
    }

    /// In TOML's own words, but for the mistakes that people make most.
    fn other(&self, error: &Error, span: Span) -> Diagnostic {
        if let Some(value) = self.unquoted(span) {
            let text = short(&self.text[value.start..value.end]);
            let label = match text.to_lowercase().as_str() {
                lower @ ("true" | "false") => Some(format!("write {lower}")),
                "yes" | "no" | "on" | "off" => {
                    Some(format!("write true or false, or \"{text}\" if it is a name"))
                }
                _ => None,
            };
            if let Some(label) = label {
                return Diagnostic::at(value, format!("{text} is not a value"), label);
            }
            return Diagnostic::at(value, "text must be in quotes", format!("write \"{text}\""));
        }
        let message = error.message();
        if message.starts_with("string values must be quoted") && span.start == span.end {
            return Diagnostic::at(span, "key without a value", "write a value here");
        }
        if message.starts_with("string values must be quoted") {
            return Diagnostic::at(span, "text must be in quotes", "put quotes around it");
        }
        let (title, label) = match message.split_once(", expected ") {
            Some((title, "nothing")) => (title, "does not belong here".to_owned()),
            Some((title, expected)) => (title, format!("expected {expected}")),
            None => (message, String::new()),
        };
        Diagnostic::at(span, title, label)
    }

    /// The value around a span, if it is a bare word such as 10.0.0.1 or yes.
    fn unquoted(&self, span: Span) -> Option<Span> {
        let bare = |c: char| c.is_ascii_alphanumeric() || "./:_-".contains(c);
        let before = &self.text[..span.start];
        let start = before.trim_end_matches(bare).len();
        let after = &self.text[span.start..];
        let end = span.start + (after.len() - after.trim_start_matches(bare).len());
        let word = &self.text[start..end];
        let rest = self.text[end..].trim_start_matches([' ', '\t']);
        let whole = rest.is_empty() || rest.starts_with(['\r', '\n', ',', ']', '}', '#']);
        let follows = whole && is_before_value(before[..start].trim_end());
        let first = word.chars().next()?;
        let text = word.contains(['.', ':']) || first.is_ascii_alphabetic();
        (follows && text && first != '.').then_some(Span { start, end, ..span })
    }
}

/// Whether a text ends where a value may begin. A `[` may also be that of a table line.
fn is_before_value(text: &str) -> bool {
    let line = &text[text.rfind('\n').map_or(0, |at| at + 1)..];
    match text.as_bytes().last() {
        Some(b'=' | b',') => true,
        Some(b'[') => line.contains('='),
        _ => false,
    }
}

/// Adds where a value's brackets are. A table that has none is that of a table line, and may have such in it.
fn find_brackets(text: &str, value: &Spanned<DeValue<'_>>, found: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Array(_) => found.push(value.span()),
        DeValue::Table(_) if text[value.span().start..].starts_with('{') => found.push(value.span()),
        DeValue::Table(table) => table.values().for_each(|value| find_brackets(text, value, found)),
        _ => {}
    }
}

/// The `[table]` lines of a text.
struct Headers {
    /// By where they begin.
    lines: BTreeMap<usize, Header>,
    /// Where lines begin that look like one, right or wrong.
    starts: BTreeSet<usize>,
    /// Where each path is first.
    first: HashMap<Vec<String>, Span>,
}

/// A `[table]` line.
struct Header {
    /// Where its name is.
    start: usize,
    /// Where the line ends.
    end: usize,
    path: Vec<String>,
}

impl Headers {
    fn new(text: &str) -> Self {
        let mut headers = Self { lines: BTreeMap::new(), starts: BTreeSet::new(), first: HashMap::new() };
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let end = start + line.len();
            let inside = line.trim_start().strip_prefix('[');
            if inside.is_some_and(|inside| inside.starts_with(|c: char| c == '[' || c.is_alphabetic())) {
                headers.starts.insert(start);
            }
            if inside.is_some()
                && let Ok(tree) = DeTable::parse(line)
            {
                let (path, name) = path_of(tree.get_ref());
                let span = Span { file: 0, start: start + name.start, end: start + name.end };
                headers.first.entry(path.clone()).or_insert(span);
                headers.lines.insert(start, Header { start: span.start, end, path });
            }
            start = end;
        }
        headers
    }

    /// The last that begins at or before an offset.
    fn before(&self, offset: usize) -> Option<&Header> {
        self.lines.range(..=offset).next_back().map(|(_, header)| header)
    }

    /// Where the next line begins that looks like one.
    fn next(&self, offset: usize) -> Option<usize> {
        self.starts.range(offset + 1..).next().copied()
    }
}

/// The path that one header line makes, and where its last part stands.
fn path_of(mut table: &DeTable<'_>) -> (Vec<String>, Range<usize>) {
    let mut path = Vec::new();
    let mut name = 0..0;
    while let Some((key, value)) = table.iter().next() {
        path.push(key.get_ref().to_string());
        name = key.span();
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    (path, name)
}
