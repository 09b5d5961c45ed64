//! What cannot be together: two owners of one address, endpoint, port or peer. Each check takes one pass and a map,
//! since a file may have a hundred thousand tunnels.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostic::{Diagnostic, Report, Span};
use super::model::{Name, NetnsRef};
use super::prefix::{PrefixMap, text};
use super::raw::{At, Field, RawAddresses, RawInterface, RawPeer, RawTunnel, RoleName};
use super::validate::segment_of;
use crate::protocol::Protocol;

/// What is said for the first time, and by whom.
#[derive(Clone, Copy)]
struct First<'a> {
    name: &'a str,
    span: Span,
}

impl<'a> First<'a> {
    fn new(name: &'a At<Name>, span: Span) -> Self {
        Self { name: &name.value, span }
    }
}

/// A veth has two ends.
pub(super) fn interfaces(interfaces: &[RawInterface], report: &mut Report) {
    let mut peers: HashMap<(Option<&NetnsRef>, &Name), First<'_>> = HashMap::new();
    for interface in interfaces {
        let Some(RawPeer::At { netns, name }) = interface.peer.value() else { continue };
        let key = (netns.as_ref().map(|netns| &netns.value), &name.value);
        if let Some(first) = peers.get(&key) {
            let title = format!("{} and {} have the same peer", first.name, interface.name.value);
            let error = Diagnostic::at(name.span, title, "a veth has one other end");
            report.error(error.also(first.span, format!("the peer of {}", first.name)));
        } else {
            peers.insert(key, First::new(&interface.name, name.span));
        }
    }
}

/// What tells the packets of tunnels apart when they arrive, but for the local address.
type Endpoint<'a> = (Protocol, &'a Name, Option<IpAddr>, i128, u16);

/// The tunnels of an endpoint by their local address. One without has what its route prefers, which may be any.
#[derive(Default)]
struct Locals<'a> {
    any: Option<First<'a>>,
    one: Option<First<'a>>,
    by_address: HashMap<IpAddr, First<'a>>,
}

/// `underlays` has the underlay of each tunnel.
pub(super) fn tunnels(tunnels: &[RawTunnel], underlays: &[Option<Name>], report: &mut Report) {
    let mut endpoints: HashMap<Endpoint<'_>, Locals<'_>> = HashMap::new();
    let mut ports: HashMap<u16, (Protocol, First<'_>)> = HashMap::new();
    for (tunnel, underlay) in tunnels.iter().zip(underlays) {
        let Some(protocol) = tunnel.protocol.value().copied() else { continue };
        let port = match (&tunnel.dst_port, protocol.default_port()) {
            (_, None) => 0,
            (Field::Missing, Some(port)) => port,
            (Field::Given(port), _) => port.value,
            (Field::Bad, _) => continue,
        };
        if port != 0 {
            let span = tunnel.dst_port.given().map_or(tunnel.name.span, |port| port.span);
            port_clash(tunnel, protocol, port, span, &mut ports, report);
        }
        let has_outer_ip = protocol.has_outer_ip();
        let (Some(underlay), Some(id), remote) =
            (underlay, tunnel.id.value(), tunnel.remote.value().copied())
        else {
            continue;
        };
        if has_outer_ip && remote.is_none() || matches!(tunnel.local, Field::Bad) {
            continue;
        }
        let remote = remote.filter(|_| has_outer_ip);
        let local = tunnel.local.value().copied().filter(|_| has_outer_ip);
        let locals = endpoints.entry((protocol, underlay, remote, *id, port)).or_default();
        endpoint_clash(tunnel, protocol, local, locals, report);
    }
}

/// A node tells protocols apart by their port.
fn port_clash<'a>(
    tunnel: &'a RawTunnel,
    protocol: Protocol,
    port: u16,
    span: Span,
    ports: &mut HashMap<u16, (Protocol, First<'a>)>,
    report: &mut Report,
) {
    let (first_protocol, first) = *ports.entry(port).or_insert((protocol, First::new(&tunnel.name, span)));
    if first_protocol != protocol {
        let title = format!("UDP port {port} is used by two protocols");
        let label = format!("{protocol} here; give one of them another `dst_port`");
        let error = Diagnostic::at(span, title, label);
        report.error(error.also(first.span, format!("{first_protocol} by tunnel {}", first.name)));
    }
}

fn endpoint_clash<'a>(
    tunnel: &'a RawTunnel,
    protocol: Protocol,
    local: Option<IpAddr>,
    locals: &mut Locals<'a>,
    report: &mut Report,
) {
    let me = First::new(&tunnel.name, tunnel.name.span);
    let clash = match local {
        None => locals.one,
        Some(local) => locals.any.or_else(|| locals.by_address.get(&local).copied()),
    };
    if let Some(first) = clash {
        let title = format!("tunnels {} and {} cannot be told apart", first.name, tunnel.name.value);
        let label = match protocol.has_outer_ip() {
            false => "same underlay and `id`: give one of them another `id`",
            true => "same protocol, underlay, `remote`, `id` and `dst_port`: give one of them another `id`",
        };
        let error = Diagnostic::at(me.span, title, label);
        report.error(error.also(first.span, "the other one"));
        return;
    }
    locals.one.get_or_insert(me);
    match local {
        None => _ = locals.any.get_or_insert(me),
        Some(local) => _ = locals.by_address.insert(local, me),
    }
}

