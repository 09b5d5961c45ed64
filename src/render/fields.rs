//! What objects of a state say of themselves: their fields, called as in the file, and empty where they are as usual.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::model::{Df, FlowLabel, GeneveOption, Manage, Pcp, Tos, Ttl};
use crate::kernel::Table;
use crate::kernel::abi::LAYOUT;
use crate::kernel::{Netns, Program};
use crate::mac::MacAddr;
use crate::plan::Change;
use crate::protocol::Protocol;
use crate::state::{
    Attachment, DataPlane, Endpoint, Flood, FloodLink, FloodMember, Interface, RemoteMac, Role, Route, Tunnel,
};

/// Names and values.
pub(super) type Fields = Vec<(&'static str, String)>;

/// What a field is that is not worth a word unless it changes.
pub(super) fn usual(key: &str) -> &'static str {
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

/// A data plane, with the sizes of some of its tables.
pub(super) fn data_plane(data_plane: &DataPlane, tables: impl Iterator<Item = Table>) -> Fields {
    let build = data_plane.build.to_string();
    let layout = data_plane.layout;
    let build = if layout == LAYOUT { build } else { format!("{build} of layout {layout}") };
    let sizes = tables.map(|table| (room_for(table), data_plane.sizes[table].to_string()));
    [("build", build)].into_iter().chain(sizes).collect()
}

/// The tables whose sizes a change changes: those of a data plane that comes or goes are the file's, as all the rest.
pub(super) fn resized(change: &Change<DataPlane>) -> impl Iterator<Item = Table> + use<> {
    let sizes = change.before().zip(change.after()).map(|(before, after)| (before.sizes, after.sizes));
    let differs = move |table: &Table| sizes.is_some_and(|(before, after)| before[*table] != after[*table]);
    Table::ALL.into_iter().filter(differs)
}

fn room_for(table: Table) -> &'static str {
    match table {
        Table::Interfaces => "room for interfaces",
        Table::Tunnels => "room for tunnels",
        Table::Routes => "room for routes",
        Table::Endpoints => "room for endpoints",
        Table::Floods => "room for floods",
        Table::Names => "room for names",
        Table::Saved => "room for saved settings",
    }
}

/// A device, with its namespace if that is not mptm's own.
pub fn device_name(netns: &Netns, device: &str) -> String {
    match netns {
        Some(netns) => format!("{netns}/{device}"),
        None => device.to_owned(),
    }
}

pub(super) fn interface(interface: &Interface) -> Fields {
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

pub(super) fn route(route: &Route) -> Fields {
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

pub(super) fn flood_link(link: &FloodLink) -> Fields {
    let FloodLink { ifindex, current } = link;
    let runs = if *current { Program::Flood.name() } else { "one of another build" };
    let index = if *ifindex == 0 { "detached".into() } else { ifindex.to_string() };
    vec![("runs", runs.into()), ("index", index)]
}

pub(super) fn flood(flood: &Flood) -> Fields {
    let Flood { tunnels, workloads, sum } = flood;
    let names = |members: &[FloodMember]| {
        let show = |FloodMember { name, ifindex }: &FloodMember| format!("{name} on index {ifindex}");
        members.iter().map(show).collect::<Vec<_>>().join("; ")
    };
    vec![
        ("tunnels", names(tunnels)),
        ("workloads", names(workloads)),
        ("sum", if *sum { "wanted".into() } else { String::new() }),
    ]
}

pub(super) fn link(link: &Attachment) -> Fields {
    let Attachment { ifindex, program, mode } = link;
    vec![
        ("runs", program.map_or_else(|| "one of another build".into(), |program| program.name().to_owned())),
        ("mode", mode.map_or_else(|| "detached".into(), |mode| mode.name().to_owned())),
        ("index", if *ifindex == 0 { "gone".into() } else { ifindex.to_string() }),
    ]
}

/// A prefix; a single address without its length.
pub fn prefix(prefix: &ipnet::IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}
