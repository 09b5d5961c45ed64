//! The segments' tables: where each inner address is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::interfaces::{End, Ends};
use super::{Context, Findings};
use crate::config::model::{Addresses, Config, Location, Name, Payload, Role};
use crate::mac::MacAddr;
use crate::render;
use crate::state::{Route, State};

type Table = BTreeMap<IpNet, Route>;

/// Fills in the routes of `segments`.
pub fn resolve(context: &Context<'_>, ends: &Ends, state: &mut State, findings: &mut Findings) {
    for (name, interface) in &context.config.interfaces {
        let (Role::Workload { segment, addresses, mac, .. }, Some(end)) = (&interface.role, ends.get(name))
        else {
            continue;
        };
        let Some(list) = list(context, name, addresses, end, &interface.at, findings) else { continue };
        let table = state.segments.entry(segment.clone()).or_default();
        for prefix in list {
            let mac = mac
                .or_else(|| behind(context, end, &prefix))
                .or_else(|| remembered(context, segment, name, end, &prefix));
            let route = Route::Workload { interface: name.clone(), mac, pairs: Box::default() };
            insert(table, segment, prefix, route, &interface.at, findings);
        }
    }
    into_tunnels(context.config, state, findings);
    for (name, tunnel) in context.config.tunnels.iter().filter(|(_, tunnel)| !tunnel.from.is_empty()) {
        let table = state.segments.entry(tunnel.segment.clone()).or_default();
        for from in &tunnel.from {
            split(table, from);
            let sources = inside(table, from);
            if sources.is_empty() {
                let what = format!(
                    "tunnel {name}: no workload of segment {} has {}, which `from` names",
                    tunnel.segment,
                    render::prefix(from)
                );
                if context.partial {
                    // Its workload may be just away; the others that `from` names are not.
                    findings.warn(what);
                } else {
                    findings.error(&tunnel.at, what, "`from` lists addresses of this node's workloads");
                }
            }
            for source in sources {
                add_pairs(table, &source, name, &tunnel.inner, &tunnel.at, findings);
            }
        }
    }
    for (name, interface) in &context.config.interfaces {
        let Role::Workload { segment, gateway, .. } = &interface.role else { continue };
        let table = state.segments.entry(segment.clone()).or_default();
        for address in gateway {
            add_gateway(table, segment, name, *address, &interface.at, findings);
        }
    }
    check_macs(state, findings);
}

/// The routes of tunnels without `from`, of which there may be a million: a table of sorted ones is made much faster than
/// they are inserted one by one.
fn into_tunnels(config: &Config, state: &mut State, findings: &mut Findings) {
    let mut by_segment: BTreeMap<&Name, Vec<(IpNet, &Name)>> = BTreeMap::new();
    for (name, tunnel) in config.tunnels.iter().filter(|(_, tunnel)| tunnel.from.is_empty()) {
        let routes = by_segment.entry(&tunnel.segment).or_default();
        routes.extend(tunnel.inner.iter().map(|prefix| (*prefix, name)));
    }
    for (segment, mut routes) in by_segment {
        routes.sort_unstable();
        let table = state.segments.entry(segment.clone()).or_default();
        let workloads = std::mem::take(table);
        let twice = routes.windows(2).filter(|two| two[0].0 == two[1].0).map(|two| (two[1], two[0].1));
        let taken =
            routes.iter().filter_map(|(prefix, name)| Some(((*prefix, *name), workloads.get(prefix)?)));
        let twice = twice.map(|(second, first)| (second, owner(&Route::Tunnel(first.clone()))));
        for ((prefix, name), other) in twice.chain(taken.map(|(own, route)| (own, owner(route)))) {
            let route = Route::Tunnel(name.clone());
            clash(segment, &prefix, &route, &other, &config.tunnels[name].at, findings);
        }
        *table = routes.into_iter().map(|(prefix, name)| (prefix, Route::Tunnel(name.clone()))).collect();
        table.extend(workloads);
    }
}

/// A next hop may be that of several workloads, but is nobody's own address.
fn add_gateway(
    table: &mut Table,
    segment: &Name,
    name: &Name,
    address: IpAddr,
    at: &Location,
    findings: &mut Findings,
) {
    match table.get(&address.into()) {
        None | Some(Route::Gateway) => {
            table.insert(address.into(), Route::Gateway);
        }
        Some(other) => findings.error(
            at,
            format!(
                "interface {name}: gateway {address} of segment {segment} is already that of {}",
                owner(other)
            ),
            "mptm answers for a gateway itself: it is an address that nobody else has",
        ),
    }
}

/// An IP packet that comes out of a tunnel gets an Ethernet header: for that, the workload's MAC address must be known.
fn check_macs(state: &State, findings: &mut Findings) {
    let of_ip = state.tunnels.values().filter(|tunnel| tunnel.payload == Payload::Ip);
    let segments: BTreeSet<&Name> = of_ip.map(|tunnel| &tunnel.segment).collect();
    let mut unknown: BTreeMap<&Name, Vec<String>> = BTreeMap::new();
    for (prefix, route) in segments.iter().filter_map(|segment| state.segments.get(*segment)).flatten() {
        if let Route::Workload { interface, mac: None, .. } = route {
            unknown.entry(interface).or_default().push(render::prefix(prefix));
        }
    }
    for (interface, prefixes) in unknown {
        findings.warn(format!(
            "interface {interface}: the MAC address of {} is not known, so IP packets out of tunnels can't be \
             delivered there (say mac = ..., or peer = ...)",
            prefixes.join(", ")
        ));
    }
}