/// The routes of a segment.
#[derive(Default)]
struct Segment<'a> {
    workloads: PrefixMap<First<'a>>,
    has_workload: bool,
    /// Some workload's addresses are not written in the file.
    is_open: bool,
    tunnels: HashMap<IpNet, Routes<'a>>,
}

/// The tunnels of a prefix.
#[derive(Default)]
struct Routes<'a> {
    for_all: Option<First<'a>>,
    by_source: PrefixMap<First<'a>>,
}

/// Where a packet goes must be clear.
pub(super) fn segments(interfaces: &[RawInterface], tunnels: &[RawTunnel], report: &mut Report) {
    let mut segments: HashMap<Name, Segment<'_>> = HashMap::new();
    // What cannot be read may be in any segment, and have any address.
    let mut unknown = false;
    for interface in interfaces {
        let workload = interface.role.value().map(|role| *role == RoleName::Workload);
        let name = segment_of(&interface.segment);
        let (Some(true), Some(name)) = (workload, name) else {
            unknown |= workload != Some(false);
            continue;
        };
        let segment = segments.entry(name).or_default();
        segment.has_workload = true;
        let Some(RawAddresses::List(list)) = interface.addresses.value() else {
            segment.is_open = true;
            continue;
        };
        for address in list {
            if let Some(first) = segment.workloads.get(address.value) {
                let title = format!("{} is behind two workloads", text(address.value));
                let error =
                    Diagnostic::at(address.span, title, format!("behind {} here", interface.name.value));
                report.error(error.also(first.span, format!("behind {} here", first.name)));
            }
            segment.workloads.insert(address.value, First::new(&interface.name, address.span));
        }
    }
    for tunnel in tunnels {
        let Some(name) = segment_of(&tunnel.segment) else { continue };
        let segment = segments.entry(name.clone()).or_default();
        if segment.has_workload && !segment.is_open && !unknown {
            sources_exist(tunnel, &name, segment, report);
        }
        route_clash(tunnel, segment, report);
    }
}

/// `from` must be what some workload has.
fn sources_exist(tunnel: &RawTunnel, name: &Name, segment: &Segment<'_>, report: &mut Report) {
    for from in tunnel.from.value().into_iter().flatten() {
        if segment.workloads.overlapping(from.value).is_none() {
            let title = format!("no workload of segment {name} has {}", text(from.value));
            let label = "nothing can be sent from there; name what a workload has in `addresses`";
            report.error(Diagnostic::at(from.span, title, label));
        }
    }
}

/// One prefix, one way, for each source.
fn route_clash<'a>(tunnel: &'a RawTunnel, segment: &mut Segment<'a>, report: &mut Report) {
    let no_sources = Vec::new();
    let sources = match &tunnel.from {
        Field::Missing => &no_sources,
        Field::Bad => return,
        Field::Given(from) => &from.value,
    };
    for inner in tunnel.inner.value().into_iter().flatten() {
        let me = First::new(&tunnel.name, inner.span);
        if let Some(first) = segment.workloads.get(inner.value) {
            let title = format!("{} is behind workload {} and a tunnel", text(inner.value), first.name);
            let error = Diagnostic::at(inner.span, title, format!("behind tunnel {} here", me.name));
            report.error(error.also(first.span, format!("behind workload {} here", first.name)));
        }
        let routes = segment.tunnels.entry(inner.value).or_default();
        if sources.is_empty() {
            match routes.for_all {
                Some(first) => {
                    let title = format!("{} is behind two tunnels", text(inner.value));
                    let label = format!("behind {} here; `from` would choose by source", me.name);
                    let error = Diagnostic::at(inner.span, title, label);
                    report.error(error.also(first.span, format!("behind {} here", first.name)));
                }
                None => routes.for_all = Some(me),
            }
            continue;
        }
        let clash = sources.iter().find_map(|from| Some((from, *routes.by_source.overlapping(from.value)?)));
        if let Some((from, first)) = clash {
            let title = format!("{} is behind two tunnels for the same sources", text(inner.value));
            let label = format!("tunnel {} has it, too, from some of these", first.name);
            let error = Diagnostic::at(from.span, title, label);
            report.error(error.also(first.span, format!("these are those of {}", first.name)));
            continue;
        }
        for from in sources {
            routes.by_source.insert(from.value, First::new(&tunnel.name, from.span));
        }
    }
}
