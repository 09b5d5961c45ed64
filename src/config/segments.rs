//! Whose an address is: what cannot be together in a segment. Each check takes one pass, since a file may have a million
//! routes: those that are looked at one by one are but the ones of which there may be two.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::clash::First;
use super::diagnostic::{Diagnostic, Report};
use super::model::Name;
use super::prefix::{PrefixMap, text};
use super::raw::{Field, RawAddresses, RawInterface, RawTunnel, RoleName};
use super::validate::segment_of;

/// The routes of a segment.
#[derive(Default)]
struct Segment<'a> {
    workloads: PrefixMap<First<'a>>,
    has_workload: bool,
    /// Some workload's addresses are not written in the file.
    is_open: bool,
    /// Of the prefixes that more than one tunnel may have.
    tunnels: HashMap<IpNet, Routes<'a>>,
    /// Next hops, each where a workload names it first.
    gateways: HashMap<IpAddr, First<'a>>,
}

/// The tunnels of a prefix.
#[derive(Default)]
struct Routes<'a> {
    for_all: Option<First<'a>>,
    by_source: PrefixMap<First<'a>>,
}

/// Where a packet goes must be clear.
pub(super) fn check(interfaces: &[RawInterface], tunnels: &[RawTunnel], report: &mut Report) {
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
        for gateway in interface.gateway.value().into_iter().flatten() {
            let first = First::new(&interface.name, gateway.span);
            segment.gateways.entry(gateway.value).or_insert(first);
        }
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
    for segment in segments.values() {
        for (gateway, first) in &segment.gateways {
            if let Some(workload) = segment.workloads.get(IpNet::from(*gateway)) {
                report.error(gateway_clash(
                    *gateway,
                    first,
                    &format!("behind workload {}", workload.name),
                    workload,
                ));
            }
        }
    }
    let repeated = repeated(tunnels);
    for tunnel in tunnels {
        let Some(name) = segment_of(&tunnel.segment) else { continue };
        let segment = segments.entry(name.clone()).or_default();
        if segment.has_workload && !segment.is_open && !unknown {
            sources_exist(tunnel, &name, segment, report);
        }
        route_clash(tunnel, segment, &repeated, report);
    }
}

/// The digests of all prefixes that more than one tunnel has, whatever the segment; and of some others, by chance.
fn repeated(tunnels: &[RawTunnel]) -> HashSet<u64> {
    let inner = tunnels.iter().filter_map(|tunnel| tunnel.inner.value()).flatten();
    let mut digests: Vec<u64> = inner.map(|inner| digest(inner.value)).collect();
    digests.sort_unstable();
    digests.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect()
}

/// The same for the same prefix.
fn digest(prefix: IpNet) -> u64 {
    let (bits, length) = match prefix {
        IpNet::V4(net) => (u128::from(net.addr().to_bits()), net.prefix_len()),
        IpNet::V6(net) => (net.addr().to_bits(), net.prefix_len() | 0x80),
    };
    // A product's high bits hang on all bits of its factors.
    let mix = |value: u64| (value ^ (value >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(mix(bits as u64 ^ u64::from(length)) ^ (bits >> 64) as u64)
}

/// Packets to a gateway are for nobody: mptm answers for it, and passes on what is sent by way of it.
fn gateway_clash(gateway: IpAddr, first: &First<'_>, owner: &str, other: &First<'_>) -> Diagnostic {
    let title = format!("{gateway} is a gateway, and {owner}");
    let label = format!("a gateway of {} here: an address that nobody has", first.name);
    Diagnostic::at(first.span, title, label).also(other.span, format!("{owner} here"))
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
fn route_clash<'a>(
    tunnel: &'a RawTunnel,
    segment: &mut Segment<'a>,
    repeated: &HashSet<u64>,
    report: &mut Report,
) {
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
        if inner.value.prefix_len() == inner.value.max_prefix_len()
            && let Some(gateway) = segment.gateways.get(&inner.value.addr())
        {
            report.error(gateway_clash(
                inner.value.addr(),
                gateway,
                &format!("behind tunnel {}", me.name),
                &me,
            ));
        }
        if !repeated.contains(&digest(inner.value)) {
            continue;
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
