//! One object of the state as one struct of bpf/abi.h, and back.

use std::net::IpAddr;

use ipnet::IpNet;
use zerocopy::FromBytes;

use super::ids::Ids;
use crate::config::model::{Manage, Name, Payload, Tos, Ttl};
use crate::kernel::abi::{self, interface_flags, role, target, tunnel_flags};
use crate::kernel::{KernelError, Map, Netns};
use crate::mac::MacAddr;
use crate::protocol::{self, HasId, Header, Protocol};
use crate::state::{Endpoint, Interface, Role, Tunnel};

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
        slot: ids.interface(name),
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
            value.to = ids.interface(to);
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

/// What packets of a tunnel with an inherited TTL get that have none to inherit.
const TTL: u8 = 64;

/// The value of `tunnels`, with the slot of its underlay and the table of its segment.
pub fn encode_tunnel(tunnel: &Tunnel, device: u32, table: u32) -> abi::Tunnel {
    // What is not named here is in the header, or is none of the programs' business.
    let Tunnel {
        protocol,
        local_id,
        payload,
        src_ports: (port_min, port_max),
        ttl,
        tos,
        inner_mac,
        mtu,
        mss_clamp,
        flood,
        ..
    } = tunnel;
    let header = protocol::header(tunnel);
    let mut flags = header.flags;
    for (on, flag) in [
        (*payload == Payload::Ip, tunnel_flags::IP_PAYLOAD),
        (inner_mac.is_some(), tunnel_flags::INNER_MAC),
        (*mss_clamp, tunnel_flags::MSS_CLAMP),
        (*flood, tunnel_flags::FLOOD),
        (!tunnel.redirect, tunnel_flags::STACK),
        (tunnel.debug, tunnel_flags::DEBUG),
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
        type_offset: header.type_offset,
        sequence_offset: header.sequence_offset,
        ip_sum: header.ip_sum(),
        sum: header.sum(),
        mtu: *mtu,
        flags,
        device,
        table,
        port_count: u32::from(port_max - port_min) + 1,
        port_min: *port_min,
        protocol: *protocol as u16,
        inner_mac: inner_mac.unwrap_or(MacAddr::ZERO).0,
        tos: match tos {
            Tos::Fixed(tos) => *tos,
            Tos::Inherit => 0,
        },
        ttl: match ttl {
            Ttl::Fixed(ttl) => *ttl,
            Ttl::Inherit => TTL,
        },
        has_local_id: local_id.is_some().into(),
        local_id: local_id.unwrap_or(0),
        critical: header.critical,
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
        type_offset: value.type_offset,
        sequence_offset: value.sequence_offset,
        critical: value.critical,
        flags: value.flags,
    };
    let has = |flag| value.flags & flag != 0;
    let port_max = u32::from(value.port_min) + value.port_count.saturating_sub(1);
    let mut tunnel = Tunnel {
        payload: if has(tunnel_flags::IP_PAYLOAD) { Payload::Ip } else { Payload::Ethernet },
        local_id: (value.has_local_id != 0).then_some(value.local_id),
        src_ports: (value.port_min, u16::try_from(port_max).unwrap_or(u16::MAX)),
        tos: if has(tunnel_flags::TOS_INHERIT) { Tos::Inherit } else { Tos::Fixed(value.tos) },
        // Where there is an IP header, it says so, too.
        ttl: if has(tunnel_flags::TTL_INHERIT) { Ttl::Inherit } else { Ttl::Fixed(value.ttl) },
        inner_mac: has(tunnel_flags::INNER_MAC).then_some(MacAddr(value.inner_mac)),
        mtu: value.mtu,
        mss_clamp: has(tunnel_flags::MSS_CLAMP),
        flood: has(tunnel_flags::FLOOD),
        redirect: !has(tunnel_flags::STACK),
        debug: has(tunnel_flags::DEBUG),
        // The next hop is not in the header; whoever reads the names knows it.
        ..Tunnel::new(protocol, ids.segments.named(value.table), ids.interfaces.named(value.device))
    };
    protocol::read(&header, &mut tunnel);
    tunnel.intact = encode_tunnel(&tunnel, value.device, value.table) == *value;
    tunnel
}

