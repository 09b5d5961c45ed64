//! A configuration as a file that means the same, with what was left out written down.

use std::fmt::{Display, Write as _};

use ipnet::IpNet;

use super::model::{Addresses, Config, Interface, Manage, PeerSpec, Role, SourcePort, Tunnel};
use super::prefix::text;

/// The normalised text: underlays, workloads, then other interfaces, then tunnels, each sorted by name. Parsing it
/// gives the same configuration, but for the places where things stand.
pub fn print(config: &Config) -> String {
    let mut interfaces: Vec<_> = config.interfaces.iter().collect();
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
    let Interface { at: _, role, mode, peer, manage } = interface;
    let mut table = Table::default();
    table.set("role", quoted(role.name()));
    match role {
        Role::Workload { segment, addresses, mac, .. } => {
            table.set("segment", quoted(segment));
            table.set(
                "addresses",
                match addresses {
                    Addresses::Peer => quoted("peer"),
                    Addresses::List(list) => prefixes(list),
                },
            );
            table.set_some("mac", mac.map(quoted));
        }
        Role::Redirect { to } => table.set("to", quoted(to)),
        Role::Underlay | Role::Pass => {}
    }
    table.set("mode", quoted(mode.name()));
    match peer {
        PeerSpec::Find => {}
        PeerSpec::None => table.set("peer", "false".to_owned()),
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
        inner_mac,
        mtu,
        redirect,
        debug,
        ..
    } = tunnel;
    let mut table = Table::default();
    table.set("protocol", quoted(protocol));
    table.set_some("id", id.map(|id| id.to_string()));
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
    if protocol.default_port().is_some() {
        table.set(
            "src_port",
            match src_port {
                SourcePort::Flow => quoted("flow"),
                SourcePort::Range(min, max) => quoted(format!("{min}-{max}")),
                SourcePort::Fixed(port) => port.to_string(),
            },
        );
        table.set("dst_port", dst_port.to_string());
    }
    table.set_some("inner_mac", inner_mac.map(quoted));
    table.set_some("mtu", mtu.map(|mtu| mtu.to_string()));
    if protocol.has_outer_ip() {
        table.set("redirect", redirect.to_string());
    }
    table.set("debug", debug.to_string());
    table.finish("tunnel", name)
}

/// Keys and values of a table, in order.
#[derive(Default)]
struct Table(Vec<(&'static str, String)>);

impl Table {
    fn set(&mut self, key: &'static str, value: String) {
        self.0.push((key, value));
    }

    fn set_some(&mut self, key: &'static str, value: Option<String>) {
        self.0.extend(value.map(|value| (key, value)));
    }

    fn finish(self, kind: &str, name: &str) -> String {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let name = if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { quoted(name) };
        let width = self.0.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        let lines = self.0.iter().map(|(key, value)| format!("{key:width$} = {value}\n"));
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
