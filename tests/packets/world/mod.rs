//! Tunnels, workloads and routes as the tests declare them: written into the maps on one side, judged by on the other.

mod encode;
mod template;
mod tunnel;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use mptm::kernel::abi;
use mptm::kernel::{DataPlane, Map};
use zerocopy::IntoBytes;

use crate::common::frame::Mac;

pub use encode::{Own, packet_of};
pub use tunnel::{Df, Kind, Label, Tunnel};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A slot, the MAC address there, and the address's own table of pairs.
    Workload {
        slot: u32,
        mac: Mac,
        pairs: u32,
    },
    /// A tunnel, there or not.
    Tunnel(u32),
    Gateway,
}

#[derive(Debug, Clone)]
pub struct Route {
    pub table: u32,
    pub prefix: (IpAddr, u32),
    pub target: Target,
}

impl Route {
    fn covers(&self, address: IpAddr) -> bool {
        let bits = self.prefix.1;
        match (self.prefix.0, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()) & u32::MAX.checked_shl(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()) & u128::MAX.checked_shl(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// An interface that packets come in by.
#[derive(Debug, Clone)]
pub struct Interface {
    pub ifindex: u32,
    pub slot: u32,
    /// `role::*`.
    pub role: u32,
    pub table: u32,
    /// Where a patch cable leads: a slot.
    pub to: u32,
    pub mac: Mac,
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub interfaces: Vec<Interface>,
    /// Slots, and the devices in them.
    pub devices: Vec<(u32, u32)>,
    pub tunnels: Vec<Tunnel>,
    pub routes: Vec<Route>,
    /// Where solicitations from link-local addresses came from, by table.
    pub link_locals: BTreeMap<(u32, IpAddr), Target>,
    /// The last GRE sequence number that came in, by tunnel.
    pub received: BTreeMap<u32, u32>,
}

impl World {
    pub fn tunnel(&self, id: u32) -> Option<&Tunnel> {
        self.tunnels.iter().find(|tunnel| tunnel.id == id)
    }

    pub fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.ifindex == ifindex)
    }

    pub fn has_slot(&self, slot: u32) -> bool {
        self.devices.iter().any(|device| device.0 == slot)
    }

    /// The most specific route of a table.
    pub fn route(&self, table: u32, address: IpAddr) -> Option<Target> {
        self.routes
            .iter()
            .filter(|route| route.table == table && route.covers(address))
            .max_by_key(|route| route.prefix.1)
            .map(|route| route.target)
    }

    /// Whether a segment has tunnels for multicast and broadcast.
    pub fn floods(&self, table: u32) -> bool {
        self.tunnels.iter().any(|tunnel| tunnel.table == table && tunnel.flood)
    }

    pub fn install(&self, plane: &mut impl DataPlane) {
        for interface in &self.interfaces {
            let value = abi::Interface {
                role: interface.role,
                slot: interface.slot,
                table: interface.table,
                to: interface.to,
                mac: interface.mac,
                flags: 0,
            };
            put(plane, Map::Interfaces, &interface.ifindex, &value);
            put(plane, Map::Slots, &interface.slot, &abi::Slot { mac: interface.mac, pad: [0; 2] });
        }
        for (slot, ifindex) in &self.devices {
            put(plane, Map::Devices, slot, ifindex);
        }
        for route in &self.routes {
            Self::install_route(plane, route);
        }
        self.install_tunnels(plane);
    }

    pub fn install_tunnels(&self, plane: &mut impl DataPlane) {
        let mut ports = vec![0_u8; 65536];
        for tunnel in &self.tunnels {
            ports[usize::from(tunnel.port)] = tunnel.kind.protocol() as u8;
            // The second entry, so that one that is not in use would be seen.
            put(plane, Map::Tunnels, &(2 * tunnel.id + 1), &tunnel.template());
            put(plane, Map::Active, &tunnel.id, &2_u32);
            for (endpoint, id) in tunnel.endpoints().iter().zip([tunnel.id, 0]) {
                put(plane, Map::Endpoints, endpoint, &id);
            }
        }
        ports[0] = 0;
        for table in self.tunnels.iter().map(|tunnel| tunnel.table) {
            if self.floods(table) {
                // To whom, is the business of mptm_flood.
                put(plane, Map::Floods, &table, &abi::Flood::default());
            }
        }
        plane.put(Map::UdpPorts, &0_u32.to_ne_bytes(), &ports).unwrap();
    }

    fn install_route(plane: &mut impl DataPlane, route: &Route) {
        let value = match route.target {
            Target::Workload { slot, mac, pairs } => {
                abi::Route { id: slot, pairs, target: abi::target::WORKLOAD, mac }
            }
            Target::Tunnel(id) => abi::Route { id, pairs: 0, target: abi::target::TUNNEL, mac: [0; 6] },
            Target::Gateway => abi::Route { target: abi::target::GATEWAY, ..Default::default() },
        };
        let (network, bits) = route.prefix;
        let (mark, bits) = if network.is_ipv6() { (1 << 31, bits) } else { (0, 96 + bits) };
        let (table, address) = (route.table | mark, mapped(network));
        if bits == 128 {
            put(plane, Map::Routes, &abi::RouteKey { table, address }, &value);
        } else {
            put(plane, Map::Prefixes, &abi::PrefixKey { prefix_len: 32 + bits, table, address }, &value);
        }
    }
}

fn put<K, V>(plane: &mut impl DataPlane, map: Map, key: &K, value: &V)
where
    K: IntoBytes + zerocopy::Immutable,
    V: IntoBytes + zerocopy::Immutable,
{
    plane.put(map, key.as_bytes(), value.as_bytes()).unwrap();
}

/// ::ffff:a.b.c.d of an IPv4 address.
fn mapped(address: IpAddr) -> [u8; 16] {
    let map = |address: Ipv4Addr| {
        let mut out = [0; 16];
        out[10..12].fill(0xff);
        out[12..].copy_from_slice(&address.octets());
        out
    };
    match address {
        IpAddr::V4(address) => map(address),
        IpAddr::V6(address) => address.octets(),
    }
}
