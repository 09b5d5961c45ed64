//! A live state as a configuration that means just that state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::model::{
    Addresses, Config, Interface, Location, Name, PeerSpec, Role as ModelRole, SourcePort, Tunnel,
};
use crate::kernel::Via;
use crate::mac::MacAddr;
use crate::state::{self, Peer, RemoteMac, Role, Route, State};

/// A configuration, and what could not be said in one.
#[derive(Debug)]
pub struct Dump {
    /// What the state means.
    pub config: Config,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Writes a state down. Of what was looked up, MAC addresses are left to be looked up again, where that gives the same:
/// `peer_mac` tells what a peer has now.
pub fn dump(state: &State, peer_mac: impl Fn(&Peer) -> Option<MacAddr>) -> Dump {
    let behind = behind(state);
    let mut dump = Dump { config: Config::default(), left_out: Vec::new() };
    for (name, interface) in &state.interfaces {
        let interface = dump_interface(state, name, interface, &peer_mac);
        dump.config.interfaces.insert(name.clone(), interface);
    }
    for (name, tunnel) in &state.tunnels {
        let empty = Behind::default();
        let Behind { inner, from } = behind.get(name).unwrap_or(&empty);
        if inner.is_empty() {
            dump.left_out.push(format!("tunnel {name}: nothing is routed into it"));
            continue;
        }
        if !tunnel.intact {
            dump.left_out.push(format!("tunnel {name}: its header is damaged"));
            continue;
        }
        dump.config.tunnels.insert(name.clone(), dump_tunnel(state, tunnel, inner, from));
    }
    for name in behind.keys().filter(|name| !state.tunnels.contains_key(&***name)) {
        dump.left_out.push(format!("routes into tunnel {name}, which is not there"));
    }
    dump
}

/// The prefixes behind a tunnel, and the sources that it is for.
#[derive(Debug, Default)]
struct Behind {
    inner: BTreeSet<IpNet>,
    from: BTreeSet<IpNet>,
}

fn behind(state: &State) -> BTreeMap<&Name, Behind> {
    let mut behind: BTreeMap<&Name, Behind> = BTreeMap::new();
    for (prefix, route) in state.segments.values().flatten() {
        match route {
            Route::Tunnel(tunnel) => {
                behind.entry(tunnel).or_default().inner.insert(*prefix);
            }
            Route::Gateway => {}
            Route::Workload { pairs, .. } => {
                for (destination, tunnel) in pairs.iter() {
                    let behind = behind.entry(tunnel).or_default();
                    behind.inner.insert(*destination);
                    behind.from.insert(*prefix);
                }
            }
        }
    }
    behind
}

/// A dump stands in no file.
fn nowhere() -> Location {
    Location { file: "dump".into(), line: 0, device: None }
}

fn dump_interface(
    state: &State,
    name: &Name,
    interface: &state::Interface,
    peer_mac: impl Fn(&Peer) -> Option<MacAddr>,
) -> Interface {
    let role = match &interface.role {
        Role::Underlay => ModelRole::Underlay,
        Role::Pass => ModelRole::Pass,
        Role::Redirect { to } => ModelRole::Redirect { to: to.clone() },
        Role::Workload { segment } => {
            let (list, mac) = addresses(state, segment, name);
            let of_peer = interface.peer.as_ref().and_then(peer_mac);
            let mac = mac.filter(|mac| Some(*mac) != of_peer);
            let addresses = if list.is_empty() { Addresses::Peer } else { Addresses::List(list) };
            let gateway = gateways(state, segment);
            ModelRole::Workload { segment: segment.clone(), addresses, mac, gateway }
        }
    };
    let peer = match (&interface.peer, &interface.role) {
        (Some(peer), _) => PeerSpec::At { netns: peer.netns.clone(), name: peer.name.clone() },
        (None, Role::Workload { .. } | Role::Redirect { .. }) => PeerSpec::None,
        (None, Role::Underlay | Role::Pass) => PeerSpec::Find,
    };
    let link = state.links.get(name);
    let mode = link.and_then(|link| link.mode).unwrap_or_default();
    let dispatcher = link.is_some_and(|link| link.via == Via::Dispatcher);
    Interface { at: nowhere(), role, mode, dispatcher, peer, manage: interface.manage }
}

/// A workload's addresses, and their MAC address if they have one in common.
fn addresses(state: &State, segment: &Name, name: &Name) -> (Vec<IpNet>, Option<MacAddr>) {
    let own = state.segments.get(segment).into_iter().flatten().filter_map(|(prefix, route)| match route {
        Route::Workload { interface, mac, .. } if interface == name => Some((*prefix, *mac)),
        _ => None,
    });
    let (list, macs): (Vec<IpNet>, BTreeSet<Option<MacAddr>>) = own.unzip();
    let mac = if macs.len() == 1 { macs.first().copied().flatten() } else { None };
    (list, mac)
}

/// The next hops of a segment. Whose they are is not kept: each of its workloads may have them.
fn gateways(state: &State, segment: &Name) -> Vec<IpAddr> {
    let table = state.segments.get(segment).into_iter().flatten();
    table.filter(|(_, route)| **route == Route::Gateway).map(|(prefix, _)| prefix.addr()).collect()
}

fn dump_tunnel(
    state: &State,
    tunnel: &state::Tunnel,
    inner: &BTreeSet<IpNet>,
    from: &BTreeSet<IpNet>,
) -> Tunnel {
    // Exhaustive: a new field does not compile until it is dumped.
    let state::Tunnel {
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
        intact: _,
    } = tunnel;
    let of_underlay = |mac: &MacAddr| {
        protocol.has_outer_ip()
            && state.interfaces.get(underlay).is_some_and(|interface| interface.mac == *mac)
    };
    Tunnel {
        at: nowhere(),
        protocol: *protocol,
        id: *id,
        local_id: *local_id,
        service_id: *service_id,
        payload: *payload,
        segment: segment.clone(),
        underlay: underlay.clone(),
        remote: *remote,
        local: *local,
        local_mac: local_mac.filter(|mac| !of_underlay(mac)),
        // What was looked up can be looked up again.
        remote_mac: match remote_mac {
            RemoteMac::Known(mac) if *mac != MacAddr::ZERO && next_hop.is_none() => Some(*mac),
            _ => None,
        },
        inner: inner.iter().copied().collect(),
        from: from.iter().copied().collect(),
        src_port: if *max == 0 { SourcePort::Flow } else { SourcePort::from_range(*min, *max) },
        dst_port: *dst_port,
        ttl: *ttl,
        tos: *tos,
        df: *df,
        flow_label: *flow_label,
        udp_checksum: protocol.has_udp().then_some(*udp_checksum),
        pcp: *pcp,
        gbp: *gbp,
        options: options.clone(),
        checksum: *checksum,
        sequence: *sequence,
        variant: *variant,
        qfi: *qfi,
        uplink: *uplink,
        inner_mac: *inner_mac,
        mtu: Some(*mtu),
        mss_clamp: *mss_clamp,
        flood: *flood,
        redirect: *redirect,
        debug: *debug,
    }
}
