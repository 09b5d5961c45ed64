//! From what the files say to what they mean: keys that go together, defaults, and what refers to what.

mod interface;
mod tunnel;
mod underlay;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ipnet::IpNet;

use super::clash;
use super::defaults;
use super::diagnostic::{Diagnostic, Lines, Report, Span};
use super::keys;
use super::load::Source;
use super::model::pattern::is_pattern;
use super::model::{Config, DEFAULT_SEGMENT, Location, Name};
use super::raw::{At, Field, Raw, RawInterface};
use super::segments;
use super::value::short;
use underlay::Underlays;

/// All that the files say together. What it returns is not to be used if the report has errors.
pub(super) fn config(mut raw: Raw, sources: &[Source], report: &mut Report) -> Config {
    if let Some(shared) = &raw.defaults {
        raw.tunnels.iter_mut().for_each(|tunnel| defaults::apply(tunnel, shared));
    }
    once("interface", &mut raw.interfaces, |interface| &interface.name, report);
    once("tunnel", &mut raw.tunnels, |tunnel| &tunnel.name, report);
    let mut validator = Validator {
        locate: Locator::new(sources),
        underlays: Underlays::of(&raw.interfaces),
        interfaces: raw
            .interfaces
            .iter()
            .filter(|interface| !is_pattern(&interface.name.value))
            .map(|interface| (interface.name.value.clone(), interface))
            .collect(),
        report,
    };
    let mut config = Config::default();
    for interface in &raw.interfaces {
        if let Some(valid) = validator.interface(interface) {
            let name = interface.name.value.clone();
            let all = if is_pattern(&name) { &mut config.patterns } else { &mut config.interfaces };
            all.insert(name, valid);
        }
    }
    let mut underlays: Vec<Option<Name>> = Vec::with_capacity(raw.tunnels.len());
    for tunnel in &raw.tunnels {
        let underlay = validator.underlay(tunnel);
        if let Some(valid) = validator.tunnel(tunnel, underlay.clone()) {
            config.tunnels.insert(tunnel.name.value.clone(), valid);
        }
        underlays.push(underlay);
    }
    if !report.is_incomplete() {
        clash::interfaces(&raw.interfaces, report);
        clash::tunnels(&raw.tunnels, &underlays, report);
        segments::check(&raw.interfaces, &raw.tunnels, report);
    }
    config
}

/// Leaves the first of each name. TOML sees to it that others are in other files.
fn once<T>(kind: &str, all: &mut Vec<T>, name: impl Fn(&T) -> &At<Name>, report: &mut Report) {
    let mut first: HashMap<Name, Span> = HashMap::new();
    all.retain(|one| {
        let name = name(one);
        match first.entry(name.value.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(name.span);
                true
            }
            Entry::Occupied(entry) => {
                let error = Diagnostic::at(
                    name.span,
                    format!("{kind} {} is in two files", name.value),
                    "leave one of them",
                );
                report.error(error.also(*entry.get(), "first here"));
                false
            }
        }
    });
}

struct Validator<'a, 'r> {
    locate: Locator<'a>,
    underlays: Underlays,
    interfaces: HashMap<Name, &'a RawInterface>,
    report: &'r mut Report,
}

impl Validator<'_, '_> {
    /// A key that must be there is not; the file may have it where it could not be read.
    fn missing<T>(&mut self, owner: &str, name: &At<Name>, key: &str, label: &str) -> Option<T> {
        if !self.report.is_incomplete() {
            let title = format!("{owner} {} has no `{key}`", name.value);
            self.report.error(Diagnostic::at(name.span, title, label));
        }
        None
    }

    /// A name that is no interface of the file.
    fn no_interface(&mut self, name: &At<Name>, otherwise: &str) {
        if self.report.is_incomplete() {
            return;
        }
        let nearest = keys::nearest(&name.value, self.interfaces.keys().map(|name| &**name));
        let label = nearest.map_or(otherwise.to_owned(), |nearest| format!("did you mean \"{nearest}\"?"));
        let title = format!("{:?} is no interface of the file", short(&name.value));
        self.report.error(Diagnostic::at(name.span, title, label));
    }
}

/// What a segment is called, unless that is not known.
pub(super) fn segment_of(segment: &Field<Name>) -> Option<Name> {
    match segment {
        Field::Missing => Some(DEFAULT_SEGMENT.into()),
        field => field.value().cloned(),
    }
}

fn sorted(list: &[At<IpNet>]) -> Vec<IpNet> {
    let mut list: Vec<IpNet> = list.iter().map(|at| at.value).collect();
    list.sort_unstable();
    list
}

/// From spans to lines.
struct Locator<'a>(Vec<(Arc<str>, Lines<'a>)>);

impl<'a> Locator<'a> {
    fn new(sources: &'a [Source]) -> Self {
        Self(sources.iter().map(|source| (source.name.clone(), Lines::new(source.body()))).collect())
    }

    fn line(&self, span: Span) -> Location {
        let (file, lines) = &self.0[span.file];
        Location { file: file.clone(), line: lines.line(span.start) + 1, device: None }
    }
}
