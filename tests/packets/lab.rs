//! The world that most tests run in: two segments with the same inner addresses, tunnels for each case, and far ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mptm::kernel::abi::role;

use crate::common::frame::{Ethernet, Ipv4, Mac, TYPE_IPV4, UDP, udp};
use crate::node::Node;
use crate::wide::{self, behind6};
use crate::world::{Kind, Route, Target, Tunnel};

pub const UNDERLAY: u32 = 1;
pub const FAR: u32 = 2;
pub const RED: u32 = 3;
pub const GREEN: u32 = 4;
pub const BLUE: u32 = 5;
pub const CABLE: u32 = 6;
pub const END: u32 = 7;
pub const MIRROR: u32 = 8;
/// A slot that no device is in.
pub const NOWHERE: u32 = 9;

/// Tables: red and green are workloads of one segment, blue is another's.
pub const SEGMENT: u32 = 1;
pub const BLUE_SEGMENT: u32 = 2;
pub const PAIRS: u32 = 100;
/// And this plus a tunnel's id: what that tunnel's far end knows, which is a tunnel of that id.
pub const MIRRORS: u32 = 128;

pub const RED_MAC: Mac = [2, 0, 0, 0, 0, 1];
pub const GREEN_MAC: Mac = [2, 0, 0, 0, 0, 2];
pub const BLUE_MAC: Mac = [2, 0, 0, 0, 0, 3];
pub const FAR_MAC: Mac = [2, 0, 0, 0, 9, 9];
pub const OWN_MAC: Mac = [2, 0x10, 0, 0, 0, 1];
pub const INNER_MAC: Mac = [2, 0x77, 0, 0, 0, 7];

pub const RED_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Has pairs of its own.
pub const RED_PAIR_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const GREEN_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

pub const RED_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub const GREEN_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
/// Next hops that mptm answers for.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe);
pub const LINK_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);

/// An address behind tunnel `id` and no other.
pub const fn behind(id: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, id, 1)
}

pub const GENEVE: u8 = 1;
pub const VXLAN: u8 = 2;
pub const VLAN: u8 = 3;
pub const GENEVE_OPTIONS: u8 = 4;
pub const VLAN_OWN_MACS: u8 = 5;
pub const UNRESOLVED: u8 = 6;
pub const MISSING: u8 = 7;
pub const NO_DEVICE: u8 = 8;
pub const PAIR: u8 = 9;
pub const BLUE_GENEVE: u8 = 10;
pub const NARROW: u8 = 11;
pub const STACK: u8 = 12;
pub const VXLAN_INNER_MAC: u8 = 13;
pub const OUTER_OPTIONS: u8 = 14;
pub const NARROW_VLAN: u8 = 15;
pub const DEBUG: u8 = 16;

pub struct Lab {
    pub node: Node,
    pub underlay: u32,
    pub far: u32,
    pub red: u32,
    pub green: u32,
    pub blue: u32,
    pub cable: u32,
    pub end: u32,
    /// Tunnels of every kind.
    pub wide: Vec<u8>,
}

impl Lab {
    /// None: not root.
    pub fn new(test: &str) -> Option<Self> {
        let mut node = Node::new(test)?;
        let mut lab = Self {
            underlay: node.device("underlay", UNDERLAY, role::UNDERLAY, 0, OWN_MAC),
            far: node.device("far", FAR, role::UNDERLAY, 0, [2, 0x10, 0, 0, 0, 2]),
            red: node.device("red", RED, role::WORKLOAD, SEGMENT, [2, 0x10, 0, 0, 1, 1]),
            green: node.device("green", GREEN, role::WORKLOAD, SEGMENT, [2, 0x10, 0, 0, 1, 2]),
            blue: node.device("blue", BLUE, role::WORKLOAD, BLUE_SEGMENT, [2, 0x10, 0, 0, 1, 3]),
            cable: node.device("cable", CABLE, role::REDIRECT, 0, [2, 0x10, 0, 0, 1, 4]),
            end: node.device("end", END, role::PASS, 0, [2, 0x10, 0, 0, 1, 5]),
            node,
            wide: Vec::new(),
        };
        lab.node.device("mirror", MIRROR, role::WORKLOAD, MIRRORS + 1, [2, 0x10, 0, 0, 1, 6]);
        let cable = lab.node.world.interfaces.iter_mut().find(|i| i.slot == CABLE).expect("just made");
        cable.to = END;
        lab.add_tunnels();
        lab.add_routes();
        lab.node.install();
        Some(lab)
    }

