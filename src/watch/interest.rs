//! Which events of the kernel can make a difference: most of what happens on a node has nothing to do with mptm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::model::pattern::matches;
use crate::config::model::{Config, Name};
use crate::kernel::Link;
use crate::kernel::linux::{Event, Nsid};
use crate::mac::MacAddr;
use crate::state::{RemoteMac, Route, State};

/// What a pass has depended on.
#[derive(Debug, Default)]
pub struct Interest {
    /// The interfaces of the file.
    names: BTreeSet<Name>,
    /// And the patterns of such.
    patterns: BTreeSet<Name>,
    /// Their devices, whatever they are called now, and the other ends.
    devices: BTreeSet<(Nsid, u32)>,
    /// Outer destinations.
    destinations: BTreeSet<IpAddr>,
    /// Next hops, and workloads whose MAC address the neighbour table tells; with what is known of them.
    neighbours: BTreeMap<(u32, IpAddr), Option<MacAddr>>,
}

impl Interest {
    /// In what a pass over `config` has found: `devices` are those of its interfaces, `state` is what should be.
    pub fn new(config: &Config, devices: &BTreeMap<Name, Link>, state: &State) -> Self {
        let mut interest = Self {
            names: config.interfaces.keys().cloned().collect(),
            patterns: config.patterns.keys().cloned().collect(),
            ..Self::default()
        };
        for link in devices.values() {
            interest.devices.insert((None, link.ifindex));
            interest.devices.extend(link.peer_ifindex.map(|peer| (link.peer_nsid, peer)));
        }
        interest.destinations.extend(config.tunnels.values().filter_map(|tunnel| tunnel.remote));
        for tunnel in state.tunnels.values() {
            if let (Some(next_hop), Some(underlay)) = (tunnel.next_hop, devices.get(&tunnel.underlay)) {
                let mac = match tunnel.remote_mac {
                    RemoteMac::Known(mac) => Some(mac),
                    _ => None,
                };
                interest.neighbours.insert((underlay.ifindex, next_hop), mac);
            }
        }
        for (prefix, route) in state.segments.values().flatten() {
            if let Route::Workload { interface, mac, .. } = route
                && let Some(link) = devices.get(interface)
                && state.interfaces.get(interface).is_some_and(|interface| interface.peer.is_none())
            {
                interest.neighbours.insert((link.ifindex, prefix.addr()), *mac);
            }
        }
        interest
    }

    /// Whether an event can have changed what a pass would find.
    pub fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Lost => true,
            Event::Link { nsid, ifindex, name } => {
                let is_named =
                    || self.names.contains(name) || self.patterns.iter().any(|own| matches(own, name));
                self.devices.contains(&(*nsid, *ifindex)) || nsid.is_none() && is_named()
            }
            Event::Address { nsid, ifindex } => self.devices.contains(&(*nsid, *ifindex)),
            Event::Neighbour { ifindex, address, mac } => {
                self.neighbours.get(&(*ifindex, *address)).is_some_and(|known| known.as_ref() != Some(mac))
            }
            Event::Route { to } => {
                self.destinations.range(IpNet::network(to)..=IpNet::broadcast(to)).next().is_some()
            }
        }
    }

    /// The next hops, which nobody else asks for: packets of tunnels go past the kernel's neighbour table.
    pub fn next_hops(state: &State) -> Vec<(u32, IpAddr)> {
        let next_hops = state.tunnels.values().filter_map(|tunnel| {
            let underlay = state.interfaces.get(&tunnel.underlay)?;
            Some((underlay.ifindex, tunnel.next_hop?))
        });
        next_hops.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest() -> Interest {
        let hop = "10.0.0.2".parse().unwrap();
        Interest {
            names: ["w".into()].into(),
            patterns: ["veth-*".into()].into(),
            devices: [(None, 3), (Some(7), 2)].into(),
            destinations: ["10.9.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
            neighbours: [((3, hop), Some(MacAddr([2, 0, 0, 0, 0, 1])))].into(),
        }
    }

    #[test]
    fn devices() {
        let interest = interest();
        let link = |nsid, ifindex, name: &str| Event::Link { nsid, ifindex, name: name.into() };
        assert!(interest.wants(&link(None, 9, "w")), "it came back");
        assert!(interest.wants(&link(None, 9, "veth-a")), "a pattern matches");
        assert!(interest.wants(&link(None, 3, "x")), "it was renamed");
        assert!(interest.wants(&link(Some(7), 2, "eth0")), "the other end");
        assert!(!interest.wants(&link(Some(7), 9, "w")), "another namespace's");
        assert!(!interest.wants(&link(None, 2, "eth0")));
        assert!(interest.wants(&Event::Address { nsid: Some(7), ifindex: 2 }));
        assert!(!interest.wants(&Event::Address { nsid: None, ifindex: 2 }));
    }

    #[test]
    fn neighbours_with_another_mac() {
        let interest = interest();
        let event = |ifindex, last| Event::Neighbour {
            ifindex,
            address: [10, 0, 0, 2].into(),
            mac: MacAddr([2, 0, 0, 0, 0, last]),
        };
        assert!(interest.wants(&event(3, 2)));
        assert!(!interest.wants(&event(3, 1)), "it is known");
        assert!(!interest.wants(&event(4, 2)), "another device's");
    }

    #[test]
    fn routes_that_cover_a_destination() {
        for (to, wanted) in [
            ("0.0.0.0/0", true),
            ("10.9.0.0/24", true),
            ("10.9.0.1/32", true),
            ("10.9.1.0/24", false),
            ("::/0", true),
            ("fd00::/64", true),
            ("fd01::/16", false),
        ] {
            assert_eq!(interest().wants(&Event::Route { to: to.parse().unwrap() }), wanted, "{to}");
        }
    }
}
