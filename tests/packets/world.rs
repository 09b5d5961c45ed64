//! Tunnels, workloads and routes as the tests declare them: written into the maps on one side, judged by on the other.

use std::net::Ipv4Addr;

use mptm::kernel::abi::{self, tunnel_flags};
use mptm::kernel::{DataPlane, Map};
use zerocopy::IntoBytes;

use crate::common::frame::{self, DO_NOT_FRAGMENT, Ethernet, Ipv4, Mac, TYPE_IPV4, TYPE_VLAN, UDP};

pub const VXLAN_PORT: u16 = 4789;
pub const GENEVE_PORT: u16 = 6081;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Vlan { keep_destination: bool, keep_source: bool },
    Vxlan,
    Geneve { options: Vec<u8> },
}

#[derive(Debug, Clone)]
pub struct Tunnel {
    pub id: u32,
    pub kind: Kind,
    /// VNI or VLAN id.
    pub network: u32,
    pub local: (Mac, Ipv4Addr),
    pub remote: (Mac, Ipv4Addr),
    /// The first source port, and how many.
    pub ports: (u16, u32),
    pub mtu: u32,
    pub table: u32,
    /// The underlay's slot.
    pub slot: u32,
    /// And its index: where the tunnel's packets arrive.
    pub underlay: u32,
    pub inner_mac: Option<Mac>,
    /// The outer IPv4 header's options.
    pub ip_options: Vec<u8>,
    pub stack: bool,
    pub unresolved: bool,
    pub debug: bool,
}

impl Tunnel {
    pub fn is_vlan(&self) -> bool {
        matches!(self.kind, Kind::Vlan { .. })
    }

    /// The UDP destination port; 0 for VLAN.
    pub fn port(&self) -> u16 {
        match self.kind {
            Kind::Vlan { .. } => 0,
            Kind::Vxlan => VXLAN_PORT,
            Kind::Geneve { .. } => GENEVE_PORT,
        }
    }

    /// enum mptm_protocol.
    pub fn protocol(&self) -> u16 {
        match self.kind {
            Kind::Vlan { .. } => 1,
            Kind::Vxlan => 2,
            Kind::Geneve { .. } => 3,
        }
    }

    /// Where the outer UDP header is.
    pub fn udp_offset(&self) -> usize {
        34 + self.ip_options.len()
    }

    fn ipv4(&self) -> Ipv4 {
        Ipv4 {
            tos: 0x28,
            id: 0,
            fragment: DO_NOT_FRAGMENT,
            ttl: 61,
            options: self.ip_options.clone(),
            ..Ipv4::new(self.local.1, self.remote.1, UDP)
        }
    }

    /// The whole outer frame around an inner one.
    pub fn encode(&self, inner: &[u8], source_port: u16) -> Vec<u8> {
        let payload = match &self.kind {
            Kind::Vlan { keep_destination, keep_source } => {
                let mut out = inner.to_vec();
                if !keep_destination {
                    out[..6].copy_from_slice(&self.remote.0);
                }
                if !keep_source {
                    out[6..12].copy_from_slice(&self.local.0);
                }
                let tag = [TYPE_VLAN.to_be_bytes(), (self.network as u16).to_be_bytes()].concat();
                out.splice(12..12, tag);
                return out;
            }
            Kind::Vxlan => frame::vxlan(self.network, inner),
            Kind::Geneve { options } => frame::geneve(self.network, options, inner),
        };
        let udp = frame::udp(source_port, self.port(), &payload);
        Ethernet::new(self.remote.0, self.local.0, TYPE_IPV4).encode(&self.ipv4().encode(&udp))
    }

    /// The outer frame as the far end would send it here.
    pub fn arriving(&self, inner: &[u8], source_port: u16) -> Vec<u8> {
        let mut far = self.clone();
        (far.local, far.remote) = (self.remote, self.local);
        far.encode(inner, source_port)
    }