/// The addresses of a workload.
fn list(
    context: &Context<'_>,
    name: &Name,
    addresses: &Addresses,
    end: &End,
    at: &Location,
    findings: &mut Findings,
) -> Option<Vec<IpNet>> {
    let Addresses::Peer = addresses else {
        let Addresses::List(list) = addresses else { return None };
        return Some(list.clone());
    };
    let Some((netns, peer)) = &end.peer else {
        // One that a pattern matches may be anybody's, or just about to be made.
        if at.device.is_none() {
            findings.error(
                at,
                format!("interface {name}: addresses = \"peer\", but its other end is not known"),
                "say peer = { netns = ..., name = ... }, or list the addresses",
            );
        }
        return None;
    };
    match context.net.addresses(netns, peer.ifindex) {
        Ok(found) => {
            let mut found: Vec<IpNet> = found.into_iter().map(|net| net.addr().into()).collect();
            found.sort_unstable();
            found.dedup();
            if found.is_empty() {
                findings.warn(format!("interface {name}: its peer {} has no address yet", peer.name));
            }
            Some(found)
        }
        Err(error) => {
            findings.kernel(at, format!("interface {name}: cannot read the addresses of its peer"), error);
            None
        }
    }
}

/// The MAC address that answers for a workload's address: its peer's, or what the neighbour table has.
fn behind(context: &Context<'_>, end: &End, prefix: &IpNet) -> Option<MacAddr> {
    match &end.peer {
        Some((_, peer)) => peer.mac,
        None if prefix.prefix_len() == prefix.max_prefix_len() => {
            context.net.neighbour(end.link.ifindex, prefix.addr()).ok().flatten()
        }
        None => None,
    }
}

/// What the neighbour table has forgotten, as it does after a minute of silence, the route still knows. Else an apply
/// that has nothing to do would take it away.
fn remembered(
    context: &Context<'_>,
    segment: &Name,
    name: &Name,
    end: &End,
    prefix: &IpNet,
) -> Option<MacAddr> {
    let live = &context.live.state;
    if end.peer.is_some() || live.interfaces.get(name)?.ifindex != end.link.ifindex {
        return None;
    }
    match live.segments.get(segment)?.get(prefix)? {
        Route::Workload { interface, mac, .. } if interface == name => *mac,
        _ => None,
    }
}

fn owner(route: &Route) -> String {
    match route {
        Route::Workload { interface, .. } => format!("interface {interface}"),
        Route::Tunnel(tunnel) => format!("tunnel {tunnel}"),
        Route::Gateway => "gateway".into(),
    }
}

fn insert(
    table: &mut Table,
    segment: &Name,
    prefix: IpNet,
    route: Route,
    at: &Location,
    findings: &mut Findings,
) {
    if let Some(other) = table.get(&prefix) {
        clash(segment, &prefix, &route, &owner(other), at, findings);
    }
    table.insert(prefix, route);
}

fn clash(segment: &Name, prefix: &IpNet, route: &Route, other: &str, at: &Location, findings: &mut Findings) {
    findings.error(
        at,
        format!(
            "{}: {} of segment {segment} is already that of {other}",
            owner(route),
            render::prefix(prefix)
        ),
        "an address has one place in a segment; another `segment` may use it again",
    );
}

/// Where `from` is a part of a workload's prefix, that part becomes a route of its own.
fn split(table: &mut Table, from: &IpNet) {
    if table.contains_key(from) {
        return;
    }
    let mut wider = from.supernet();
    while let Some(prefix) = wider {
        if let Some(route) = table.get(&prefix) {
            if matches!(route, Route::Workload { .. }) {
                let route = route.clone();
                table.insert(*from, route);
            }
            return;
        }
        wider = prefix.supernet();
    }
}

/// The workload prefixes inside of `from`.
fn inside(table: &Table, from: &IpNet) -> Vec<IpNet> {
    // Addresses are ordered before lengths: what lies in a prefix is one range.
    table
        .range(from.trunc()..=IpNet::from(from.broadcast()))
        .filter(|(_, route)| matches!(route, Route::Workload { .. }))
        .map(|(prefix, _)| *prefix)
        .collect()
}

fn add_pairs(
    table: &mut Table,
    source: &IpNet,
    tunnel: &Name,
    inner: &[IpNet],
    at: &Location,
    findings: &mut Findings,
) {
    let Some(Route::Workload { pairs, .. }) = table.get_mut(source) else { return };
    for prefix in inner {
        match pairs.insert(*prefix, tunnel.clone()) {
            Some(other) if other != *tunnel => findings.error(
                at,
                format!(
                    "tunnel {tunnel}: from {} to {} is already the way of tunnel {other}",
                    render::prefix(source),
                    render::prefix(prefix)
                ),
                "a pair of source and destination takes one tunnel: make one `from` or `inner` narrower",
            ),
            _ => {}
        }
    }
}
