//! What cannot be together: two owners of one endpoint, port or peer (those of an address are in `segments`). Each
//! check takes one pass and a map, since a file may have a hundred thousand tunnels.

use std::collections::HashMap;
use std::net::IpAddr;

use super::diagnostic::{Diagnostic, Report, Span};
use super::model::{Name, NetnsRef};
use super::raw::{At, Field, RawInterface, RawPeer, RawTunnel};
use crate::protocol::{HasId, Protocol};

/// What is said for the first time, and by whom.
#[derive(Clone, Copy)]
pub(super) struct First<'a> {
    pub name: &'a str,
    pub span: Span,
}

impl<'a> First<'a> {
    pub fn new(name: &'a At<Name>, span: Span) -> Self {
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
type Endpoint<'a> = (Protocol, &'a Name, Option<IpAddr>, ReceivedId, u16);

/// The id of received packets, and QinQ's other one. None: they bear none.
type ReceivedId = (Option<i128>, Option<u32>);

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
            _ if !protocol.has_udp() => 0,
            (Field::Missing, Some(port)) => port,
            (Field::Given(port), _) => port.value,
            (Field::Bad, _) | (Field::Missing, None) => continue,
        };
        if port != 0 {
            let span = tunnel.dst_port.given().map_or(tunnel.name.span, |port| port.span);
            port_clash(tunnel, protocol, port, span, &mut ports, report);
        }
        let has_outer_ip = protocol.has_outer_ip();
        let remote = tunnel.remote.value().copied();
        let (Some(underlay), Some(id)) = (underlay, received_id(tunnel, protocol)) else { continue };
        if has_outer_ip && remote.is_none() || matches!(tunnel.local, Field::Bad) {
            continue;
        }
        let remote = remote.filter(|_| has_outer_ip);
        let local = tunnel.local.value().copied().filter(|_| has_outer_ip);
        let locals = endpoints.entry((protocol, underlay, remote, id, port)).or_default();
        endpoint_clash(tunnel, (protocol, id), local, locals, report);
    }
}

/// None: it is wrong, or missing.
fn received_id(tunnel: &RawTunnel, protocol: Protocol) -> Option<ReceivedId> {
    let service_id = match protocol {
        Protocol::Qinq => Some(*tunnel.service_id.value()?),
        _ => None,
    };
    let id = match (protocol.has_id(), &tunnel.local_id, &tunnel.id) {
        (HasId::Never, _, _) | (HasId::Optional, Field::Missing, Field::Missing) => None,
        (_, Field::Missing, id) | (_, id, _) => Some(*id.value()?),
    };
    Some((id, service_id))
}

/// What tunnels have in common that cannot be told apart, and what to do.
fn endpoint_label(protocol: Protocol, id: Option<i128>) -> &'static str {
    match (protocol.has_id(), id) {
        _ if protocol == Protocol::Qinq => {
            "same underlay, `service_id` and `id`: give one of them another `service_id` or `id`"
        }
        _ if !protocol.has_outer_ip() => "same underlay and `id`: give one of them another `id`",
        (HasId::Never, _) if protocol.has_udp() => {
            "same protocol, underlay, `remote` and `dst_port`: give one of them another `dst_port`"
        }
        (HasId::Never, _) => {
            "same protocol, underlay and `remote`: give one of them another far end, or each its own `local`"
        }
        (_, None) => "same protocol, underlay and `remote`, both without `id`: give one of them an `id`",
        _ if protocol.has_local_id() => {
            "same protocol, underlay, `remote` and id of received packets: give one of them another `local_id`, or \
             another `id` if it has no `local_id`"
        }
        _ => "same protocol, underlay, `remote`, `id` and `dst_port`: give one of them another `id`",
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
    (protocol, (id, _)): (Protocol, ReceivedId),
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
        let error = Diagnostic::at(me.span, title, endpoint_label(protocol, id));
        report.error(error.also(first.span, "the other one"));
        return;
    }
    locals.one.get_or_insert(me);
    match local {
        None => _ = locals.any.get_or_insert(me),
        Some(local) => _ = locals.by_address.insert(local, me),
    }
}
