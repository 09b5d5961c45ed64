//! Plans as text and as JSON: both come from the same steps.

mod fields;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use self::fields::{Fields, data_plane, flood, flood_link, interface, link, resized, route, usual};
pub use self::fields::{device_name, endpoint, kind_of, prefix, tunnel};
use crate::plan::{Change, Plan, Step};
use crate::protocol::Protocol;
use crate::state::{SavedSetting, SettingKey};

/// One line of a plan: what happens to which object, and how.
pub fn step(step: &Step) -> String {
    let (sign, kind) = run_of(step);
    if let Step::Setting(key, change) = step {
        let (before, after, note) = setting_way(change);
        let [before, after] = [before, after].map(|value| show_setting(key, value));
        if let Change::Remove(SavedSetting { current: None, .. }) = &**change {
            return format!("{sign} {kind} {}: forgotten, as its device is gone", setting_name(key));
        }
        return format!("{sign} {kind} {}: {before} -> {after}{note}", setting_name(key));
    }
    let Parts { name, before, after } = parts(step);
    let object = format!("{kind} {name}");
    let object = object.trim_end();
    match (before, after) {
        (Some(before), Some(after)) => {
            let changes = changed(&before, &after);
            format!(
                "{sign} {object}{}",
                if changes.is_empty() { String::new() } else { format!(": {changes}") }
            )
        }
        (_, Some(fields)) | (Some(fields), None) => {
            let text = show(&fields);
            format!("{sign} {object}{}", if text.is_empty() { String::new() } else { format!(": {text}") })
        }
        (None, None) => format!("{sign} {object}"),
    }
}

/// A setting's way: what it is, what it will be, and what is to be said of that.
fn setting_way(change: &Change<SavedSetting>) -> (Option<u64>, Option<u64>, &'static str) {
    match change {
        Change::Add(after) => (Some(after.before), Some(after.value), ""),
        Change::Modify { before, after } => (before.current, Some(after.value), ""),
        Change::Remove(gone) if gone.current == Some(gone.value) => {
            (gone.current, Some(gone.before), ", as before mptm")
        }
        Change::Remove(gone) => (gone.current, gone.current, ", left as somebody else has set it"),
    }
}

fn show_setting(key: &SettingKey, value: Option<u64>) -> String {
    value.map_or_else(|| "gone".into(), |value| key.setting.show(value))
}

/// How many steps there are of each sign: `3 to add, 1 to change, 0 to remove`.
pub fn summary(plan: &Plan) -> String {
    let (add, change, remove) = count(plan);
    format!("{add} to add, {change} to change, {remove} to remove")
}

/// The same, when it is done.
pub fn summary_done(plan: &Plan) -> String {
    let (add, change, remove) = count(plan);
    format!("{add} added, {change} changed, {remove} removed")
}

fn count(plan: &Plan) -> (usize, usize, usize) {
    let of = |sign| plan.steps.iter().filter(|step| run_of(step).0 == sign).count();
    (of('+'), of('~'), of('-'))
}

/// A plan as JSON: a list of steps, each with action, kind, identity, before and after; of those, the fields that are
/// not as usual.
pub fn json(plan: &Plan) -> Value {
    let steps = plan.steps.iter().map(|step| {
        let (sign, kind) = run_of(step);
        let parts = parts(step);
        let action = match sign {
            '+' => "add",
            '~' => "change",
            _ => "remove",
        };
        let fields = |fields: Option<Fields>| {
            fields.map(|fields| {
                fields
                    .into_iter()
                    .filter(|(_, value)| !value.is_empty())
                    .map(|(key, value)| (key.to_owned(), Value::String(value)))
                    .collect::<Value>()
            })
        };
        json!({
            "action": action,
            "kind": kind,
            "name": parts.name,
            "before": fields(parts.before),
            "after": fields(parts.after),
        })
    });
    Value::Array(steps.collect())
}

/// What a step is about, and its fields before and after.
struct Parts {
    name: String,
    before: Option<Fields>,
    after: Option<Fields>,
}