    fn add_tunnels(&mut self) {
        let underlay = self.underlay;
        let make = |id: u8, kind: Kind, network: u32| Tunnel {
            table: SEGMENT,
            slot: UNDERLAY,
            underlay,
            ..Tunnel::new(id.into(), kind, Some(network))
        };
        let geneve = |id, network| make(id, Kind::GENEVE, network);
        let vxlan = |id, network| make(id, Kind::VXLAN, network);
        let vlan = |id, network, keep| Tunnel {
            keep_destination: keep,
            keep_source: keep,
            ..make(id, Kind::Vlan, network)
        };
        let options = vec![(0x0102, 3, vec![1, 2, 3, 4]), (0x0103, 4, vec![5, 6, 7, 8])];
        let mut tunnels = vec![
            geneve(GENEVE, 42),
            vxlan(VXLAN, 0xff_fffe),
            vlan(VLAN, 100, true),
            Tunnel { ports: (5000, 1), ..make(GENEVE_OPTIONS, Kind::Geneve { options, ip: false }, 4) },
            Tunnel { inner_mac: Some(INNER_MAC), ..vlan(VLAN_OWN_MACS, 4094, false) },
            Tunnel { unresolved: true, ..geneve(UNRESOLVED, 6) },
            Tunnel { slot: NOWHERE, ..vxlan(NO_DEVICE, 8) },
            vxlan(PAIR, 9),
            Tunnel { table: BLUE_SEGMENT, ..geneve(BLUE_GENEVE, 10) },
            Tunnel { mtu: 1400, ..geneve(NARROW, 11) },
            Tunnel { stack: true, ..vxlan(STACK, 12) },
            Tunnel { inner_mac: Some(INNER_MAC), ports: (65535, 1), ..vxlan(VXLAN_INNER_MAC, 13) },
            Tunnel { ip_options: vec![1; 40], ports: (1, 65535), ..geneve(OUTER_OPTIONS, 14) },
            Tunnel { mtu: 1496, keep_destination: true, ..vlan(NARROW_VLAN, 15, false) },
            Tunnel { debug: true, ..geneve(DEBUG, 16) },
        ];
        tunnels.extend(wide::tunnels().into_iter().map(|tunnel| Tunnel {
            table: SEGMENT,
            slot: UNDERLAY,
            underlay,
            ..tunnel
        }));
        self.wide = tunnels.iter().map(|tunnel| tunnel.id as u8).filter(|id| *id >= wide::FIRST).collect();
        for id in [GENEVE, VXLAN, VLAN].iter().chain(&self.wide) {
            let near = tunnels.iter().find(|tunnel| tunnel.id == u32::from(*id)).expect("just made");
            tunnels.push(self.far_end(near));
        }
        self.node.world.tunnels = tunnels;
    }

    /// A tunnel's other end, which is here, too.
    pub fn far_end(&self, near: &Tunnel) -> Tunnel {
        let id = MIRRORS + near.id;
        Tunnel { id, table: id, slot: FAR, underlay: self.far, ..near.mirrored() }
    }

