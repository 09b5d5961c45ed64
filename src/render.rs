//! Plans as text and as JSON: both come from the same steps.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::config::model::{Df, FlowLabel, GeneveOption, Manage, Pcp, Tos, Ttl};
use crate::kernel::{Netns, Program};
use crate::mac::MacAddr;
use crate::plan::{Change, Plan, Step};
use crate::protocol::Protocol;
use crate::state::{
    Attachment, DataPlane, Endpoint, Flood, FloodLink, FloodMember, Interface, RemoteMac, Role, Route,
    SavedSetting, SettingKey, Tunnel,
};

/// One line of a plan: what happens to which object, and how.
pub fn step(step: &Step) -> String {
    let (sign, kind) = run_of(step);
    if let Step::Setting(key, change) = step {
        let (before, after, note) = setting_way(change);
        let [before, after] = [before, after].map(|value| show_setting(key, value));
        if let Change::Remove(SavedSetting { current: None, .. }) = change {
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

type Fields = Vec<(&'static str, String)>;

fn parts(step: &Step) -> Parts {
    match step {
        Step::DataPlane(change) => change_parts(String::new(), change, data_plane),
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

/// What a field is that is not worth a word unless it changes.
fn usual(key: &str) -> &'static str {
    match key {
        "takes-frames" | "native" => "yes",
        "redirect" => "true",
        "debug" | "checksum" | "sequence" | "uplink" | "mss_clamp" | "flood" => "false",
        "ttl" => "64",
        "tos" | "pcp" | "variant" => "0",
        "df" => "set",
        "flow_label" => "flow",
        "payload" | "udp_checksum" => "default",
        "header" => "intact",
        "manage" => "everything",
        _ => "none",
    }
}

fn data_plane(data_plane: &DataPlane) -> Fields {
    vec![("build", data_plane.build.to_string())]
}

/// `vns1/veth-ns1 mtu`.
pub fn setting_name(key: &SettingKey) -> String {
    format!("{} {}", device_name(&key.netns, &key.device), key.setting.key())
}

/// A device, with its namespace if that is not mptm's own.
pub fn device_name(netns: &Netns, device: &str) -> String {
    match netns {
        Some(netns) => format!("{netns}/{device}"),
        None => device.to_owned(),
    }
}

fn interface(interface: &Interface) -> Fields {
    let Interface { ifindex, role, mac, device, peer, manage, native } = interface;
    let of_role = match role {
        Role::Workload { segment } => segment.to_string(),
        _ => String::new(),
    };
    let to = match role {
        Role::Redirect { to } => to.to_string(),
        _ => String::new(),
    };
    vec![
        ("role", role.name().into()),
        ("segment", of_role),
        ("to", to),
        ("index", ifindex.to_string()),
        ("mac", show_mac(*mac)),
        ("peer", peer.as_ref().map(|peer| device_name(&peer.netns, &peer.name)).unwrap_or_default()),
        ("takes-frames", if *device == Some(*ifindex) { String::new() } else { "no".into() }),
        ("native", if *native { String::new() } else { "no".into() }),
        ("manage", if *manage == Manage::default() { String::new() } else { show_manage(*manage) }),
    ]
}

fn show_mac(mac: MacAddr) -> String {
    if mac == MacAddr::ZERO { String::new() } else { mac.to_string() }
}

fn show_manage(manage: Manage) -> String {
    let Manage { offloads, mtu, promisc, sysctls } = manage;
    let all = [(offloads, "offloads"), (mtu, "mtu"), (promisc, "promisc"), (sysctls, "sysctls")];
    let on: Vec<&str> = all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
    if on.is_empty() { "nothing".into() } else { on.join(" ") }
}

/// A tunnel's protocol and id, as short as can be: `vxlan 42`, `qinq 100.42`, `ipip`.
pub fn kind_of(tunnel: &Tunnel) -> String {
    let mut text = tunnel.protocol.to_string();
    if let Some(id) = tunnel.id {
        let service = tunnel.service_id.map(|service| format!("{service}.")).unwrap_or_default();
        let _ = write!(text, " {service}{id}");
    }
    text
}

/// The fields of a tunnel that say something: called as in the file, and empty where they are as usual.
pub fn tunnel(tunnel: &Tunnel) -> Vec<(&'static str, String)> {
    let Tunnel {
        protocol,
        id,
        local_id,
        service_id,
        payload,
        segment,
        underlay,
        local,
        remote,
        local_mac,
        remote_mac,
        next_hop,
        src_ports: (min, max),
        dst_port,
        ttl,
        tos,
        df,
        flow_label,
        udp_checksum,
        pcp,
        gbp,
        options,
        checksum,
        sequence,
        variant,
        qfi,
        uplink,
        inner_mac,
        mtu,
        mss_clamp,
        flood,
        redirect,
        debug,
        intact,
    } = tunnel;
    let flag = |on: bool, text: &str| if on { text.to_owned() } else { String::new() };
    let over_ipv6 = remote.is_some_and(|remote| remote.is_ipv6());
    vec![
        ("protocol", protocol.to_string()),
        ("id", some(id)),
        ("local_id", some(local_id)),
        ("service_id", some(service_id)),
        ("payload", unless(*payload == protocol.payload(), payload.name())),
        ("segment", segment.to_string()),
        ("underlay", underlay.to_string()),
        ("local", some(local)),
        ("remote", some(remote)),
        ("local_mac", local_mac.map_or_else(|| "inner".into(), |mac| mac.to_string())),
        (
            "remote_mac",
            match remote_mac {
                RemoteMac::Known(mac) => mac.to_string(),
                RemoteMac::Inner => "inner".into(),
                RemoteMac::Unresolved => "unknown".into(),
            },
        ),
        ("next_hop", some(&next_hop.filter(|next_hop| Some(*next_hop) != *remote))),
        (
            "src_port",
            match (*min, *max) {
                (_, 0) => String::new(),
                (min, max) if min == max => min.to_string(),
                (min, max) => format!("{min}-{max}"),
            },
        ),
        ("dst_port", unless(*dst_port == 0, dst_port)),
        (
            "ttl",
            match *ttl {
                Ttl::Inherit => "inherit".into(),
                Ttl::Fixed(number) => unless(*ttl == Ttl::default(), number),
            },
        ),
        (
            "tos",
            match *tos {
                Tos::Inherit => "inherit".into(),
                Tos::Fixed(byte) => unless(*tos == Tos::default(), byte),
            },
        ),
        ("df", unless(*df == Df::Set, df.name())),
        (
            "flow_label",
            match flow_label {
                FlowLabel::Flow => String::new(),
                FlowLabel::Fixed(label) => format!("{label:#x}"),
                FlowLabel::Inherit => "inherit".into(),
            },
        ),
        ("udp_checksum", unless(*udp_checksum == (over_ipv6 && protocol.has_udp()), udp_checksum)),
        (
            "pcp",
            match *pcp {
                Pcp::Inherit => "inherit".into(),
                Pcp::Fixed(priority) => unless(*pcp == Pcp::default(), priority),
            },
        ),
        ("gbp", some(gbp)),
        ("options", show_options(options)),
        ("checksum", flag(*checksum, "true")),
        ("sequence", flag(*sequence, "true")),
        ("variant", unless(*variant == 0, variant)),
        ("qfi", some(qfi)),
        ("uplink", flag(*uplink, "true")),
        ("inner_mac", some(inner_mac)),
        ("mtu", mtu.to_string()),
        ("mss_clamp", flag(*mss_clamp, "true")),
        ("flood", flag(*flood, "true")),
        ("redirect", flag(!redirect, "false")),
        ("debug", flag(*debug, "true")),
        ("header", flag(!intact, "damaged")),
    ]
}

fn some(value: &Option<impl ToString>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn unless(usual: bool, value: impl ToString) -> String {
    if usual { String::new() } else { value.to_string() }
}

/// As iproute2 writes them: class, type and data, in hexadecimal.
fn show_options(options: &[GeneveOption]) -> String {
    let show = |GeneveOption { class, kind, data }: &GeneveOption| {
        data.iter().fold(format!("{class:04x}:{kind:02x}:"), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    options.iter().map(show).collect::<Vec<_>>().join(",")
}

fn route(route: &Route) -> Fields {
    match route {
        Route::Tunnel(tunnel) => vec![("tunnel", tunnel.to_string())],
        Route::Gateway => vec![("gateway", "mptm".into())],
        Route::Workload { interface, mac, pairs } => {
            let pairs: Vec<String> =
                pairs.iter().map(|(prefix, tunnel)| format!("{prefix} by {tunnel}")).collect();
            vec![
                ("interface", interface.to_string()),
                ("mac", mac.map(|mac| mac.to_string()).unwrap_or_default()),
                ("pairs", pairs.join("; ")),
            ]
        }
    }
}

/// An endpoint in one line.
pub fn endpoint(endpoint: &Endpoint) -> String {
    let Endpoint { protocol, ifindex, id, any_id, remote, local, port } = endpoint;
    let mut text = protocol.to_string();
    match id {
        Some(id) if *protocol == Protocol::Qinq => _ = write!(text, " {}.{}", id >> 12, id & 0xfff),
        Some(id) => _ = write!(text, " {id}"),
        None if *any_id => text += " any",
        None => {}
    }
    match (remote, local) {
        (Some(remote), Some(local)) if *port == 0 => _ = write!(text, " {remote} -> {local}"),
        (Some(remote), Some(local)) => {
            _ = write!(text, " {remote} -> {}", SocketAddr::new(*local, *port));
        }
        _ => {}
    }
    let _ = write!(text, " on index {ifindex}");
    text
}

fn flood_link(link: &FloodLink) -> Fields {
    let FloodLink { ifindex, current } = link;
    let runs = if *current { Program::Flood.name() } else { "one of another build" };
    let index = if *ifindex == 0 { "detached".into() } else { ifindex.to_string() };
    vec![("runs", runs.into()), ("index", index)]
}

fn flood(flood: &Flood) -> Fields {
    let Flood { tunnels, workloads, sum } = flood;
    let names = |members: &[FloodMember]| {
        let show = |FloodMember { name, ifindex }: &FloodMember| format!("{name} on index {ifindex}");
        members.iter().map(show).collect::<Vec<_>>().join("; ")
    };
    vec![
        ("tunnels", names(tunnels)),
        ("workloads", names(workloads)),
        ("checksum", if *sum { "wanted".into() } else { String::new() }),
    ]
}

fn link(link: &Attachment) -> Fields {
    let Attachment { ifindex, program, mode } = link;
    vec![
        ("runs", program.map_or_else(|| "one of another build".into(), |program| program.name().to_owned())),
        ("mode", mode.map_or_else(|| "detached".into(), |mode| mode.name().to_owned())),
        ("index", if *ifindex == 0 { "gone".into() } else { ifindex.to_string() }),
    ]
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

/// A prefix; a single address without its length.
pub fn prefix(prefix: &ipnet::IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}