    /// The header of an empty packet, with nothing in the fields that each packet fills in.
    fn template(&self) -> abi::Tunnel {
        let mut header = self.encode(&[0; 14], 0);
        header.truncate(header.len() - if self.is_vlan() { 2 } else { 14 });
        let mut tunnel = abi::Tunnel {
            header_len: header.len() as u16,
            pop: if self.is_vlan() { 12 } else { 0 },
            mtu: self.mtu,
            device: self.slot,
            table: self.table,
            port_min: self.ports.0,
            port_count: self.ports.1,
            protocol: self.protocol(),
            inner_mac: self.inner_mac.unwrap_or_default(),
            ..Default::default()
        };
        if !self.is_vlan() {
            let udp = self.udp_offset();
            header[16..18].fill(0);
            header[24..26].fill(0);
            header[udp + 4..udp + 6].fill(0);
            tunnel.l3_offset = 14;
            tunnel.l4_offset = udp as u16;
            tunnel.ip_sum =
                header[14..udp].chunks(2).map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]]))).sum();
        }
        tunnel.header[..header.len()].copy_from_slice(&header);
        for (is_set, flag) in [
            (!self.is_vlan(), tunnel_flags::IPV4 | tunnel_flags::UDP),
            (matches!(self.kind, Kind::Vlan { keep_destination: true, .. }), tunnel_flags::KEEP_DESTINATION),
            (matches!(self.kind, Kind::Vlan { keep_source: true, .. }), tunnel_flags::KEEP_SOURCE),
            (self.inner_mac.is_some(), tunnel_flags::INNER_MAC),
            (self.stack, tunnel_flags::STACK),
            (self.unresolved, tunnel_flags::UNRESOLVED),
            (self.debug, tunnel_flags::DEBUG),
        ] {
            if is_set {
                tunnel.flags |= flag;
            }
        }
        tunnel
    }

    fn endpoint(&self) -> abi::Endpoint {
        let (remote, local) =
            if self.is_vlan() { ([0; 16], [0; 16]) } else { (mapped(self.remote.1), mapped(self.local.1)) };
        abi::Endpoint {
            remote,
            local,
            id: self.network,
            ifindex: self.underlay,
            port: self.port(),
            protocol: self.protocol(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A slot, the MAC address there, and the address's own table of pairs.
    Workload { slot: u32, mac: Mac, pairs: u32 },
    /// A tunnel, there or not.
    Tunnel(u32),
}

#[derive(Debug, Clone)]
pub struct Route {
    pub table: u32,
    pub prefix: (Ipv4Addr, u32),
    pub target: Target,
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
    pub fn route(&self, table: u32, address: Ipv4Addr) -> Option<Target> {
        self.routes
            .iter()
            .filter(|route| {
                let (network, bits) = route.prefix;
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                route.table == table && (network.to_bits() ^ address.to_bits()) & mask == 0
            })
            .max_by_key(|route| route.prefix.1)
            .map(|route| route.target)
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
        }
        for (slot, ifindex) in &self.devices {
            put(plane, Map::Devices, slot, ifindex);
        }
        for route in &self.routes {
            Self::install_route(plane, route);
        }
        let mut ports = vec![0_u8; 65536];
        for tunnel in &self.tunnels {
            ports[usize::from(tunnel.port())] = tunnel.protocol() as u8;
            // The second entry, so that one that is not in use would be seen.
            put(plane, Map::Tunnels, &(2 * tunnel.id + 1), &tunnel.template());
            put(plane, Map::Active, &tunnel.id, &2_u32);
            put(plane, Map::Endpoints, &tunnel.endpoint(), &tunnel.id);
        }
        ports[0] = 0;
        plane.put(Map::UdpPorts, &0_u32.to_ne_bytes(), &ports).unwrap();
    }

    fn install_route(plane: &mut impl DataPlane, route: &Route) {
        let value = match route.target {
            Target::Workload { slot, mac, pairs } => {
                abi::Route { id: slot, pairs, target: abi::target::WORKLOAD, mac }
            }
            Target::Tunnel(id) => abi::Route { id, pairs: 0, target: abi::target::TUNNEL, mac: [0; 6] },
        };
        let (address, bits) = route.prefix;
        if bits == 32 {
            put(plane, Map::Routes, &abi::RouteKey { table: route.table, address: mapped(address) }, &value);
        } else {
            let key =
                abi::PrefixKey { prefix_len: 32 + 96 + bits, table: route.table, address: mapped(address) };
            put(plane, Map::Prefixes, &key, &value);
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

/// ::ffff:a.b.c.d.
fn mapped(address: Ipv4Addr) -> [u8; 16] {
    let mut out = [0; 16];
    out[10..12].fill(0xff);
    out[12..].copy_from_slice(&address.octets());
    out
}