/// The key of `endpoints`.
pub fn encode_endpoint(endpoint: &Endpoint) -> abi::Endpoint {
    let Endpoint { protocol, ifindex, id, any_id, remote, local, port } = endpoint;
    let address = |address: &Option<IpAddr>| address.map_or([0; 16], abi::map_address);
    let has_key = protocol.has_id() == HasId::Optional && id.is_some();
    abi::Endpoint {
        remote: address(remote),
        local: address(local),
        id: id.unwrap_or(0),
        ifindex: *ifindex,
        // What tells key 0 from no key.
        port: if has_key { abi::GRE_KEY } else { *port },
        protocol: *protocol as u16 | if *any_id { abi::ANY_ID } else { 0 },
    }
}

/// The endpoint in a key. None: no such key comes from mptm.
pub fn decode_endpoint(key: &abi::Endpoint) -> Option<Endpoint> {
    let protocol = Protocol::from_number(u8::try_from(key.protocol & !abi::ANY_ID).ok()?)?;
    let any_id = key.protocol & abi::ANY_ID != 0;
    let has_id = match protocol.has_id() {
        HasId::Always => !any_id,
        HasId::Optional => key.port == abi::GRE_KEY,
        HasId::Never => false,
    };
    let endpoint = Endpoint {
        protocol,
        ifindex: key.ifindex,
        id: has_id.then_some(key.id),
        any_id,
        remote: abi::unmap_address(key.remote),
        local: abi::unmap_address(key.local),
        port: if protocol.has_udp() { key.port } else { 0 },
    };
    (encode_endpoint(&endpoint) == *key).then_some(endpoint)
}

/// The value of a route to a tunnel.
pub fn encode_tunnel_route(id: u32) -> abi::Route {
    abi::Route { id, target: target::TUNNEL, ..Default::default() }
}

/// The value of a route to a next hop that mptm answers for.
pub fn encode_gateway() -> abi::Route {
    abi::Route { target: target::GATEWAY, ..Default::default() }
}

/// The value of a route to a workload, whose pairs, if it has any, are in the table `pairs`.
pub fn encode_workload_route(interface: u32, pairs: u32, mac: Option<MacAddr>) -> abi::Route {
    abi::Route { id: interface, pairs, target: target::WORKLOAD, mac: mac.unwrap_or(MacAddr::ZERO).0 }
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
    use crate::protocol::tests::samples;
    use zerocopy::IntoBytes;

    fn known() -> Ids {
        let mut ids = Ids::default();
        ids.interfaces.insert("eth0".into(), 3);
        ids.segments.insert("default".into(), 5);
        ids
    }

    #[test]
    fn every_field_of_a_tunnel_is_read_back() {
        for tunnel in samples() {
            let value = encode_tunnel(&tunnel, 3, 5);
            assert_eq!(decode_tunnel(&value, &mut known()), tunnel);
        }
    }

    #[test]
    fn a_changed_byte_is_another_tunnel_or_a_damaged_one() {
        for tunnel in samples() {
            let bytes = encode_tunnel(&tunnel, 3, 5);
            for at in 0..bytes.as_bytes().len() {
                let mut changed = bytes;
                changed.as_mut_bytes()[at] ^= 0x81;
                let read = decode_tunnel(&changed, &mut known());
                assert_ne!(read, tunnel, "byte {at} of {tunnel:?}");
                if read.intact {
                    assert_eq!(encode_tunnel(&read, changed.device, changed.table), changed);
                }
            }
        }
    }

    #[test]
    fn endpoints_there_and_back() {
        let gre = |id, any_id| Endpoint {
            protocol: Protocol::Gre,
            ifindex: 2,
            id,
            any_id,
            remote: Some("fd00::2".parse().unwrap()),
            local: Some("fd00::1".parse().unwrap()),
            port: 0,
        };
        let gtpu = Endpoint { protocol: Protocol::Gtpu, port: 2152, ..gre(Some(7), false) };
        let mut keys = Vec::new();
        for endpoint in [
            gre(None, false),
            gre(Some(0), false),
            gre(None, true),
            Endpoint { id: None, any_id: true, ..gtpu.clone() },
            gtpu,
            Endpoint {
                protocol: Protocol::Qinq,
                remote: None,
                local: None,
                ..gre(Some(100 << 12 | 42), false)
            },
            Endpoint { protocol: Protocol::Fou, port: 5555, ..gre(None, false) },
        ] {
            let key = encode_endpoint(&endpoint);
            assert_eq!(decode_endpoint(&key), Some(endpoint));
            keys.push(key.as_bytes().to_vec());
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 7, "each is another's");
    }

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
