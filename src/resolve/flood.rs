//! Where multicast and broadcast go: in each segment that has a tunnel with `flood`, to all such tunnels and to all
//! workloads.

use std::collections::BTreeMap;

use super::{Context, Findings};
use crate::config::model::{Name, Payload};
use crate::kernel::abi::MAX_FLOOD_MEMBERS;
use crate::protocol;
use crate::state::{Flood, FloodLink, FloodMember, Role, State, Tunnel};

/// By how many bytes a tunnel makes a frame longer.
fn growth(tunnel: &Tunnel) -> usize {
    let header = protocol::header(tunnel);
    header.bytes.len().saturating_sub(header.pop.into())
}

/// Fills in `floods` and `flood_links`.
pub fn resolve(context: &Context<'_>, state: &mut State, findings: &mut Findings) {
    let mut segments: BTreeMap<&Name, Vec<(usize, &Name, &Tunnel)>> = BTreeMap::new();
    let flooding = |tunnel: &Tunnel| tunnel.flood && tunnel.payload == Payload::Ethernet;
    for (name, tunnel) in state.tunnels.iter().filter(|(_, tunnel)| flooding(tunnel)) {
        segments.entry(&tunnel.segment).or_default().push((growth(tunnel), name, tunnel));
    }
    let mut floods = BTreeMap::new();
    let mut links = BTreeMap::new();
    for (segment, mut tunnels) in segments {
        tunnels.sort_unstable_by_key(|(growth, name, _)| (*growth, *name));
        let at = &context.config.tunnels[tunnels[0].1].at;
        let mut flood = Flood { tunnels: Vec::new(), workloads: Vec::new(), sum: false };
        for (_, name, tunnel) in tunnels {
            let Some(underlay) = state.interfaces.get(&tunnel.underlay) else { continue };
            flood.tunnels.push(FloodMember { name: name.clone(), ifindex: underlay.ifindex });
            flood.sum |= tunnel.udp_checksum || tunnel.checksum;
            links.insert(tunnel.underlay.clone(), underlay.ifindex);
        }
        for (name, interface) in &state.interfaces {
            if matches!(&interface.role, Role::Workload { segment: own } if own == segment) {
                flood.workloads.push(FloodMember { name: name.clone(), ifindex: interface.ifindex });
                links.insert(name.clone(), interface.ifindex);
            }
        }
        let count = flood.tunnels.len() + flood.workloads.len();
        if count > MAX_FLOOD_MEMBERS {
            findings.error(
                at,
                format!(
                    "segment {segment} floods to {count} tunnels and workloads, and there is room for \
                     {MAX_FLOOD_MEMBERS}"
                ),
                "a copy for each of so many is more than a node should make: leave out `flood`, or split the segment",
            );
        }
        floods.insert(segment.clone(), flood);
    }
    state.floods = floods;
    let link = |(name, ifindex)| (name, FloodLink { ifindex, current: true });
    state.flood_links = links.into_iter().map(link).collect();
}
