//! A configuration as a file that means the same, with what was left out written down.

mod values;

use std::fmt::{Display, Write as _};

use ipnet::IpNet;

use super::keys;
use super::model::{Addresses, Config, Interface, Manage, Payload, PeerSpec, Role, Tunnel};
use super::prefix::text;
use crate::protocol::Protocol;

/// The normalised text: underlays, workloads, then other interfaces, then tunnels, each sorted by name. Parsing it
/// gives the same configuration, but for the places where things stand.
pub fn print(config: &Config) -> String {
    let mut interfaces: Vec<_> = config.interfaces.iter().chain(&config.patterns).collect();
    // A stable sort: by name within a role.
    interfaces.sort_by_key(|(_, interface)| match interface.role {
        Role::Underlay => 0,
        Role::Workload { .. } => 1,
        Role::Redirect { .. } => 2,
        Role::Pass => 3,
    });
    let tables = interfaces.into_iter().map(|(name, interface)| interface_table(name, interface));
    let tables: Vec<String> =
        tables.chain(config.tunnels.iter().map(|(name, tunnel)| tunnel_table(name, tunnel))).collect();
    tables.join("\n")
}

fn interface_table(name: &str, interface: &Interface) -> String {
    let Interface { at: _, role, mode, dispatcher, peer, manage } = interface;
    let mut table = Table::default();
    table.set("role", quoted(role.name()));
    match role {
        Role::Workload { segment, addresses, mac, gateway } => {
            table.set("segment", quoted(segment));
            table.set(
                "addresses",
                match addresses {
                    Addresses::Peer => quoted("peer"),
                    Addresses::List(list) => prefixes(list),
                },
            );
            table.set_some("mac", mac.map(quoted));
            if !gateway.is_empty() {
                table.set("gateway", list(gateway.iter().map(quoted)));
            }
        }
        Role::Redirect { to } => table.set("to", quoted(to)),
        Role::Underlay | Role::Pass => {}
    }
    table.set("mode", quoted(mode.name()));
    table.set("dispatcher", dispatcher);
    match peer {
        PeerSpec::Find => {}
        PeerSpec::None => table.set("peer", false),
        PeerSpec::At { netns, name } => {
            let netns = netns.as_ref().map_or(String::new(), |netns| format!("netns = {}, ", quoted(netns)));
            table.set("peer", format!("{{ {netns}name = {} }}", quoted(name)));
        }
    }
    let Manage { offloads, mtu, promisc, sysctls } = *manage;
    let settings = [("offloads", offloads), ("mtu", mtu), ("promisc", promisc), ("sysctls", sysctls)];
    table.set(
        "manage",
        list(settings.into_iter().filter(|(_, set)| *set).map(|(setting, _)| quoted(setting))),
    );
    table.finish("interface", name)
}

fn tunnel_table(name: &str, tunnel: &Tunnel) -> String {
    let Tunnel {
        at: _,
        protocol,
        id,
        local_id,
        service_id,
        payload,
        segment,
        underlay,
        remote,
        local,
        local_mac,
        remote_mac,
        inner,
        from,
        src_port,
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
    } = tunnel;
    let is_ipv6 = remote.is_some_and(|remote| remote.is_ipv6());
    let mut table = Table { protocol: Some(*protocol), lines: Vec::new() };
    table.set("protocol", quoted(protocol));
    table.set_some("service_id", *service_id);
    table.set_some("id", *id);
    table.set_some("local_id", *local_id);
    table.set("payload", quoted(payload.name()));
    table.set("segment", quoted(segment));
    table.set("underlay", quoted(underlay));
    table.set_some("remote", remote.map(quoted));
    table.set_some("local", local.map(quoted));
    table.set_some("local_mac", local_mac.map(quoted));
    table.set_some("remote_mac", remote_mac.map(quoted));
    table.set("inner", prefixes(inner));
    if !from.is_empty() {
        table.set("from", prefixes(from));
    }
    table.set("src_port", values::src_port(*src_port));
    table.set("dst_port", dst_port);
    table.set("ttl", values::ttl(*ttl));
    table.set("tos", values::tos(*tos));
    if is_ipv6 {
        table.set("flow_label", values::flow_label(*flow_label));
    } else {
        table.set("df", quoted(df.name()));
    }
    table.set_some("udp_checksum", *udp_checksum);
    table.set("pcp", values::pcp(*pcp));
    table.set_some("gbp", *gbp);
    table.set("options", list(options.iter().map(values::option)));
    table.set("checksum", checksum);
    table.set("sequence", sequence);
    table.set("variant", variant);
    table.set_some("qfi", *qfi);
    if qfi.is_some() {
        table.set("uplink", uplink);
    }
    table.set_some("inner_mac", inner_mac.map(quoted));
    table.set_some("mtu", *mtu);
    table.set("mss_clamp", mss_clamp);
    if *payload == Payload::Ethernet {
        table.set("flood", flood);
    }
    table.set("redirect", redirect);
    table.set("debug", debug);
    table.finish("tunnel", name)
}

/// Keys and values of a table, in order.
#[derive(Default)]
struct Table {
    /// That of a tunnel: keys that it does not have are left out.
    protocol: Option<Protocol>,
    lines: Vec<(&'static str, String)>,
}

impl Table {
    /// The value as it is to stand there.
    fn set(&mut self, key: &'static str, value: impl Display) {
        if self.protocol.is_none_or(|protocol| keys::has_key(protocol, key)) {
            self.lines.push((key, value.to_string()));
        }
    }

    fn set_some(&mut self, key: &'static str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    fn finish(self, kind: &str, name: &str) -> String {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let name = if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { quoted(name) };
        let width = self.lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        let lines = self.lines.iter().map(|(key, value)| format!("{key:width$} = {value}\n"));
        std::iter::once(format!("[{kind}.{name}]\n")).chain(lines).collect()
    }
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}

fn prefixes(nets: &[IpNet]) -> String {
    list(nets.iter().map(|net| quoted(text(*net))))
}

/// A TOML basic string, which is a key, too.
fn quoted(value: impl Display) -> String {
    let mut out = String::from('"');
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\U{:08X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