fn parts(step: &Step) -> Parts {
    match step {
        Step::DataPlane(change) => {
            change_parts(String::new(), change, |side| data_plane(side, resized(change)))
        }
        Step::StackCpus(change) => {
            let list =
                |cpus: &BTreeSet<u32>| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            change_parts(String::new(), change, |cpus| vec![("on CPUs", list(cpus))])
        }
        Step::Setting(key, change) => {
            let (before, after, _) = setting_way(change);
            let fields = |value| Some(vec![("value", show_setting(key, value))]);
            Parts { name: setting_name(key), before: fields(before), after: fields(after) }
        }
        Step::Segment(name, change) => change_parts(name.to_string(), change, |()| Vec::new()),
        Step::Interface(name, change) => change_parts(name.to_string(), change, interface),
        Step::Port(port, change) => change_parts(format!("udp/{port}"), change, |protocol: &Protocol| {
            vec![("protocol", protocol.to_string())]
        }),
        Step::Tunnel(name, change) => change_parts(name.to_string(), change, tunnel),
        Step::Route(segment, prefix, change) => {
            change_parts(format!("{segment} {}", self::prefix(prefix)), change, route)
        }
        Step::Endpoint(key, change) => {
            change_parts(endpoint(key), change, |tunnel| vec![("tunnel", tunnel.to_string())])
        }
        Step::FloodLink(name, change) => change_parts(name.to_string(), change, flood_link),
        Step::Flood(segment, change) => change_parts(segment.to_string(), change, flood),
        Step::Link(name, change) => change_parts(name.to_string(), change, link),
    }
}

fn change_parts<T>(name: String, change: &Change<T>, fields: impl Fn(&T) -> Fields) -> Parts {
    Parts { name, before: change.before().map(&fields), after: change.after().map(&fields) }
}

fn show(fields: &Fields) -> String {
    fields.iter().filter(|(_, value)| !value.is_empty()).fold(String::new(), |mut text, (key, value)| {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{key} {value}");
        text
    })
}

fn changed(before: &Fields, after: &Fields) -> String {
    let find = |fields: &Fields, key| {
        fields.iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut keys: Vec<&str> = before.iter().map(|(key, _)| *key).collect();
    keys.extend(
        after.iter().map(|(key, _)| *key).filter(|key| !before.iter().any(|(other, _)| other == key)),
    );
    let or_usual = |key, value: String| if value.is_empty() { usual(key).to_owned() } else { value };
    let changes = keys.into_iter().filter_map(|key| {
        let (old, new) = (find(before, key), find(after, key));
        (old != new).then(|| format!("{key} {} -> {}", or_usual(key, old), or_usual(key, new)))
    });
    changes.collect::<Vec<_>>().join(", ")
}

/// `vns1/veth-ns1 mtu`.
pub fn setting_name(key: &SettingKey) -> String {
    format!("{} {}", device_name(&key.netns, &key.device), key.setting.key())
}

/// How many lines of one kind and action a person reads.
const SHOWN: usize = 40;

/// A plan as lines for people: of a long run of one kind, the first, and how many more.
pub fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for run in plan.steps.chunk_by(|a, b| run_of(a) == run_of(b)) {
        let shown = if run.len() > SHOWN + 1 { SHOWN } else { run.len() };
        lines.extend(run[..shown].iter().map(step));
        if shown < run.len() {
            let (sign, kind) = run_of(&run[0]);
            lines.push(format!("{sign} ... and {} more of kind {kind} (all with --json)", run.len() - shown));
        }
    }
    lines
}

/// What makes steps alike: their sign and their kind.
fn run_of(step: &Step) -> (char, &'static str) {
    fn sign<T>(change: &Change<T>) -> char {
        match change {
            Change::Add(_) => '+',
            Change::Modify { .. } => '~',
            Change::Remove(_) => '-',
        }
    }
    match step {
        Step::DataPlane(change) => (sign(change), "data-plane"),
        Step::StackCpus(change) => (sign(change), "way-to-stack"),
        // Whatever becomes of the record, the setting itself is changed.
        Step::Setting(..) => ('~', "setting"),
        Step::Segment(_, change) => (sign(change), "segment"),
        Step::Interface(_, change) => (sign(change), "interface"),
        Step::Port(_, change) => (sign(change), "port"),
        Step::Tunnel(_, change) => (sign(change), "tunnel"),
        Step::Route(_, _, change) => (sign(change), "route"),
        Step::Endpoint(_, change) => (sign(change), "endpoint"),
        Step::FloodLink(_, change) => (sign(change), "flood-program"),
        Step::Flood(_, change) => (sign(change), "flood"),
        Step::Link(_, change) => (sign(change), "program"),
    }
}
