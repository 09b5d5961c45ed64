//! One object of the state as one struct of bpf/abi.h, and back.

use std::net::IpAddr;

use ipnet::IpNet;
use zerocopy::FromBytes;

use super::ids::Ids;
use crate::config::model::{Manage, Name};
use crate::kernel::abi::{self, interface_flags, role, target, tunnel_flags};
use crate::kernel::{KernelError, Map, Netns};
use crate::mac::MacAddr;
use crate::protocol::{self, Header, Protocol};
use crate::state::{Endpoint, Interface, RemoteMac, Role, Tunnel};

/// The bytes of a map as a struct.
pub fn decode<T: FromBytes>(map: Map, bytes: &[u8]) -> Result<T, KernelError> {
    T::read_from_bytes(bytes).map_err(|_| {
        KernelError::plain(format!(
            "the map {} has entries of {} bytes, not of {}",
            map.name(),
            bytes.len(),
            size_of::<T>()
        ))
        .hint("it is of another version of mptm, or not mptm's at all")
    })
}

/// A prefix as a key: (table, prefix) of `routes` or of `prefixes`, whichever has such.
pub enum RouteKey {
    /// One address.
    Host(abi::RouteKey),
    /// More.
    Prefix(abi::PrefixKey),
}

/// The key of a route.
pub fn route_key(table: u32, prefix: &IpNet) -> RouteKey {
    let network = prefix.network();
    let address = abi::map_address(network);
    let table = if network.is_ipv6() { table | abi::TABLE_IPV6 } else { table };
    if prefix.prefix_len() == prefix.max_prefix_len() {
        return RouteKey::Host(abi::RouteKey { table, address });
    }
    let bits = abi::mapped_bits(network) + u32::from(prefix.prefix_len());
    RouteKey::Prefix(abi::PrefixKey { prefix_len: 32 + bits, table, address })
}

/// The table and the prefix in a key, of which `mapped_len` bits of the address count. None: no such key comes from
/// mptm.
pub fn read_route_key(table: u32, address: [u8; 16], mapped_len: u32) -> Option<(u32, IpNet)> {
    let network = if table & abi::TABLE_IPV6 == 0 {
        abi::unmap_address(address).filter(IpAddr::is_ipv4)?
    } else {
        IpAddr::V6(address.into())
    };
    let length = mapped_len.checked_sub(abi::mapped_bits(network))?;
    Some((table & !abi::TABLE_IPV6, IpNet::new(network, u8::try_from(length).ok()?).ok()?))
}

/// The value of `interfaces`.
pub fn encode_interface(
    name: &Name,
    interface: &Interface,
    ids: &mut Ids,
) -> Result<abi::Interface, KernelError> {
    let Interface { ifindex: _, role, mac, device: _, peer: _, manage, native } = interface;
    let mut value = abi::Interface {
        slot: ids.interface(name)?,
        mac: mac.0,
        flags: encode_manage(*manage) | if *native { interface_flags::CPUS } else { 0 },
        ..Default::default()
    };
    match role {
        Role::Underlay => value.role = role::UNDERLAY,
        Role::Workload { segment } => {
            value.role = role::WORKLOAD;
            value.table = ids.segment(segment)?;
        }
        Role::Redirect { to } => {
            value.role = role::REDIRECT;
            value.to = ids.interface(to)?;
        }
        Role::Pass => value.role = role::PASS,
    }
    Ok(value)
}

/// What an interface does. A number that is no role's is one that no file asks for.
pub fn decode_role(value: &abi::Interface, ids: &mut Ids) -> Role {
    match value.role {
        role::UNDERLAY => Role::Underlay,
        role::WORKLOAD => Role::Workload { segment: ids.segments.named(value.table) },
        role::REDIRECT => Role::Redirect { to: ids.interfaces.named(value.to) },
        role::PASS => Role::Pass,
        other => Role::Workload { segment: format!("#role {other}").into() },
    }
}

fn encode_manage(manage: Manage) -> u16 {
    let Manage { offloads, mtu, promisc, sysctls } = manage;
    [
        (offloads, interface_flags::OFFLOADS),
        (mtu, interface_flags::MTU),
        (promisc, interface_flags::PROMISC),
        (sysctls, interface_flags::SYSCTLS),
    ]
    .into_iter()
    .filter_map(|(on, flag)| on.then_some(flag))
    .fold(0, |flags, flag| flags | flag)
}

/// What may be set on an interface.
pub fn decode_manage(flags: u16) -> Manage {
    Manage {
        offloads: flags & interface_flags::OFFLOADS != 0,
        mtu: flags & interface_flags::MTU != 0,
        promisc: flags & interface_flags::PROMISC != 0,
        sysctls: flags & interface_flags::SYSCTLS != 0,
    }
}