    fn add_routes(&mut self) {
        let mut routes = Vec::new();
        let mut add = |table, address: IpAddr, bits, target| {
            routes.push(Route { table, prefix: (address, bits), target });
        };
        let workload = |slot, mac, pairs| Target::Workload { slot, mac, pairs };
        let tunnel = |id: u8| Target::Tunnel(id.into());

        add(SEGMENT, RED_IP.into(), 32, workload(RED, RED_MAC, 0));
        add(SEGMENT, RED_PAIR_IP.into(), 32, workload(RED, RED_MAC, PAIRS));
        add(SEGMENT, Ipv4Addr::new(10, 0, 8, 0).into(), 24, workload(RED, [0; 6], 0));
        add(SEGMENT, GREEN_IP.into(), 32, workload(GREEN, GREEN_MAC, 0));
        add(BLUE_SEGMENT, RED_IP.into(), 32, workload(BLUE, BLUE_MAC, 0));
        add(SEGMENT, Ipv4Addr::new(10, 0, 9, 1).into(), 32, workload(NOWHERE, [0; 6], 0));
        for id in GENEVE..=DEBUG {
            if id != PAIR && id != BLUE_GENEVE {
                add(SEGMENT, behind(id).into(), 32, tunnel(id));
            }
        }
        add(BLUE_SEGMENT, behind(GENEVE).into(), 32, tunnel(BLUE_GENEVE));
        add(PAIRS, behind(GENEVE).into(), 32, tunnel(PAIR));
        add(PAIRS, Ipv4Addr::new(10, 1, 40, 0).into(), 24, tunnel(PAIR));
        add(SEGMENT, Ipv4Addr::new(10, 2, 0, 0).into(), 16, tunnel(GENEVE));
        add(SEGMENT, Ipv4Addr::new(10, 2, 3, 0).into(), 24, tunnel(VXLAN));
        add(SEGMENT, Ipv4Addr::new(10, 2, 3, 128).into(), 31, tunnel(VLAN));
        add(SEGMENT, Ipv4Addr::new(10, 2, 3, 128).into(), 32, tunnel(GENEVE_OPTIONS));
        add(SEGMENT, RED_IP6.into(), 128, workload(RED, RED_MAC, 0));
        add(SEGMENT, GREEN_IP6.into(), 128, workload(GREEN, GREEN_MAC, 0));
        add(SEGMENT, GATEWAY.into(), 32, Target::Gateway);
        add(SEGMENT, GATEWAY6.into(), 128, Target::Gateway);
        add(SEGMENT, LINK_GATEWAY6.into(), 128, Target::Gateway);
        for id in &self.wide {
            add(SEGMENT, behind(*id).into(), 32, tunnel(*id));
            add(SEGMENT, behind6(*id).into(), 128, tunnel(*id));
        }
        for id in [GENEVE, VXLAN, VLAN].iter().chain(&self.wide) {
            let table = MIRRORS + u32::from(*id);
            add(table, Ipv4Addr::new(10, 1, 0, 0).into(), 16, workload(MIRROR, FAR_MAC, 0));
            add(table, Ipv4Addr::new(10, 0, 0, 0).into(), 16, Target::Tunnel(table));
            add(table, behind6(0).into(), 32, workload(MIRROR, FAR_MAC, 0));
            add(table, RED_IP6.into(), 32, Target::Tunnel(table));
        }
        self.node.world.routes = routes;
    }

    /// The interface's own MAC address.
    pub fn own_mac(&self, ifindex: u32) -> Mac {
        self.node.world.interface(ifindex).expect("an interface of the lab").mac
    }

    /// Those tunnels among the ones of every kind.
    pub fn which(&self, is_one: impl Fn(&Tunnel) -> bool) -> Vec<u8> {
        self.wide.iter().copied().filter(|id| is_one(&self.tunnel(*id))).collect()
    }

    /// Changes the tunnels of every kind, at both ends.
    pub fn change_tunnels(&mut self, mut change: impl FnMut(&mut Tunnel)) {
        let mut world = self.node.world.clone();
        for id in &self.wide {
            let near =
                world.tunnels.iter_mut().find(|tunnel| tunnel.id == u32::from(*id)).expect("it is there");
            change(near);
            let far = self.far_end(near);
            let place = world.tunnels.iter().position(|tunnel| tunnel.id == far.id).expect("it is there");
            world.tunnels[place] = far;
        }
        self.node.replace_tunnels(world.tunnels);
    }

    pub fn tunnel(&self, id: u8) -> Tunnel {
        self.node.world.tunnel(id.into()).expect("a tunnel of the lab").clone()
    }
}

/// A frame from red's MAC address, for whoever it takes for the next hop.
pub fn leaving(ethertype: u16) -> Ethernet {
    Ethernet::new(FAR_MAC, RED_MAC, ethertype)
}

/// UDP from a source to a destination, with this much payload.
pub fn datagram(source: Ipv4Addr, destination: Ipv4Addr, payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|at| at as u8).collect();
    leaving(TYPE_IPV4).encode(&Ipv4::new(source, destination, UDP).encode(&udp(1000, 2000, &payload)))
}
