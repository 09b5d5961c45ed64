//! From text to a tree, whatever is wrong with the text: what TOML itself has to say.

use std::collections::{BTreeMap, HashMap};

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::diagnostic::{Diagnostic, Report, Span};

/// The tree of what could be read, and the parts that could not: what is said of those would be wrong.
pub(super) fn tree<'i>(file: usize, text: &'i str, report: &mut Report) -> (Spanned<DeTable<'i>>, Vec<Span>) {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return (tree, Vec::new());
    }
    report.mark_incomplete();
    let syntax = Syntax { file, text, tree: tree.get_ref(), headers: Headers::new(text) };
    let mut broken: Vec<Span> = errors.iter().filter_map(|error| syntax.unclosed(error)).collect();
    for span in &broken {
        let opener = &text[span.start..=span.start];
        let (what, closer) = if opener == "[" { ("list", "]") } else { ("table", "}") };
        let label = format!("its `{closer}` is missing");
        report.error(Diagnostic::at(
            Span { end: span.start + 1, ..*span },
            format!("{what} without an end"),
            label,
        ));
    }
    let unclosed = broken.len();
    for error in &errors {
        let range = error.span().unwrap_or(0..0);
        let span = Span::new(file, range);
        // An open list takes what follows for its elements: what is wrong with those says nothing.
        if broken[..unclosed].iter().any(|part| part.overlaps(span)) {
            continue;
        }
        let duplicate = error.message().starts_with("duplicate key");
        let diagnostic = if duplicate { syntax.duplicate(span) } else { syntax.other(error, span) };
        // One mistake may make several errors of one line; the first is the best.
        let line = syntax.line(span);
        if !broken.contains(&line) || duplicate {
            report.error(diagnostic);
        }
        if !duplicate {
            broken.push(line);
        }
    }
    (tree, broken)
}

/// What is known when an error is put in words.
struct Syntax<'a, 'i> {
    file: usize,
    text: &'i str,
    tree: &'a DeTable<'i>,
    headers: Headers,
}

impl Syntax<'_, '_> {
    /// The line in which a span begins.
    fn line(&self, span: Span) -> Span {
        let start = self.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[span.start..].find('\n').map_or(self.text.len(), |at| span.start + at);
        Span { start, end, ..span }
    }

    /// The list or table that the error says has no end: the outermost that goes on to there.
    fn unclosed(&self, error: &Error) -> Option<Span> {
        if !error.message().starts_with("unclosed array")
            && !error.message().starts_with("unclosed inline table")
        {
            return None;
        }
        let end = error.span()?.start;
        let start = find_open(self.tree, end)?;
        Some(Span { file: self.file, start, end })
    }

    /// A key or a table that is there already.
    fn duplicate(&self, span: Span) -> Diagnostic {
        let name = &self.text[span.start..span.end];
        if let Some(path) = self.headers.path_at(span.start) {
            let first = self.headers.first.get(path).filter(|first| first.start < span.start);
            let title = format!("[{}] is written twice", path.join("."));
            let diagnostic = Diagnostic::at(span, title, "put all its keys under one of them");
            return match first {
                Some(first) => diagnostic.also(Span { file: self.file, ..*first }, "first here"),
                None => diagnostic,
            };
        }
        let diagnostic = Diagnostic::at(span, format!("key `{name}` is written twice"), "leave one of them");
        let mut table = Some(self.tree);
        for part in self.headers.path_before(span.start) {
            table =
                table.and_then(|table| table.get(part.as_str())).and_then(|value| value.get_ref().as_table());
        }
        let key = name.trim_matches(['"', '\'']);
        match table.and_then(|table| table.get_key_value(key)) {
            Some((key, _)) if key.span().start < span.start => {
                diagnostic.also(Span::new(self.file, key.span()), "first here")
            }
            _ => diagnostic,
        }
    }

    /// In TOML's own words, but for the mistakes that people make most.
    fn other(&self, error: &Error, span: Span) -> Diagnostic {
        if let Some(value) = self.unquoted(span) {
            let text = &self.text[value.start..value.end];
            let label = format!("write \"{text}\"");
            return Diagnostic::at(value, "text must be in quotes", label);
        }
        let message = error.message();
        if message.starts_with("string values must be quoted") && span.start == span.end {
            return Diagnostic::at(span, "key without a value", "write a value here");
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
        let follows = before[..start].trim_end_matches([' ', '\t']).ends_with(['=', '[', ',']);
        let first = word.chars().next()?;
        let text = word.contains(['.', ':']) || first.is_ascii_alphabetic();
        (follows && text && first != '.').then_some(Span { start, end, ..span })
    }
}

/// Where the outermost list or table value begins that ends at `end`.
fn find_open(table: &DeTable<'_>, end: usize) -> Option<usize> {
    table.values().find_map(|value| open_value(value, end))
}

fn open_value(value: &Spanned<DeValue<'_>>, end: usize) -> Option<usize> {
    let span = value.span();
    match value.get_ref() {
        DeValue::Array(_) | DeValue::Table(_) if span.end == end && span.start < end => Some(span.start),
        DeValue::Array(list) => list.iter().find_map(|value| open_value(value, end)),
        DeValue::Table(table) => find_open(table, end),
        _ => None,
    }
}

/// The `[table]` lines of a text.
struct Headers {
    /// The path of each, by where its line begins and ends.
    lines: BTreeMap<usize, (usize, Vec<String>)>,
    /// Where each path is first.
    first: HashMap<Vec<String>, Span>,
}

impl Headers {
    fn new(text: &str) -> Self {
        let mut headers = Self { lines: BTreeMap::new(), first: HashMap::new() };
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let end = start + line.len();
            if line.trim_start().starts_with('[')
                && let Ok(tree) = DeTable::parse(line)
            {
                let (path, name) = path_of(tree.get_ref());
                let span = Span { file: 0, start: start + name.start, end: start + name.end };
                headers.first.entry(path.clone()).or_insert(span);
                headers.lines.insert(start, (end, path));
            }
            start = end;
        }
        headers
    }

    /// The path of the line that an offset is in, if it is a header.
    fn path_at(&self, offset: usize) -> Option<&Vec<String>> {
        let (_, (end, path)) = self.lines.range(..=offset).next_back()?;
        (offset < *end).then_some(path)
    }

    /// The path of the table that an offset is in.
    fn path_before(&self, offset: usize) -> &[String] {
        self.lines.range(..=offset).next_back().map_or(&[], |(_, (_, path))| path)
    }
}

/// The path that one header line makes, and where its last part stands.
fn path_of(mut table: &DeTable<'_>) -> (Vec<String>, std::ops::Range<usize>) {
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