/// The value of `tunnels`, with the slot of its underlay and the table of its segment.
pub fn encode_tunnel(tunnel: &Tunnel, device: u32, table: u32) -> abi::Tunnel {
    // Exhaustive: a new field does not compile until it is written.
    let Tunnel {
        protocol,
        id: _,
        segment: _,
        underlay: _,
        local: _,
        remote: _,
        local_mac: _,
        remote_mac: _,
        next_hop: _,
        src_ports: (port_min, port_max),
        dst_port: _,
        inner_mac,
        mtu,
        redirect,
        debug,
        intact: _,
    } = tunnel;
    let header = protocol::header(tunnel);
    let mut flags = header.flags;
    for (on, flag) in [
        (inner_mac.is_some(), tunnel_flags::INNER_MAC),
        (!redirect, tunnel_flags::STACK),
        (*debug, tunnel_flags::DEBUG),
    ] {
        if on {
            flags |= flag;
        }
    }
    abi::Tunnel {
        header: header.padded(),
        header_len: header.bytes.len() as u16,
        pop: header.pop,
        l3_offset: header.l3_offset,
        l4_offset: header.l4_offset,
        ip_sum: header.ip_sum(),
        mtu: *mtu,
        flags,
        device,
        table,
        port_count: u32::from(port_max - port_min) + 1,
        port_min: *port_min,
        protocol: *protocol as u16,
        inner_mac: inner_mac.unwrap_or(MacAddr::ZERO).0,
        pad: [0; 2],
    }
}

/// The tunnel in a value of `tunnels`.
pub fn decode_tunnel(value: &abi::Tunnel, ids: &mut Ids) -> Tunnel {
    // A number that is no protocol's makes the tunnel one that is not intact.
    let protocol =
        u8::try_from(value.protocol).ok().and_then(Protocol::from_number).unwrap_or(Protocol::Vlan);
    let length = usize::from(value.header_len).min(value.header.len());
    let header = Header {
        bytes: value.header[..length].to_vec(),
        pop: value.pop,
        l3_offset: value.l3_offset,
        l4_offset: value.l4_offset,
        flags: value.flags,
    };
    let mac = |at: usize| MacAddr(std::array::from_fn(|byte| value.header[at + byte]));
    let has = |flag| value.flags & flag != 0;
    let (id, dst_port) = protocol::read_id_and_port(protocol, &header);
    let (local, remote) = protocol::read_addresses(&header);
    let port_max = u32::from(value.port_min) + value.port_count.saturating_sub(1);
    let mut tunnel = Tunnel {
        protocol,
        id,
        segment: ids.segments.named(value.table),
        underlay: ids.interfaces.named(value.device),
        local,
        remote,
        local_mac: if has(tunnel_flags::KEEP_SOURCE) { None } else { Some(mac(6)) },
        remote_mac: if has(tunnel_flags::KEEP_DESTINATION) {
            RemoteMac::Inner
        } else if has(tunnel_flags::UNRESOLVED) {
            RemoteMac::Unresolved
        } else {
            RemoteMac::Known(mac(0))
        },
        // Not in the header; whoever reads the names knows it.
        next_hop: None,
        src_ports: (value.port_min, u16::try_from(port_max).unwrap_or(u16::MAX)),
        dst_port,
        inner_mac: has(tunnel_flags::INNER_MAC).then_some(MacAddr(value.inner_mac)),
        mtu: value.mtu,
        redirect: !has(tunnel_flags::STACK),
        debug: has(tunnel_flags::DEBUG),
        intact: true,
    };
    tunnel.intact = encode_tunnel(&tunnel, value.device, value.table) == *value;
    tunnel
}

/// The key of `endpoints`.
pub fn encode_endpoint(endpoint: &Endpoint) -> abi::Endpoint {
    let Endpoint { protocol, ifindex, id, remote, local, port } = endpoint;
    let address = |address: &Option<IpAddr>| address.map_or([0; 16], abi::map_address);
    abi::Endpoint {
        remote: address(remote),
        local: address(local),
        id: *id,
        ifindex: *ifindex,
        port: *port,
        protocol: *protocol as u16,
    }
}

/// The endpoint in a key. None: no such key comes from mptm.
pub fn decode_endpoint(key: &abi::Endpoint) -> Option<Endpoint> {
    Some(Endpoint {
        protocol: Protocol::from_number(u8::try_from(key.protocol).ok()?)?,
        ifindex: key.ifindex,
        id: key.id,
        remote: abi::unmap_address(key.remote),
        local: abi::unmap_address(key.local),
        port: key.port,
    })
}

/// The value of a route to a tunnel.
pub fn encode_tunnel_route(id: u32) -> abi::Route {
    abi::Route { id, target: target::TUNNEL, ..Default::default() }
}

/// A namespace as `saved` and `names` write it.
pub fn netns_text(netns: &Netns) -> String {
    netns.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// The reverse of `netns_text`.
pub fn read_netns(text: &str) -> Netns {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_both_families_keep_apart() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32", "2001:db8::1/128"] {
            let prefix: IpNet = text.parse().unwrap();
            let (table, address, bits) = match route_key(7, &prefix) {
                RouteKey::Host(key) => (key.table, key.address, 128),
                RouteKey::Prefix(key) => (key.table, key.address, key.prefix_len - 32),
            };
            assert_eq!(table == 7, text.contains('.'), "{text}");
            assert_eq!(read_route_key(table, address, bits), Some((7, prefix)));
        }
        assert_eq!(read_route_key(7, [0; 16], 0), None, "not mapped, and not marked as IPv6");
    }
}
